"Small learners that train in seconds on a CPU"
import gc
import os
import random
from collections import deque
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import BuiltinFunctionType, FunctionType, MethodType

import cloudpickle
import matplotlib

matplotlib.use('Agg')

import fastai.callback.all  # noqa: F401, for `fit_one_cycle` and the like, which users have
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.data.core import DataLoaders, Transform
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.text.data import LMDataLoader
from fastai.text.learner import LMLearner, TextLearner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_clas_split, awd_lstm_lm_config, awd_lstm_lm_split
from fastai.text.models.core import get_language_model, get_text_classifier
from fastai.torch_core import set_seed
from fastcore.basics import noop
from fastcore.foundation import L
from torch import nn

from fastai_discrim.all import GradualUnfreezing, layerwise_split

SMALL = dict(emb_sz=8, n_hid=12)

# Tensors this small are slower on two threads than on one
torch.set_num_threads(1)

def pytest_collection_finish():
    "Exclude what the imports have created from garbage collection, which saves a seventh of the time"
    gc.collect()
    gc.freeze()

class GroupAnEpoch(GradualUnfreezing):
    "`GradualUnfreezing(1)` as a class, as callbacks are often given"
    def __init__(self): super().__init__(1)

def make_mlp(path, n=64, bs=8, norm=False, **kwargs):
    "A 3-group MLP on two classes of points; `splitter`, `opt_func` and the like go to `Learner`"
    set_seed(7)
    x = torch.randn(n, 4)
    ds = list(zip(x, (x.sum(1) > 0).long()))
    dls = DataLoaders.from_dsets(ds, ds[:16], bs=bs, device='cpu', num_workers=0)
    mid = [nn.Linear(8, 8), nn.BatchNorm1d(8)] if norm else [nn.Linear(8, 8)]
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *mid, nn.ReLU(), nn.Linear(8, 2))
    return Learner(dls, model, **{'splitter': layerwise_split, **kwargs}, loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=path)

def _docs(n, vocab, length=12):
    g = torch.Generator().manual_seed(3)
    xs = torch.randint(3, vocab, (n, length), generator=g)
    return [(x, (x > vocab//2).float().mean().gt(0.5).long()) for x in xs]

def make_clas(path, n=32, bs=8, length=12, **kwargs):
    "An AWD-LSTM classifier, 5 groups; texts of `length` tokens"
    set_seed(7)
    docs = _docs(n, 30, length)
    dls = DataLoaders.from_dsets(docs, docs[:16], bs=bs, device='cpu', drop_last=True, num_workers=0)
    model = get_text_classifier(AWD_LSTM, 30, 2, config=dict(awd_lstm_clas_config, **SMALL), seq_len=6, drop_mult=0.3)
    return TextLearner(dls, model, loss_func=CrossEntropyLossFlat(), splitter=awd_lstm_clas_split, metrics=accuracy, path=path, **kwargs)

def make_lm(path, n=12, bs=4, **kwargs):
    "An AWD-LSTM language model, 4 groups, the embedding tied to the decoder"
    set_seed(7)
    texts = [x for x,_ in _docs(n, 30)]
    train,valid = LMDataLoader(texts, bs=bs, seq_len=6, shuffle=True), LMDataLoader(texts[:4], bs=bs, seq_len=6)
    model = get_language_model(AWD_LSTM, 30, config=dict(awd_lstm_lm_config, **SMALL), drop_mult=0.3)
    return LMLearner(DataLoaders(train, valid, device='cpu'), model, loss_func=CrossEntropyLossFlat(), splitter=awd_lstm_lm_split,
                     path=path, **kwargs)

MAKERS = dict(mlp=make_mlp, clas=make_clas, lm=make_lm)

def pairs(first, second, third):
    """Combine named values of three parameters so that each pair of values of two parameters occurs. The third must have the fewest values;
    all combinations would take `len(third)` times as long"""
    assert len(third) <= min(len(first), len(second))
    names = list(third)
    return [pytest.param(first[a], second[b], third[c := names[(i+j) % len(names)]], id=f'{a}-{b}-{c}')
            for i,a in enumerate(first) for j,b in enumerate(second)]

def in_turn(first, second, skip=0):
    "Combine each named value of a parameter with one of another that has no more values, beginning after `skip` of these"
    assert len(second) <= len(first)
    names = list(second)
    return [pytest.param(first[a], second[b := names[(i+skip) % len(names)]], id=f'{a}-{b}') for i,a in enumerate(first)]

class StopAt(Callback):
    "End the fit, in the way of Ctrl-C, before a step"
    order = 500
    # Under the names of its arguments, which a checkpoint does not restore: each run stops where it is told
    def __init__(self, ep, it): self.ep,self.it = ep,it
    @property
    def at(self): return self.ep,self.it
    def before_step(self):
        if (self.epoch, self.iter) == self.at: raise KeyboardInterrupt

class HalfPrecision(MixedPrecision):
    "Mixed precision on the CPU"
    def __init__(self): super().__init__('bf16')
    def before_fit(self):
        super().before_fit()
        self.autocast = torch.autocast('cpu', torch.bfloat16)

@pytest.fixture
def mlp(tmp_path): return make_mlp(tmp_path)
@pytest.fixture
def clas(tmp_path): return make_clas(tmp_path)
@pytest.fixture
def lm(tmp_path): return make_lm(tmp_path)

@pytest.fixture(params=MAKERS)
def learn(request, tmp_path): return MAKERS[request.param](tmp_path)

# Faults of stock fastai in old releases. Each is tried once, and skips tests of what stock fastai does by itself, and so with us

@cache
def _fails(f):
    "Tell whether `f` raises"
    try: f()
    except Exception: return True
    return False

def _load_text():
    with TemporaryDirectory() as path:
        learn = make_clas(Path(path))
        learn.create_opt()
        learn.save('saved')
        learn.load('saved', with_opt=True)

def _pickle_a_transform(): cloudpickle.dumps(Transform(noop))

def needs_stock_load_text():
    "Skip the test where stock fastai can't load what it saves of a text learner"
    if _fails(_load_text):
        pytest.skip('`load` of text learners in fastai 2.8.0 to 2.8.3: what they save of an optimiser holds an `L`, which `torch.load` '
                    'refuses since 2.6')

def needs_stock_export_transforms():
    "Skip the test where stock fastai can't export a learner whose data has transforms"
    if _fails(_pickle_a_transform):
        pytest.skip('`export` in fastai to 2.8.5: the fasttransform that pip installs with it, 0.0.2, makes transforms that can\'t be '
                    'pickled under plum-dispatch 2.10')

def lr_find(learn, **kwargs):
    "Run stock fastai's, which needs `load`: also of a text learner in fastai 2.8.0 to 2.8.3, where `torch.load` is to be told of `L`"
    with learn.no_bar(), torch.serialization.safe_globals([L]): return learn.lr_find(show_plot=False, **kwargs)

def weights(learn): return {n:p.detach().clone() for n,p in learn.model.named_parameters()}
def moved(learn, before): return {n for n,p in learn.model.named_parameters() if not torch.equal(p, before[n])}
def trains(learn): return [all(p.requires_grad for p in g) for g in learn.opt.param_lists]
def in_groups(learn, idxs):
    names = {p:n for n,p in learn.model.named_parameters()}
    return {names[p] for i in idxs for p in learn.opt.param_lists[i]}
def snapshot(learn):
    "What a refused call must leave alone"
    opt = learn.opt and [dict(h) for h in learn.opt.hypers]
    return [p.detach().clone() for p in learn.model.parameters()], [p.requires_grad for p in learn.model.parameters()], opt, list(learn.cbs)
def same(a, b): return all(map(torch.equal, a[0], b[0])) and a[1:] == b[1:]

# Where an object's attributes lead to the learner and what it consists of, which is compared by itself, or to what has no value
_ELSEWHERE = ('learn', 'model', 'dls', 'dl', 'opt', 'cbs', 'lock', 'progress')
_FUNCTIONS = (type, FunctionType, BuiltinFunctionType, MethodType, np.ufunc)

def exact(o, within=()):
    "Return `o` as nested tuples, lists and text that are equal only where every value is the same; nan equals nan"
    if o is None or isinstance(o, (bool, int, str, bytes, *_FUNCTIONS)): return o
    # An object that holds itself
    if id(o) in within: return type(o).__name__
    def _exact(v): return exact(v, (*within, id(o)))
    if isinstance(o, torch.Tensor): return type(o).__name__,str(o.dtype),tuple(o.shape),repr(o.detach().to_dense().tolist())
    if isinstance(o, (np.ndarray, np.generic)): return str(o.dtype),o.shape,repr(o.tolist())
    if isinstance(o, torch.Generator): return _exact(o.get_state())
    if isinstance(o, random.Random): return o.getstate()
    if isinstance(o, partial): return 'partial',o.func,_exact(o.args),_exact(o.keywords)
    if isinstance(o, Mapping): return type(o).__name__,[(_exact(k), _exact(v)) for k,v in o.items()]
    # A set that was copied may come in another order
    if isinstance(o, (set, frozenset)): return type(o).__name__,sorted(repr(_exact(v)) for v in o)
    if isinstance(o, (list, tuple, deque, L)): return type(o).__name__,[_exact(v) for v in o]
    attrs = {k:v for k,v in getattr(o, '__dict__', {}).items() if k not in _ELSEWHERE}
    return type(o).__name__,_exact(attrs) if attrs else repr(o) if isinstance(o, float) else None

def everything(learn):
    "Return all that a reader, or the next fit, could tell a difference by, as values to compare"
    model,opt,loaders = learn.model,learn.opt,learn.dls.loaders
    known = [p for g in opt.param_lists for p in g if p in opt.state] if opt else []
    # `no_bar` makes another progress bar, at the end of the list
    cbs = [cb for cb in learn.cbs if type(cb).__name__ != 'ProgressCallback']
    return dict(params={n: p.tolist() for n,p in model.named_parameters()}, buffers=[exact(b) for b in model.buffers()],
                rg=[p.requires_grad for p in model.parameters()], grad=[exact(p.grad) for p in model.parameters()],
                modes=[m.training for m in model.modules()],
                hooks=[len(getattr(m, k)) for m in model.modules() for k in vars(nn.Module()) if k.endswith('_hooks')],
                opt=opt and [exact(opt.state[p]) for p in known], hypers=opt and [dict(h) for h in opt.hypers],
                frozen_idx=opt and getattr(opt, 'frozen_idx', None), slow=exact(getattr(opt, 'slow_weights', None)),
                rec=exact(vars(learn.recorder) if hasattr(learn, 'recorder') else None),
                cbs=[exact(cb) for cb in cbs], bar=len(cbs) < len(learn.cbs),
                attrs={k: type(v).__name__ if isinstance(v, Callback) else exact(v) for k,v in vars(learn).items() if k not in _ELSEWHERE},
                rng=[exact(getattr(dl, k)) for dl in loaders for k in ('rng', 'generator') if hasattr(dl, k)],
                order=[exact(list(dl.items.idxs)) for dl in loaders if hasattr(getattr(dl, 'items', None), 'idxs')],
                py=random.getstate(), np=exact(np.random.get_state()), torch=exact(torch.get_rng_state()))

@pytest.fixture(autouse=True, scope='session')
def no_fsync():
    "Skip `os.fsync`: tests write thousands of checkpoints, and none has to survive a power cut"
    with pytest.MonkeyPatch.context() as m:
        m.setattr(os, 'fsync', lambda fd: None)
        yield

@pytest.fixture(autouse=True)
def few_rates(request, monkeypatch):
    """Search the head's rate at 5 rates instead of 13, and by 2 folds instead of 5, in a third of the time. Tests of what a search finds
    have the marker `all_rates`"""
    if request.node.get_closest_marker('all_rates'): return
    monkeypatch.setattr('fastai_discrim.search.choice.N_FIRST', 5)
    monkeypatch.setattr('fastai_discrim.search.folds.N_FOLDS', 2)
    # Otherwise two of five rates would be the middle
    monkeypatch.setattr('fastai_discrim.search.choice.NEAR_END', 1)

@pytest.fixture
def one_range_test(monkeypatch):
    "Run one range test instead of three, to save time"
    monkeypatch.setattr('fastai_discrim.search.range_test.RUNS', 1)

@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    import matplotlib.pyplot as plt
    plt.close('all')
