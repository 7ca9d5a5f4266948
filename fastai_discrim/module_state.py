"Save what a model changes when it runs, in modules and in objects that hold tensors, and put it back in place"
__all__ = []

import random
from collections import deque
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from types import FunctionType, MethodType

import numpy as np
from fastcore.foundation import L
from torch import Generator, Tensor, nn, strided

COLLECTIONS = list,deque,dict,set
GENERATORS = Generator,random.Random,np.random.RandomState,np.random.Generator
CONTAINERS = *COLLECTIONS,np.ndarray,Tensor,*GENERATORS


def _bound(f):
    "List the objects that a function holds: arguments of a `partial`, the object of a method, closed-over variables"
    if isinstance(f, partial): return [f.func, *f.args, *f.keywords.values(), vars(f)]
    if isinstance(f, MethodType): return [f.__self__, f.__func__]
    return [*_cells(f), vars(f)]

def _inside(o):
    "List what `o` holds as items or as attributes"
    if isinstance(o, L): return [o.items]
    if isinstance(o, nn.Module) or _holds_tensors(o): return [vars(o)]
    if isinstance(o, dict): return list(o.values())
    return list(o) if isinstance(o, (list, deque, set, tuple)) else []

def _cells(f):
    "List the closed-over variables of function `f` that have a value"
    cells = []
    for c in f.__closure__ or ():
        try: cells.append(c.cell_contents)
        except ValueError: pass
    return cells

def _holds_tensors(o):
    "Tell whether `o` has a tensor, an array or a module as attribute or in a list; other objects, such as loggers, are left alone"
    if isinstance(o, (type, *CONTAINERS)) or not isinstance(getattr(o, '__dict__', None), dict): return False
    for v in list(vars(o).values()):
        values = _items(v) if isinstance(v, (list, tuple, dict)) else [v]
        if any(isinstance(x, (np.ndarray, Tensor, nn.Module)) for x in values): return True
    return False

def containers(
    o, # Any object
    seen:set, # `id`s of objects to skip; those of all objects that are visited are added
    functions:bool=True, # Also look at what functions hold?
):
    """Yield each list, deque, dictionary, set, array, tensor and random generator that `o` is or holds, once; attributes count as a
    dictionary"""
    if id(o) in seen: return
    seen.add(id(o))
    if isinstance(o, CONTAINERS): yield o
    is_function = isinstance(o, (partial, MethodType, FunctionType))
    for v in _bound(o) if is_function and functions else _inside(o): yield from containers(v, seen, functions)

def _items(v):
    "List the items of a collection; for a dictionary the keys, then the values"
    return [*v, *v.values()] if isinstance(v, dict) else list(v)

def _random_state(g):
    "Return the state of a random generator"
    if isinstance(g, random.Random): return g.getstate()
    return deepcopy(g.bit_generator.state) if isinstance(g, np.random.Generator) else g.get_state()

def _set_random_state(g, state):
    "Set the state of a random generator"
    if isinstance(g, random.Random): g.setstate(state)
    elif isinstance(g, np.random.Generator): g.bit_generator.state = state
    else: g.set_state(state)

def content(v):
    """Copy the content of `v`, one of the `containers`. Return None if it can't be changed in place, such as a tensor whose elements share
    memory, as after `expand`, or that belongs to a lazy layer without weights"""
    if isinstance(v, COLLECTIONS): return _items(v)
    if isinstance(v, GENERATORS): return _random_state(v)
    if isinstance(v, np.ndarray): return v.copy() if v.flags.writeable else None
    if nn.parameter.is_lazy(v) or v.is_nested: return None
    is_own = v.layout != strided or all(stride or size <= 1 for size,stride in zip(v.shape, v.stride()))
    return v.detach().clone() if is_own else None

def set_content(v, old):
    "Put `old`, the `content` of `v`, back in place, as other objects may hold `v`"
    if isinstance(v, Tensor):
        # The shape differs if the tensor was resized in place
        if v.shape != old.shape: v.data = old
        else: v.data.copy_(old)
    elif isinstance(v, np.ndarray): v[...] = old
    elif isinstance(v, GENERATORS): _set_random_state(v, old)
    # Outputs of transformers models are dictionaries without `clear`, so leave a collection alone if it didn't change
    elif list(map(id, _items(v))) != list(map(id, old)):
        v.clear()
        if isinstance(v, dict): v.update(zip(old[:len(old)//2], old[len(old)//2:]))
        elif isinstance(v, set): v.update(old)
        else: v.extend(old)

def keep(stack:ExitStack, v):
    "Put the content of `v` back when `stack` closes, if it can be changed in place"
    old = content(v)
    if old is not None: stack.callback(set_content, v, old)

@contextmanager
def modules_kept(model:nn.Module):
    """Put back at the end what a run of `model` changes: buffers, also new or resized ones, modes, hooks, attributes set by `forward`, but
    not parameters"""
    with ExitStack() as stack:
        # Leave alone what the functions of hooks collect
        for v in containers(model, set(map(id, model.parameters())), functions=False): keep(stack, v)
        yield
