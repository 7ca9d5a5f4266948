"Which groups train when, written out"
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from plan.strategies import quick

from fastai_discrim.plan.opening import chain_thaw, fill, gradual, with_own_steps
from fastai_discrim.plan.position import phase_ends


def by_epoch(phases, n_epoch): return [groups for n,groups in fill(phases, n_epoch, 'it') for _ in range(n)]

def test_gradual_by_epoch():
    assert by_epoch(gradual(3, 1), 5) == [(2,), (1, 2), (0, 1, 2), (0, 1, 2), (0, 1, 2)]
    assert by_epoch(gradual(3, 2), 5) == [(2,), (2,), (1, 2), (1, 2), (0, 1, 2)]
    assert by_epoch(gradual(3, [1, 3]), 6) == [(2,), (1, 2), (1, 2), (1, 2), (0, 1, 2), (0, 1, 2)]
    assert by_epoch(gradual(3, 1, down_to=1), 3) == [(2,), (1, 2), (1, 2)]
    assert by_epoch(gradual(3, 1, down_to=2), 2) == by_epoch(gradual(3, [], down_to=2), 2) == [(2,), (2,)]

def test_chain_by_epoch():
    assert by_epoch(chain_thaw(3), 5) == [(2,), (0,), (1,), (0, 1, 2), (0, 1, 2)]
    assert by_epoch(chain_thaw(2, 2), 5) == [(1,), (1,), (0,), (0,), (0, 1)]

def test_fractions_of_an_epoch():
    assert fill(gradual(3, .25), 1, 'it') == [(.25, (2,)), (.25, (1, 2)), (.5, (0, 1, 2))]
    assert fill(gradual(3, [.5, 1.25]), 2, 'it') == [(.5, (2,)), (1.25, (1, 2)), (.25, (0, 1, 2))]
    assert fill(chain_thaw(3, .5), 2, 'it') == [(.5, (2,)), (.5, (0,)), (.5, (1,)), (.5, (0, 1, 2))]
    # Whole epochs stay whole
    assert all(isinstance(n, int) for n,_ in fill(gradual(3, 1), 5, 'it'))

def test_the_papers_share():
    "4 of 50 epochs to open the four groups below the head of five: exactly the paper's one epoch each at 50"
    paper = [(1, (4,)), (1, (3, 4)), (1, (2, 3, 4)), (1, (1, 2, 3, 4)), (46, (0, 1, 2, 3, 4))]
    assert fill(gradual(5, None, n_epoch=50), 50, 'it') == paper
    assert [n for n,_ in fill(gradual(5, None, n_epoch=10), 10, 'it')] == pytest.approx([.2]*4 + [9.2], rel=1e-12)
    # Of other groups it is the same share; at most an epoch each
    assert [n for n,_ in fill(gradual(3, None, n_epoch=10), 10, 'it')] == pytest.approx([.4]*2 + [9.2], rel=1e-12)
    assert [n for n,_ in gradual(5, None, n_epoch=500)] == [1]*5
    assert gradual(3, None, down_to=2, n_epoch=10) == [(1, (2,))]

@pytest.mark.parametrize('phases,n_epoch,match', [
    (lambda: gradual(3, 1), 2,
     'n_epoch=2: expected at least 3, as it takes 2 epochs before the last of 3 layer groups opens: fit for longer'),
    (lambda: gradual(3, 2), 4, 'expected at least 5'), (lambda: chain_thaw(3), 3, 'n_epoch=3: expected at least 4'),
    (lambda: gradual(3, .5), 1, 'n_epoch=1: expected more than 1, as it takes 1 epochs'),
    (lambda: gradual(3, 1.5), 3, 'expected more than 3'),
    (lambda: chain_thaw(3, .4), 1, 'expected more than 1.2')])
def test_too_few_epochs(phases, n_epoch, match):
    with pytest.raises(ValueError, match=match): fill(phases(), n_epoch, 'it')

@pytest.mark.parametrize('kw,match', [
    (dict(epochs=[1]), r'epochs=\[1\] has 1 values, expected 2'), (dict(epochs=[1]*3), 'has 3 values, expected 2'),
    (dict(down_to=3), 'down_to=3: expected at most 2 for 3 layer groups')])
def test_what_does_not_go_with_the_groups(kw, match):
    with pytest.raises(ValueError, match=match): gradual(3, **kw)

@quick
@given(st.integers(1, 8), st.data(), st.fractions(min_value='1/12', max_value=2, max_denominator=12), st.integers(1, 20))
def test_gradual_opens_one_group_at_a_time(n_groups, data, epochs, n_epoch):
    down_to = data.draw(st.integers(0, n_groups-1))
    before = n_groups-1-down_to
    assume(before*epochs < n_epoch - (epochs.denominator == 1)*.5)
    phases = fill(gradual(n_groups, float(epochs), down_to), n_epoch, 'it')
    assert [groups for _,groups in phases] == [tuple(range(low, n_groups)) for low in range(n_groups-1, down_to-1, -1)]
    assert [n for n,_ in phases[:-1]] == [float(epochs)]*before and sum(n for n,_ in phases) == pytest.approx(n_epoch, rel=1e-12)
    assert phases[-1][0] > 0

@quick
@given(st.integers(2, 8), st.integers(1, 3), st.integers(1, 5))
def test_chain_thaw_trains_each_group_alone_once(n_groups, epochs, left):
    phases = fill(chain_thaw(n_groups, epochs), n_groups*epochs + left, 'it')
    alone = [groups for _,groups in phases[:-1]]
    assert alone == [(n_groups-1,), *((i,) for i in range(n_groups-1))] and phases[-1] == (left, tuple(range(n_groups)))

# Several groups at once

ALL = ((2,), (1, 2), (0, 1, 2))

@pytest.mark.parametrize('lengths,n_iter,want,groups', [
    # Of 25 steps 8 % are 2, one for each group
    ([.04, .04, .92], 25, [1, 2, 25], ALL),
    # Of 10 they are 1: what is open next is open at once
    ([.04, .04, .92], 10, [1, 10], (ALL[0], ALL[2])), ([.04, .04, .92], 2, [1, 2], (ALL[0], ALL[2])),
    ([.04, .04, .92], 1, [1], (ALL[2],)),
    # The head's own length is rounded
    ([.26, .04, .7], 10, [3, 10], (ALL[0], ALL[2])), ([.04, .26, .7], 10, [1, 3, 10], ALL),
    # Over several epochs
    ([.08, .08, 1.84], 4, [1, 8], (ALL[0], ALL[2])),
    # The last phase has the last step
    ([.5, .49, .01], 4, [2, 3, 4], ALL), ([.9, .05, .05], 4, [3, 4], (ALL[0], ALL[2])), ([.96, .02, .02], 2, [1, 2], (ALL[0], ALL[2]))])
def test_groups_open_at_once_where_there_are_too_few_steps(lengths, n_iter, want, groups):
    phases = with_own_steps(list(zip(lengths, ALL)), n_iter)
    assert tuple(gs for _,gs in phases) == groups and phase_ends([n for n,_ in phases], n_iter) == want

@quick
@given(st.integers(1, 8), st.lists(st.fractions(min_value='1/200', max_value=1, max_denominator=200), min_size=7, max_size=7),
       st.integers(1, 3), st.integers(1, 60))
def test_each_phase_has_steps_of_its_own(n_groups, lengths, n_epoch, n_iter):
    lengths = lengths[:n_groups-1]
    assume(sum(lengths) < n_epoch)
    phases = list(zip(map(float, [*lengths, n_epoch-sum(lengths)]), [tuple(range(low, n_groups)) for low in reversed(range(n_groups))]))
    own,total = with_own_steps(phases, n_iter),n_epoch*n_iter
    assert sum(n for n,_ in own) == pytest.approx(n_epoch, rel=1e-12) and all(n > 0 for n,_ in own)
    # Each trains more than the one before it, and what it trained before
    groups = [gs for _,gs in own]
    assert all(set(a) < set(b) for a,b in zip(groups, groups[1:])) and set(groups) <= {gs for _,gs in phases}
    assert groups[-1] == tuple(range(n_groups)) and (groups[0] == (n_groups-1,) or total == 1)
    # `phase_ends` has nothing to move
    done,ends = [sum(n for n,_ in own[:i+1])*n_iter for i in range(len(own))],phase_ends([n for n,_ in own], n_iter)
    assert [0, *ends] == sorted({0, *ends}) and all(abs(end-at) <= .5+1e-6 for end,at in zip(ends, done))
    # Each group opens at the step that is nearest, but for the first and the last step
    for low in range(n_groups-1):
        at = n_iter*sum(lengths[:n_groups-1-low], Fraction(0))
        opens = next(start for start,gs in zip([0, *ends], groups) if low in gs)
        assert abs(opens - min(max(at, 1), total-1)) <= Fraction(1, 2) + Fraction(1, 10**6) or total == 1

@quick
@given(st.integers(1, 6), st.lists(st.fractions(min_value='1/10', max_value=2, max_denominator=20), min_size=5, max_size=5),
       st.integers(20, 60))
def test_where_each_phase_has_steps_they_are_as_they_were(n_groups, lengths, n_iter):
    phases = fill(gradual(n_groups, [float(n) for n in lengths[:n_groups-1]]), 12, 'it')
    own = with_own_steps(phases, n_iter)
    assert [gs for _,gs in own] == [gs for _,gs in phases] and [n for n,_ in own] == pytest.approx([n for n,_ in phases], rel=1e-9)
    assert phase_ends([n for n,_ in own], n_iter) == phase_ends([n for n,_ in phases], n_iter)

@pytest.mark.parametrize('n_epoch,n_iter,want', [(50, 10, [10, 20, 30, 40, 500]), (1, 100, [2, 4, 6, 8, 100]), (6, 5, [1, 2, 30]),
                                                 (3, 8, [1, 2, 24]), (1, 2, [1, 2]), (1, 1, [1])])
def test_the_papers_share_in_steps(n_epoch, n_iter, want):
    phases = with_own_steps(fill(gradual(5, None, n_epoch=n_epoch), n_epoch, 'it'), n_iter)
    assert phase_ends([n for n,_ in phases], n_iter) == want
    assert phases[-1][1] == (0, 1, 2, 3, 4) and (phases[0][1] == (4,) or n_epoch*n_iter == 1)
