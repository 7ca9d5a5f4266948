"Validation losses of parts of the items, so that candidates are compared item by item"
__all__ = []

import math
from functools import reduce

import numpy as np
from fastai.torch_core import find_bs

from .frozen_head import has_items_first, items, part_bounds
from .losses import Losses

# Parts of one batch at most: their differences tell chance well enough, and each costs a call of the loss
N_PARTS = 16
# The mean over parts is the loss of the batch, but for rounding
ROUNDING = 1e-3


def part_losses(
    loss_func, # The loss that trains
    pred, # Predictions, items first
    yb:tuple, # Targets, items first
    loss:float, # Their loss
) -> tuple: # Two lists: the mean loss of each part, and how many items it has
    "Compute the loss of each of some parts of a batch; of the whole batch where its loss isn't the mean over items"
    n = find_bs(yb)
    whole = [loss],[n]
    if not has_items_first([pred, *yb], n): return whole
    bounds = part_bounds(n, min(n, N_PARTS))
    sizes = [b-a for a,b in bounds]
    if not math.isfinite(loss): return [loss]*len(sizes),sizes
    # The loss that the model or a callback computes can't be had for a part
    try: parts = [float(loss_func(items(pred, *part), *items(tuple(yb), *part))) for part in bounds]
    except Exception: return whole
    mean = sum(l*k for l,k in zip(parts, sizes))/n
    return (parts, sizes) if math.isclose(mean, loss, rel_tol=ROUNDING, abs_tol=1e-12) else whole

def gather_losses(
    batches:list, # For each candidate, what `part_losses` gave for each batch
) -> Losses:
    "Put the losses of candidates together, on the parts that all of them have"
    return reduce(Losses.joined, map(_of_one, batches))

def _of_one(batches):
    "Return the `Losses` of one candidate"
    losses,sizes = [[o for lists in part for o in lists] for part in zip(*batches)]
    return Losses(np.array([losses], dtype=float), np.array(sizes, dtype=float))
