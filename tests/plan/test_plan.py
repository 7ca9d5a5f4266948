"Plans: data that shows itself, under any schedule, whose cycles may go on over phases"
from dataclasses import dataclass

import numpy as np
import pytest
from fastai.callback.schedule import combined_cos
from hypothesis import assume, given
from hypothesis import strategies as st
from plan import restated
from plan.strategies import plans, quick

from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import STLR, CLRBeta, Cos, Flat, OneCycle, Schedule

LRS = (1e-4, 1e-3, 1e-2)

PLAN = Plan([Phase(1, (2,), LRS), Phase(2, (1, 2), LRS, CLRBeta()), Phase(2, (0, 1, 2), LRS, OneCycle()),
             Phase(1, (0,), LRS, Cos()), Phase(1, (0, 2), LRS, Flat())], 'abc')

GRADUAL = Plan([Phase(1, (2,), LRS), Phase(2, (1, 2), LRS), Phase(2, (0, 1, 2), LRS)])

def test_equal_by_value():
    a,b = Phase(1, (2,), LRS),Phase(np.int64(1), [2], np.array(LRS), STLR())
    assert Plan([a, a]) == Plan((b, b), names='xyz') != Plan([a]) and len({Plan([a]), Plan([b])}) == 1

def test_table():
    t = PLAN.table()
    assert t.columns.tolist() == ['epochs', 'a', 'b', 'c', 'schedule'] and t.epochs.sum() == PLAN.n_epoch == 7
    assert t.loc[2].tolist() == [2, 'frozen', '1.00e-03', '1.00e-02', 'CLRBeta(div=10, pct=10)']
    assert repr(PLAN).splitlines()[0] == 'Plan: 7 epochs, 5 phases, 3 groups; peak rates'
    assert 'frozen  1.00e-03  1.00e-02' in repr(PLAN)
    html = PLAN._repr_html_()
    assert html.count('<tr') == 2+5 and html.count('>frozen<') == 2+1+2+1 and 'OneCycle(div=25, ' in html

def test_names_are_escaped(): assert '<script>' not in Plan([Phase(1, (0,), (1.,))], ['<script>'])._repr_html_()

def test_monitors_are_escaped(): assert '<script>' not in Plan([Phase(1, (0,), (1.,), early_stop=EarlyStop(1, '<script>'))])._repr_html_()

def test_momentum_is_in_the_table(): assert 'moms=(0.9, 0.8, 0.9)' in repr(Plan([Phase(1, (0,), (1.,), moms=(.9, .8, .9))]))

def test_bad_plans():
    for phases in (5, None, Phase(1, (2,), LRS)):
        with pytest.raises(TypeError, match='expected at least one Phase'): Plan(phases)
    for phases in ([], [1], ['a']):
        with pytest.raises(TypeError, match='expected at least one Phase'): Plan(phases)
    with pytest.raises(ValueError, match='expected the same number'): Plan([Phase(1, (0,), (1, 1)), Phase(1, (0,), LRS)])
    with pytest.raises(ValueError, match='expected the same number'): Plan([Phase(1, (0,), LRS)], 'ab')

@pytest.mark.parametrize('epochs,match', [
    ((1.5,), 'the phases have 1.5 epochs in all: expected a whole number; give the last phase 2'),
    ((.25, .5), 'the phases have 0.75 epochs in all: expected a whole number; give the last phase 0.75'),
    ((1, .3), 'the phases have 1.3 epochs in all: expected a whole number; give the last phase 1'),
    ((1e-9,), 'expected a whole number; give the last phase 1')])
def test_parts_of_an_epoch_in_all_are_refused(epochs, match):
    with pytest.raises(ValueError, match=match): Plan([Phase(n, (2,), LRS) for n in epochs])

def test_phases_that_make_whole_epochs_but_for_rounding():
    assert Plan([Phase(.1, (2,), LRS)]*10).n_epoch == 1 and Plan([Phase(1/3, (2,), LRS)]*3).n_epoch == 1
    assert Plan([Phase(.08, (2,), LRS)]*4 + [Phase(1.68, (2,), LRS)]).n_epoch == 2

def test_a_phase_that_may_end_early_ends_with_an_epoch():
    half,stop = Phase(.5, (2,), LRS),EarlyStop(1)
    with pytest.raises(ValueError, match=r'early_stop in phase 1, which ends after 0.5 epochs: expected a phase that ends with an epoch'):
        Plan([Phase(.5, (2,), LRS, early_stop=stop), half])
    with pytest.raises(ValueError, match=r'early_stop in phase 2, which ends after 1.5 epochs'):
        Plan([half, Phase(1, (2,), LRS, early_stop=stop), half])
    assert Plan([half, Phase(1.5, (2,), LRS, early_stop=stop)]).n_epoch == 2
    assert Plan([Phase(.1, (2,), LRS)]*9 + [Phase(.1, (2,), LRS, early_stop=stop)]).n_epoch == 1

def test_fractions_are_in_the_table():
    plan = Plan([Phase(.25, (2,), LRS), Phase(1/3, (2,), LRS), Phase(2-.25-1/3, (2,), LRS)])
    assert plan.table().epochs.tolist() == ['0.25', '0.333', '1.42'] and repr(plan).startswith('Plan: 2 epochs, 3 phases, 3 groups')

def test_lrs_shape_and_zeros():
    lrs = PLAN.lrs(10)
    trained = [[0, 0, 1], [0, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 0, 1]]
    assert lrs.shape == (70, 3) and ((lrs > 0) == np.repeat(trained, 10, axis=0)).all()
    np.testing.assert_allclose(lrs[:10,2], [STLR().scheds(1e-2, (0,)*3)['lr'](i/10) for i in range(10)])

def test_rates_of_fractional_phases():
    plan = Plan([Phase(.25, (2,), LRS, Flat()), Phase(.5, (1, 2), LRS, Flat()), Phase(.25, (0, 1), LRS, Flat())])
    want = [[0, 0, 1e-2]]*2 + [[0, 1e-3, 1e-2]]*4 + [[1e-4, 1e-3, 0]]*2
    np.testing.assert_array_equal(plan.lrs(8), want)
    with pytest.raises(ValueError, match='3 phases in 2 steps: expected at least one step for each'): plan.lrs(2)
    for n in (0, 1.5, True):
        with pytest.raises((ValueError, TypeError), match=f'n_iter={n}'): plan.lrs(n)

@quick
@given(plans(), st.integers(1, 20))
def test_the_rates_of_any_plan_are_those_of_the_formulas(plan, n_iter):
    assume(len(plan.phases) <= plan.n_epoch*n_iter)
    got,want = plan.lrs(n_iter),restated.plan_lrs(plan, n_iter)
    assert got.shape == (plan.n_epoch*n_iter, plan.n_groups)
    np.testing.assert_array_equal(got > 0, want > 0)
    tol = max(restated.tolerance(p.sched) for p in plan.phases)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=10*tol)

@pytest.mark.parametrize('plan', [PLAN, GRADUAL, GRADUAL.under(OneCycle(), whole=True), GRADUAL.under(Cos(.05), whole=True)],
                         ids=['each its own', 'triangles', 'one cycle', 'one cosine'])
def test_rates_against_the_formulas(plan):
    got,want = plan.lrs(10),restated.plan_lrs(plan, 10)
    np.testing.assert_array_equal(got > 0, want > 0)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-7*1e-2)

def test_one_cycle_over_the_whole_plan():
    plan,steps = GRADUAL.under(OneCycle(), whole=True),np.arange(50)
    rate = combined_cos(0.25, 1/25, 1., 1e-5)
    shape = np.array([rate(i/50) for i in steps])
    lrs = plan.lrs(10)
    np.testing.assert_allclose(lrs[:,2], shape*1e-2, rtol=1e-9)
    np.testing.assert_allclose(lrs[:,1], np.where(steps < 10, 0, shape*1e-3), rtol=1e-9)
    np.testing.assert_allclose(lrs[:,0], np.where(steps < 30, 0, shape*1e-4), rtol=1e-9)

def test_peak_rates_may_be_set_anew_where_a_cycle_goes_on():
    plan = Plan([Phase(1, (2,), LRS, Flat()), Phase(1, (2,), (1., 1., 2e-2), None), Phase(1, (2,), (1., 1., 3e-2), None)])
    np.testing.assert_array_equal(plan.lrs(2)[:,2], [1e-2, 1e-2, 2e-2, 2e-2, 3e-2, 3e-2])

def test_a_cycle_ends_where_another_begins():
    plan = Plan([Phase(1, (2,), LRS, Cos()), Phase(1, (2,), LRS, None), Phase(2, (1, 2), LRS, Cos())])
    cos = (1 + np.cos(np.pi*np.arange(8)/8))/2*1e-2
    np.testing.assert_allclose(plan.lrs(4)[:,2], [*cos, *cos], rtol=1e-9)
    timeline = plan.timeline(4)
    assert timeline.ends == [4, 8, 16] and timeline.starts == [0, 4, 8]
    assert [timeline.cycle(4*e) for e in range(4)] == [(0, 0.), (0, .5), (2, 0.), (2, .5)] and timeline.phase(12) == 2

def test_a_cycle_that_goes_on_over_fractions_of_an_epoch():
    plan = Plan([Phase(.25, (2,), LRS, Cos()), Phase(.25, (1, 2), LRS, None), Phase(.5, (2,), LRS, Cos())])
    cos = (1 + np.cos(np.pi*np.arange(8)/8))/2*1e-2
    np.testing.assert_allclose(plan.lrs(16)[:,2], [*cos, *cos], rtol=1e-9)
    np.testing.assert_allclose(plan.lrs(16)[:,1], [*[0]*4, *cos[4:]/10, *[0]*8], rtol=1e-9)

def test_under_keeps_all_else():
    a = Phase(1, (2,), LRS, moms=(.9, .8, .9))
    plan = Plan([a, a], 'xyz', 1e-2, 'given', [(1e-3, .5)], 'somewhere')
    under,whole = plan.under(Cos()),plan.under(Cos(), whole=True)
    assert under == Plan([Phase(1, (2,), LRS, Cos(), (.9, .8, .9))]*2) and under.under(STLR()) == plan
    assert whole == Plan([Phase(1, (2,), LRS, Cos(), (.9, .8, .9)), Phase(1, (2,), LRS, None)])
    assert whole.names == plan.names and whole.lr_from == 'given' and whole.tried == ((1e-3, .5),) and whole.lr == 1e-2
    # It is no longer what was published, and as it was once it is put back
    assert under.source == 'somewhere; changed: under Cos(hold=0)' and whole.source.endswith('under Cos(hold=0), whole')
    assert whole.under(STLR()) == plan

def test_it_says_where_a_cycle_goes_on():
    plan = GRADUAL.under(OneCycle(), whole=True)
    assert plan.table().schedule.tolist() == ['OneCycle(div=25, div_final=1e+05, pct_start=0.25)', 'goes on', 'goes on']
    assert '"sched": null' in plan.to_json()

def test_a_cycle_that_none_began():
    with pytest.raises(ValueError, match='sched=None in the first phase: expected a Schedule'): Plan([Phase(1, (2,), LRS, None)])
    with pytest.raises(ValueError, match='moms=.*expected None where `sched` is None'): Phase(1, (2,), LRS, None, (.9, .8, .9))
    with pytest.raises(TypeError, match="sched='cos': expected a Schedule"): GRADUAL.under('cos')

def test_no_cycle_goes_on_after_a_phase_that_may_end_early():
    with pytest.raises(ValueError, match='sched=None after a phase with `early_stop`: expected a Schedule'):
        Plan([Phase(2, (2,), LRS, early_stop=EarlyStop()), Phase(1, (2,), LRS, None)])

@dataclass(frozen=True)
class Steps(Schedule):
    "Down in steps, to try what a schedule may be made of"
    at: tuple = (0.5, 0.8)
    by: int = 10
    def scheds(self, lrs, moms):
        return {'lr': lambda pos: lrs/self.by**sum(pos >= a for a in self.at), 'mom': lambda pos: moms[1]}

@dataclass(frozen=True)
class Half(STLR):
    "A kind of slanted triangle"

def test_a_schedule_of_ones_own():
    plan = GRADUAL.under(Steps(), whole=True)
    assert Plan.from_json(plan.to_json()) == plan and 'Steps(at=(0.5, 0.8), by=10)' in repr(plan)
    place = np.arange(40)/40
    want = np.where(place < .5, 1., np.where(place < .8, .1, .01))*1e-2
    np.testing.assert_allclose(plan.lrs(8)[:,2], want, rtol=1e-12)
    assert Plan.from_json(GRADUAL.under(Half()).to_json()) == GRADUAL.under(Half()) != GRADUAL

def test_schedules_that_are_no_plain_data():
    @dataclass
    class Loose(Schedule): pass
    class Bare(Schedule): pass
    for sched in (Loose(), Bare()):
        with pytest.raises(TypeError, match='is not a frozen dataclass: expected one'): GRADUAL.under(sched)

def test_a_schedule_that_is_not_defined_here():
    with pytest.raises(ValueError, match="there is no schedule 'Steps2', only .*STLR.*: if it is your own, import it first"):
        Plan.from_json(GRADUAL.under(Steps()).to_json().replace('Steps', 'Steps2'))

@pytest.mark.parametrize('v', [1, 'no', 0.])
def test_norm_layers_train_or_do_not(v):
    with pytest.raises(TypeError, match='train_bn=.*: expected True, False, or None for `learn.train_bn`'): Plan(PLAN.phases, train_bn=v)

@pytest.mark.parametrize('v', [0, -1., float('inf'), float('nan')])
def test_a_bad_norm_to_clip_to(v):
    with pytest.raises(ValueError, match='clip=.*: expected a number above 0'): Plan(PLAN.phases, clip=v)

def test_the_norm_of_clipped_gradients_is_a_part_of_a_plan():
    clipped = Plan(PLAN.phases, clip=1)
    assert clipped != PLAN and clipped == Plan(PLAN.phases, clip=1.) and clipped.clip == 1.
    assert '; gradients clipped to a norm of 1' in repr(clipped).splitlines()[0] and 'clipped' not in repr(PLAN)
