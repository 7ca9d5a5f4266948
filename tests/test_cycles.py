"A schedule over several phases: cycles that go on, and plans put under another schedule"
from dataclasses import dataclass

import numpy as np
import pytest
from conftest import make_mlp
from fastai.callback.schedule import combined_cos

from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.plan.schedules import STLR, Cos, Flat, OneCycle, Schedule
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing

LRS = (1e-4, 1e-3, 1e-2)
GRADUAL = Plan([Phase(1, (2,), LRS), Phase(2, (1, 2), LRS), Phase(2, (0, 1, 2), LRS)])

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
    assert [plan.cycle_at(e)[:2] for e in range(4)] == [(0, 2), (0, 2), (2, 2), (2, 2)] and plan.cycle_at(3)[2] is plan.phases[2]
    with pytest.raises(ValueError, match='epoch=4: expected one below 4'): plan.cycle_at(4)

@pytest.mark.parametrize('opening', [GradualUnfreezing(), GradualUnfreezing([1, 2]), ChainThaw()], ids=str)
@pytest.mark.parametrize('sched', [STLR(), STLR(.3, 7), OneCycle(), Cos(), Flat()], ids=str)
def test_what_ran_is_what_was_planned(tmp_path, opening, sched):
    learn = make_mlp(tmp_path)
    plan = Plan([Phase(n, g, LRS) for n,g in opening.fill(3, 6)]).under(sched, whole=True)
    with learn.no_bar(): learn.fit_plan(plan)
    np.testing.assert_array_equal(learn.recorder.group_lrs, plan.lrs(8))
    assert Plan.from_json(plan.to_json()) == plan

@pytest.mark.parametrize('moms', [None, (.9, .6, .8)])
def test_callbacks_under_one_schedule_are_a_plan_under_it(tmp_path, moms):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    with a.no_bar(): a.fit_stlr(5, 1e-2, moms=moms, cbs=[GradualUnfreezing(), DiscriminativeLR(10)])
    first,*rest = [Phase(n, g, LRS, moms=moms) for n,g in GradualUnfreezing().fill(3, 5)]
    with b.no_bar(): b.fit_plan(Plan([first, *rest]).under(STLR(), whole=True))
    np.testing.assert_allclose(a.recorder.group_lrs, b.recorder.group_lrs, rtol=1e-9)
    np.testing.assert_allclose(a.recorder.hps['mom'], b.recorder.hps['mom'], rtol=1e-9)

def test_start_epoch_within_a_cycle(tmp_path):
    learn,plan = make_mlp(tmp_path),GRADUAL.under(OneCycle(), whole=True)
    with learn.no_bar(): learn.fit_plan(plan, start_epoch=2)
    np.testing.assert_array_equal(learn.recorder.group_lrs, plan.lrs(8)[16:])

def test_under_keeps_all_else():
    a = Phase(1, (2,), LRS, moms=(.9, .8, .9))
    plan = Plan([a, a], 'xyz', 1e-2, 'given', [(1e-3, .5)], 'somewhere')
    anew,whole = plan.under(Cos()),plan.under(Cos(), whole=True)
    assert anew == Plan([Phase(1, (2,), LRS, Cos(), (.9, .8, .9))]*2) and anew.under(STLR()) == plan
    assert whole == Plan([Phase(1, (2,), LRS, Cos(), (.9, .8, .9)), Phase(1, (2,), LRS, None)])
    assert whole.names == plan.names and whole.lr_from == 'given' and whole.tried == ((1e-3, .5),) and whole.lr == 1e-2
    # It is no longer what was published, and as it was once it is put back
    assert anew.source == 'somewhere; changed: under Cos(hold=0)' and whole.source.endswith('under Cos(hold=0), whole')
    assert whole.under(STLR()) == plan

def test_it_says_where_a_cycle_goes_on():
    plan = GRADUAL.under(OneCycle(), whole=True)
    assert plan.table().schedule.tolist() == ['OneCycle(div=25, div_final=1e+05, pct_start=0.25)', 'goes on', 'goes on']
    assert '"sched": null' in plan.to_json()

def test_a_cycle_that_none_began():
    with pytest.raises(ValueError, match='sched=None in the first phase: expected a Schedule'): Plan([Phase(1, (2,), LRS, None)])
    with pytest.raises(ValueError, match='moms=.*expected None where `sched` is None'): Phase(1, (2,), LRS, None, (.9, .8, .9))
    with pytest.raises(TypeError, match="sched='cos': expected a Schedule"): GRADUAL.under('cos')

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

def test_a_schedule_of_ones_own(tmp_path):
    plan = GRADUAL.under(Steps(), whole=True)
    assert Plan.from_json(plan.to_json()) == plan and 'Steps(at=(0.5, 0.8), by=10)' in repr(plan)
    learn = make_mlp(tmp_path)
    with learn.no_bar(): learn.fit_plan(plan)
    np.testing.assert_array_equal(learn.recorder.group_lrs, plan.lrs(8))
    assert Plan.from_json(GRADUAL.under(Half()).to_json()) == GRADUAL.under(Half()) != GRADUAL

def test_schedules_that_are_no_plain_data():
    @dataclass
    class Loose(Schedule): pass
    class Bare(Schedule): pass
    for sched in (Loose(), Bare()):
        with pytest.raises(TypeError, match='is no frozen dataclass: expected one'): GRADUAL.under(sched)

def test_a_schedule_that_is_not_defined_here():
    with pytest.raises(ValueError, match="there is no schedule 'Steps2', only .*STLR.*: if it is your own, import it first"):
        Plan.from_json(GRADUAL.under(Steps()).to_json().replace('Steps', 'Steps2'))
