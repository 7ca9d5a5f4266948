"Check arguments before anything changes. Each error is one string: the value, what was expected, what to do"
__all__ = []

import math
from collections.abc import Iterable
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from numbers import Integral, Real

import numpy as np
from torch import Tensor

FALL = 'set how they fall with `span=`, the highest rate divided by the lowest, or with `factor=`, from group to group'

# Other names of our arguments, in other libraries or in other methods of ours
ALIASES = dict(lr='lr_max', lr_max='lr', max_lr='lr', base_lr='lr', learning_rate='lr', lrs='lr', head_lr='lr', epoch='n_epoch',
               num_epochs='n_epoch', pct_start='cut_frac', div='ratio', callbacks='cbs', weight_decay='wd')
# Arguments of stock methods that are not like ours of similar spelling: the one that does it instead, if there is one, and how
UNLIKE_OURS = dict(freeze_epochs=('epochs', '`epochs=` says how long each layer group trains before the next one opens'),
                   start_epoch=('checkpoint', 'give `checkpoint=` a name, and the same line resumes'))

def plain_number(v):
    "Return a zero-dimensional tensor or array as a number, and any other value as it is"
    return v.item() if isinstance(v, (Tensor, np.ndarray)) and v.ndim == 0 else v

def _is_list(v):
    "Tell whether `v` holds values that can be iterated: a string and a zero-dimensional array are single values"
    return isinstance(v, Iterable) and not isinstance(v, (str, bytes)) and getattr(v, 'ndim', 1) > 0

def check_number(
    v, # The value
    name:str, # The argument's name, for the message
    low:float=0, # Lower bound
    high:float=math.inf, # Upper bound, itself refused
    at_least:bool=False, # Accept `low` itself?
) -> float:
    "Return `v` as a number; raise unless it is finite and between `low` and `high`"
    v = plain_number(v)
    want = f'a number {"of at least" if at_least else "above"} {low}' + (f' and below {high}' if high < math.inf else '')
    if isinstance(v, (bool, np.bool_)) or not isinstance(v, Real):
        raise TypeError(f'{name}={v!r}: expected {want}, not a {type(v).__name__}')
    if not math.isfinite(v) or v < low or v >= high or (v == low and not at_least): raise ValueError(f'{name}={v!r}: expected {want}')
    return v

def as_rate(
    lr, # A number, or the result of `learn.lr_find`
    name:str='lr', # The argument's name, for the message
    advice:str=FALL, # What to do instead of giving several rates
): # The rate, not yet checked to be a number
    "Return one rate, for a result of `learn.lr_find` its valley; raise `TypeError` if `lr` holds several rates"
    fields = getattr(lr, '_fields', ())
    if 'valley' in fields: return plain_number(lr.valley)
    if len(fields) == 1: return plain_number(lr[0])
    if fields: raise TypeError(f'{name}={lr!r}: expected one number; give one of them, such as `{name}=res.{fields[0]}`')
    if isinstance(lr, slice) or _is_list(lr):
        raise TypeError(f'{name}={lr!r}: expected one number, from which the rates of all groups follow: {advice}')
    return plain_number(lr)

def check_names(f):
    "Decorate `f` to refuse a keyword argument that it doesn't have, and to suggest the nearest one that it has"
    known = list(signature(f).parameters)
    @wraps(f)
    def _f(*args, **kwargs):
        for name in kwargs:
            if name in known: continue
            raise TypeError(f'{f.__name__}() has no argument {name!r}: {_advice(name, known)}')
        return f(*args, **kwargs)
    return _f

def _advice(name, known):
    "Say what to give instead of the argument `name` to a function with the arguments `known`"
    any_of_ours = f'expected {", ".join(known[1:])}'
    if name in UNLIKE_OURS:
        ours,how = UNLIKE_OURS[name]
        return how if ours in known else any_of_ours
    near = [ALIASES[name]] if ALIASES.get(name) in known else get_close_matches(name, known, 1)
    return f'did you mean `{near[0]}`?' if near else any_of_ours

def check_list(v, name:str, what:str) -> list:
    "Return the items of `v` as a list; raise unless it is a list, a tuple or the like, and say that the argument `name` should hold `what`"
    if not _is_list(v): raise TypeError(f'{name}={v!r}: expected {what}, in a list or tuple')
    return list(v)

def check_moms(moms, counts:tuple=(3,)):
    "Raise unless the number of `moms` is one of `counts`, those that the schedule accepts, and each is at least 0 and below 1"
    moms = check_list(moms, 'moms', f'{counts[0]} numbers')
    if len(moms) not in counts: raise ValueError(f'moms has {len(moms)} values, expected {counts[0]}')
    for m in moms: check_number(m, 'moms', high=1, at_least=True)

def check_rates(lr, n_groups:int, name:str='lr'):
    "Raise unless `lr`, the argument `name`, can be spread over `n_groups` layer groups as fastai does"
    if isinstance(lr, slice): rates = [lr.stop] if lr.start is None else [lr.start, lr.stop]
    elif _is_list(lr):
        rates = list(lr)
        if len(rates) != n_groups:
            raise ValueError(f'{name} has {len(rates)} values, expected one for each of the {n_groups} layer groups, input first: '
                             '`learn.layer_groups()` lists them')
    else: rates = [lr]
    for v in rates: check_number(v, name)

def check_count(n, name:str='n_epoch') -> int:
    "Return `n`, the value of the argument `name`, as a number; raise unless it is a whole number of at least 1"
    n = plain_number(n)
    if isinstance(n, bool) or not isinstance(n, Integral):
        raise TypeError(f'{name}={n!r}: expected a whole number, not a {type(n).__name__}')
    if n < 1: raise ValueError(f'{name}={n!r}: expected at least 1')
    return n

def check_flag(v, name:str, none:str='') -> bool|None:
    "Return `v`, the argument `name`, as a `bool`; raise unless it is True or False, or None if `none` says for what"
    if v is None and none: return None
    if isinstance(v, (bool, np.bool_)): return bool(v)
    raise TypeError(f'{name}={v!r}: expected True' + (f', False, or None {none}' if none else ' or False'))

def check_train_bn(v) -> bool|None:
    "Return `v` as a `bool`, or None; raise unless it is True, False or None"
    return check_flag(v, 'train_bn', 'for `learn.train_bn`')

def count_items(dl) -> int|None:
    "Count the items in the data set of a loader; return None if it has no data set, or one without a length"
    try: return len(dl.dataset)
    except (AttributeError, TypeError): return None

def batch_size(dl) -> int|None:
    "Return the batch size of a loader of fastai or torch, or None if it has none"
    return getattr(dl, 'bs', None) or getattr(dl, 'batch_size', None)

def has_valid(learn) -> bool:
    "Tell whether a learner has batches to validate on"
    loaders = learn.dls.loaders
    try: return len(loaders) > 1 and len(loaders[1]) > 0
    # fastai can't validate on a loader without a length
    except TypeError: return False

def check_data(learn):
    "Raise if the training set of a learner has no batch"
    try: n = len(learn.dls.train)
    except TypeError as e:
        raise TypeError(f"the training set doesn't say how many batches it has ({e}): expected a loader with a length, from which the "
                        'schedule gets the rate of each step; give its class, or the class of its data set, a `__len__`') from e
    if n == 0:
        raise ValueError(f'the training set has {count_items(learn.dls.train)} items and makes 0 batches: expected at least 1 batch; '
                         'give it more items, or a smaller batch size')
