"What modules, and objects that hold modules or tensors, change when they run: kept, and put back in place"
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
    "List what a function is bound to"
    if isinstance(f, partial): return [f.func, *f.args, *f.keywords.values(), vars(f)]
    return [f.__self__, f.__func__] if isinstance(f, MethodType) else [*_cells(f), vars(f)]

def _inside(o):
    "List what `o` holds, in a container or as attributes"
    if isinstance(o, L): return [o.items]
    if isinstance(o, nn.Module) or _holds_tensors(o): return [vars(o)]
    if isinstance(o, dict): return list(o.values())
    return list(o) if isinstance(o, (list, deque, set, tuple)) else []

def _cells(f):
    "List the variables from outside that function `f` uses, but for those that have no value yet"
    cells = []
    for c in f.__closure__ or ():
        try: cells.append(c.cell_contents)
        except ValueError: pass
    return cells

def _holds_tensors(o):
    "Tell whether `o` is an object with a tensor, an array or a module, maybe in a list: others, as loggers, are nobody's to put back"
    if isinstance(o, (type, *CONTAINERS)) or not isinstance(getattr(o, '__dict__', None), dict): return False
    def _is_state(v): return isinstance(v, (np.ndarray, Tensor, nn.Module))
    def _has_state(v): return isinstance(v, (list, tuple, dict)) and any(map(_is_state, [*v, *v.values()] if isinstance(v, dict) else v))
    return any(_is_state(v) or _has_state(v) for v in list(vars(o).values()))

def containers(
    o, # Any object
    seen:set, # `id`s of what is left out, to which those of what is listed are added
    functions:bool=True, # Look into functions, too, for what they are bound to?
):
    """Yield the lists, deques, dictionaries, sets, arrays, tensors and generators of random numbers that `o` is or holds, each once;
    attributes are a dictionary, too"""
    if id(o) in seen: return
    seen.add(id(o))
    if isinstance(o, CONTAINERS): yield o
    is_function = isinstance(o, (partial, MethodType, FunctionType))
    for v in _bound(o) if is_function and functions else _inside(o): yield from containers(v, seen, functions)

def _held(v): return [*v, *v.values()] if isinstance(v, dict) else list(v)

def _random_state(g):
    "Return the state of a generator of random numbers"
    if isinstance(g, random.Random): return g.getstate()
    return deepcopy(g.bit_generator.state) if isinstance(g, np.random.Generator) else g.get_state()

def _set_random_state(g, state):
    if isinstance(g, random.Random): g.setstate(state)
    elif isinstance(g, np.random.Generator): g.bit_generator.state = state
    else: g.set_state(state)

def content(
    v, # What `containers` gave
): # None where it can't be changed in place
    "Copy the content of `v`; not where several of its items share their memory, or where a lazy layer has none yet"
    if isinstance(v, COLLECTIONS): return _held(v)
    if isinstance(v, GENERATORS): return _random_state(v)
    if isinstance(v, np.ndarray): return v.copy() if v.flags.writeable else None
    if nn.parameter.is_lazy(v) or v.is_nested: return None
    is_own = v.layout != strided or all(stride or size <= 1 for size,stride in zip(v.shape, v.stride()))
    return v.detach().clone() if is_own else None

def set_content(
    v, # What `containers` gave
    old, # What `content` gave
):
    "Make the content of `v` what it was, in place: others may hold it too"
    if isinstance(v, Tensor):
        # One that was resized in place
        if v.shape != old.shape: v.data = old
        else: v.data.copy_(old)
    elif isinstance(v, np.ndarray): v[...] = old
    elif isinstance(v, GENERATORS): _set_random_state(v, old)
    # What transformers give are dictionaries that can't be emptied
    elif list(map(id, _held(v))) != list(map(id, old)):
        v.clear()
        if isinstance(v, dict): v.update(zip(old[:len(old)//2], old[len(old)//2:]))
        else: (v.update if isinstance(v, set) else v.extend)(old)

@contextmanager
def modules_kept(
    model:nn.Module, # It runs inside, and its parameters stay as they are
):
    "Put back at the end what a run of `model` changes: buffers, which it may make or enlarge, modes, hooks and what `forward` notes"
    with ExitStack() as stack:
        # What hooks gather is for those who set them
        for v in containers(model, set(map(id, model.parameters())), functions=False):
            if (old := content(v)) is not None: stack.callback(set_content, v, old)
        yield
