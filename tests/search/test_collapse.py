"A fit that ends near an untrained head, where the head alone does better, is said"
import warnings

import numpy as np
import pytest
import torch
from conftest import MAKERS, make_mlp
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders

from fastai_discrim.all import *
from fastai_discrim.search.collapse import has_collapsed

NAN = float('nan')

def head(losses, untrained): return HeadLR(.01, np.array([.001, .01]), np.array(losses), 'as told', untrained)

@pytest.mark.parametrize('losses,found,want', [
    # Half way between 0.4 and 1.6 is 1
    ((1.1, 1.01), head((.6, .4), 1.6), True), ((1.1, .99), head((.6, .4), 1.6), False), ((.99, 1.1), head((.6, .4), 1.6), False),
    # One candidate may have diverged
    ((1.1, 1.2), head((NAN, .4), 1.6), True),
    # Negative losses
    ((-1.1, -1.2), head((-5., -4.), 0.), True), ((-3., -3.), head((-5., -4.), 0.), False),
    # The head learnt next to nothing, or nobody knows
    ((9., 9.), head((2., 1.7), 1.6), False), ((9., 9.), head((1.7, 1.45), 1.6), False), ((9., 9.), head((1.7, 1.43), 1.6), True),
    # The rate that was found decides, not another that happens to have a lower loss
    ((9., 9.), head((1., 1.45), 1.6), False),
    ((9., 9.), head((.6, .4), NAN), False), ((), head((.6, .4), 1.6), False),
    # A loss that isn't finite is said by others
    ((NAN, NAN), head((.6, .4), 1.6), False)])
def test_the_middle_decides(losses, found, want): assert has_collapsed(losses, found) is want

class LosesBody(Callback):
    "Set the first layer's weights to zero after every step, so that the head sees nothing of the input"
    def after_step(self):
        with torch.no_grad(): self.model[0].weight.zero_()

def said(learn, *args, **kwargs):
    "Fit, and return the warnings of what was lost"
    with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(record=True) as got:
        warnings.simplefilter('always')
        learn.fit_ulmfit(*args, **kwargs)
    return [str(w.message) for w in got if 'but an untrained head has' in str(w.message)]

@pytest.mark.all_rates
def test_a_body_that_is_lost_is_said(tmp_path):
    learn = make_mlp(tmp_path)
    found = learn.head_lr_find(n_epoch=4, show_plot=False)
    got, = said(learn, 4, found, cbs=LosesBody(), body_lr=1e-3)
    assert f'an untrained head has {found.untrained:.3g} and a head trained on frozen' in got
    assert 'rose during the fit, the body has lost its pretrained features' in got and 'lower `body_lr`' in got
    # A rate that far up is one of targets that aren't scaled
    got, = said(make_mlp(tmp_path), 4, found._replace(lr=31., lrs=found.lrs*31/found.lr), cbs=LosesBody(), body_lr=1e-3)
    assert 'a rate of 31, far above what the body bears: if the targets are numbers, scale them' in got and '`body_lr`' not in got
    # Nothing is known of the head
    assert not said(make_mlp(tmp_path), 4, 1e-2, cbs=LosesBody())

@pytest.mark.all_rates
@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
def test_usual_fits_are_silent(tmp_path, make): assert not said(make(tmp_path), 8)

def test_an_empty_validation_set_is_no_reason_to_fail(tmp_path):
    learn = make_mlp(tmp_path)
    train = learn.dls.train.dataset
    learn.dls = DataLoaders.from_dsets(train, [], bs=8, device='cpu', num_workers=0)
    assert not said(learn, 8)
    assert learn.recorder.values[-1][1] is None

def test_a_learner_that_measures_nothing_is_no_reason_to_fail(tmp_path):
    learn = make_mlp(tmp_path)
    learn.remove_cb(learn.recorder)
    assert not said(learn, 2)
