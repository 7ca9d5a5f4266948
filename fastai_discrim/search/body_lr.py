"Find the rate of the body, by fits in miniature: the plan of the whole fit in a few steps, once per rate"
__all__ = []

from collections.abc import Callable

import numpy as np
from fastai.learner import Learner

from ..plan.origin import BodyLR
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

def lower_lr(
    losses_at, # Function from a rate to its `Losses`
    first:float, # Where to begin
) -> tuple: # Rates, ascending; their `Losses`; the chosen one
    """Divide `first` by 3 for as long as the loss gets clearly lower, or isn't finite. Higher rates are not tried: they only seem better in
    a few steps (`benchmarks/README.md`)"""
    lrs,losses = [first],losses_at(first)
    while len(lrs) <= MAX_DOWN:
        lrs,losses = [lrs[0]/STEP, *lrs],losses_at(lrs[0]/STEP).joined(losses)
        if np.isfinite(losses.mean[1]) and not losses.is_clearly_lower(0, 1): return np.array(lrs),losses,lrs[1]
    return np.array(lrs),losses,lrs[0]

def search_body_lr(
    learn:Learner, # The learner, which is put back
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
    lrs,losses,chosen = run_search(learn, lambda: lower_lr(_losses_at, plan.phases[0].lrs[-2]), "the body's rate")
    return BodyLR(chosen, lrs, losses.mean, f'validation loss after {steps} steps of the plan in miniature, at {len(lrs)} rates')
