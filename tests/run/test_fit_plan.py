"Plans, run: what ran is what was planned, step by step, as the plan says it and as the formulas do"
import re
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from callbacks.watch import Steps, Watch, names
from conftest import StopAt, in_groups, make_clas, make_mlp, same, snapshot, trains, weights
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import ParamScheduler, SchedLin
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.optimizer import SGD, OptimWrapper, ranger
from fastai.torch_core import set_seed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan.restated import assert_ran, phase_ends
from plan.strategies import lengths, schedules

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing
from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.rates import discriminative_lrs
from fastai_discrim.plan.schedules import STLR, CLRBeta, Cos, Flat, OneCycle, Schedule
from fastai_discrim.recipes import recipes

LRS = (1e-4, 1e-3, 1e-2)

PLAN = Plan([Phase(1, (2,), LRS), Phase(2, (1, 2), LRS, CLRBeta()), Phase(2, (0, 1, 2), LRS, OneCycle()),
             Phase(1, (0,), LRS, Cos()), Phase(1, (0, 2), LRS, Flat())], 'abc')

STOPPED = Plan([Phase(2, (0, 1, 2), LRS, early_stop=EarlyStop(1))])

GRADUAL = Plan([Phase(1, (2,), LRS), Phase(2, (1, 2), LRS), Phase(2, (0, 1, 2), LRS)])

# Phases that begin and end in the middle of epochs, a cycle that goes on over three of them, and one far shorter than a step
PARTS = Plan([Phase(.3, (2,), LRS), Phase(.5, (1, 2), LRS, OneCycle()), Phase(.01, (0,), LRS, None), Phase(.69, (0, 2), LRS, None),
              Phase(1.5, (0, 1, 2), LRS, Cos(.05))], 'abc')

OPTS = dict(adam={}, sgd=dict(opt_func=partial(SGD, mom=.9)), ranger=dict(opt_func=ranger),
            torch=dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)))

@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
def test_plans_run_as_planned(tmp_path, opt):
    learn = make_mlp(tmp_path, wd=.1, **opt)
    with learn.no_bar(): learn.lr_find(show_plot=False, num_it=10)
    watch = Watch()
    with learn.no_bar(): learn.fit_plan(PLAN, cbs=watch)
    assert_ran(learn, PLAN)
    assert watch.moved == names(learn, [p.groups for p in PLAN.phases for _ in range(p.epochs)])

@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
def test_fractional_phases_run_as_planned(tmp_path, opt):
    learn,steps = make_mlp(tmp_path, wd=.1, **opt),Steps()
    with learn.no_bar(): learn.lr_find(show_plot=False, num_it=10)
    with learn.no_bar(): learn.fit_plan(PARTS, cbs=steps)
    assert_ran(learn, PARTS)
    ends = phase_ends([.3, .5, .01, .69, 1.5], 8)
    want = [p.groups for p,start,end in zip(PARTS.phases, [0, *ends], ends) for _ in range(start, end)]
    assert ends == [2, 6, 7, 12, 24] and steps.opened == want and steps.moved == names(learn, want)

@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths(most=5), st.data())
def test_any_plan_runs_as_planned(tmp_path, epochs, data):
    learn,steps = make_mlp(tmp_path, n=40),Steps()
    phases = []
    for n in epochs:
        sched = None if phases and data.draw(st.booleans()) else data.draw(schedules)
        phases.append(Phase(float(n), data.draw(st.sets(st.integers(0, 2), min_size=1)), LRS, sched))
    plan = Plan(phases)
    if len(phases) > plan.n_epoch*5: return
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
        # A phase of one step may do next to nothing
        warnings.simplefilter('ignore')
        learn.fit_plan(plan, cbs=steps)
    assert_ran(learn, plan)
    ends = phase_ends(epochs, 5)
    assert steps.opened == [p.groups for p,start,end in zip(plan.phases, [0, *ends], ends) for _ in range(start, end)]

@pytest.mark.parametrize('sched', [STLR(), STLR(.3, 7), OneCycle(), Cos(), Flat()], ids=str)
@pytest.mark.parametrize('opening', [GradualUnfreezing(1), GradualUnfreezing([1, 2]), ChainThaw()], ids=str)
def test_a_cycle_over_the_whole_plan(tmp_path, opening, sched):
    learn = make_mlp(tmp_path)
    plan = Plan([Phase(n, g, LRS) for n,g in opening.fill(3, 6)]).under(sched, whole=True)
    with learn.no_bar(): learn.fit_plan(plan)
    assert_ran(learn, plan)
    assert Plan.from_json(plan.to_json()) == plan

@pytest.mark.parametrize('moms', [None, (.9, .6, .8)])
def test_callbacks_under_one_schedule_are_a_plan_under_it(tmp_path, moms):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    with a.no_bar(): a.fit_stlr(5, 1e-2, moms=moms, cbs=[GradualUnfreezing(1), DiscriminativeLR(10)])
    first,*rest = [Phase(n, g, LRS, moms=moms) for n,g in GradualUnfreezing(1).fill(3, 5)]
    with b.no_bar(): b.fit_plan(Plan([first, *rest]).under(STLR(), whole=True))
    np.testing.assert_allclose(a.recorder.group_lrs, b.recorder.group_lrs, rtol=1e-9)
    np.testing.assert_allclose(a.recorder.hps['mom'], b.recorder.hps['mom'], rtol=1e-9)

@pytest.mark.parametrize('cb', [GradualUnfreezing(.3), GradualUnfreezing(None), ChainThaw(.3)], ids=repr)
def test_fractional_callbacks_under_one_schedule_are_a_plan_under_it(tmp_path, cb):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    with a.no_bar(): a.fit_stlr(5, 1e-2, cbs=[cb, DiscriminativeLR(10)])
    with b.no_bar(): b.fit_plan(Plan([Phase(n, g, LRS) for n,g in cb.fill(3, 5)]).under(STLR(), whole=True))
    np.testing.assert_array_equal(a.recorder.group_lrs > 0, b.recorder.group_lrs > 0)
    np.testing.assert_allclose(a.recorder.group_lrs, b.recorder.group_lrs, rtol=1e-9)
    for k,v in weights(a).items(): torch.testing.assert_close(v, weights(b)[k], rtol=1e-5, atol=1e-7)

def test_start_epoch_within_a_cycle(tmp_path):
    learn,plan = make_mlp(tmp_path),GRADUAL.under(OneCycle(), whole=True)
    with learn.no_bar(): learn.fit_plan(plan, start_epoch=2)
    assert_ran(learn, plan, slice(16, None))

@pytest.mark.parametrize('start', [1, 2])
def test_start_epoch_within_a_fractional_phase(mlp, start):
    steps = Steps()
    with mlp.no_bar(): mlp.fit_plan(PARTS, start_epoch=start, cbs=steps)
    assert_ran(mlp, PARTS, slice(8*start, None))
    assert steps.moved == names(mlp, steps.opened) and len(steps.moved) == 24-8*start

@dataclass(frozen=True)
class Stairs(Schedule):
    "Down in steps, to try what a schedule may be made of"
    at: tuple = (0.5, 0.8)
    by: int = 10
    def scheds(self, lrs, moms):
        return {'lr': lambda pos: lrs/self.by**sum(pos >= a for a in self.at), 'mom': lambda pos: moms[1]}

def test_a_schedule_of_ones_own(mlp):
    plan = GRADUAL.under(Stairs(), whole=True)
    with mlp.no_bar(): mlp.fit_plan(plan)
    np.testing.assert_array_equal(mlp.recorder.group_lrs, plan.lrs(8))
    place = np.arange(40)/40
    np.testing.assert_allclose(mlp.recorder.group_lrs[:,2], np.where(place < .5, 1., np.where(place < .8, .1, .01))*1e-2, rtol=1e-12)

def test_one_open_phase_is_fit_stlr_bit_for_bit(tmp_path):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    lrs = discriminative_lrs(1e-2, 3)
    with a.no_bar(): a.fit_plan(Plan([Phase(1, (0, 1, 2), lrs)]))
    with b.no_bar(): b.fit_stlr(1, lrs)
    assert all(map(torch.equal, weights(a).values(), weights(b).values()))
    assert a.recorder.hps['mom'] == b.recorder.hps['mom'] and a.recorder.lrs == b.recorder.lrs
    np.testing.assert_array_equal(a.recorder.group_lrs, b.recorder.group_lrs)

def test_a_plan_trains_as_the_fits_by_hand_do(tmp_path):
    a,b = make_clas(tmp_path),make_clas(tmp_path)
    plan = a.ulmfit_plan(6, 1e-2, epochs=1)
    set_seed(1)
    with a.no_bar(): a.fit_plan(plan)
    b.create_opt()
    set_seed(1)
    with b.no_bar():
        for p in plan.phases:
            b.opt.freeze_to(p.groups[0])
            b.fit(p.epochs, list(p.lrs), cbs=ParamScheduler(p.sched.scheds(np.array(p.lrs), b.moms)))
    for k,v in weights(a).items(): torch.testing.assert_close(v, weights(b)[k], rtol=1e-4, atol=1e-6)

def test_momentum(mlp):
    plan = Plan([Phase(1, (2,), LRS, moms=(.9, .5, .9)), Phase(1, (2,), LRS)])
    with mlp.no_bar(): mlp.fit_plan(plan)
    moms = mlp.recorder.hps['mom']
    assert moms[0] == .9 and min(moms[:8]) < .6 and moms[8] == mlp.moms[0] and len(moms) == 16

def test_phase_tells_where_it_is(mlp):
    seen = []
    class See(Callback):
        def before_batch(self): seen.append((self.epoch, self.learn.phase))
    assert not hasattr(mlp, 'phase') and 'phase' not in vars(mlp)
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=See)
    timeline,n_iter = PLAN.timeline(8),8
    assert all(PLAN.phases[timeline.phase(e*n_iter)] is p for e,p in seen) and {p for _,p in seen} == set(PLAN.phases)
    assert not hasattr(mlp, 'phase') and 'phase' not in vars(mlp)
    with pytest.raises(AttributeError): _ = mlp.phase

def test_phase_tells_where_it_is_within_an_epoch(mlp):
    seen,own = [],[]
    class See(Callback):
        run_valid,order = False,100
        def before_batch(self):
            seen.append(self.learn.phase)
            own.append('phase' in vars(self.learn))
    with mlp.no_bar(): mlp.fit_plan(PARTS, cbs=See)
    ends = phase_ends([.3, .5, .01, .69, 1.5], 8)
    assert seen == [p for p,start,end in zip(PARTS.phases, [0, *ends], ends) for _ in range(start, end)] and all(own)

def test_phase_tells_where_the_fit_begins(tmp_path):
    "In `before_fit`, too: where it goes on from a checkpoint, and with `start_epoch`"
    class See(Callback):
        order = -20
        def before_fit(self): seen.append(self.learn.phase)
    begins,ends = [],phase_ends([.3, .5, .01, .69, 1.5], 8)
    for stop in ((0, 5), (0, 6), (0, 7), (1, 0), (1, 6), (2, 3)):
        learn,seen = make_mlp(tmp_path),[]
        with pytest.raises(KeyboardInterrupt), learn.no_bar():
            learn.fit_plan(PARTS, checkpoint='r', checkpoint_every=1, cbs=[See(), StopAt(*stop)])
        begins.append(seen[0])
    learn,seen = make_mlp(tmp_path),[]
    with learn.no_bar(): learn.fit_plan(PARTS, checkpoint='r', checkpoint_every=1, cbs=[See(), StopAt(9, 9)])
    begins.append(seen[0])
    assert ends == [2, 6, 7, 12, 24] and [PARTS.phases.index(p) for p in begins] == [0, 1, 2, 3, 3, 4, 4]
    for start,want in (1, 3), (2, 4):
        learn,seen = make_mlp(tmp_path),[]
        with learn.no_bar(): learn.fit_plan(PARTS, start_epoch=start, cbs=See())
        assert seen[0] == PARTS.phases[want]

@pytest.mark.parametrize('cbs', [SaveModelCallback, [CSVLogger()], EarlyStoppingCallback(patience=9),
                                 GradientClip(.5), GradientAccumulation(20)], ids=str)
def test_one_fit_with_any_callback(mlp, cbs):
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=cbs, wd=.2)
    assert mlp.opt.hypers[0]['wd'] == .2 and len(mlp.recorder.values) == 7 and len(mlp.cbs) == 4
    assert_ran(mlp, PLAN)
    if isinstance(cbs, list): assert len((mlp.path/'history.csv').read_text().splitlines()) == 8

@pytest.mark.filterwarnings('ignore')
def test_in_mixed_precision(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=MixedPrecision())
    assert_ran(mlp, PLAN)

def test_early_stopping_ends_the_plan(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=EarlyStoppingCallback(min_delta=100., patience=1))
    assert len(mlp.recorder.values) == 2 and trains(mlp) == [False, True, True]
    assert_ran(mlp, PLAN, slice(None, 16))

def test_start_epoch(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN, start_epoch=4)
    assert_ran(mlp, PLAN, slice(32, None))

def test_validation_inside_a_plan(mlp):
    class Check(Callback):
        def after_train(self): self.learn.get_preds(inner=True, dl=self.dls.valid) if self.epoch == 1 else None
    with mlp.no_bar(): mlp.validate(); mlp.fit_plan(PLAN); mlp.validate()
    assert_ran(mlp, PLAN)

@pytest.mark.parametrize('event', ['before_epoch', 'after_batch', 'after_train', 'after_epoch'])
def test_validation_within_fractional_phases(mlp, event):
    "fastai counts epochs from 0 for it; the plan knows where it is"
    def look(cb):
        if cb.learn.lock.locked() or not cb.learn.training and 'batch' in event: return
        cb.learn.validate()
        cb.learn.model.train()
        cb.learn.training = True
    steps = Steps()
    mlp.add_cb(type('Look', (Callback,), {event: look, 'order': -20 if event == 'after_batch' else 0, 'run_valid': False})())
    with mlp.no_bar(): mlp.fit_plan(PARTS, cbs=steps)
    assert_ran(mlp, PARTS)
    assert steps.moved == names(mlp, steps.opened)

def test_ctrl_c_leaves_what_the_phase_set(mlp):
    class Stop(Callback):
        order = 1000
        def before_step(self):
            if self.epoch == 1: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), mlp.no_bar(): mlp.fit_plan(PLAN, cbs=Stop)
    assert trains(mlp) == [False, True, True] and not hasattr(mlp, 'phase') and all(p.grad is None for p in mlp.model.parameters())
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    assert_ran(mlp, PLAN)

def test_ctrl_c_in_the_middle_of_an_epoch_leaves_what_the_phase_set(mlp):
    class Stop(Callback):
        order = 1000
        def before_step(self):
            if (self.epoch, self.iter) == (0, 7): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), mlp.no_bar(): mlp.fit_plan(PARTS, cbs=Stop)
    assert trains(mlp) == [True, False, True] and not hasattr(mlp, 'phase') and all(p.grad is None for p in mlp.model.parameters())
    with mlp.no_bar(): mlp.fit_plan(PARTS)
    assert_ran(mlp, PARTS)

REFUSED = {
    'groups': (lambda l: l.fit_plan(Plan([Phase(1, (0,), (1e-3, 1e-3))], ['body', 'head'])),
               r'the plan is for 2 layer groups \(body, head\), the learner has 3 \(0, 2, head\)'),
    'no plan': (lambda l: l.fit_plan([1]), r'plan=\[1\]: expected a Plan'),
    'an early stop': (lambda l: l.fit_plan(PLAN, cbs=EarlyStop(2)), r'EarlyStop\(.*\) in `cbs`: expected callbacks; give it to the plan'),
    'an early stop in one line': (lambda l: l.fit_ulmfit(3, 1e-2, cbs=[SaveModelCallback(), EarlyStop(2)]), r'EarlyStop\(.*\) in `cbs`'),
    'discriminative': (lambda l: l.fit_plan(PLAN, cbs=DiscriminativeLR), 'DiscriminativeLR together with a plan'),
    'unfreezing': (lambda l: l.fit_plan(PLAN, cbs=[ChainThaw()]), 'ChainThaw together with a plan'),
    'scheduler': (lambda l: l.fit_plan(PLAN, cbs=ParamScheduler({'lr': None})), 'ParamScheduler together with a plan'),
    'more phases than steps': (lambda l: l.fit_plan(Plan([Phase(1/16, (2,), LRS)]*16)),
                               '16 phases in 8 steps: expected at least one step for each'),
    'a class': (lambda l: l.fit_plan(PLAN, cbs=[GradualUnfreezing]), 'GradualUnfreezing together with a plan'),
    'the method of a plan': (lambda l: l.fit_plan(l.ulmfit_plan), 'plan=<bound method .*: expected a Plan, such as'),
}

@pytest.mark.parametrize('call,match', REFUSED.values(), ids=REFUSED)
def test_refused_before_anything_changes(mlp, call, match):
    mlp.create_opt()
    before,state = snapshot(mlp),torch.get_rng_state()
    with pytest.raises((ValueError, TypeError), match=match): call(mlp)
    assert same(before, snapshot(mlp)) and torch.equal(state, torch.get_rng_state())

@pytest.mark.parametrize('make,fit', [(make_mlp, lambda l, cbs: l.fit_plan(PLAN, cbs=cbs)),
                                      (make_mlp, lambda l, cbs: l.fit_ulmfit(4, 1e-2, cbs=cbs)),
                                      (partial(make_clas, n=8), lambda l, cbs: l.apply_recipe(recipes.paper_clas, cbs=cbs))],
                         ids=['plan', 'ulmfit', 'recipe'])
def test_callbacks_of_an_iterator(tmp_path, make, fit):
    class Counts(Callback):
        n = 0
        def after_batch(self): self.n += self.training
    def _n(wrap):
        learn,counts = make(tmp_path),Counts()
        with learn.no_bar(),learn.no_logging(): fit(learn, wrap([counts]))
        return counts.n
    assert _n(list) == _n(iter) > 0

def test_an_early_stop_needs_a_recorder(mlp):
    mlp.remove_cb(mlp.recorder)
    with pytest.raises(ValueError, match='early_stop on a learner without a recorder'): mlp.fit_plan(STOPPED)

def test_an_attached_callback_is_refused_too(mlp):
    mlp.add_cb(GradualUnfreezing(1))
    with pytest.raises(ValueError, match='GradualUnfreezing together with a plan'): mlp.fit_plan(PLAN)

@pytest.mark.parametrize('n,sched,whole,said', [
    (8, None, False, 'a single step in phases 1, 2, at 3 % of'), (16, None, False, None), (64, None, False, None), (8, Flat(), False, None),
    (8, OneCycle(), False, 'a single step in phases 1, 2, at 4 % of'), (8, OneCycle(), True, None)])
def test_a_phase_that_never_comes_near_its_rate_is_said(tmp_path, n, sched, whole, said):
    "A triangle of one step is all corner"
    learn = make_mlp(tmp_path, n=n, bs=8)
    plan = learn.ulmfit_plan(8, 1e-2, epochs=1)
    if sched: plan = plan.under(sched, whole=whole)
    with warnings.catch_warnings(record=True) as got, learn.no_bar():
        warnings.simplefilter('always')
        learn.fit_plan(plan)
    text = [str(w.message) for w in got if issubclass(w.category, UserWarning)]
    assert len(text) == bool(said) and all(re.search(said, t) for t in text)

def test_one_phase_of_a_single_step_is_said(tmp_path):
    learn = make_mlp(tmp_path, n=8, bs=8)
    with pytest.warns(UserWarning, match='a single step in phase 1, at 3 % of the peak rates.* fit for more epochs'), learn.no_bar():
        learn.fit_plan(learn.ulmfit_plan(1, 1e-2))

def test_an_empty_training_set_is_refused(mlp):
    mlp.dls.train.dataset, mlp.dls.train.n = [], 0
    before = snapshot(mlp)
    for call in (lambda: mlp.fit_plan(PLAN), lambda: mlp.fit_ulmfit(3), mlp.head_lr_find):
        with pytest.raises(ValueError, match='0 items and makes 0 batches: expected at least 1 batch'): call()
    assert same(before, snapshot(mlp))

def test_a_training_loader_alone_is_refused_before_the_search(mlp):
    mlp.dls = DataLoaders(mlp.dls.train)
    before = snapshot(mlp)
    for call in (lambda: mlp.fit_plan(PLAN), lambda: mlp.fit_ulmfit(3)):
        with pytest.raises(ValueError, match='a training loader only: expected one for validation'): call()
    assert same(before, snapshot(mlp))
    # As the message says
    mlp.dls = DataLoaders(mlp.dls.train, mlp.dls.train.new(dataset=[]))
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    assert mlp.recorder.values[-1][1] is None

def test_the_recorder_has_the_plan_of_the_last_fit_that_ran_one(mlp):
    assert not hasattr(mlp.recorder, 'plan')
    with mlp.no_bar():
        mlp.fit_plan(PLAN)
        assert mlp.recorder.plan is PLAN
        mlp.validate()
        assert mlp.recorder.plan is PLAN
        for fit in (lambda: mlp.fit(1), lambda: mlp.fit_stlr(1), lambda: mlp.fine_tune(3, cbs=GradualUnfreezing)):
            fit()
            assert mlp.recorder.plan is PLAN
        mlp.fit_plan(GRADUAL)
        assert mlp.recorder.plan is GRADUAL
    # It is the learner's own
    assert not hasattr(type(mlp.recorder), 'plan')

def test_compiled_in_place(tmp_path):
    "`requires_grad` is among what a graph is compiled for, so every opening is seen"
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    b.model.compile(backend='aot_eager')
    plan = a.ulmfit_plan(5, 1e-2)
    for learn in (a, b):
        set_seed(1)
        with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan)
    assert_ran(b, plan)
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)

@pytest.mark.filterwarnings('ignore')
def test_accumulation_over_the_switch_of_a_phase_moves_nothing_frozen(tmp_path):
    "5 batches a step and 8 an epoch: some gradients are from before a group was shut, and some groups open in the middle of a step"
    learn = make_mlp(tmp_path)
    watch = Watch()
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(PLAN, cbs=[GradientAccumulation(40), GradientClip(.5), watch])
    assert watch.moved == names(learn, [p.groups for p in PLAN.phases for _ in range(p.epochs)])

def test_accumulation_over_phases_of_a_part_of_an_epoch(mlp):
    "3 batches a step: the third phase has one batch, which is the first of a step that ends in the next phase"
    steps = Steps()
    with mlp.no_bar(), mlp.no_logging(): mlp.fit_plan(PARTS, cbs=[GradientAccumulation(24), steps])
    assert steps.moved == [in_groups(mlp, g) if i%3 == 2 else set() for i,g in enumerate(steps.opened)]
    assert_ran(mlp, PARTS)

@pytest.mark.parametrize('hyper', ['wd', 'sqr_mom', 'eps'])
def test_what_a_plan_does_not_say_may_be_scheduled(mlp, hyper):
    seen = []
    class Seen(Callback):
        def before_step(self): seen.append(self.opt.hypers[0][hyper])
    with mlp.no_bar(): mlp.fit_plan(GRADUAL, cbs=[ParamScheduler({hyper: SchedLin(.1, .05)}), Seen()])
    np.testing.assert_allclose(seen, np.linspace(.1, .05, len(seen), endpoint=False), rtol=1e-3)
    assert_ran(mlp, GRADUAL)

@pytest.mark.parametrize('cb', [lambda: ReduceLROnPlateau(), lambda: ReduceLROnPlateau, lambda: ParamScheduler({'mom': SchedLin(.9, .8)}),
                                lambda: ParamScheduler({'wd': SchedLin(.1, 0.), 'lr': SchedLin(.1, 0.)})])
@pytest.mark.parametrize('added', [False, True])
def test_what_a_plan_says_may_not(mlp, cb, added):
    cb = cb()
    if added: mlp.add_cb(cb)
    with pytest.raises(ValueError, match='(ReduceLROnPlateau|ParamScheduler) together with a plan, .*: expected none'):
        mlp.fit_plan(GRADUAL, cbs=None if added else cb)
    assert mlp.opt is None
