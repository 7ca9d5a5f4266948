"The schedules against restatements of the formulas they come from, iteration by iteration"
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from conftest import make_mlp, same, snapshot
from fastai.optimizer import Adam, OptimWrapper

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.plan.schedules import STLR, CLRBeta, Cos, Flat, OneCycle, SchedCLRBeta, SchedSTLR
from fastai_discrim.callbacks.unfreezing import GradualUnfreezing


def paper_stlr(t, T, lr_max, cut_frac, ratio):
    "Howard & Ruder 2018, section 3.2, as printed, floor and all"
    cut = int(np.floor(T*cut_frac))
    p = t/cut if t < cut else 1 - (t-cut)/(cut*(1/cut_frac - 1))
    return lr_max * (1 + p*(ratio-1)) / ratio

def use_clr(t, T, lr, div, cut_div):
    "fastai 0.7's `use_clr=(div, cut_div)`: up to iteration T//cut_div, then down to the last"
    top = T//cut_div
    height = t/top if t <= top else 1 - (t-top)/(T-top)
    return lr/div + height*(lr - lr/div)

def use_clr_beta(t, T, lr, div, pct, max_mom, min_mom):
    "fastai 0.7's `use_clr_beta=(div, pct, max_mom, min_mom)`: a triangle over two half cycles, then a tail"
    half = int(T*(1-pct/100)/2)
    if t > 2*half: return lr/div * (1 - .99*(t-2*half)/(T-2*half)), max_mom
    height = t/half if t <= half else 2 - t/half
    return lr/div + height*(lr - lr/div), max_mom + height*(min_mom-max_mom)

@pytest.mark.parametrize('T,cut_frac', [(10, .1), (100, .1), (1000, .1), (60, .05), (80, 1/8), (300, 1/3), (8, .5)])
@pytest.mark.parametrize('ratio', [1, 3, 20, 32])
def test_stlr_is_the_papers(T, cut_frac, ratio):
    f = SchedSTLR(0.01, cut_frac, ratio)
    np.testing.assert_allclose([f(t/T) for t in range(T)], [paper_stlr(t, T, 0.01, cut_frac, ratio) for t in range(T)], rtol=1e-12)

def test_stlr_stays_within_bounds_where_the_papers_formula_does_not():
    assert paper_stlr(18, 19, 1., .1, 32) < -.8
    for T in range(1, 400):
        for ratio in (1, 3, 7.3, 32):
            lrs = np.array([SchedSTLR(0.01, .1, ratio)(t/T) for t in range(T+1)])
            assert lrs.min() >= 0.01/ratio and lrs.max() <= 0.01

@pytest.mark.parametrize('div,cut_div', [(32, 10), (20, 10), (8, 3), (8, 8), (32, 2)])
@pytest.mark.parametrize('cycles', [1, 7])
def test_stlr_is_use_clr(div, cut_div, cycles):
    T = 12*cut_div*cycles
    f = SchedSTLR(4e-3, cut_frac=1/cut_div, ratio=div)
    np.testing.assert_allclose([f(t/T) for t in range(T)], [use_clr(t, T, 4e-3, div, cut_div) for t in range(T)], rtol=1e-12)

@pytest.mark.parametrize('T', [20, 200, 1000])
def test_clr_beta_is_use_clr_beta(T):
    s = CLRBeta(10, 10).scheds(4e-3, (.95, .85))
    ref = np.array([use_clr_beta(t, T, 4e-3, 10, 10, .95, .85) for t in range(T)])
    np.testing.assert_allclose([s['lr'](t/T) for t in range(T)], ref[:,0], rtol=1e-12)
    np.testing.assert_allclose([s['mom'](t/T) for t in range(T)], ref[:,1], rtol=1e-12)
    assert SchedCLRBeta(4e-3)(1.) == pytest.approx(4e-3/10/100)

@pytest.mark.parametrize('sched', [SchedSTLR, SchedCLRBeta])
def test_arrays_are_each_rates_schedule_and_pickle(sched):
    lrs = [1e-4, 1e-3, 1e-2]
    for pos in (0, .05, .1, .5, .95, 1):
        got = sched(lrs)(pos)
        assert got.tolist() == [sched(lr)(pos) for lr in lrs] and isinstance(sched(1e-2)(pos), float)
        assert pickle.loads(pickle.dumps(sched(lrs)))(pos).tolist() == got.tolist()

@pytest.mark.parametrize('call,match', [
    (lambda: SchedSTLR(1e-2, cut_frac=0), 'cut_frac=0: expected a number above 0 and below 1'),
    (lambda: STLR(cut_frac=1), 'cut_frac=1'),
    (lambda: STLR(cut_frac=-.1), 'cut_frac=-0.1'),
    (lambda: STLR(cut_frac=float('nan')), 'cut_frac=nan'),
    (lambda: STLR(ratio=.9), 'ratio=0.9: expected a number of at least 1'),
    (lambda: SchedSTLR(1e-2, ratio=0), 'ratio=0'),
    (lambda: CLRBeta(div=.5), 'div=0.5'),
    (lambda: CLRBeta(pct=100), 'pct=100'),
    (lambda: OneCycle(pct_start=1), 'pct_start=1')])
def test_shapes_that_are_none(call, match):
    with pytest.raises(ValueError, match=match): call()

def test_schedules_are_data():
    assert STLR() == STLR(.1, 32) != STLR(.1, 20) and len({STLR(), STLR(.1), CLRBeta()}) == 2
    assert repr(STLR(.2)) == 'STLR(cut_frac=0.2, ratio=32)'

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
    with b.no_bar(): b.fit_one_cycle(1, lr_max)
    peak = a.recorder.group_lrs[0]*32
    np.testing.assert_allclose(peak, b.recorder.group_lrs[0]*25, rtol=1e-9)

@pytest.mark.parametrize('fit,div', [('fit_stlr', 32), ('fit_clr_beta', 10), ('fit_one_cycle', 25)])
def test_the_rate_of_an_optimiser_that_is_yet_to_be_made(tmp_path, fit, div):
    learn = make_mlp(tmp_path, opt_func=partial(Adam, lr=5e-2))
    assert learn.ulmfit_plan(3).lr == 5e-2 and learn.opt is None and learn.lr == 1e-3
    assert list(learn.layer_groups().lr) == [5e-2]*3
    with learn.no_bar():
        for _ in range(2):
            getattr(learn, fit)(1)
            np.testing.assert_allclose(learn.recorder.group_lrs[0]*div, 5e-2, rtol=1e-9)
        # `fit_one_cycle` still has the rate of the optimiser that it replaces
        learn.opt_func = partial(Adam, lr=2e-2)
        getattr(learn, fit)(1, reset_opt=True)
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
@pytest.mark.parametrize('cb,lr', [(GradualUnfreezing(), 1e-2), (DiscriminativeLR(), slice(1e-3, 1e-2))], ids=['too short', 'rates twice'])
def test_what_a_callback_refuses_leaves_the_optimiser(mlp, fit, cb, lr):
    with mlp.no_bar(): mlp.fit(1, 1e-3)
    before,opt,state = snapshot(mlp),mlp.opt,dict(mlp.opt.state[next(mlp.model.parameters())])
    with pytest.raises(ValueError, match='expected'): getattr(mlp, fit)(1, lr, cbs=cb, reset_opt=True)
    assert same(before, snapshot(mlp)) and mlp.opt is opt and mlp.opt.state[next(mlp.model.parameters())].keys() == state.keys()

def test_rates_are_for_the_groups_of_a_new_optimiser(mlp):
    mlp.create_opt()
    mlp.splitter = lambda m: [list(m[:3].parameters()), list(m[3:].parameters())]
    with mlp.no_bar(): mlp.fit_stlr(1, [1e-3, 1e-2], reset_opt=True)
    assert mlp.recorder.group_lrs.shape == (8, 2)

@pytest.mark.parametrize('lr', [-1., 0, float('nan'), '1e-3', [1e-3, -1]])
def test_rates_that_are_none(lr):
    for sched in (SchedSTLR, SchedCLRBeta):
        with pytest.raises((ValueError, TypeError), match='lr_max=.*expected'): sched(lr)

def test_an_empty_training_set_is_refused(mlp):
    mlp.dls.train.dataset, mlp.dls.train.n = [], 0
    before = snapshot(mlp)
    for fit in (mlp.fit_stlr, mlp.fit_clr_beta):
        with pytest.raises(ValueError, match='0 items and makes 0 batches'): fit(1, 1e-2)
    assert same(before, snapshot(mlp))

@pytest.mark.parametrize('sched,pos,frac', [(Flat(), .3, 1.), (Cos(), .5, .5), (Cos(), 0, 1.),
                                            (OneCycle(), 0, 1/25), (OneCycle(), .25, 1.)])
def test_the_other_shapes(sched, pos, frac):
    lrs = np.array([1e-3, 1e-2])
    np.testing.assert_allclose(sched.scheds(lrs, (.95, .85, .95))['lr'](pos), lrs*frac, rtol=1e-6)
