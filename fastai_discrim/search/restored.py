"Training that leaves no trace on the learner"
__all__ = []

from collections import deque
from contextlib import ExitStack, contextmanager
from copy import copy, deepcopy
from itertools import chain

import numpy as np
from fastai.learner import Learner
from fastai.torch_core import get_model
from fastcore.foundation import L
from torch import Tensor, nn, strided

from ..data_state import loader_state, random_states, set_loader, set_random


def _containers(o, seen):
    "Yield the lists, deques, dictionaries, sets, arrays and tensors that `o` is, and those in it, each once; of a module what it holds"
    if isinstance(o, L): o = o.items
    if isinstance(o, nn.Module):
        if id(o) in seen: return
        seen.add(id(o))
        for held in (o._parameters, o._buffers, o._modules): yield from _containers(held, seen)
        return
    if not isinstance(o, (list, deque, dict, set, np.ndarray, Tensor)) or id(o) in seen: return
    seen.add(id(o))
    yield o
    if isinstance(o, (np.ndarray, Tensor)): return
    for v in o.values() if isinstance(o, dict) else o: yield from _containers(v, seen)

def _is_writable(v):
    "Tell whether `v` can be changed in place: not where several of its items share their memory"
    if isinstance(v, np.ndarray): return v.flags.writeable
    if not isinstance(v, Tensor): return True
    return v.layout == strided and all(stride or size <= 1 for size,stride in zip(v.shape, v.stride()))

def _copy(v): return v.detach().clone() if isinstance(v, Tensor) else copy(v)

def _set_content(v, old):
    "Make the content of `v` what it was, in place: others may hold it too"
    if isinstance(v, Tensor): v.data.copy_(old)
    elif isinstance(v, np.ndarray): v[...] = old
    else:
        v.clear()
        (v.extend if isinstance(v, (list, deque)) else v.update)(old)

def _set_attrs(o, attrs):
    vars(o).clear()
    vars(o).update(attrs)

# By its list: in older fastcore an `L` takes no slices
def _set_cbs(learn, cbs): learn.cbs.items[:] = cbs

def _named_tensors(model): return dict(chain(model.named_parameters(), model.named_buffers()))

def _set_tensors(model, tensors):
    now = _named_tensors(model)
    for name,t in tensors.items(): now[name].data.copy_(t)

def _grads(model):
    "List each parameter, whether it trains, and a copy of its gradient"
    return [(p, p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]

def _set_grads(grads):
    for p,trains,grad in grads:
        p.requires_grad_(trains)
        p.grad = grad

def _set_modes(modes):
    for m,training in modes: m.training = training

@contextmanager
def restored(
    learn:Learner, # The learner that is trained inside
):
    """Put back at the end what training inside changes: weights, `requires_grad`, gradients, optimiser, callbacks, recorder, metrics, loss,
    random states, and the order of the batches. Put back each part whatever happens to the others, and raise the error after all of them"""
    model,opt,rec = get_model(learn.model),learn.opt,getattr(learn, 'recorder', None)
    # The recorder is put back as a whole
    holders = [cb for cb in learn.cbs if cb is not rec] + [o for o in (*learn.metrics, learn.loss_func) if hasattr(o, '__dict__')]
    with ExitStack() as stack:
        # What is saved last is put back first: all other parts may draw random numbers
        stack.callback(set_random, random_states())
        for dl in learn.dls.loaders: stack.callback(set_loader, dl, loader_state(dl))
        if hasattr(model, 'reset'): stack.callback(model.reset)
        if opt is not None:
            stack.callback(opt.load_state_dict, deepcopy(opt.state_dict()))
            stack.callback(_set_attrs, opt, dict(vars(opt)))
        # `no_bar` leaves another progress bar
        stack.callback(_set_cbs, learn, list(learn.cbs))
        # The model is put back as a whole
        seen = set(map(id, model.modules()))
        for v in chain.from_iterable(_containers(v, seen) for o in holders for v in vars(o).values()):
            if _is_writable(v): stack.callback(_set_content, v, _copy(v))
        for o in holders: stack.callback(_set_attrs, o, dict(vars(o)))
        if rec is not None: stack.callback(_set_attrs, rec, {k: v if k == 'learn' else deepcopy(v) for k,v in vars(rec).items()})
        stack.callback(_set_attrs, learn, dict(vars(learn)))
        stack.callback(_set_modes, [(m, m.training) for m in model.modules()])
        stack.callback(_set_grads, _grads(model))
        stack.callback(_set_tensors, model, {n: t.detach().clone() for n,t in _named_tensors(model).items()})
        yield
