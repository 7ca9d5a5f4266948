"Position in a fit against a restatement in exact fractions"
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from plan import restated
from plan.strategies import lengths, quick

from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.position import Timeline, phase_at, phase_ends, step_at


@quick
@given(lengths(), st.integers(1, 40))
def test_phases_end_where_exact_fractions_say(epochs, n_iter):
    total = sum(epochs)*n_iter
    assume(len(epochs) <= total)
    ends = phase_ends(list(map(float, epochs)), n_iter)
    assert ends == restated.phase_ends(epochs, n_iter)
    # At least one step each, in order, to the very end
    assert ends[0] >= 1 and all(a < b for a,b in zip(ends, ends[1:])) and ends[-1] == total
    nearest = [round(sum(epochs[:i+1])*n_iter) for i in range(len(epochs))]
    # Where each phase has a step anyway, nothing is moved
    if nearest[0] >= 1 and all(a < b for a,b in zip(nearest, nearest[1:])): assert ends == nearest

@quick
@given(lengths(), st.integers(1, 40))
def test_phase_and_cycle_of_every_step(epochs, n_iter):
    assume(len(epochs) <= sum(epochs)*n_iter)
    ends = restated.phase_ends(epochs, n_iter)
    begins = [i % 3 != 1 for i in range(len(epochs))]
    timeline = Timeline(list(map(float, epochs)), begins, n_iter)
    assert timeline.ends == ends and timeline.starts == [0, *ends[:-1]]
    steps = [i for i,(start,end) in enumerate(zip([0, *ends], ends)) for _ in range(start, end)]
    assert [timeline.phase(step) for step in range(ends[-1])] == steps
    for step,phase in enumerate(steps):
        leader = max(i for i in range(phase+1) if begins[i])
        after = [i for i in range(leader+1, len(epochs)) if begins[i]]
        start,end = [0, *ends][leader],ends[after[0]-1 if after else -1]
        assert timeline.cycle(step) == (leader, float(Fraction(step-start, end-start)))

@pytest.mark.parametrize('epochs,n_iter,ends', [
    ([1, 2, 2], 8, [8, 24, 40]),
    ([.25, .25, .5], 8, [2, 4, 8]),
    # Half a step goes to the even one, and rounding errors of sums of decimals don't decide
    ([.1, .2, .7], 5, [1, 2, 5]), ([.5, .5], 5, [2, 5]), ([.3, .7], 5, [2, 5]),
    # 4.500000000000001 and 13.499999999999998 steps
    ([.1, .2, .7], 15, [2, 4, 15]), ([.1]*10, 15, [2, 3, 4, 6, 8, 9, 10, 12, 14, 15]),
    # Sixteen steps an epoch, and 4 of 50 epochs to open four groups
    ([.08]*4+[.68], 16, [1, 3, 4, 5, 16]),
    # Short phases have one step each, at the beginning, in the middle and at the end
    ([.01, .01, .98], 10, [1, 2, 10]), ([.5, .01, .01, .48], 10, [5, 6, 7, 10]), ([.98, .01, .01], 10, [8, 9, 10]),
    ([1e-9]*3+[1-3e-9], 4, [1, 2, 3, 4])])
def test_ends(epochs, n_iter, ends): assert phase_ends(epochs, n_iter) == ends

def test_more_phases_than_steps_are_refused():
    assert phase_ends([.25]*4, 4) == [1, 2, 3, 4]
    match = '4 phases in 3 steps: expected at least one step for each; train for more epochs'
    with pytest.raises(ValueError, match=match): phase_ends([.25]*4, 3)
    with pytest.raises(ValueError, match='4 phases in 3 steps'): Plan([Phase(.25, (0,), (1.,))]*4).timeline(3)

def test_a_position_is_the_nearest_step():
    assert [step_at(e, 8) for e in (0, .1, .25, 1/3, .5, 1, 2.5)] == [0, 1, 2, 3, 4, 8, 20]
    assert step_at(.1+.2, 5) == step_at(.3, 5) == 2 and step_at(1-.7, 5) == 2

def test_a_step_beyond_the_end_is_of_the_last_phase():
    assert [phase_at(step, [2, 5]) for step in (0, 1, 2, 4, 5, 9)] == [0, 0, 1, 1, 1, 1]
