"Convert values to plain data, which `torch.load` reads without executing code, and back"
__all__ = []

from pathlib import Path

import numpy as np
import torch
from fastai.torch_core import default_device
from fastcore.foundation import L
from torch import Tensor

# The key that marks a dictionary as a stand-in for another value
TAG = '__fastai_discrim__'
# Lists of at least this many numbers are written as one tensor: thousands of small objects are slow to write
PACK_FROM = 50
# Larger integers may not fit into int64
INT_LIMIT = 2**62

SCALARS = bool,int,float,complex,str
# Errors of `to_plain` for a value that can't be written: its own `TypeError`, and those of torch for unusual arrays and tensors
UNWRITABLE = TypeError,ValueError,RuntimeError

def tagged(kind:str, v) -> dict:
    "Wrap plain data `v` so that `from_plain` restores the `kind` of value, a key of `_READ`"
    return {TAG: kind, 'value': v}

def _is_list(o): return isinstance(o, (list, L))
def _is_scalar_tensor(o): return isinstance(o, Tensor) and o.dim() == 0 and o.device.type == 'cpu'

def _dtype(values):
    "Return the dtype of a tensor that holds all of these numbers exactly, or None if there is none"
    # A call of a Python function per number would be slow: a random state has hundreds of them
    types = set(map(type, values))
    if types <= {float, np.float64}: return torch.float64
    if types == {int} and max(map(abs, values)) < INT_LIMIT: return torch.int64
    return None

def _packed(v):
    "Return a long list of numbers, rows of numbers, or scalar tensors as one tensor; None for any other list"
    if len(v) < PACK_FROM: return None
    if all(map(_is_scalar_tensor, v)) and len({o.dtype for o in v}) == 1:
        return tagged('scalars', torch.stack([o.detach().as_subclass(Tensor) for o in v]))
    rows = v if all(map(_is_list, v)) else [v]
    if len(set(map(len, rows))) > 1: return None
    dtype = _dtype([o for r in rows for o in r])
    if dtype: return tagged('numbers', torch.tensor(v, dtype=dtype))

def _packed_tuple(v):
    "Return a long tuple of integers, such as a random state of Python, as one tensor; None for any other tuple"
    if len(v) >= PACK_FROM and _dtype(v) == torch.int64: return tagged('integers', torch.tensor(v, dtype=torch.int64))

def _plain_tensor(v):
    "Return a tensor on the CPU; copy a view of a much larger tensor"
    v = v.detach().as_subclass(Tensor)
    # torch writes a view with its whole storage
    if v.untyped_storage().nbytes() > 2*v.nbytes + 1024: v = v.clone()
    return v if v.device.type == 'cpu' else tagged('on device', v.cpu())

def to_plain(v) -> object: # Of types that `torch.load` reads without executing code
    "Convert `v` to numbers, text, tensors, lists, tuples and dictionaries, for `from_plain`; raise one of `UNWRITABLE` if that fails"
    if v is None or type(v) in SCALARS: return v
    # Not for a date or a `longdouble`, whose `item` is no Python scalar
    if isinstance(v, np.generic) and type(v.item()) in SCALARS: return v.item()
    if isinstance(v, np.ndarray) and v.dtype.kind in 'biuf': return tagged('array', torch.tensor(v))
    if isinstance(v, Tensor) and not v.requires_grad: return _plain_tensor(v)
    if isinstance(v, dict): return {to_plain(k): to_plain(o) for k,o in v.items()}
    if _is_list(v): return _packed(v) or [to_plain(o) for o in v]
    if type(v) is tuple: return _packed_tuple(v) or tuple(to_plain(o) for o in v)
    if type(v) is set: return tagged('set', [to_plain(o) for o in v])
    if isinstance(v, Path): return tagged('path', str(v))
    raise TypeError(f'a {type(v).__name__} in the state of a run: expected numbers, text, arrays and tensors, which a checkpoint can hold')

_READ = {'scalars': list, 'numbers': Tensor.tolist, 'integers': lambda v: tuple(v.tolist()), 'array': Tensor.numpy,
         'set': lambda v: set(from_plain(v)), 'path': Path, 'on device': lambda v: v.to(default_device()),
         'state_dict': lambda v: {'state_dict': from_plain(v)}}

def from_plain(v) -> object:
    "Convert plain data back to the values that `to_plain` was given, but without their classes"
    if isinstance(v, dict): return _READ[v[TAG]](v['value']) if TAG in v else {k: from_plain(o) for k,o in v.items()}
    return type(v)(from_plain(o) for o in v) if type(v) in (list, tuple) else v
