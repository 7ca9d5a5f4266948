"Compute validation losses over small parts of the items, so that candidates can be compared item by item"
__all__ = []

import math
from functools import reduce

import numpy as np
from fastai.torch_core import find_bs

from .frozen_head import has_items_first, items, part_bounds
from .losses import Losses

# Parts per batch, at most: enough to estimate a standard error, and each part costs one call of the loss
N_PARTS = 16
# Relative difference that rounding may make between the loss of a batch and the mean over its parts
ROUNDING = 1e-3


def part_losses(loss_func, pred, yb:tuple, loss:float) -> tuple:
    """List the mean losses of the parts of a batch, and their numbers of items. The whole batch is one part if `loss`, its loss, isn't the
    mean over items"""
    n = find_bs(yb)
    whole = [loss],[n]
    if not has_items_first([pred, *yb], n): return whole
    bounds = part_bounds(n, min(n, N_PARTS))
    sizes = [b-a for a,b in bounds]
    if not math.isfinite(loss): return [loss]*len(sizes),sizes
    # A loss that the model or a callback computes has no value for a part
    try: parts = [float(loss_func(items(pred, *part), *items(tuple(yb), *part))) for part in bounds]
    except Exception: return whole
    mean = sum(l*k for l,k in zip(parts, sizes))/n
    return (parts, sizes) if math.isclose(mean, loss, rel_tol=ROUNDING, abs_tol=1e-12) else whole

def gather_losses(batches:list) -> Losses:
    "Join the `part_losses` of each batch, of each candidate, on the parts that all candidates have"
    return reduce(Losses.joined, map(_of_one, batches))

def _of_one(batches):
    "Return the `Losses` of one candidate"
    losses = [loss for parts,_ in batches for loss in parts]
    sizes = [n for _,counts in batches for n in counts]
    return Losses(np.array([losses], dtype=float), np.array(sizes, dtype=float))
