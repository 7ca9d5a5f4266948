"Choose a learning rate from the losses at a range of rates: pure arithmetic"
__all__ = []

import numpy as np

# The rates that are tried first: from where most heads learn slowly to where most diverge, four a decade
LR_FIRST,LR_LAST,N_FIRST = 1e-3,1,13
RATIO = 10**0.25
# Where the best of them is one of the two at an end, a better one may lie beyond it: one decade more is tried
NEAR_END,N_MORE = 2,4
# Nothing trains below these limits, and nothing converges above them
LR_LOWEST,LR_HIGHEST = 1e-7,1e3
# Moves nothing but a batch norm's statistics: its loss is that of an untrained head
LR_UNTRAINED = 1e-12
# Two standard errors of the difference between two heads that are about as good, where they differ most from item to item: by a quarter
# of an untrained head's loss (0.04 to 0.24 were measured: `benchmarks/head_lr.py --noise`)
NOISE = 0.5
# A fifth of the gain over an untrained head: the choice then hardly changes from run to run, at no cost in loss
ABOUT_AS_GOOD = 0.2
# In units of what is about as good. Beyond this the weight, exp(-3) = 0.05, is negligible, and what lies beyond such a rate is cut off
NEGLIGIBLE = 3
# A rate that lowers the loss by less, as a fraction of it, has taught the head nothing
LITTLE_GAIN = 0.01


def first_lrs() -> np.ndarray:
    "Return the rates to try first"
    return np.geomspace(LR_FIRST, LR_LAST, N_FIRST)

def lowers(
    loss:float, # Loss before
    lowest:float, # Loss after
) -> bool:
    "Tell whether `lowest` is lower than `loss` by more than a little; not where one of them is nan"
    return bool(loss-lowest > LITTLE_GAIN*abs(loss))

def loss_noise(
    untrained:float, # Loss of an untrained head
    n_items:float, # Items that validate
) -> float: # 0 where the untrained head has no finite loss: then nothing is known
    "Estimate how far two mean losses over `n_items` items may differ by chance"
    return NOISE*abs(untrained)/n_items**0.5 if np.isfinite(untrained) else 0.

def lrs_beyond(
    lrs:np.ndarray, # Rates that have been tried, ascending
    losses:np.ndarray, # Their losses, of which one is finite
    noise:float=0., # How far two losses may differ by chance
) -> np.ndarray|None: # Ascending; None where to stop
    "Return the rates to try next: those beyond an end, where the best is near it, and clearly better than the middle"
    best = np.nanargmin(losses)
    # With few items the best can't be told from the middle: then what lies beyond it is not worth a look
    if losses[len(losses)//2]-losses[best] < noise: return None
    if best < NEAR_END: more = lrs[0]/RATIO**np.arange(N_MORE, 0, -1)
    elif best >= len(lrs)-NEAR_END: more = lrs[-1]*RATIO**np.arange(1, N_MORE+1)
    else: return None
    return more if LR_LOWEST <= more[0] and more[-1] <= LR_HIGHEST else None

def search_lrs(
    losses_at, # Function from an array of rates to an array of their losses
    lrs:np.ndarray=None, # The rates to try, ascending; None for the first ones, and on beyond the ends
    n_items:float=np.inf, # Items that validate
) -> tuple: # The rates, ascending, their losses, and the loss of an untrained head
    "Evaluate `losses_at` at `lrs`, or from 1e-3 to 1 and on until the best is no longer near an end"
    tried = first_lrs() if lrs is None else lrs
    untrained,*losses = losses_at(np.array([LR_UNTRAINED, *tried]))
    losses = np.array(losses)
    if lrs is not None: return tried,losses,untrained
    noise = loss_noise(untrained, n_items)
    while np.isfinite(losses).any():
        more = lrs_beyond(tried, losses, noise)
        if more is None: break
        tried,losses = np.concatenate([tried, more]),np.concatenate([losses, losses_at(more)])
        order = np.argsort(tried)
        tried,losses = tried[order],losses[order]
    return tried,losses,untrained

def middle_lr(
    lrs:np.ndarray, # Rates that have been tried, ascending
    losses:np.ndarray, # Their losses
    untrained:float, # Loss of an untrained head
    noise:float=0., # How far two losses may differ by chance
) -> float:
    "Average, on a log scale, the rates around the best whose losses are about as low; the lower the loss, the more a rate counts"
    best,lowest = np.nanargmin(losses),np.nanmin(losses)
    scale = ABOUT_AS_GOOD*max(untrained-lowest, 0) + noise
    # Nothing is gained, or nothing is known of it
    if not 0 < scale < np.inf: return float(lrs[best])
    excess = np.where(np.isfinite(losses), losses-lowest, np.inf)/scale
    bad = np.flatnonzero(excess > NEGLIGIBLE)
    start = bad[bad < best].max(initial=-1) + 1
    end = bad[bad > best].min(initial=len(lrs))
    around = slice(start, end)
    return float(np.exp(np.average(np.log(lrs[around]), weights=np.exp(-excess[around]))))
