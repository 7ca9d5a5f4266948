"Discriminative learning rates, which fall from layer group to layer group (ULMFiT, section 3.2)"
__all__ = ['discriminative_lrs']

import numpy as np

from ..checks import check_count, check_number

# ULMFiT, section 3.2: "we empirically found it to work well"
FACTOR = 2.6

def discriminative_lrs(
    lr:float, # Learning rate of the last group, the head
    n_groups:int, # Number of layer groups
    factor:float|None=None, # Each group's rate is that of the group above divided by this; None for 2.6
    min_scale:float=0., # Lowest rate as a fraction of `lr`, below 1
    span:float|None=None, # Instead of `factor`: the head's rate divided by the lowest group's, for any number of groups
    decay:float|None=None, # Instead of `factor`: each group's rate is that of the group above times this, as in layer-wise decay
    body_lr:float|None=None, # Rate of the group below the head, from which the others fall and to which `min_scale` and `span` then refer
) -> np.ndarray: # Rates, shape [n_groups], input first
    """Return rates that fall from `lr` at the head by `factor` per layer group (ULMFiT, section 3.2), by `decay`, or by `span` in all

    >>> discriminative_lrs(1e-2, 4)
    array([0.00056896, 0.00147929, 0.00384615, 0.01      ])
    >>> discriminative_lrs(1e-2, 3, span=100)
    array([0.0001, 0.001 , 0.01  ])
    """
    check_number(lr, 'lr')
    check_count(n_groups, 'n_groups')
    check_fall(factor, min_scale, span, decay)
    if body_lr is not None:
        check_number(body_lr, 'body_lr')
        if n_groups == 1: return np.array([lr], dtype=float)
        return np.append(discriminative_lrs(body_lr, n_groups-1, factor, min_scale, span, decay), lr)
    if span is not None: factor = span ** (1/max(n_groups-1, 1))
    elif decay is not None: factor = 1/decay
    elif factor is None: factor = FACTOR
    head_first = np.divide.accumulate(np.array([lr] + [factor]*(n_groups-1), dtype=float))
    return np.maximum(head_first[::-1], lr*min_scale)

def check_fall(factor, min_scale, span, decay):
    "Raise unless these arguments of `discriminative_lrs` are valid and at most one of `factor`, `span` and `decay` is given, not None"
    if factor is not None: check_number(factor, 'factor')
    check_number(min_scale, 'min_scale', high=1, at_least=True)
    if span is not None: check_number(span, 'span', low=1, at_least=True)
    if decay is not None: check_number(decay, 'decay', high=1)
    given = [f'{k}={v}' for k,v in dict(factor=factor, span=span, decay=decay).items() if v is not None]
    if len(given) > 1: raise ValueError(f'{" and ".join(given)}: expected one of them, as each says by how much the rates fall')
