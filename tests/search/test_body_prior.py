"What is known of the body's rate is judged by the layers of the body and by the optimiser"
from functools import partial

import pytest
import torch
from conftest import everything, make_clas, make_lm, make_mlp
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD, Adam, OptimWrapper, RMSProp, ranger
from fastai.torch_core import params
from fastcore.foundation import L
from torch import nn

from fastai_discrim.search.body_prior import BATCH_NORM_LR, BodyPrior, body_prior, usual_clip

# What is usual for narrow layers
LAYER_NORM_LR = 3e-4


class LlamaRMSNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
    def forward(self, x): return x*self.weight

class LayerNorm2d(LlamaRMSNorm): pass

def learner(*body, top=None, **kwargs):
    "A learner of two groups"
    ds = [(torch.randn(4), torch.tensor(0))]*4
    dls = DataLoaders.from_dsets(ds, ds, bs=2, device='cpu', num_workers=0)
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), *body), top or nn.Linear(4, 2))
    return Learner(dls, model, splitter=lambda m: L(m[0], m[1]).map(params), loss_func=CrossEntropyLossFlat(), **kwargs)

def prior(learn): return body_prior(learn, L(learn.splitter(learn.model)).map(list))

def head(first): return nn.Sequential(first, nn.Linear(4, 2))

@pytest.mark.parametrize('body,top,lr,is_limit', [
    ([nn.LayerNorm(4)], None, LAYER_NORM_LR, True), ([LlamaRMSNorm(4)], None, LAYER_NORM_LR, True),
    ([LayerNorm2d(4)], None, LAYER_NORM_LR, True),
    ([nn.LayerNorm(4, elementwise_affine=False)], None, LAYER_NORM_LR, True),
    ([nn.BatchNorm1d(4)], None, BATCH_NORM_LR, False), ([nn.SyncBatchNorm(4)], None, BATCH_NORM_LR, False),
    ([nn.GroupNorm(2, 4)], None, BATCH_NORM_LR, False), ([nn.BatchNorm1d(4, affine=False)], None, BATCH_NORM_LR, False),
    # Transformers that begin with convolutions
    ([nn.BatchNorm1d(4), nn.LayerNorm(4)], None, LAYER_NORM_LR, True),
    ([nn.LayerNorm(4), nn.BatchNorm1d(4)], None, LAYER_NORM_LR, True),
    ([], None, None, False), ([nn.ReLU()], None, None, False),
    # Of the head nothing is known
    ([], head(nn.LayerNorm(4)), None, False), ([], head(nn.BatchNorm1d(4)), None, False),
    ([nn.BatchNorm1d(4)], head(nn.LayerNorm(4)), BATCH_NORM_LR, False),
    ([], head(nn.LayerNorm(4, elementwise_affine=False)), None, False), ([], head(nn.BatchNorm1d(4, affine=False)), None, False)])
def test_it_is_known_by_the_bodys_norm_layers(body, top, lr, is_limit):
    res = prior(learner(*body, top=top))
    assert (res.lr, res.is_limit, res.is_settled) == (lr, is_limit, False)

@pytest.mark.parametrize('norm', [nn.LayerNorm, LlamaRMSNorm, partial(nn.LayerNorm, elementwise_affine=False)],
                         ids=['layer norm', 'RMS norm', 'without weights'])
@pytest.mark.parametrize('width,lr', [(384, 3e-4), (767, 3e-4), (768, 1e-4), (1023, 1e-4), (1024, 5e-5), (4096, 5e-5)])
def test_wide_transformers_bear_less(norm, width, lr):
    res = prior(learner(nn.LayerNorm(4), norm(width), nn.LayerNorm(8)))
    assert (res.lr, res.is_limit) == (lr, True)

@pytest.mark.parametrize('n_steps,factor', [(10_000, 1), (201, 1), (200, 1), (128, 1.25), (50, 2), (32, 2.5), (22, 3), (1, 3), (0, 3)])
def test_a_convolutional_network_needs_a_higher_rate_in_few_steps(n_steps, factor):
    assert prior(learner(nn.BatchNorm1d(4))).lr_in(n_steps) == pytest.approx(factor*BATCH_NORM_LR, rel=.01)
    assert prior(learner(nn.GroupNorm(2, 4))).lr_in(n_steps) == pytest.approx(factor*BATCH_NORM_LR, rel=.01)
    assert BodyPrior(None, 'any').lr_in(n_steps) is None

@pytest.mark.parametrize('n_steps,factor', [(0, 2), (1, 2), (24, 2), (30, 2), (45, 4/3), (59, 60/59), (60, 1), (100, 1), (250, 1),
                                            (251, .99801), (360, 5/6), (1000, 1/2), (2250, 1/3), (100_000, 1/3)])
@pytest.mark.parametrize('width,lr', [(4, 3e-4), (768, 1e-4)])
def test_the_rate_of_a_transformer_falls_with_the_steps(n_steps, factor, width, lr):
    res = prior(learner(nn.LayerNorm(width)))
    assert res.lr_in(n_steps) == pytest.approx(factor*lr, rel=1e-4)
    assert res.origin(n_steps) == f'what is usual in {n_steps} steps for networks with layer norms'

@pytest.mark.parametrize('n_steps,want', [(0, .5), (1, .5), (15, .5), (20, .5), (40, .25), (59, 10/59), (60, .1), (1000, .1)])
def test_the_higher_rate_of_a_short_fit_rises_for_longer(n_steps, want):
    def _cut_frac(norm, n_cycle=n_steps): return prior(learner(norm)).cut_frac_in(n_steps, n_cycle)
    assert _cut_frac(nn.LayerNorm(4)) == pytest.approx(want)
    # A cycle that is one of several has as many steps of rise
    assert _cut_frac(nn.LayerNorm(4), n_cycle=25) == pytest.approx(.4 if n_steps < 60 else .1)
    # Others have one shape
    assert _cut_frac(nn.BatchNorm1d(4)) == .1 and _cut_frac(nn.LSTM(4, 4)) == .5

def test_the_kind_is_named():
    kinds = [prior(learner(*body)).kind for body in ([nn.LayerNorm(4)], [nn.BatchNorm1d(4)], [], [nn.LSTM(4, 4)])]
    assert kinds == ['networks with layer norms', 'networks with batch or group norms', 'networks without norm layers',
                     'recurrent networks in batches of 2']

def test_an_lstm_above_a_transformer_does_not_raise_its_rate():
    "The rate of a recurrent body would destroy the transformer"
    got = prior(learner(nn.LayerNorm(4), nn.Linear(4, 4), nn.LSTM(4, 4)))
    assert got == prior(learner(nn.LayerNorm(4))) and got.is_limit and not got.is_settled
    assert prior(learner(nn.LSTM(4, 4), nn.LayerNorm(4))).is_settled

@pytest.mark.parametrize('rnn', [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize('opt,lr,factor,cut_frac', [(Adam, 8**.5/1000, 1, .5), (SGD, None, 2.6, .1)])
def test_of_recurrent_networks_it_is_settled(rnn, opt, lr, factor, cut_frac):
    res = prior(learner(rnn(4, 4), nn.LayerNorm(4), opt_func=opt))
    assert (res.lr, res.factor, res.cut_frac, res.is_settled) == (lr, factor, cut_frac, True)
    res = prior(learner(nn.LayerNorm(4), top=head(rnn(4, 4)), opt_func=Adam))
    assert (res.lr, res.factor, res.cut_frac, res.is_settled) == (LAYER_NORM_LR, 2.6, .1, False)

@pytest.mark.parametrize('bs,size', [(1, 8), (8, 8), (16, 16), (64, 64), (256, 64), (None, 8)])
def test_the_rate_of_a_recurrent_classifier_rises_with_the_root_of_the_batch_size(tmp_path, bs, size):
    learn = make_clas(tmp_path)
    learn.dls.train.bs = bs
    res = prior(learn)
    assert {res.lr_in(n_steps) for n_steps in (1, 100, 10_000)} == {res.lr} and res.lr == pytest.approx(1e-3*size**.5, rel=1e-12)
    assert res.kind == 'recurrent networks' + (f' in batches of {bs}' if bs else '')

def test_the_batches_of_all_processes_count(tmp_path, monkeypatch):
    learn = make_clas(tmp_path)
    learn.dls.train.bs = 8
    monkeypatch.setattr('fastai_discrim.search.body_prior.n_processes', lambda: 2)
    assert prior(learn).kind == 'recurrent networks in batches of 16'

def test_a_recurrent_language_model_keeps_the_papers_ratio(tmp_path):
    res = prior(make_lm(tmp_path))
    assert (res.lr, res.lr_in(10), res.factor, res.cut_frac, res.is_settled) == (None, None, 2.6, .1, True)

@pytest.mark.parametrize('opt', [Adam, SGD])
def test_gradients_of_a_body_with_layer_norms_are_clipped(opt):
    def _clip(*body, **kwargs):
        learn = learner(*body, opt_func=opt, **kwargs)
        return usual_clip(learn, L(learn.splitter(learn.model)).map(list))
    assert [_clip(norm) for norm in (nn.LayerNorm(4), LlamaRMSNorm(4))] == [1, 1]
    assert [_clip(m) for m in (nn.BatchNorm1d(4), nn.LSTM(4, 4), nn.ReLU())] == [None]*3
    assert _clip(top=head(nn.LayerNorm(4))) is None

TORCH = {k: partial(OptimWrapper, opt=getattr(torch.optim, k)) for k in ('AdamW', 'RAdam', 'RMSprop', 'SGD', 'ASGD')}
OPTS = dict(adam=(Adam, True), rms=(RMSProp, True), ranger=(ranger, True), partial=(partial(Adam, sqr_mom=.9), True), sgd=(SGD, False),
            momentum=(partial(SGD, mom=.9), False), adamw=(TORCH['AdamW'], True), radam=(TORCH['RAdam'], True),
            rmsprop=(TORCH['RMSprop'], True), sgd_torch=(TORCH['SGD'], False), asgd=(TORCH['ASGD'], False))

@pytest.mark.parametrize('made', [False, True], ids=['no optimiser yet', 'an optimiser'])
@pytest.mark.parametrize('opt,is_adaptive', OPTS.values(), ids=OPTS)
def test_rates_are_alike_under_optimisers_that_scale_their_steps(opt, is_adaptive, made):
    learn = learner(nn.LayerNorm(4), opt_func=opt)
    if made: learn.create_opt()
    res = prior(learn)
    assert (res.lr, res.is_limit) == ((LAYER_NORM_LR, True) if is_adaptive else (None, False)) and not res.is_settled

def test_an_optimiser_that_is_there_already():
    "fastai takes it as it is"
    for opt,lr in ((torch.optim.AdamW, LAYER_NORM_LR), (torch.optim.SGD, None)):
        learn = learner(nn.LayerNorm(4))
        learn.opt_func = OptimWrapper(opt=opt([{'params': list(g)} for g in learn.splitter(learn.model)], lr=.1))
        assert prior(learn).lr == lr and learn.opt is None
        learn.create_opt()
        assert prior(learn).lr == lr

@pytest.mark.parametrize('opt', [{}, dict(opt_func=TORCH['AdamW']), dict(opt_func=SGD)])
@pytest.mark.parametrize('state', ['new', 'trained', 'frozen'])
def test_nothing_is_changed(tmp_path, opt, state):
    learn = make_mlp(tmp_path, norm=True, **opt)
    if state != 'new':
        with learn.no_bar(): learn.fit(1, 1e-2)
    if state == 'frozen': learn.freeze()
    before = everything(learn)
    prior(learn)
    assert everything(learn) == before

def test_a_model_in_a_wrapper():
    learn = learner(nn.LayerNorm(4))
    groups = L(learn.splitter(learn.model)).map(list)
    learn.model = nn.DataParallel(learn.model)
    assert body_prior(learn, groups).lr == LAYER_NORM_LR
