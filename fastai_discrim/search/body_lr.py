"Find the rate of the body, by fits in miniature: the plan of the whole fit in a few steps, once per rate"
__all__ = []

from collections.abc import Callable

import numpy as np
from fastai.learner import Learner

from ..plan.origin import BodyLR, HeadLR
from .choice import HIGHEST_USUAL
from .restored import restored
from .run_search import run_search

# miniature is imported where it is used: it imports fastai.callback.progress, which changes the default callbacks of everybody

# From one rate to the next: beyond the best one the loss rises within about one such step
STEP = 3.
# Steps down at most: a millionth of what destroys a network trains nothing
MAX_DOWN = 4
# Steps of a miniature: half of the fit, but at most 40; in a long fit a share of it
MAX_STEPS,MIN_STEPS,SHARE_OF_LONG = 40,15,1/25
# A fit of more steps is long
LONG = 200
# Items of the validation set, at most
N_ITEMS = 500


def n_steps(
    n_fit:int, # Steps of the whole fit
) -> int:
    "Return how many steps a miniature of the fit has"
    if n_fit <= LONG: return min(MAX_STEPS, max(n_fit//2, 1))
    return int(np.clip(n_fit*SHARE_OF_LONG, MIN_STEPS, MAX_STEPS))

def destroyed_from(
    lr:float|HeadLR, # The head's rate, or what `head_lr_find` gave
) -> float: # inf for rates of the usual size, and where it isn't known what the head learns alone
    "Return the loss at and above which a rate has destroyed the body: the head alone learns more. Only targets on another scale need it"
    if not isinstance(lr, HeadLR) or not lr.accepted or lr.lr <= HIGHEST_USUAL: return np.inf
    return float(np.nanmin(lr.losses))

def lower_lr(
    losses_at, # Function from a rate to its `Losses`
    first:float, # Where to begin
    destroyed:float=np.inf, # The loss from which on the network is destroyed: such a rate says nothing of lower ones
) -> tuple: # Rates, ascending; their `Losses`; the chosen one
    """Divide `first` by 3 for as long as the loss gets clearly lower, isn't finite, or is that of a destroyed network, and once more from
    there. Higher rates are not tried: they only seem better in a few steps (`benchmarks/README.md`)"""
    lrs,losses = [first],losses_at(first)
    while len(lrs) <= MAX_DOWN:
        lrs,losses = [lrs[0]/STEP, *lrs],losses_at(lrs[0]/STEP).joined(losses)
        if not np.isfinite(losses.mean[1]) or losses.is_clearly_lower(0, 1): continue
        if losses.mean[1] < destroyed: return np.array(lrs),losses,lrs[1-_is_at_edge(losses, destroyed)]
    # If all destroy the network, the lowest rate is no better than the others
    all_bad = (losses.mean >= destroyed).any() and not (losses.mean < destroyed).any()
    return np.array(lrs),losses,lrs[np.nanargmin(losses.mean) if all_bad else 0]

def _is_at_edge(losses, destroyed):
    "Tell whether the next higher rate destroys the network, and the next lower one doesn't: a fit is longer than what was tried"
    return len(losses.mean) > 2 and losses.mean[2] >= destroyed > losses.mean[0]

def search_body_lr(
    learn:Learner, # The learner, which is put back
    lr:float|HeadLR, # Peak rate of the head, η_L, or what `head_lr_find` gave
    plan_at:Callable, # Function from a rate of the group below the head to the plan of the fit
    wd:float|None=None, # Weight decay, as in `fit`
) -> BodyLR: # The chosen rate, the rates tried and their losses, and how they were found
    "Find the rate of the group below the head by fits in miniature, beginning with the rate that the plan has without one"
    from .miniature import miniature_losses
    plan = plan_at(None)
    steps = n_steps(plan.n_epoch*len(learn.dls.train))
    def _losses_at(body_lr):
        with restored(learn),learn.no_bar(),learn.no_logging():
            learn.metrics = []
            return miniature_losses(learn, plan_at(body_lr), steps, N_ITEMS, wd)
    def _search(): return lower_lr(_losses_at, plan.phases[0].lrs[-2], destroyed_from(lr))
    lrs,losses,chosen = run_search(learn, _search, "the body's rate")
    return BodyLR(chosen, lrs, losses.mean, f'validation loss after {steps} steps of the plan in miniature, at {len(lrs)} rates')
