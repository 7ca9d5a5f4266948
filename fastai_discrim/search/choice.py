"Choose the learning rates to try, then the best of them: pure arithmetic that doesn't depend on the scale of the loss"
__all__ = []

import numpy as np

from .losses import Losses

# First candidates, four a decade: at the lowest rate most heads learn slowly, at the highest most diverge
LR_FIRST,LR_LAST,N_FIRST = 1e-3,1,13
RATIO = 10**0.25
# If the best candidate is one of the two at an end, a better rate may lie beyond it: try four more, one decade
NEAR_END,N_MORE = 2,4
# No head trains at lower rates, and none converges at higher rates
LR_LOWEST,LR_HIGHEST = 1e-7,1e3
# A higher η_L means that the targets are in the thousands; the body then needs a much lower rate
HIGHEST_USUAL = 10
# At this rate only the running statistics of batch norms change: the loss is that of an untrained head
LR_UNTRAINED = 1e-12
# A rate that lowers the loss by less than this fraction has taught the head next to nothing
LITTLE_GAIN = 0.01


def lowers(loss:float, lowest:float) -> bool:
    "Tell whether `lowest` is lower than `loss` by more than 1 %; False if one of them is nan"
    return bool(loss-lowest > LITTLE_GAIN*abs(loss))

def first_lrs() -> np.ndarray:
    "Return the rates to try first"
    return np.geomspace(LR_FIRST, LR_LAST, N_FIRST)

def lrs_beyond(
    lrs:np.ndarray, # Rates that have been tried, ascending
    losses:Losses, # Their losses, of which one is finite
) -> np.ndarray|None: # Ascending; None to end the search
    "Return the rates beyond an end to try next, if the best rate is near that end and clearly better than the middle rate"
    best = np.nanargmin(losses.mean)
    if not losses.is_clearly_lower(best, len(lrs)//2): return None
    if best < NEAR_END: more = lrs[0]/RATIO**np.arange(N_MORE, 0, -1)
    elif best >= len(lrs)-NEAR_END: more = lrs[-1]*RATIO**np.arange(1, N_MORE+1)
    else: return None
    return more if LR_LOWEST <= more[0] and more[-1] <= LR_HIGHEST else None

def _is_below(losses, untrained):
    "Tell whether the best candidate is clearly better than an untrained head, whose loss ever lower rates approach"
    return losses.joined(untrained).is_clearly_lower(np.nanargmin(losses.mean), len(losses.mean))

def search_lrs(
    losses_at, # Function that returns the `Losses` of an array of rates
    lrs:np.ndarray|None=None, # The rates to try, ascending; None to start with 13 and extend the range if needed
) -> tuple: # The rates tried, ascending; their `Losses`, with an untrained head as an additional last candidate
    "Evaluate `losses_at` at `lrs`, or from 1e-3 to 1 and further, until the best rate is no longer near an end"
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

def about_as_good(losses:Losses) -> np.ndarray:
    """Return the indices, at ascending rates, of the best candidate and of its neighbours whose losses are higher by at most one standard
    error of the paired difference. Stop on each side at a candidate that is clearly worse, so that the choice never crosses a hump"""
    means = losses.mean
    best = np.nanargmin(means)
    def _is_good(i): return np.isfinite(means[i]) and not losses.is_clearly_lower(best, i)
    start,end = best,best+1
    while start > 0 and _is_good(start-1): start -= 1
    while end < len(means) and _is_good(end): end += 1
    return np.arange(start, end)
