"What Ctrl-C or an error leaves within a batch doesn't change the fits that follow in the same session"
from functools import partial

import pytest
import torch
from conftest import HalfPrecision, StopAt, make_mlp
from fastai.callback.mixup import CutMix, MixUp
from run.resumed import assert_equal, check, outcome, run
from torch import nn


class StopInForward(StopAt):
    "Stop between prediction and loss, where fastai's `MixedPrecision` has an open `autocast`"
    def before_step(self): pass
    def after_pred(self):
        if self.training and (self.epoch, self.iter) == self.at: raise KeyboardInterrupt

def half_precision(): return [HalfPrecision()]

@pytest.mark.parametrize('every', [None, 2])
def test_mixed_precision_goes_on_with_current_weights(tmp_path, every):
    check(partial(make_mlp, tmp_path), [(1, 2), (3, 5)], every=every, cbs=half_precision, how=StopInForward)
    assert not torch.is_autocast_enabled('cpu')

def test_an_open_autocast_of_the_user_stays_open(tmp_path):
    with torch.autocast('cpu', torch.bfloat16):
        assert run(partial(make_mlp, tmp_path), cbs=[*half_precision(), StopInForward(1, 2)])[1]
        assert torch.is_autocast_enabled('cpu')
        run(partial(make_mlp, tmp_path))
        assert torch.is_autocast_enabled('cpu') and torch.get_autocast_dtype('cpu') == torch.bfloat16
    assert not torch.is_autocast_enabled('cpu')

class NotOfTwo(nn.Module):
    "Fails on two items, from which the search would tell the head from the body"
    def forward(self, x):
        if len(x) == 2: raise ValueError('two items')
        return x

def test_a_search_that_fails_on_two_items_closes_autocast(tmp_path):
    learn = make_mlp(tmp_path)
    learn.model.insert(1, NotOfTwo())
    with learn.no_bar(),learn.no_logging():
        found = learn.head_lr_find(show_plot=False)
        assert 'range test' in found.how and not torch.is_autocast_enabled('cpu')
        learn.add_cb(HalfPrecision())
        assert 'range test' in learn.head_lr_find(show_plot=False).how and not torch.is_autocast_enabled('cpu')

@pytest.mark.parametrize('mix', [MixUp, CutMix])
def test_a_loss_of_mixup_is_put_back(tmp_path, mix):
    "Where the same learner goes on, as in a notebook"
    make = partial(make_mlp, tmp_path) if mix is MixUp else partial(make_images, tmp_path)
    learn = make()
    loss_func = learn.loss_func
    assert run(lambda: learn, cbs=[mix(), StopAt(1, 3)], checkpoint='r')[1] and learn.loss_func is loss_func
    assert_equal(outcome(run(make, cbs=[mix()])[0]), outcome(run(lambda: learn, cbs=[mix()], seed=1, checkpoint='r')[0]))
    # Nor does a fit without it fail
    assert run(lambda: learn, cbs=[mix(), StopAt(1, 3)])[1]
    assert not run(lambda: learn)[1]

def make_images(path):
    "Classify points as images of two by two pixels, which `CutMix` needs"
    learn = make_mlp(path)
    for dl in learn.dls.loaders: dl.dataset = [(x.view(1, 2, 2), y) for x,y in dl.dataset]
    learn.model.insert(0, nn.Flatten())
    return learn
