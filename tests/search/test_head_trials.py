"Many heads in one fit are as many fits of one head"
from functools import partial

import numpy as np
import pytest
import torch
from conftest import SMALL, make_mlp
from fastai.data.core import DataLoaders
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.optimizer import SGD, OptimWrapper, ranger
from fastai.text.learner import TextLearner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_clas_split
from fastai.text.models.core import get_text_classifier
from fastai.torch_core import set_seed

from fastai_discrim.plan.schedules import OneCycle
from fastai_discrim.search.head_trials import Heads


@pytest.fixture(autouse=True)
def no_folds(monkeypatch):
    "The sets are as they are, few items as they have"
    monkeypatch.setattr('fastai_discrim.search.folds.FEW_ITEMS', 0)

# fastai fails at a `weight_p` of 0
NO_DROPOUT = {**awd_lstm_clas_config, **SMALL, **{k: 0. for k in awd_lstm_clas_config if k.endswith('_p')}, 'weight_p': 1e-12}

def _clas(path, kind='single', **kwargs):
    "An AWD-LSTM without dropout, on targets as fastai has them"
    set_seed(7)
    x = torch.randint(3, 30, (24, 12))
    y,loss,n,y_range = dict(single=((x.float().mean(1) > 16).long(), CrossEntropyLossFlat(), 2, None),
                            weighted=(x[:,0] % 3, CrossEntropyLossFlat(weight=torch.tensor([1., 5., 9.])), 3, None),
                            multi=((x[:,:4] > 15).float(), BCEWithLogitsLossFlat(), 4, None),
                            regression=(x.float().mean(1)/10, MSELossFlat(), 1, (0, 3)))[kind]
    ds = list(zip(x, y))
    # One batch, and in order: what else may differ is rounding
    dls = DataLoaders.from_dsets(ds, ds[:16], bs=24, shuffle=False, device='cpu', num_workers=0)
    model = get_text_classifier(AWD_LSTM, 30, n, config=NO_DROPOUT, seq_len=6, ps=[0.], y_range=y_range)
    return TextLearner(dls, model, loss_func=loss, splitter=awd_lstm_clas_split, path=path, **kwargs)

def _mlp(path, **kwargs):
    learn = make_mlp(path, n=24, bs=24, **kwargs)
    learn.dls = DataLoaders.from_dsets(learn.dls.train_ds, learn.dls.valid_ds, bs=24, shuffle=False, device='cpu', num_workers=0)
    return learn

OPTS = dict(adam={}, sgd=dict(opt_func=partial(SGD, mom=.9)), ranger=dict(opt_func=ranger),
            torch=dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)), bn_decay=dict(wd_bn_bias=True, wd=.3))

KINDS = {k: partial(_clas, kind=k) for k in ('single', 'weighted', 'multi', 'regression')}

def _check(path, make, **opt):
    # Where a rate is so high that training is chaotic, rounding grows
    lrs,n = [1e-3, 1e-2, 5e-2],6
    with (found := make(path, **opt)).no_bar(): res = found.head_lr_find(lrs, n, show_plot=False, wd=.1)
    for lr,loss in zip(lrs, res.losses):
        learn = make(path, **opt)
        learn.create_opt()
        learn.freeze()
        with learn.no_bar(): learn.fit_stlr(n, lr, wd=.1)
        assert loss == pytest.approx(learn.recorder.values[-1][1], rel=1e-5)

@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
@pytest.mark.parametrize('make', [_clas, _mlp])
def test_each_is_what_fitting_the_frozen_learner_at_that_rate_gives(tmp_path, make, opt): _check(tmp_path, make, **opt)

@pytest.mark.parametrize('make', KINDS.values(), ids=KINDS)
def test_so_it_is_with_targets_of_all_kinds(tmp_path, make): _check(tmp_path, make)

def test_so_it_is_under_other_schedules_and_momentum(tmp_path):
    moms = .8,.6,.8
    with (found := _clas(tmp_path)).no_bar():
        res = found.head_lr_find([1e-3, 3e-2], 6, show_plot=False, sched=OneCycle(pct_start=.4), moms=moms)
    learn = _clas(tmp_path)
    learn.create_opt()
    learn.freeze()
    with learn.no_bar(): learn.fit_one_cycle(6, 3e-2, pct_start=.4, moms=moms)
    assert res.losses[1] == pytest.approx(learn.recorder.values[-1][1], rel=1e-5)

@pytest.mark.parametrize('wd', [slice(1e-4, .5), slice(.5), [.1, .2, .3, .4, .5]], ids=str)
def test_the_weight_decay_is_that_of_the_head(tmp_path, wd):
    "In all copies, also if the groups of the learner have different ones"
    def _losses(wd):
        with (learn := _clas(tmp_path)).no_bar(): return learn.head_lr_find([1e-3, 1e-2, 1e-1], 2, show_plot=False, wd=wd).losses
    assert np.array_equal(_losses(wd), _losses(.5)) and not np.array_equal(_losses(.5), _losses(1e-4))

def test_a_rate_does_not_depend_on_the_others(clas):
    losses = []
    for lrs in ([1e-3, 1e-2], [1e-2, 1e-1], [1e-2, 1e3]):
        set_seed(3)
        with clas.no_bar(): res = clas.head_lr_find(lrs, show_plot=False, runs=1)
        losses.append(res.losses[list(res.lrs).index(1e-2)])
    assert np.ptp(losses) < 1e-6

def test_heads_are_fed_alike_and_differently_each_time():
    heads = Heads([torch.nn.Dropout(.5) for _ in range(3)])
    a,b = heads(torch.ones(50)),heads(torch.ones(50))
    assert torch.equal(a[0], a[1]) and torch.equal(a[0], a[2]) and not torch.equal(a[0], b[0])
