"The head on its own: what reaches it from the frozen body is kept, so that it can train again and again while the body runs once"
__all__ = []

from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from itertools import product
from math import inf

import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import find_bs, get_model
from fastcore.basics import first
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd


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

def _alike(a, b, half):
    "Are the tensors `a` and `b` the same but for rounding, which is coarse in `half` precision?"
    if not (a.shape == b.shape and a.is_floating_point() and b.is_floating_point()): return a.shape == b.shape and torch.equal(a, b)
    tol = 2e-2 if half else 1e-4
    return torch.allclose(a.float(), b.float(), rtol=tol, atol=tol*float(b.abs().max()))

class _Once:
    "What a function gave the first time"
    def __init__(self, f): self.f,self.out = f,None
    def __call__(self, *args, **kwargs):
        if self.out is None: self.out = self.f(*args, **kwargs)
        return self.out

class KeptHead(nn.Module):
    "A copy of a head that takes what was kept. What it does before that is done for one item, to no effect"
    def __init__(self,
        root:nn.Module, # The smallest module that has all of the head
        entry:nn.Module, # The module in it that the head begins with: what goes in here is kept
        group:set, # Parameters of the head
        item:tuple, # Positional and keyword arguments of `root`, for one item
        whole:bool=False, # Does it take those of `root` too, for all items, as where the head pools by what the tokens are?
        which:int=None, # Index of the prediction among the tensors that `root` gives; None for all
    ):
        super().__init__()
        # The weights of the body, where `root` has any, are not copied
        memo = {id(p): p for p in root.parameters() if p not in group}
        self.body,self.item,self.whole,self.which = set(memo.values()),item,whole,which
        self.inplace = getattr(entry, 'inplace', False)
        self.root = deepcopy(root, memo)
        for m in self._bodies(self.root): m.forward = _Once(m.forward)
        memo[id(entry)].register_forward_pre_hook(self._enter, with_kwargs=True)
        self.kept = None
        # What the body does is done for one item here, too
        with torch.no_grad(): self.root.eval()(*item[0], **item[1])

    def _enter(self, *_):
        # A dropout may be there twice: the first time counts
        kept,self.kept = self.kept,None
        return kept and tuple(_map(Tensor.clone, kept) if self.inplace else kept)

    def _bodies(self, m):
        "The largest modules in `m` that belong to the body"
        for c in m.children():
            ps = set(c.parameters())
            if ps and ps <= self.body: yield c
            else: yield from self._bodies(c)

    def forward(self,
        kept, # Positional and keyword arguments of `entry`, and of `root` if it takes them
    ):
        self.kept = kept[:2]
        args,kwargs = kept[2:] if self.whole else self.item
        outs = _tensors(self.root(*args, **kwargs))
        return outs if self.which is None else outs[self.which]

    def train(self, mode=True):
        super().train(mode)
        for m in self._bodies(self.root): m.eval()
        return self

    def trainable(self): return [p for p in self.root.parameters() if p not in self.body]

class StandAside(Callback):
    "Its name makes loggers, trackers and the like stand aside, as they do for `get_preds`"
    name = 'gather_preds'

def _own(m): return set(m.parameters(recurse=False))

def _begins(m, group):
    "Can the head of parameters `group` begin with `m`? What trains there, or does otherwise in training than in evaluation, belongs to it"
    return _own(m) & group or (not list(m.children()) and (isinstance(m, _DropoutNd) or any(True for _ in m.buffers())))

def _plain(m, inp):
    "Copies of what goes into `m`, in its precision and without fastai's types, which would double the time of a small head"
    dtype = next((p.dtype for p in m.parameters()), torch.float32)
    return _map(lambda o: o.detach().as_subclass(Tensor).to(dtype if o.is_floating_point() else o.dtype, copy=True), inp)

def _trace(learn, b):
    "The calls of all modules with what goes in, for the batch `b`; the prediction; and whether there was any half precision"
    model,calls,half = get_model(learn.model),[],[]
    def _note(m, args, kwargs):
        calls.append((m, args, kwargs))
        half.append(torch.is_autocast_enabled(device) or any(t.is_floating_point() and t.itemsize < 4 for t in _tensors((args, kwargs))))
    device = next(model.parameters()).device.type
    with ExitStack() as hooks, learn.no_bar():
        for m in model.modules(): hooks.enter_context(m.register_forward_pre_hook(_note, with_kwargs=True))
        learn.validate(dl=[b], cbs=StandAside())
    return calls,learn.pred,any(half)

def _prediction(make, kept, pred, half):
    "Index of `pred` among what the head that `make` makes gives for what was `kept`, and why there is none if it is None"
    try:
        # In training too: it must not fail later
        with torch.no_grad():
            make().train()(kept)
            outs = make().eval()(kept)
    # Whatever a head may raise that meets one item from the body and several that were kept: it can't be run alone
    except Exception as e: return None,f' ({type(e).__name__}: {e})'
    return next((i for i,o in enumerate(outs) if _alike(o, pred, half)), None),''

def split_head(
    learn:Learner, # The learner whose head is wanted
    group:list, # Parameters of the head
) -> tuple: # What makes `KeptHead`s, and '', or None and why there is none
    "Where the head of `learn` begins and what it is from there on, found by running two items through the model"
    early = 'the head is also at work before the end of the model'
    if isinstance(learn.opt_func, OptimWrapper): return None,'the optimiser can not be made anew for the head'
    # Without worker processes, where the loader is fastai's
    b = _items(2, learn.dls.train.one_batch() if hasattr(learn.dls.train, 'one_batch') else first(learn.dls.train))
    group,roots = set(group),[get_model(learn.model)]
    while inner := first(c for c in roots[-1].children() if group <= set(c.parameters())): roots.append(inner)
    calls,pred,half = _trace(learn, b)
    if not isinstance(pred, Tensor): return None,f'the prediction is a {type(pred).__name__}, not one tensor'
    done = max((i for i,(m,*_) in enumerate(calls) if _own(m) - group), default=-1)
    # A dropout that ends the body is the body's
    body = {o for m in roots[0].modules() if (ps := set(m.parameters())) and not ps & group for o in m.modules()}
    i = next((i for i,(m,*_) in enumerate(calls) if i > done and _begins(m, group) and m not in body), None)
    if i is None or any(_own(m) & group for m,*_ in calls[:done+1]): return None,early
    entry,*kept = calls[i]
    # A tied weight is at work in the body too, maybe where its module is not called: then another head gets another input
    with torch.no_grad():
        weights = [(p, p.clone()) for p in group]
        for p in group: p.add_(1)
        other = _trace(learn, b)[0][i][1:]
        for p,w in weights: p.copy_(w)
    if not all(_alike(x, y, half) for x,y in zip(_tensors(kept), _tensors(other))): return None,early
    # From the smallest module that has all of the head outwards: there may be an activation, as for `y_range`, or a dropout around it
    why,around = '',[r for r in reversed(roots) if entry in set(r.modules())]
    for whole,root in product((False, True), around):
        if (inp := next((inp for m,*inp in calls if m is root), None)) is None: continue
        make = partial(KeptHead, root, entry, group, _items(1, inp), whole)
        which,error = _prediction(make, _plain(entry, kept) + _plain(root, inp)*whole, pred, half)
        if which is not None: return partial(make, which=which),''
        why = why or error
    return None,f'the head takes more from the body than goes in where it begins{why}'

class KeepInputs(Callback):
    "Keep what goes into modules, and the targets, of some batches"
    order = ProgressCallback.order+1
    def __init__(self,
        modules:list, # Those whose inputs are kept, one after another
        n_batch:float, # Batches to keep
        n_items:float, # Or items, if these are reached before
    ): self.modules,self.most,self.batches,self.n_items = modules,(n_batch, n_items),[],0

    def catch(self, m, *inp):
        "Forward pre-hook of a module; the first call counts"
        self.inps.setdefault(m, _plain(m, list(inp)))

    def before_batch(self): self.inps = {}

    def after_batch(self):
        self.batches.append((sum((self.inps[m] for m in self.modules), []), *_map(lambda o: o.as_subclass(Tensor), self.yb)))
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
    root,entry,_,_,whole = head.args
    cb = KeepInputs([entry, root] if whole else [entry], n_batch, n_items)
    with ExitStack() as hooks:
        for m in cb.modules: hooks.enter_context(m.register_forward_pre_hook(cb.catch, with_kwargs=True))
        learn.validate(dl=dl, cbs=[StandAside(), cb])
    # Called off by another callback, which `validate` keeps to itself
    if not cb.batches: raise CancelValidException()
    return cb.batches
