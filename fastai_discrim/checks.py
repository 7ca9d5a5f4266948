"Check arguments before anything changes; an error is one string: the value, what was expected, what to do"
__all__ = []

import math
from collections.abc import Iterable
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from numbers import Integral, Real

import numpy as np
from torch import Tensor

FALL = 'say how they fall by `span=`, the highest rate divided by the lowest, or by `factor=`, from group to group'

# What other libraries and methods call the arguments of ours
ALIASES = dict(lr='lr_max', lr_max='lr', max_lr='lr', base_lr='lr', learning_rate='lr', lrs='lr', head_lr='lr', epoch='n_epoch',
               num_epochs='n_epoch', pct_start='cut_frac', div='ratio', freeze_epochs='epochs', callbacks='cbs', weight_decay='wd')

def plain_number(
    v, # Any value
): # Any value
    "Return the number in a tensor or array without dimensions; other values as they are"
    return v.item() if isinstance(v, (Tensor, np.ndarray)) and v.ndim == 0 else v


def check_number(
    v, # The value
    name:str, # What it is called
    low:float=0, # Values up to this are refused
    high:float=math.inf, # Values from this on are refused
    at_least:bool=False, # Is `low` itself allowed?
) -> float:
    "Return `v` as a number, or raise unless it is finite and between `low` and `high`"
    v = plain_number(v)
    want = f'a number {"of at least" if at_least else "above"} {low}' + (f' and below {high}' if high < math.inf else '')
    odd = isinstance(v, (bool, np.bool_)) or not isinstance(v, Real)
    if odd: raise TypeError(f'{name}={v!r}: expected {want}, not a {type(v).__name__}')
    if not math.isfinite(v) or v < low or v >= high or (v == low and not at_least): raise ValueError(f'{name}={v!r}: expected {want}')
    return v

def as_rate(
    lr, # A number, or what `learn.lr_find` gave
    name:str='lr', # What it is called
    advice:str=FALL, # What to do instead of giving several rates
): # A number, or what is to be refused as none
    "Return one rate: of what `learn.lr_find` gave the valley; raise `TypeError` for several rates"
    fields = getattr(lr, '_fields', ())
    if 'valley' in fields: return plain_number(lr.valley)
    if len(fields) == 1: return plain_number(lr[0])
    if fields: raise TypeError(f'{name}={lr!r}: expected one number; give one of them, such as `{name}=res.{fields[0]}`')
    if isinstance(lr, slice) or isinstance(lr, Iterable) and not isinstance(lr, (str, bytes)) and getattr(lr, 'ndim', 1):
        raise TypeError(f'{name}={lr!r}: expected one number, from which the rates of all groups follow: {advice}')
    return plain_number(lr)

def check_names(
    f, # A function
):
    "Wrap `f`: an argument that it doesn't have is refused with the nearest that it has"
    known = list(signature(f).parameters)
    @wraps(f)
    def _f(*args, **kwargs):
        for name in kwargs:
            if name in known: continue
            near = [ALIASES[name]] if ALIASES.get(name) in known else get_close_matches(name, known, 1)
            advice = f'did you mean `{near[0]}`?' if near else f'expected {", ".join(known[1:])}'
            raise TypeError(f'{f.__name__}() has no argument {name!r}: {advice}')
        return f(*args, **kwargs)
    return _f

def check_list(
    v, # The value
    name:str, # What it is called
    what:str, # What its items are
) -> list: # Its items
    "Return the items of `v`, or raise if it has none to give"
    if isinstance(v, (str, bytes, slice)) or not isinstance(v, Iterable) or not getattr(v, 'ndim', 1):
        raise TypeError(f'{name}={v!r}: expected {what}, in a list or tuple')
    return list(v)

def check_moms(
    moms, # Momentum at the corners of a schedule
    counts:tuple=(3,), # How many there may be
):
    "Raise unless `moms` are as many numbers in [0, 1) as the schedule has corners"
    moms = check_list(moms, 'moms', f'{counts[0]} numbers')
    if len(moms) not in counts: raise ValueError(f'moms has {len(moms)} values, expected {counts[0]}')
    for m in moms: check_number(m, 'moms', high=1, at_least=True)

def check_rates(
    lr, # A number, a `slice`, or one number a layer group
    n_groups:int, # Number of layer groups
    name:str='lr', # What it is called
):
    "Raise unless `lr` can be spread over `n_groups` layer groups as fastai does"
    if isinstance(lr, slice):
        for v in (lr.stop, *([] if lr.start is None else [lr.start])): check_number(v, name)
    elif isinstance(lr, Iterable) and not isinstance(lr, str) and getattr(lr, 'ndim', 1):
        lr = list(lr)
        if len(lr) != n_groups: raise ValueError(f'{name} has {len(lr)} values, expected one for each of the {n_groups} layer groups, '
                                                 'input first: `learn.layer_groups()` lists them')
        for v in lr: check_number(v, name)
    else: check_number(lr, name)

def check_count(
    n, # The value
    name:str='n_epoch', # What it is called
) -> int:
    "Return `n` as a number, or raise unless it is a whole one, of epochs or the like, from 1 up"
    n = plain_number(n)
    odd = isinstance(n, bool) or not isinstance(n, Integral)
    if odd: raise TypeError(f'{name}={n!r}: expected a whole number, not a {type(n).__name__}')
    if n < 1: raise ValueError(f'{name}={n!r}: expected at least 1')
    return n

def check_flag(
    v, # The value
    name:str, # What it is called
    none:str='', # What None stands for; '' where None is refused
):
    "Raise unless `v` is True, False or, where `none` says what it stands for, None"
    if isinstance(v, (bool, np.bool_)) or (v is None and none): return
    raise TypeError(f'{name}={v!r}: expected True' + (f', False, or None {none}' if none else ' or False'))

def check_train_bn(
    v, # The value of `train_bn`
):
    "Raise unless `v` says whether norm layers of frozen groups train"
    check_flag(v, 'train_bn', 'for `learn.train_bn`')

def count_items(
    dl, # A loader, or whatever gives batches
) -> int|None: # None where it has no data set, or one that doesn't say
    "Count the items of the data set of `dl`"
    try: return len(dl.dataset)
    except (AttributeError, TypeError): return None

def has_batches(
    dl, # A loader, or whatever gives batches
) -> bool: # False where it doesn't say how many: fastai can't validate on it
    "Tell whether `dl` has any batch"
    try: return len(dl) > 0
    except TypeError: return False

def has_valid(
    learn, # A `Learner`
) -> bool:
    "Tell whether `learn` has batches to validate on"
    return len(learn.dls.loaders) > 1 and has_batches(learn.dls.loaders[1])

def check_data(
    learn, # A `Learner`
):
    "Raise if the training set of `learn` has no batch"
    try: n = len(learn.dls.train)
    except TypeError as e:
        raise TypeError(f'the training set doesn\'t say how many batches it has ({e}), from which each step gets its rate: expected a '
                        'loader with a length; give its class, or that of its data set, a `__len__`') from e
    if n == 0:
        raise ValueError(f'the training set has {count_items(learn.dls.train)} items and makes 0 batches: expected at least 1 batch; '
                         'give it more items, or a smaller batch size')
