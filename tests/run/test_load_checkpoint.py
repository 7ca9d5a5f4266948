"A checkpoint's weights, gone on from under another plan"
import numpy as np
import pytest
import torch
from conftest import make_clas, make_mlp, weights
from fastai.callback.core import Callback, CancelFitException

from fastai_discrim.all import *


class Explodes(Callback):
    "Make the weights nan from the second epoch on"
    def before_step(self):
        if self.epoch == 1:
            for p in self.model.parameters(): p.grad.fill_(np.nan)

class EndAfterOne(Callback):
    "End the fit as the second epoch begins"
    def before_epoch(self):
        if self.epoch == 1: raise CancelFitException()

def fitted(learn, plan, **kwargs):
    "Fit without a bar or a table"
    with learn.no_bar(),learn.no_logging(): learn.fit_plan(plan, **kwargs)
    return learn

def test_a_fit_that_exploded_goes_on_with_lower_rates(tmp_path):
    learn = make_mlp(tmp_path)
    want = weights(fitted(make_mlp(tmp_path), learn.ulmfit_plan(4, 1e-2), cbs=EndAfterOne(), checkpoint='want'))
    with pytest.warns(UserWarning, match=r"or from `learn.load_checkpoint\('run'\)`, with a lower `body_lr`"):
        fitted(learn, learn.ulmfit_plan(4, 1e-2), cbs=Explodes(), checkpoint='run')
    assert not all(torch.isfinite(w).all() for w in weights(learn).values())
    assert learn.load_checkpoint('run') is learn
    for a,b in zip(weights(learn).values(), want.values(), strict=True): assert torch.equal(a, b)
    assert not learn.opt.state or all('grad_avg' not in s for s in learn.opt.state.values())
    fitted(learn, learn.ulmfit_plan(2, 1e-3), checkpoint='lower')
    assert all(torch.isfinite(w).all() for w in weights(learn).values()) and len(learn.recorder.values) == 2

def test_before_a_fit_there_is_no_optimiser_to_make(tmp_path):
    want = weights(fitted(make_mlp(tmp_path), make_mlp(tmp_path).ulmfit_plan(1, 1e-2), checkpoint='run'))
    learn = make_mlp(tmp_path)
    opt = learn.opt
    learn.load_checkpoint('run')
    assert (learn.opt is None) == (opt is None)
    for a,b in zip(weights(learn).values(), want.values(), strict=True): assert torch.equal(a, b)

def test_another_model_is_refused_before_anything_is_loaded(tmp_path):
    fitted(make_mlp(tmp_path), make_mlp(tmp_path).ulmfit_plan(1, 1e-2), checkpoint='run')
    for learn in make_clas(tmp_path),make_mlp(tmp_path, norm=True):
        before = weights(learn)
        with pytest.raises(ValueError, match='run.ckpt belongs to another model: [0-9]+ tensors differ, .*: expected the same model'):
            learn.load_checkpoint('run')
        for a,b in zip(weights(learn).values(), before.values(), strict=True): assert torch.equal(a, b)

@pytest.mark.parametrize('name,error', [('other', ValueError), (3, TypeError), ('', TypeError)])
def test_a_name_that_is_none_is_refused(tmp_path, name, error):
    with pytest.raises(error, match='expected'): make_mlp(tmp_path).load_checkpoint(name)
