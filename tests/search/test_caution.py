"A search for the head's rate tells of targets far from what the network predicts, and knows a head that is trained"
import re
import warnings

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.layers import SigmoidRange
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.torch_core import set_seed
from torch import nn

from fastai_discrim.all import *
from fastai_discrim.search.collapse import has_collapsed


# A body of one layer and a head of one layer, with 100 items for training and 40 for validation
def learner(y, loss_func, *last, n_out=1, bs=10):
    set_seed(0)
    x = torch.randn(140, 4)
    ds = list(zip(x, y(x)))
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, n_out), *last))
    dls = DataLoaders.from_dsets(ds[:100], ds[100:], bs=bs, device='cpu', num_workers=0)
    return Learner(dls, model, loss_func=loss_func, splitter=lambda m: [list(c.parameters()) for c in m])

def warned(learn, text, **kwargs):
    "Search, and return the warnings that have `text`"
    with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(record=True) as got:
        warnings.simplefilter('always')
        learn.head_lr_find(**{'show_plot': False, 'n_epoch': 5} | kwargs)
    return [str(w.message) for w in got if text in str(w.message)]

def ratings(x): return (3.5 + x[:,:1]).clamp(1, 5)
def scaled(x): return x[:,:1]
def classes(x): return (x[:,0] > 0).long()
def labels(x): return (x[:,:1] > 1.5).float()
def rare_labels(x): return (x[:,:1] > 2).float()
def defined_below_1(pred, y):
    if (pred > 1).any(): raise ValueError('a prediction is above 1')
    return ((pred - y/100)**2).mean()
def counts(x): return (50 + 2*x[:,:1]).round()
def missing(x): return ratings(x).where(x[:,:1] > -1, float('nan'))
def masked(pred, y): return ((pred-y)[~y.isnan()]**2).mean()

class Plus(nn.Module):
    "Add a constant, as the bias of a head for rare labels does"
    def __init__(self, bias):
        super().__init__()
        self.bias = bias
    def forward(self, x): return x + self.bias

FAR = 'the targets have a mean of'

def test_ratings_are_far():
    learn = learner(ratings, MSELossFlat())
    y = torch.stack([y for _,y in learn.dls.train.dataset])
    got, = warned(learn, FAR)
    # The search sees most of the items
    mean,spread = map(float, re.search(f'{FAR} ([0-9.]+) and a standard deviation of ([0-9.]+)', got).groups())
    assert mean == pytest.approx(float(y.mean()), abs=.1) and spread == pytest.approx(float(y.std()), abs=.1) and 'y_range' in got

@pytest.mark.parametrize('make', [
    lambda: learner(scaled, MSELossFlat()), lambda: learner(ratings, MSELossFlat(), SigmoidRange(0, 5.5)),
    lambda: learner(labels, BCEWithLogitsLossFlat()), lambda: learner(labels, BCEWithLogitsLossFlat(), Plus(-4)),
    lambda: learner(counts, nn.PoissonNLLLoss()), lambda: learner(missing, masked),
    # These losses have no value where the prediction is not between 0 and 1
    lambda: learner(rare_labels, nn.BCELoss(), nn.Sigmoid()), lambda: learner(counts, defined_below_1, nn.Sigmoid()),
    lambda: learner(classes, CrossEntropyLossFlat(), n_out=2)],
    ids=['scaled', 'y_range', 'labels', 'biased labels', 'counts', 'missing', 'probabilities', 'counts with an odd loss', 'classes'])
def test_other_targets_are_not(make): assert not warned(make(), FAR)

def test_a_trained_network_predicts_such_targets():
    learn = learner(ratings, MSELossFlat())
    with learn.no_bar(),learn.no_logging(): learn.fit(30, 1e-2)
    assert not warned(learn, FAR)

def test_no_classifier_is_told_to_scale_its_targets():
    assert not warned(learner(classes, CrossEntropyLossFlat(), n_out=2), 'scale', lrs=[1e-9, 1e-8])

@pytest.mark.parametrize('y', [ratings, scaled])
def test_a_network_that_learns_nothing_hears_of_far_targets(y):
    got, = warned(learner(y, MSELossFlat()), 'no rate clearly lowers', lrs=[1e-9, 1e-8])
    assert ('scale the targets' in got) is (y is ratings)

# A head that is trained

@pytest.mark.parametrize('bs', [10, 33, 1])
@pytest.mark.parametrize('y,loss_func,n_out', [(scaled, MSELossFlat(), 1), (classes, CrossEntropyLossFlat(), 2)])
def test_a_trained_head_is_no_untrained_one(y, loss_func, n_out, bs):
    "Also if a batch, or the last one, has a single item"
    learn = learner(y, loss_func, n_out=n_out, bs=bs)
    with learn.no_bar(),learn.no_logging():
        before = learn.head_lr_find(show_plot=False, lrs=[1e-3, 1e-2], runs=1)
        learn.fit(20 if bs > 1 else 4, 1e-2)
        after = learn.head_lr_find(show_plot=False, lrs=[1e-3, 1e-2], runs=1)
    assert np.isfinite(before.untrained) and np.isnan(after.untrained)

def test_a_trained_head_need_not_learn_more():
    learn = learner(scaled, MSELossFlat())
    with learn.no_bar(),learn.no_logging(): learn.fit(20, 1e-2)
    assert not warned(learn, 'no rate clearly lowers', lrs=[1e-9, 1e-8])

def test_a_second_fit_has_no_untrained_head_to_compare_with():
    "A head alone would do better than a network that has overfitted, which is no sign of a lost body"
    found = HeadLR(1e-2, np.array([1e-3, 1e-2]), np.array([1., .5]), 'as told', 2.)
    assert has_collapsed((1.9, 1.8), found) and not has_collapsed((1.9, 1.8), HeadLR(*found[:4]))
