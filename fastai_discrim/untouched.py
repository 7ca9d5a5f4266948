"Training that leaves no trace on the learner"
__all__ = []

from collections import deque
from contextlib import contextmanager
from copy import copy, deepcopy
from itertools import chain

import numpy as np
from fastai.learner import Learner
from fastai.torch_core import get_model
from fastcore.foundation import L
from torch import Tensor, strided

from .states import loader_state, random_states, set_loader, set_random


def _mutable(o, seen):
    "The lists, deques, dictionaries, sets, arrays and tensors that `o` is, and those in it, each once"
    if isinstance(o, L): o = o.items
    if not isinstance(o, (list, deque, dict, set, np.ndarray, Tensor)) or id(o) in seen: return
    seen.add(id(o))
    yield o
    if isinstance(o, (np.ndarray, Tensor)): return
    for v in o.values() if isinstance(o, dict) else o: yield from _mutable(v, seen)

def _writable(v):
    "Can `v` be changed in place at all? Not where several of its items share their memory"
    if isinstance(v, np.ndarray): return v.flags.writeable
    return not isinstance(v, Tensor) or v.layout != strided or not any(n > 1 and not s for n,s in zip(v.shape, v.stride()))

def _copied(v): return v.detach().clone() if isinstance(v, Tensor) else copy(v)

def _refill(v, old):
    "Make what is in `v` what was in it: someone else may hold it too"
    if isinstance(v, Tensor): v.data.copy_(old)
    elif isinstance(v, np.ndarray): v[...] = old
    else:
        v.clear()
        (v.extend if isinstance(v, (list, deque)) else v.update)(old)

def _tensors(model): return dict(chain(model.named_parameters(), model.named_buffers()))

@contextmanager
def untouched(
    learn:Learner, # The learner that is trained inside
):
    "Training inside leaves no trace: weights, optimiser, `requires_grad`, gradients, callbacks, random states, order of the batches"
    model,opt,rec = get_model(learn.model),learn.opt,getattr(learn, 'recorder', None)
    attrs,cbs = dict(vars(learn)),[(cb, dict(vars(cb))) for cb in learn.cbs]
    # The recorder is put back whole, below
    seen,others = set(),[cb for cb in learn.cbs if cb is not rec]
    gathered = [(v, _copied(v)) for cb in others for o in vars(cb).values() for v in _mutable(o, seen) if _writable(v)]
    states,loaders = random_states(),[loader_state(dl) for dl in learn.dls.loaders]
    tensors,opt_state = {n: t.detach().clone() for n,t in _tensors(model).items()},opt and deepcopy(opt.state_dict())
    grads = [(p, p.requires_grad, p.grad if p.grad is None else p.grad.clone()) for p in model.parameters()]
    modes = [(m, m.training) for m in model.modules()]
    log = {k:v if k == 'learn' else deepcopy(v) for k,v in vars(rec).items()} if rec else {}
    try: yield
    finally:
        for n,t in _tensors(model).items(): t.data.copy_(tensors[n])
        for p,rg,g in grads: p.requires_grad_(rg).grad = g
        for m,mode in modes: m.training = mode
        for o,old in ((learn, attrs), *cbs, (rec, log)):
            if o: vars(o).clear(); vars(o).update(old)
        for v,old in gathered: _refill(v, old)
        # `no_bar` puts another progress bar in place of the one that was
        learn.cbs[:] = [cb for cb,_ in cbs]
        if opt: opt.load_state_dict(opt_state)
        if hasattr(model, 'reset'): model.reset()
        for dl,state in zip(learn.dls.loaders, loaders): set_loader(dl, state)
        set_random(states)
