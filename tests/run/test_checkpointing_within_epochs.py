"Checkpoints in phases that begin and end in the middle of epochs"
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import StopAt, make_mlp
from fastai.callback.core import Callback
from fastai.optimizer import OptimWrapper, ranger
from run.resumed import MAKERS, around, check, check_maker, outcome, ranger_outcome, run, torch_opt_outcome

from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import CLRBeta, OneCycle


def quarters(learn):
    "Train the head, the two highest groups, the lowest alone, and all, under schedules of their own, in two epochs"
    n = len(learn.splitter(learn.model))
    lrs = tuple(np.geomspace(1e-3, 1e-2, n))
    return Plan([Phase(.25, (n-1,), lrs), Phase(.25, (n-2, n-1), lrs, OneCycle()), Phase(.5, (0,), lrs, CLRBeta()),
                 Phase(1, tuple(range(n)), lrs)])

def thirds(learn):
    "Open every group within an epoch, the fourth and fifth in the second one"
    return learn.ulmfit_plan(3, 1e-2, gradual=True, epochs=.3)

def paper_share(learn):
    "Open the groups in the share of the epochs that the paper has, which is less than a step each here: several open at once"
    return learn.ulmfit_plan(3, 1e-2, gradual=True, epochs=None)

def whole_cycle(learn): return quarters(learn).under(OneCycle(), whole=True)

PLANS = quarters,thirds,paper_share

def stops_of(make, plan):
    learn = make()
    return around(plan(learn), len(learn.dls.train))

def test_where_the_stops_are(tmp_path):
    want = dict(mlp=([2, 4, 8, 16], [2, 5, 24], [1, 2, 24]), clas=([2, 3, 6, 12], [2, 4, 5, 7, 18], [1, 18]),
                lm=([2, 4, 8, 16], [2, 5, 7, 24], [1, 2, 24]))
    for name,make in MAKERS.items():
        learn = make(tmp_path)
        assert len(learn.dls.train) == (6 if name == 'clas' else 8)
        assert tuple(plan(learn).timeline(len(learn.dls.train)).ends for plan in PLANS) == want[name]
    assert stops_of(lambda: make_mlp(tmp_path), quarters) == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (0, 7), (1, 0), (1, 1)]

@pytest.mark.filterwarnings('ignore:.*a single step in phase')
@pytest.mark.parametrize('every', [1, 3])
@pytest.mark.parametrize('plan', PLANS, ids=lambda f: f.__name__)
@pytest.mark.parametrize('name', MAKERS)
def test_around_every_boundary(tmp_path, name, plan, every):
    check_maker(tmp_path, name, stops_of(lambda: MAKERS[name](tmp_path), plan), plan, every)

@pytest.mark.parametrize('name', ['mlp', 'clas'])
def test_from_the_beginning_of_the_epoch(tmp_path, name): check_maker(tmp_path, name, [(0, 3), (1, 1)], quarters)

def test_a_cycle_over_phases(tmp_path): check_maker(tmp_path, 'mlp', [(0, 3), (0, 5), (1, 1)], whole_cycle, every=1)

@pytest.mark.parametrize('train_bn', [True, False, None])
def test_norm_layers(tmp_path, train_bn):
    def make(): return make_mlp(tmp_path, norm=True)
    def plan(learn): return replace(quarters(learn), train_bn=train_bn)
    check(make, stops_of(make, plan), plan=plan, every=1)

OPTS = dict(ranger=(ranger, ranger_outcome), torch=(partial(OptimWrapper, opt=torch.optim.AdamW), torch_opt_outcome))

@pytest.mark.parametrize('every', [1, 3])
@pytest.mark.parametrize('opt,compare', OPTS.values(), ids=OPTS)
def test_optimisers(tmp_path, opt, compare, every):
    def make(): return make_mlp(tmp_path, opt_func=opt)
    check(make, stops_of(make, quarters), plan=quarters, every=every, compare=compare)

class SeesPhase(Callback):
    "Note the groups of the phase at every step; what it has noted is in the checkpoint"
    order = 100
    def __init__(self): self.seen = []
    def before_batch(self):
        if self.training: self.seen.append(self.learn.phase.groups)

@pytest.mark.parametrize('stop', [(0, 1), (0, 2), (0, 3), (0, 6), (1, 1)])
def test_the_phase_is_told_to_other_callbacks(tmp_path, stop):
    "Though fastai goes on within an epoch by its first batch, which lies in an earlier phase"
    def make(): return make_mlp(tmp_path)
    for seed,end in enumerate(([StopAt(*stop)], [])):
        sees = SeesPhase()
        run(make, quarters, seed, cbs=[sees, *end], checkpoint='r', checkpoint_every=1)
    assert sees.seen == [(2,)]*2 + [(1, 2)]*2 + [(0,)]*4 + [(0, 1, 2)]*8

class Validates(Callback):
    "Validate at an event, after which fastai counts epochs from 0"
    def __init__(self, when): self.when = when
    def __call__(self, event_name):
        if event_name == self.when and not self.learn.lock.locked(): self.learn.validate()

@pytest.mark.parametrize('when', ['before_epoch', 'after_epoch'])
def test_validation_in_between(tmp_path, when):
    def make(): return make_mlp(tmp_path)
    def compare(learn): return {k:v for k,v in outcome(learn).items() if k in ('params', 'opt', 'rg', 'torch', 'groups', 'modes')}
    # An epoch of the recorder's goes to each validation
    check(make, [(0, 3), (0, 5), (1, 1)], plan=quarters, every=1, cbs=lambda: [Validates(when)], compare=compare)

def test_another_beginning_of_the_phase_ends_elsewhere(tmp_path):
    "So that the tests above can tell: the boundaries matter"
    def moved(learn):
        plan = quarters(learn)
        return replace(plan, phases=[replace(p, epochs=n) for p,n in zip(plan.phases, (.375, .125, .5, 1))])
    def make(): return make_mlp(tmp_path)
    assert outcome(run(make, quarters)[0])['params'] != outcome(run(make, moved)[0])['params']
