"Fits under the paper's schedule and fastai 0.7's, against restatements and against `fit_one_cycle`"
from functools import partial

import numpy as np
import pytest
import torch
from conftest import make_mlp, same, snapshot, weights
from fastai.optimizer import Adam, OptimWrapper
from plan.restated import paper_stlr, use_clr_beta

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.fit_sched import fit_sched
from fastai_discrim.callbacks.group_lrs import GroupLRRecorder
from fastai_discrim.callbacks.unfreezing import GradualUnfreezing
from fastai_discrim.plan.schedules import Cos, OneCycle, SchedSTLR


def test_fit_stlr_runs_the_schedule(mlp):
    with mlp.no_bar(): mlp.fit_stlr(5, 1e-2, cut_frac=.25, ratio=8)
    T = 5*len(mlp.dls.train)
    np.testing.assert_allclose(mlp.recorder.lrs, [paper_stlr(t, T, 1e-2, .25, 8) for t in range(T)], rtol=1e-9)
    hi,lo,end = mlp.moms
    moms = mlp.recorder.hps['mom']
    assert moms[0] == hi and min(moms) == pytest.approx(lo) and moms[-1] == pytest.approx(end, abs=.01)

def test_fit_clr_beta_runs_the_schedule(mlp):
    with mlp.no_bar(): mlp.fit_clr_beta(5, 1e-2)
    T = 5*len(mlp.dls.train)
    ref = np.array([use_clr_beta(t, T, 1e-2, 10, 10, .95, .85) for t in range(T)])
    np.testing.assert_allclose(mlp.recorder.lrs, ref[:,0], rtol=1e-9)
    np.testing.assert_allclose(mlp.recorder.hps['mom'], ref[:,1], rtol=1e-9)

@pytest.mark.parametrize('lr_max', [None, slice(1e-2), slice(1e-4, 1e-2), [1e-4, 1e-3, 1e-2], np.array([1e-4, 1e-3, 1e-2])])
def test_lr_max_means_what_it_means_in_one_cycle(tmp_path, lr_max):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    with a.no_bar(): a.fit_stlr(1, lr_max)
    with b.no_bar(): b.fit_one_cycle(1, lr_max, cbs=GroupLRRecorder())
    peak = a.recorder.group_lrs[0]*32
    np.testing.assert_allclose(peak, b.recorder.group_lrs[0]*25, rtol=1e-9)

@pytest.mark.parametrize('fit,div', [('fit_stlr', 32), ('fit_clr_beta', 10), ('fit_one_cycle', 25)])
def test_the_rate_of_an_optimiser_that_the_fit_creates(tmp_path, fit, div):
    learn = make_mlp(tmp_path, opt_func=partial(Adam, lr=5e-2))
    assert learn.ulmfit_plan(3).lr == 5e-2 and learn.opt is None and learn.lr == 1e-3
    assert list(learn.layer_groups().lr) == [5e-2]*3
    with learn.no_bar():
        for _ in range(2):
            getattr(learn, fit)(1, cbs=GroupLRRecorder())
            np.testing.assert_allclose(learn.recorder.group_lrs[0]*div, 5e-2, rtol=1e-9)
        # `fit_one_cycle` uses the rate of the old optimiser
        learn.opt_func = partial(Adam, lr=2e-2)
        getattr(learn, fit)(1, reset_opt=True, cbs=GroupLRRecorder())
        np.testing.assert_allclose(learn.recorder.group_lrs[0]*div, 5e-2 if fit == 'fit_one_cycle' else 2e-2, rtol=1e-9)

def test_other_arguments_mean_what_they_mean_in_one_cycle(tmp_path):
    a = make_mlp(tmp_path)
    with a.no_bar(): a.fit_stlr(2, 1e-2, wd=.3, moms=(.9, .7, .8), start_epoch=1)
    assert len(a.recorder.lrs) == len(a.dls.train) and a.opt.hypers[0]['wd'] == .3
    np.testing.assert_allclose(a.recorder.lrs[0], SchedSTLR(1e-2)(.5), rtol=1e-12)
    old = a.opt
    with a.no_bar(): a.fit_stlr(1, 1e-2, reset_opt=True)
    assert a.opt is not old

def test_an_optimiser_without_momentum_has_none_scheduled(tmp_path):
    learn = make_mlp(tmp_path, opt_func=partial(OptimWrapper, opt=torch.optim.Adagrad))
    with learn.no_bar(): learn.fit_stlr(1, 1e-2)
    assert set(learn.recorder.hps) == {'lr'}

BAD = [((0, 1e-2), {}), ((-1, 1e-2), {}), ((1.5, 1e-2), {}),
       ((1, -1e-2), {}), ((1, 0), {}), ((1, float('nan')), {}), ((1, float('inf')), {}), ((1, True), {}), ((1, '1e-2'), {}),
       ((1, [1e-3, 1e-2]), {}), ((1, slice(0, 1e-2)), {})]

@pytest.mark.parametrize('fit', ['fit_stlr', 'fit_clr_beta'])
@pytest.mark.parametrize('args,kw', BAD)
def test_bad_input_changes_nothing(mlp, fit, args, kw):
    mlp.create_opt()
    before = snapshot(mlp)
    with pytest.raises((ValueError, TypeError), match='expected'): getattr(mlp, fit)(*args, **kw)
    assert same(before, snapshot(mlp))

@pytest.mark.parametrize('moms', [(.9, .8), (.9, .8, 1.), (.9, float('nan'), .9), .9, 'abc'])
def test_bad_momentum_changes_nothing(mlp, moms):
    mlp.create_opt()
    before = snapshot(mlp)
    with pytest.raises((ValueError, TypeError), match='moms.*expected'): mlp.fit_stlr(1, 1e-2, moms=moms)
    assert same(before, snapshot(mlp))

@pytest.mark.parametrize('fit', ['fit_stlr', 'fit_clr_beta'])
@pytest.mark.parametrize('cb,lr', [(GradualUnfreezing(1), 1e-2), (DiscriminativeLR(), slice(1e-3, 1e-2))], ids=['too short', 'rates twice'])
def test_a_refused_fit_leaves_the_optimiser_alone(mlp, fit, cb, lr):
    with mlp.no_bar(): mlp.fit(1, 1e-3)
    before,opt,state = snapshot(mlp),mlp.opt,dict(mlp.opt.state[next(mlp.model.parameters())])
    with pytest.raises(ValueError, match='expected'): getattr(mlp, fit)(1, lr, cbs=cb, reset_opt=True)
    assert same(before, snapshot(mlp)) and mlp.opt is opt and mlp.opt.state[next(mlp.model.parameters())].keys() == state.keys()

def test_rates_are_for_the_groups_of_a_new_optimiser(mlp):
    mlp.create_opt()
    mlp.splitter = lambda m: [list(m[:3].parameters()), list(m[3:].parameters())]
    with mlp.no_bar(): mlp.fit_stlr(1, [1e-3, 1e-2], reset_opt=True)
    assert mlp.recorder.group_lrs.shape == (8, 2)

def test_an_empty_training_set_is_refused(mlp):
    mlp.dls.train.dataset, mlp.dls.train.n = [], 0
    before = snapshot(mlp)
    for fit in (mlp.fit_stlr, mlp.fit_clr_beta):
        with pytest.raises(ValueError, match='0 items and makes 0 batches'): fit(1, 1e-2)
    assert same(before, snapshot(mlp))

def test_rates_are_recorded_once_if_the_recorder_is_given_too(mlp):
    with mlp.no_bar(): mlp.fit_stlr(2, 1e-2, cbs=GroupLRRecorder())
    assert mlp.recorder.group_lrs.shape == (16, 3)

def test_one_cycle_is_fastais_bit_for_bit(tmp_path):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    lrs = np.array([1e-4, 1e-3, 1e-2])
    with a.no_bar(): fit_sched(a, 2, lrs, OneCycle(), None)
    with b.no_bar(): b.fit_one_cycle(2, lrs)
    assert all(map(torch.equal, weights(a).values(), weights(b).values()))
    assert a.recorder.hps['mom'] == b.recorder.hps['mom'] and a.recorder.lrs == b.recorder.lrs

@pytest.mark.parametrize('sched', [Cos(.25), OneCycle()], ids=str)
def test_any_schedule(mlp, sched):
    with mlp.no_bar(): fit_sched(mlp, 2, [1e-4, 1e-3, 1e-2], sched, None)
    rate = sched.scheds(1e-2, mlp.moms)['lr']
    want = np.array([rate(i/16) for i in range(16)])
    np.testing.assert_allclose(mlp.recorder.group_lrs, want[:,None]*[1e-2, 1e-1, 1], rtol=1e-5, atol=1e-9)
