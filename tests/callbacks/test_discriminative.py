"Discriminative rates under any scheduler, against fastai's own per-group rates"
from functools import partial

import numpy as np
import pytest
import torch
from conftest import in_turn, make_mlp, snapshot, weights
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import ReduceLROnPlateau
from fastai.callback.training import GradientAccumulation
from fastai.optimizer import SGD, OptimWrapper, ranger
from plan.falls import ODD_FALLS

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.group_lrs import GroupLRRecorder
from fastai_discrim.callbacks.unfreezing import GradualUnfreezing
from fastai_discrim.plan.rates import discriminative_lrs

OPTS = dict(adam=None, sgd=partial(SGD, mom=0.9), ranger=ranger, torch=partial(OptimWrapper, opt=torch.optim.AdamW))

FITS = {
    'fit': lambda learn, lr, **kw: learn.fit(2, lr, **kw),
    'fit_one_cycle': lambda learn, lr, **kw: learn.fit_one_cycle(2, lr, **kw),
    'fit_flat_cos': lambda learn, lr, **kw: learn.fit_flat_cos(2, lr, **kw),
    'fit_sgdr': lambda learn, lr, **kw: learn.fit_sgdr(2, 1, lr, **kw),
    'fit_stlr': lambda learn, lr, **kw: learn.fit_stlr(2, lr, **kw),
}

# Half of all combinations, among them fastai's default, `fit_one_cycle` with Adam
@pytest.mark.parametrize('fit,opt', [*in_turn(FITS, OPTS, skip=1), *in_turn(FITS, OPTS, skip=3)])
def test_callback_ends_where_an_array_of_rates_ends(tmp_path, fit, opt):
    kw = dict(opt_func=opt) if opt else {}
    a,b,c = (make_mlp(tmp_path, **kw) for _ in range(3))
    with a.no_bar(): fit(a, 1e-2, cbs=DiscriminativeLR())
    with b.no_bar(): fit(b, discriminative_lrs(1e-2, 3), cbs=GroupLRRecorder())
    with c.no_bar(): fit(c, 1e-2)
    # The scaled rate and the rate scheduled from a scaled peak differ in their last bit
    for k in weights(a): torch.testing.assert_close(weights(a)[k], weights(b)[k], rtol=1e-5, atol=1e-7)
    assert not torch.allclose(weights(a)['0.weight'], weights(c)['0.weight'], rtol=1e-3)
    np.testing.assert_allclose(a.recorder.group_lrs, b.recorder.group_lrs, rtol=1e-12)

@pytest.mark.parametrize('factor', [0, -2.6, float('nan')])
def test_bad_factors(factor):
    with pytest.raises(ValueError, match=f'factor={factor}'): DiscriminativeLR(factor)

class Spy(Callback):
    order = 1000
    def before_fit(self): self.seen = []
    def before_step(self): self.seen.append([h['lr'] for h in self.opt.hypers])
    def after_step(self): self.seen.append([h['lr'] for h in self.opt.hypers])
    def after_batch(self):
        if self.training: self.seen.append([h['lr'] for h in self.opt.hypers])

def test_other_callbacks_read_the_schedulers_rates(mlp):
    spy = Spy()
    with mlp.no_bar(): mlp.fit(1, 1e-2, cbs=[DiscriminativeLR(), spy])
    assert spy.seen and all(lrs == [1e-2]*3 for lrs in spy.seen)
    assert mlp.recorder.lrs == [1e-2]*len(mlp.dls.train)
    np.testing.assert_allclose(mlp.recorder.group_lrs, np.tile(discriminative_lrs(1e-2, 3), (len(mlp.dls.train), 1)), rtol=1e-15)

def test_multipliers(mlp):
    with mlp.no_bar(): mlp.fit(1, 1e-2, cbs=DiscriminativeLR(multipliers=[.1, 1, .5]))
    np.testing.assert_allclose(mlp.recorder.group_lrs[0], [1e-3, 1e-2, 5e-3])

def test_the_heads_rate_leads_whoever_sets_it(mlp):
    class Halve(Callback):
        def before_batch(self):
            if self.training: self.opt.set_hyper('lr', 1e-2 * .5**self.train_iter)
    with mlp.no_bar(): mlp.fit(1, 1e-2, cbs=[DiscriminativeLR(2), Halve()])
    np.testing.assert_allclose(mlp.recorder.group_lrs[:,0], [1e-2 * .5**i / 4 for i in range(len(mlp.dls.train))])

@pytest.mark.parametrize('fit', [lambda l: l.fit(1, slice(1e-4, 1e-2)),
                                 lambda l: l.fit(1, [1e-4, 1e-3, 1e-2]),
                                 lambda l: l.fit_one_cycle(1, slice(1e-2)),
                                 lambda l: l.fit_flat_cos(1, np.array([1e-4, 1e-3, 1e-2])),
                                 lambda l: l.fine_tune(1)])
def test_a_fit_with_one_rate_per_group_is_refused(mlp, fit):
    mlp.freeze()
    mlp.add_cbs([DiscriminativeLR(), GradualUnfreezing(1)])
    before = snapshot(mlp)
    with pytest.raises(ValueError, match='one rate per layer group already'), mlp.no_bar(): fit(mlp)
    after = snapshot(mlp)
    assert all(map(torch.equal, before[0], after[0])) and before[1] == after[1] and len(before[3]) == len(after[3])

@pytest.mark.parametrize('multipliers', [[1, 1], [1]*4])
def test_multipliers_of_the_wrong_count(mlp, multipliers):
    mlp.create_opt()
    before = snapshot(mlp)
    with pytest.raises(ValueError, match=f'multipliers has {len(multipliers)} values, expected one for each of the 3'), mlp.no_bar():
        mlp.fit(1, cbs=DiscriminativeLR(multipliers=multipliers))
    assert all(map(torch.equal, before[0], snapshot(mlp)[0]))

def test_accumulation_and_plateau_see_unscaled_rates(tmp_path):
    learn = make_mlp(tmp_path)
    cbs = [DiscriminativeLR(), GradientAccumulation(24), ReduceLROnPlateau(patience=0, min_delta=10., factor=2)]
    with learn.no_bar(): learn.fit(3, 1e-2, cbs=cbs)
    lrs = learn.recorder.group_lrs
    np.testing.assert_allclose(lrs / lrs[:,-1:], np.tile(discriminative_lrs(1., 3), (len(lrs), 1)))
    assert lrs[-1,-1] < lrs[0,-1]

class Boom(Callback):
    "Interrupt a step at an event, after all other callbacks"
    order = 1000
    def __init__(self, ex, where): self.ex,self.where = ex,where
    def before_step(self):
        if self.where == 'before_step' and self.train_iter == 2: raise self.ex
    def after_step(self):
        if self.where == 'after_step' and self.train_iter == 2: raise self.ex

@pytest.mark.parametrize('where', ['before_step', 'after_step', 'in the step'])
@pytest.mark.parametrize('attached', [False, True])
def test_no_rate_stays_scaled_after_an_interrupted_fit(mlp, where, attached):
    mlp.create_opt()
    if where == 'in the step':
        step,calls = mlp.opt.step,[]
        def boom():
            if len(calls) == 2: raise KeyboardInterrupt
            calls.append(0); step()
        mlp.opt.step = boom
    cbs = [DiscriminativeLR()]
    if attached: mlp.add_cbs(cbs)
    with pytest.raises(KeyboardInterrupt), mlp.no_bar():
        mlp.fit_one_cycle(1, 1e-2, cbs=[Boom(KeyboardInterrupt(), where), *([] if attached else cbs)])
    assert len({h['lr'] for h in mlp.opt.hypers}) == 1
    assert all(p.grad is None for p in mlp.model.parameters())
    assert '_step' not in vars(mlp) and not mlp._grab_cbs(ParamScheduler) and bool(mlp._grab_cbs(DiscriminativeLR)) == attached

def test_lr_find_scales_rates_as_a_fit_does(mlp):
    mlp.add_cb(DiscriminativeLR())
    with mlp.no_bar(): mlp.lr_find(show_plot=False, num_it=20)
    lrs = mlp.recorder.group_lrs
    np.testing.assert_allclose(lrs[:,0]*2.6**2, lrs[:,-1])

@pytest.mark.parametrize('kw,match', ODD_FALLS.values(), ids=ODD_FALLS)
def test_bad_arguments_are_refused(kw, match):
    with pytest.raises((ValueError, TypeError), match=match): DiscriminativeLR(**kw)

@pytest.mark.parametrize('kw', [dict(), dict(span=100), dict(decay=.8), dict(min_scale=.2), dict(factor=4, min_scale=.1)])
def test_multipliers_are_those_of_discriminative_lrs(mlp, kw):
    with mlp.no_bar(): mlp.fit_stlr(2, 1e-2, cbs=DiscriminativeLR(**kw))
    lrs = mlp.recorder.group_lrs
    np.testing.assert_allclose(lrs/lrs[:,-1:], np.tile(discriminative_lrs(1., 3, **kw), (16, 1)), rtol=1e-12)

def test_rates_of_the_body_fall_from_its_own_multiplier(mlp):
    with mlp.no_bar(): mlp.fit(1, 1e-2, cbs=DiscriminativeLR(2, body=.1))
    np.testing.assert_allclose(mlp.recorder.group_lrs, np.tile([.5e-3, 1e-3, 1e-2], (8, 1)), rtol=1e-12)
    for body in (0, -1, '1'):
        with pytest.raises((ValueError, TypeError), match='body=.*: expected'): DiscriminativeLR(body=body)

@pytest.mark.parametrize('kw', [dict(min_scale=.1), dict(span=10), dict(decay=.9), dict(factor=3), dict(body=.5)])
def test_multipliers_together_with_other_arguments_are_refused(kw):
    with pytest.raises(ValueError, match='multipliers=.*together with another way to set the rates: expected one of them'):
        DiscriminativeLR(multipliers=[.1, .5, 1.], **kw)

@pytest.mark.parametrize('kw,below', [({}, [.1/2.6, .1]), (dict(factor=10), [.01, .1]), (dict(decay=.5), [.05, .1]),
                                      (dict(span=4), [.025, .1])])
def test_the_body_falls_from_its_own_multiplier_in_every_way(mlp, kw, below):
    "The head's rate is that of the scheduler; the body's rates fall from `body` times it"
    with mlp.no_bar(): mlp.fit_one_cycle(1, 1e-2, cbs=DiscriminativeLR(body=.1, **kw))
    lrs = mlp.recorder.group_lrs
    np.testing.assert_allclose(lrs[:,:-1], lrs[:,-1:]*below, rtol=1e-12)
    np.testing.assert_array_equal(lrs[:,-1], mlp.recorder.lrs)

def test_weights_of_a_body_with_a_higher_rate_than_the_head(tmp_path):
    a,b = (make_mlp(tmp_path, opt_func=SGD) for _ in range(2))
    with a.no_bar(): a.fit(1, 1e-2, cbs=DiscriminativeLR(body=3, factor=2))
    with b.no_bar(): b.fit(1, [1.5e-2, 3e-2, 1e-2])
    for k in weights(a): torch.testing.assert_close(weights(a)[k], weights(b)[k], rtol=1e-6, atol=1e-8)

@pytest.mark.parametrize('body', [0, -1, float('nan'), '1', True])
def test_bad_values_of_body_are_refused(body):
    with pytest.raises((ValueError, TypeError), match='body=.*: expected a number above 0'): DiscriminativeLR(body=body)
    with pytest.raises(ValueError, match='multipliers=.*together with another way to set the rates'):
        DiscriminativeLR(multipliers=[1, 1, 1], body=.1)
