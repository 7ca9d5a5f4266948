"The head on its own: what reaches it from the frozen body is kept, so that it can train again and again while the body runs once"
__all__ = []

from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from math import inf

import torch
from fastai.callback.core import Callback, CancelValidException, GatherPredsCallback
from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import find_bs, get_model
from fastcore.basics import first
from torch import Tensor, nn


def _map(f, o):
    "`o`, a tensor or a nest of tuples, lists and dicts of them, with `f` of each; fastai's `apply` would give back the types"
    if isinstance(o, Tensor): return f(o)
    if isinstance(o, dict): return {k: _map(f, v) for k,v in o.items()}
    return type(o)(_map(f, v) for v in o) if type(o) in (tuple, list) else o

def _tensors(o):
    res = []
    _map(res.append, o)
    return res

def _items(n, o): return _map(lambda t: t[:n] if t.ndim else t, o)

def _alike(a, b):
    "Are `a` and `b` the same prediction, but for rounding, which is coarse in half precision?"
    if not isinstance(b, Tensor) or a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()): return False
    tol = 1e-4 if min(torch.finfo(o.dtype).bits for o in (a, b)) > 16 else 2e-2
    return torch.allclose(a.float(), b.float(), rtol=tol, atol=tol*float(b.abs().max()))

class KeptHead(nn.Module):
    "A copy of a head that takes what was kept. What it does before that runs on one item, to no effect"
    def __init__(self,
        root:nn.Module, # The smallest module that has all of the head
        entry:nn.Module, # The first of its modules with parameters of the head: what goes in here is kept
        group:set, # Parameters of the head
        item:tuple, # Positional and keyword arguments of `root`, for one item
        which:int=None, # Index of the prediction among the tensors that `root` gives; None for all
    ):
        super().__init__()
        # The weights of the body, where `root` has any, are not copied
        memo = {id(p): p for p in root.parameters() if p not in group}
        self.body,self.item,self.which = set(memo.values()),item,which
        self.root = deepcopy(root, memo)
        memo[id(entry)].register_forward_pre_hook(lambda *_: tuple(self.kept), with_kwargs=True)

    def forward(self,
        kept, # Positional and keyword arguments of `entry`
    ):
        self.kept = kept
        outs = _tensors(self.root(*self.item[0], **self.item[1]))
        return outs if self.which is None else outs[self.which]

    def train(self, mode=True):
        super().train(mode)
        for m in self.root.modules():
            ps = set(m.parameters())
            if ps and ps <= self.body: m.eval()
        return self

    def trainable(self): return [p for p in self.root.parameters() if p not in self.body]

def _validate(learn, dl, cbs=()):
    "`learn.validate`, where loggers and the like stand aside as they do for `get_preds`"
    learn.validate(dl=dl, cbs=[GatherPredsCallback(with_preds=False, with_targs=False), *cbs])

def _own(m): return set(m.parameters(recurse=False))

def _plain(m, inp):
    "Copies of what goes into `m`, in its precision and without fastai's types, which would double the time of a small head"
    dtype = next(m.parameters()).dtype
    return _map(lambda o: o.detach().as_subclass(Tensor).to(dtype if o.is_floating_point() else o.dtype, copy=True), inp)

def _trace(learn, b, modules):
    "The calls of `modules` with what goes in, for the batch `b`, and the prediction"
    calls = []
    with ExitStack() as hooks, learn.no_bar():
        for m in modules: hooks.enter_context(m.register_forward_pre_hook(lambda *call: calls.append(call), with_kwargs=True))
        _validate(learn, [b])
    return calls,learn.pred

def _prediction(make, kept, pred):
    "Index of `pred` among what the head that `make` makes gives for what was `kept`; None if it isn't there"
    try:
        with torch.no_grad(): outs = make().eval()(kept)
    # Whatever a head may raise that meets one item from the body and several that were kept: it can't be run alone
    except Exception: return None
    return next((i for i,o in enumerate(outs) if _alike(o, pred)), None)

def split_head(
    learn:Learner, # The learner whose head is wanted
    group:list, # Parameters of the head
) -> tuple: # What makes `KeptHead`s, and '', or None and why there is none
    "Where the head of `learn` begins and what it is from there on, found by running two items through the model"
    if isinstance(learn.opt_func, OptimWrapper): return None,'the optimiser can not be made anew for the head'
    # Without worker processes, where the loader is fastai's
    b = _items(2, learn.dls.train.one_batch() if hasattr(learn.dls.train, 'one_batch') else first(learn.dls.train))
    group,roots = set(group),[get_model(learn.model)]
    while inner := first(c for c in roots[-1].children() if group <= set(c.parameters())): roots.append(inner)
    modules = [m for m in roots[0].modules() if m in roots or _own(m)]
    calls,pred = _trace(learn, b, modules)
    i = next((i for i,(m,*_) in enumerate(calls) if _own(m) & group), None)
    if i is None or any(_own(m) - group for m,*_ in calls[i:]): return None,'the head is also at work before the end of the model'
    # A tied weight is at work in the body too, maybe where its module is not called: then another head gets another input
    with torch.no_grad():
        weights = [(p, p.clone()) for p in group]
        for p in group: p.add_(1)
        other = _trace(learn, b, modules)[0][i][1:]
        for p,w in weights: p.copy_(w)
    entry,*kept = calls[i]
    if not all(map(torch.equal, _tensors(kept), _tensors(other))): return None,'the head is also at work before the end of the model'
    # From the smallest module that has all of the head outwards: there may be an activation, as for `y_range`, around it
    for root in reversed(roots):
        for item in (_items(1, inp) for m,*inp in calls if m is root):
            make = partial(KeptHead, root, entry, group, item)
            which = _prediction(make, _plain(entry, kept), pred)
            if which is not None: return partial(make, which=which),''
    return None,'the head takes more from the body than goes into its first module with parameters'

class KeepInputs(Callback):
    "Keep what goes into a module, and the targets, of some batches"
    order = ProgressCallback.order+1
    def __init__(self,
        n_batch:float, # Batches to keep
        n_items:float, # Or items, if these are reached before
    ): self.most,self.batches,self.n_items = (n_batch, n_items),[],0

    def catch(self, m, *inp):
        "Forward pre-hook of the module"
        self.inp = _plain(m, list(inp))

    def after_batch(self):
        self.batches.append((self.inp, *_map(lambda o: o.as_subclass(Tensor), self.yb)))
        self.n_items += find_bs(self.yb)
        if len(self.batches) >= self.most[0] or self.n_items >= self.most[1]: raise CancelValidException()

def keep(
    learn:Learner, # The learner whose body is to run
    head, # What `split_head` gave
    dl, # The data
    n_batch:float=inf, # Batches to keep at most
    n_items:float=inf, # Or items
) -> list: # For each batch what went in, and the targets
    "Run `learn` over `dl` in evaluation mode, and keep what goes into its head"
    cb = KeepInputs(n_batch, n_items)
    with head.args[1].register_forward_pre_hook(cb.catch, with_kwargs=True): _validate(learn, dl, [cb])
    return cb.batches
