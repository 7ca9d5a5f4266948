"A fit that a callback starts within a fit with our callbacks has none of these, and the outer fit continues as it was"
import warnings

import numpy as np
import pytest
import torch
from conftest import HalfPrecision, make_mlp, pairs
from fastai.callback.core import Callback
from fastai.optimizer import SGD
from fastcore.foundation import L

from fastai_discrim.all import *

EVENTS = 'before_epoch', 'before_train', 'before_batch', 'after_batch', 'after_train', 'after_epoch'
OURS = {'one by one': lambda: GradualUnfreezing(1), 'in shares': GradualUnfreezing, 'chain-thaw': lambda: ChainThaw(.5),
        'rates': lambda: DiscriminativeLR(10), 'both': lambda: [GradualUnfreezing(1), DiscriminativeLR(10)]}

class At(Callback):
    "Call `nested` once, in the second epoch"
    order = 60
    def __init__(self, event, nested): self.event,self.nested,self.done = event,nested,False
    def __call__(self, event_name):
        if self.done or event_name != self.event or self.learn.epoch != 1 or (event_name == 'after_batch' and not self.training): return
        self.done = True
        self.learn.is_outer = False
        self.nested(self.learn)
        self.learn.is_outer = True

class Seen(Callback):
    "Note which groups train in the outer fit, and how far the first weight moves in a step of the inner fit"
    order,run_valid = 900,False
    def __init__(self): self.outer,self.inner = [],[]
    def before_step(self): self.weight = self.model[0].weight.detach().clone()
    def after_step(self):
        if not self.learn.is_outer: self.inner.append((self.model[0].weight-self.weight).abs().max().item())
    def before_batch(self):
        if self.learn.is_outer: self.outer.append(tuple(any(p.requires_grad for p in g) for g in self.opt.param_lists))

def fitted(path, cbs, event='before_epoch', nested=lambda learn: None):
    learn,seen = make_mlp(path, opt_func=SGD),Seen()
    learn.is_outer = True
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(4, 1e-2, cbs=[*L(cbs), At(event, nested), seen])
    return learn,seen

NESTED = {'fit': lambda learn: learn.fit(1, 1e-3), 'lr_find': lambda learn: learn.lr_find(num_it=8, show_plot=False),
          'ours': lambda learn: learn.fit_stlr(3, 1e-3, cbs=[GradualUnfreezing(1), DiscriminativeLR(2)]),
          'fine_tune': lambda learn: learn.fine_tune(1, 1e-3)}

@pytest.mark.parametrize('event,make,nested', pairs({e: e for e in EVENTS}, OURS, NESTED))
def test_the_outer_fit_continues_as_it_was(tmp_path, event, make, nested):
    alone,seen_alone = fitted(tmp_path, make())
    learn,seen = fitted(tmp_path, make(), event, nested)
    assert learn.recorder.group_lrs.shape == alone.recorder.group_lrs.shape
    # What the other two leave frozen or open stays so, until the outer fit opens the next group
    if nested in (NESTED['fit'], NESTED['lr_find']):
        assert seen.outer == seen_alone.outer
        assert np.array_equal(learn.recorder.group_lrs, alone.recorder.group_lrs)
    # The last epoch comes after all phases
    assert seen.outer[-8:] == seen_alone.outer[-8:] and '_step' not in vars(learn)

@pytest.mark.parametrize('event', ['before_epoch', 'after_epoch'])
def test_an_inner_fit_with_a_new_optimiser(tmp_path, event):
    "Groups that are frozen by the outer fit don't count as frozen by hand"
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        _,seen = fitted(tmp_path, GradualUnfreezing(1), event, lambda learn: learn.fit(1, 1e-3, reset_opt=True))
    assert seen.outer == fitted(tmp_path, GradualUnfreezing(1))[1].outer

@pytest.mark.parametrize('event', ['before_epoch', 'before_train', 'after_batch', 'after_train', 'after_epoch'])
def test_mixed_precision_goes_on_after_an_inner_fit(tmp_path, event):
    "The inner fit ends with neither a context nor a scaler"
    def _cbs(): return [GradualUnfreezing(1), HalfPrecision()]
    learn,seen = fitted(tmp_path, _cbs(), event, NESTED['fit'])
    assert seen.outer == fitted(tmp_path, _cbs())[1].outer and len(seen.inner) == 8
    assert learn.scaler is None and not torch.is_autocast_enabled('cpu')

def test_an_inner_fit_with_the_same_callback(tmp_path):
    names = []
    class Names(Callback):
        order = 65
        def before_train(self): names.append(hasattr(self.learn, 'gradual_unfreezing'))
    fitted(tmp_path, [GradualUnfreezing(1), Names()], 'before_epoch', lambda learn: learn.fit(3, 1e-3, cbs=GradualUnfreezing(1)))
    assert names and all(names)

def test_a_fit_that_fails_before_it_begins_leaves_nothing(tmp_path):
    "The next one unfreezes as usual"
    learn,cb = make_mlp(tmp_path),GradualUnfreezing(1)
    opt_func,learn.opt_func = learn.opt_func,None
    with pytest.raises(TypeError), learn.no_bar(): learn.fit(3, cbs=cb)
    assert not cb.checked
    learn.opt_func = opt_func
    with learn.no_bar(),learn.no_logging(): learn.fit(3, cbs=cb)
    assert (learn.recorder.group_lrs > 0).sum(0).tolist() == [8, 16, 24]

@pytest.mark.parametrize('event', EVENTS)
def test_the_inner_fit_steps_at_its_own_rate(tmp_path, event):
    "Not at a hundredth of it, which the lowest group has in the outer fit"
    def _step_sizes(cbs, event): return fitted(tmp_path, cbs, event, lambda learn: learn.fit(1, 1e-3))[1].inner
    # fastai's fits don't continue after one within a batch
    stock,ours = _step_sizes([], 'after_epoch'),_step_sizes(DiscriminativeLR(10), event)
    assert len(stock) == len(ours) == 8 and np.median(ours) > np.median(stock)/10

@pytest.mark.parametrize('error', [KeyboardInterrupt, ZeroDivisionError])
def test_an_inner_fit_that_is_broken_off(tmp_path, error):
    class Break(Callback):
        def before_step(self): raise error('here')
    def _nested(learn):
        with pytest.raises(error): learn.fit(1, 1e-3, cbs=Break)
    learn,seen = fitted(tmp_path, GradualUnfreezing(1), 'after_epoch', _nested)
    assert seen.outer == fitted(tmp_path, GradualUnfreezing(1))[1].outer
    assert L(learn.cbs).map(type) == L(make_mlp(tmp_path).cbs).map(type)
