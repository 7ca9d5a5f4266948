"A search for the head's rate tells of targets far from what the network predicts, and knows a head that is trained"
import re
import warnings

import numpy as np
import pytest
import torch
from conftest import make_mlp
from fastai.data.core import DataLoaders
from fastai.layers import SigmoidRange
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.torch_core import set_seed
from torch import nn

from fastai_discrim.all import *


# A body of one layer and a head of one layer, with 100 items for training and 40 for validation
def learner(y, loss_func, *last, n_out=1):
    set_seed(0)
    x = torch.randn(140, 4)
    ds = list(zip(x, y(x)))
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, n_out), *last))
    dls = DataLoaders.from_dsets(ds[:100], ds[100:], bs=10, device='cpu', num_workers=0)
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
def labels(x): return (x[:,:1] > -2).float()

FAR = 'the targets have a mean of'

def test_ratings_are_far():
    learn = learner(ratings, MSELossFlat())
    y = torch.stack([y for _,y in learn.dls.train.dataset])
    got, = warned(learn, FAR)
    # The search sees most of the items
    mean,spread = map(float, re.search(f'{FAR} ([0-9.]+) and a standard deviation of ([0-9.]+)', got).groups())
    assert mean == pytest.approx(float(y.mean()), abs=.1) and spread == pytest.approx(float(y.std()), abs=.1) and 'y_range' in got

@pytest.mark.parametrize('learn', [
    learner(scaled, MSELossFlat()), learner(ratings, MSELossFlat(), SigmoidRange(0, 5.5)), learner(labels, BCEWithLogitsLossFlat()),
    learner(classes, CrossEntropyLossFlat(), n_out=2)], ids=['scaled', 'y_range', 'labels', 'classes'])
def test_other_targets_are_not(learn): assert not warned(learn, FAR)

def test_a_trained_network_predicts_such_targets():
    learn = learner(ratings, MSELossFlat())
    with learn.no_bar(),learn.no_logging(): learn.fit(30, 1e-2)
    assert not warned(learn, FAR)

@pytest.mark.parametrize('y', [ratings, scaled])
def test_no_classifier_is_told_to_scale_its_targets(y):
    "And what can't learn is told so only if it helps"
    assert not warned(learner(classes, CrossEntropyLossFlat(), n_out=2), 'scale', lrs=[1e-9, 1e-8])
    far = warned(learner(y, MSELossFlat()), 'no rate clearly lowers', lrs=[1e-9, 1e-8])
    assert len(far) == 1 and ('scale the targets' in far[0]) is (y is ratings)

# A head that is trained

@pytest.mark.parametrize('y,loss_func,n_out', [(scaled, MSELossFlat(), 1), (classes, CrossEntropyLossFlat(), 2)])
def test_a_trained_head_is_no_untrained_one(y, loss_func, n_out):
    learn = learner(y, loss_func, n_out=n_out)
    with learn.no_bar(),learn.no_logging():
        before = learn.head_lr_find(show_plot=False)
        learn.fit(20, 1e-2)
        after = learn.head_lr_find(show_plot=False)
    assert np.isfinite(before.untrained) and np.isnan(after.untrained)

def test_a_second_fit_is_no_lost_body(tmp_path):
    "The first one has overfitted, and a head alone soon does better than it"
    learn = make_mlp(tmp_path)
    with learn.no_bar(),learn.no_logging():
        learn.fit(10, 1e-2)
        found = learn.head_lr_find(n_epoch=3, show_plot=False)
        assert np.isnan(found.untrained)
        with warnings.catch_warnings():
            warnings.filterwarnings('error', 'the fit ended with a loss')
            learn.fit_ulmfit(1, found, body_lr=1e-6)
