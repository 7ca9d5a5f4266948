"The steps of a fit are counted, under fastai's `GradientAccumulation` and in several processes"
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_clas, make_mlp
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from torch import nn

from fastai_discrim.all import *
from fastai_discrim.search.accumulation import batches_per_step, fit_steps


@pytest.mark.parametrize('n_items,want', [(1, 1), (8, 1), (9, 2), (16, 2), (32, 4)])
def test_as_many_batches_as_fastai_sums(tmp_path, n_items, want):
    class Steps(Callback):
        n = 0
        def after_step(self): self.n += 1
    learn,steps = make_mlp(tmp_path, n=256, cbs=GradientAccumulation(n_items)),Steps()
    assert batches_per_step(learn) == want
    with learn.no_bar(): learn.fit(1, cbs=steps)
    assert steps.n == len(learn.dls.train)//want

def test_without_the_callback_or_a_batch_size(mlp):
    assert batches_per_step(mlp) == 1
    accumulates = [GradientAccumulation(32)]
    assert batches_per_step(SimpleNamespace(cbs=accumulates, dls=SimpleNamespace(train=object()))) == 1

@pytest.mark.parametrize('n_items,processes,want', [(1, 1, 64), (16, 1, 32), (1, 2, 32), (16, 4, 8)])
def test_the_steps_of_a_fit(tmp_path, monkeypatch, n_items, processes, want):
    "Two epochs of 32 batches"
    monkeypatch.setattr('fastai_discrim.search.accumulation.n_processes', lambda: processes)
    learn = make_mlp(tmp_path, n=256, norm=True, cbs=GradientAccumulation(n_items))
    assert fit_steps(learn, 2) == want
    # The plan's rate is that of so many steps
    found = HeadLR(5e-3, np.array([5e-3]), np.array([.5]), 'as told')
    assert f'usual in {want} steps' in learn.ulmfit_plan(2, found).body_lr_from

def test_the_batches_of_a_recurrent_classifier_are_those_of_a_step(tmp_path):
    found = HeadLR(5e-3, np.array([5e-3]), np.array([.5]), 'as told')
    learn = make_clas(tmp_path, cbs=GradientAccumulation(32))
    assert learn.ulmfit_plan(6, found).body_lr == pytest.approx(32**.5/1000)

def test_the_callback_may_be_given_to_the_fit(tmp_path):
    "The plan, too, is that of 16 steps: the rates rise for 10 of them, but at most for half"
    found,plans = HeadLR(5e-3, np.array([5e-3]), np.array([.5]), 'as told'),[]
    for of_learn,of_fit in ((GradientAccumulation(32), None), (None, GradientAccumulation(32))):
        learn = make_mlp(tmp_path, n=256, norm=True, cbs=of_learn)
        learn.model[3] = nn.LayerNorm(8)
        with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(2, found, cbs=of_fit)
        plans.append(learn.recorder.plan)
    assert plans[0] == plans[1] and plans[1].phases[0].sched.cut_frac == .5

def test_a_miniature_makes_steps(tmp_path):
    steps = []
    class Steps(Callback):
        def after_step(self): steps.append(self.train_iter)
    learn = make_mlp(tmp_path, n=256, norm=True, cbs=[GradientAccumulation(64), Steps()])
    with learn.no_bar(): res = learn.body_lr_find(4, 1e-2, show_plot=False)
    # Half of the steps of 4 epochs of 32 batches, of which 8 make a step
    assert res.how.startswith('validation loss after 8 steps') and len(steps) == 8*len(res.lrs)
