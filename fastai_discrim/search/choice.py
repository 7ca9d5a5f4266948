"Choose which learning rates to try, and one of them: pure arithmetic, the same on any scale of the loss"
__all__ = []

import numpy as np

from .losses import Losses

# The rates that are tried first: from where most heads learn slowly to where most diverge, four a decade
LR_FIRST,LR_LAST,N_FIRST = 1e-3,1,13
RATIO = 10**0.25
# Where the best of them is one of the two at an end, a better one may lie beyond it: one decade more is tried
NEAR_END,N_MORE = 2,4
# Nothing trains below these limits, and nothing converges above them
LR_LOWEST,LR_HIGHEST = 1e-7,1e3
# A higher η_L is that of outputs of thousands, which only much lower rates of the body suit
HIGHEST_USUAL = 10
# Moves nothing but a batch norm's statistics: its loss is that of an untrained head
LR_UNTRAINED = 1e-12
# A candidate that lowers the loss by less, as a fraction of it, has taught the head next to nothing
LITTLE_GAIN = 0.01


def lowers(
    loss:float, # Loss before
    lowest:float, # Loss after
) -> bool:
    "Tell whether `lowest` is lower than `loss` by more than a little; not where one of them is nan"
    return bool(loss-lowest > LITTLE_GAIN*abs(loss))

def first_lrs() -> np.ndarray:
    "Return the rates to try first"
    return np.geomspace(LR_FIRST, LR_LAST, N_FIRST)

def lrs_beyond(
    lrs:np.ndarray, # Rates that have been tried, ascending
    losses:Losses, # Their losses, of which one is finite
) -> np.ndarray|None: # Ascending; None where to stop
    "Return the rates to try next: those beyond an end, where the best is near it, and clearly better than the middle"
    best = np.nanargmin(losses.mean)
    # Where the best can't be told from the middle, what lies beyond it is not worth a look
    if not losses.is_clearly_lower(best, len(lrs)//2): return None
    if best < NEAR_END: more = lrs[0]/RATIO**np.arange(N_MORE, 0, -1)
    elif best >= len(lrs)-NEAR_END: more = lrs[-1]*RATIO**np.arange(1, N_MORE+1)
    else: return None
    return more if LR_LOWEST <= more[0] and more[-1] <= LR_HIGHEST else None

def _is_below(losses, untrained):
    "Tell whether the best candidate is clearly below an untrained head, which is what ever lower rates end at"
    return losses.joined(untrained).is_clearly_lower(np.nanargmin(losses.mean), len(losses.mean))

def search_lrs(
    losses_at, # Function from an array of rates to their `Losses`
    lrs:np.ndarray|None=None, # The rates to try, ascending; None for the first ones, and on beyond the ends
) -> tuple: # The rates, ascending; their `Losses`, after which comes, as a last candidate, an untrained head
    "Evaluate `losses_at` at `lrs`, or from 1e-3 to 1 and on until the best is no longer near an end"
    tried = first_lrs() if lrs is None else lrs
    losses = losses_at(np.array([*tried, LR_UNTRAINED]))
    untrained = losses.at([-1])
    losses = losses.at(slice(-1))
    while lrs is None and np.isfinite(losses.mean).any():
        more = lrs_beyond(tried, losses)
        if more is None or (more[0] < tried[0] and not _is_below(losses, untrained)): break
        tried,losses = np.concatenate([tried, more]),losses.joined(losses_at(more))
        order = np.argsort(tried)
        tried,losses = tried[order],losses.at(order)
    return tried,losses.joined(untrained)

def about_as_good(
    losses:Losses, # Losses at ascending rates, of which one is finite
) -> np.ndarray: # Indices, ascending
    """Return the best candidate and those beside it whose losses are higher by at most a standard error of the difference, item by item.
    Leave out what lies beyond a clearly worse one, so that a choice never crosses a hump"""
    best = np.nanargmin(losses.mean)
    worse = np.array([losses.is_clearly_lower(best, i) or not np.isfinite(losses.mean[i]) for i in range(len(losses.mean))])
    below,above = np.flatnonzero(worse[:best]),np.flatnonzero(worse[best+1:])
    return np.arange(below.max(initial=-1)+1, best+1 + above.min(initial=len(worse)-best-1))
