"Values as plain data, which `torch.load` reads without executing anything"
__all__ = []

from pathlib import Path

import numpy as np
import torch
from fastai.learner import Metric
from fastai.torch_core import default_device
from fastcore.foundation import L
from torch import Tensor

# The key of a dictionary that stands for something else
TAG = '__fastai_discrim__'
# Lists of at least so many numbers are written as one tensor: thousands of small things are slow to write
PACK_FROM = 50
# Larger integers don't fit into torch's
INT_LIMIT = 2**62

SCALARS = bool,int,float,complex,str
# What `to_plain` raises where a value can't be written; torch raises the others, for arrays and tensors of odd kinds
UNWRITABLE = TypeError,ValueError,RuntimeError

def tagged(
    kind:str, # A key of `_READ`
    v, # Plain data
) -> dict:
    "Wrap `v` so that `from_plain` knows what it stands for"
    return {TAG: kind, 'value': v}

def _is_list(o): return isinstance(o, (list, L))
def _is_scalar_tensor(o): return isinstance(o, Tensor) and o.dim() == 0 and o.device.type == 'cpu'
def _is_number(o, kind): return isinstance(o, kind) and not isinstance(o, bool) and abs(o) < INT_LIMIT

def _packed(v):
    "Return a long list of numbers, or of tensors with one number each, as one tensor; None if it is no such list"
    if len(v) < PACK_FROM: return None
    if all(map(_is_scalar_tensor, v)) and len({o.dtype for o in v}) == 1:
        return tagged('scalars', torch.stack([o.detach().as_subclass(Tensor) for o in v]))
    rows = v if all(map(_is_list, v)) else [v]
    if len(set(map(len, rows))) > 1: return None
    for kind,dtype in ((float, torch.float64), (int, torch.int64)):
        if all(_is_number(o, kind) for r in rows for o in r): return tagged('numbers', torch.tensor(v, dtype=dtype))

def _packed_tuple(v):
    "Return a long tuple of integers, such as a random state of python, as a tensor; None if it is none"
    if len(v) >= PACK_FROM and all(_is_number(o, int) for o in v): return tagged('integers', torch.tensor(v, dtype=torch.int64))

def _plain_tensor(v):
    "Return a tensor on the CPU, and without what it is only a view of"
    v = v.detach().as_subclass(Tensor)
    # A view would be written with all that it is a view of
    if v.untyped_storage().nbytes() > 2*v.nbytes + 1024: v = v.clone()
    return v if v.device.type == 'cpu' else tagged('on device', v.cpu())

def to_plain(v) -> object: # Of types that `torch.load` reads without executing anything
    "Return `v` as numbers, text, tensors, lists, tuples and dictionaries, for `from_plain`; raise one of `UNWRITABLE` if it is more"
    if v is None or type(v) in SCALARS: return v
    # A date or a `longdouble` has none of these
    if isinstance(v, np.generic) and type(v.item()) in SCALARS: return v.item()
    if isinstance(v, np.ndarray) and v.dtype.kind in 'biuf': return tagged('array', torch.tensor(v))
    if isinstance(v, Tensor) and not v.requires_grad: return _plain_tensor(v)
    if isinstance(v, Metric): return to_plain({k: o for k,o in vars(v).items() if _is_plain(o)})
    if isinstance(v, dict): return {to_plain(k): to_plain(o) for k,o in v.items()}
    if _is_list(v): return _packed(v) or [to_plain(o) for o in v]
    if type(v) is tuple: return _packed_tuple(v) or tuple(to_plain(o) for o in v)
    if type(v) is set: return tagged('set', [to_plain(o) for o in v])
    if isinstance(v, Path): return tagged('path', str(v))
    raise TypeError(f'a {type(v).__name__} in what a checkpoint has to keep: expected numbers, text, arrays and tensors')

def _is_plain(v):
    "Tell whether `to_plain` takes `v`"
    try: to_plain(v)
    except UNWRITABLE: return False
    return True

_READ = {'scalars': list, 'numbers': Tensor.tolist, 'integers': lambda v: tuple(v.tolist()), 'array': Tensor.numpy,
         'set': lambda v: set(from_plain(v)), 'path': Path, 'on device': lambda v: v.to(default_device()),
         'state_dict': lambda v: {'state_dict': from_plain(v)}}

def from_plain(v) -> object:
    "Return what `to_plain` was given, but for its classes"
    if isinstance(v, dict): return _READ[v[TAG]](v['value']) if TAG in v else {k: from_plain(o) for k,o in v.items()}
    return type(v)(from_plain(o) for o in v) if type(v) in (list, tuple) else v
