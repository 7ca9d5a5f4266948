"Find the body's rate by fits in miniature: run the plan of the whole fit in a few steps, once per candidate rate"
__all__ = []

from collections.abc import Callable

import numpy as np
from fastai.learner import Learner

from ..plan.origin import BodyLR, HeadLR
from ..plan.plan import Plan
from .accumulation import batches_per_step, fit_steps
from .choice import HIGHEST_USUAL
from .restored import restored
from .run_search import measure_nothing, run_search

# `miniature` is imported inside a function: it imports fastai.callback.progress, which changes the default callbacks of every learner

# Ratio of neighbouring candidate rates: the loss rises within about one such ratio above the best rate
STEP = 3.
# Candidates below the first one, at most: a rate far below those that destroy a network trains nothing
MAX_DOWN = 4
# Steps of a miniature: half of the steps of the fit and at most 40; for a long fit 1/25 of them, from 15 to 40
MAX_STEPS,MIN_STEPS,SHARE_OF_LONG = 40,15,1/25
# A fit with more steps than this is long: its search may take less of its time. So a miniature just above is shorter than one just below
LONG = 200
# Validation items per candidate, at most; fewer than the least can only tell that a rate destroys the network, not which rate is better
N_ITEMS,LEAST_ITEMS = 500,5


def n_steps(n_fit:int) -> int:
    "Return how many steps a miniature of a fit of `n_fit` steps has"
    if n_fit <= LONG: return min(MAX_STEPS, max(n_fit//2, 1))
    return int(np.clip(n_fit*SHARE_OF_LONG, MIN_STEPS, MAX_STEPS))

def destroyed_from(
    lr:float|HeadLR, # The head's rate, or the result of `head_lr_find`
) -> float: # inf if η_L has the usual size, or if the loss of the head alone is unknown
    "Return the loss from which on a rate has destroyed the body: the head alone does better. Only unscaled targets need this bound"
    if not isinstance(lr, HeadLR) or not lr.accepted or lr.lr <= HIGHEST_USUAL: return np.inf
    return float(np.nanmin(lr.losses))

def lower_lr(
    losses_at, # Function that returns the `Losses` of a rate
    first:float, # The first and highest candidate
    destroyed:float=np.inf, # The loss from which on the network is destroyed; lower rates may still be good
) -> tuple: # The rates tried, ascending; their `Losses`; the chosen rate
    """Start at `first` and divide by 3 until the next lower rate has no clearly lower loss; go on below a rate with a loss that is not
    finite, or that of a destroyed network. Try no higher rates: in a few steps they only seem better (`benchmarks/README.md`)"""
    lrs,losses = [first],losses_at(first)
    while len(lrs) <= MAX_DOWN:
        lrs,losses = [lrs[0]/STEP, *lrs],losses_at(lrs[0]/STEP).joined(losses)
        is_better = losses.sizes.sum() >= LEAST_ITEMS and losses.is_clearly_lower(0, 1)
        if not np.isfinite(losses.mean[1]) or is_better: continue
        if losses.mean[1] < destroyed: return np.array(lrs),losses,lrs[0 if _is_at_edge(losses, destroyed) else 1]
    # If every rate destroys the network, the lowest is no safer than the others
    all_bad = (losses.mean >= destroyed).any() and not (losses.mean < destroyed).any()
    return np.array(lrs),losses,lrs[np.nanargmin(losses.mean) if all_bad else 0]

def _is_at_edge(losses, destroyed):
    "Tell whether the next higher rate destroys the network and the next lower one does not: in the longer whole fit this rate may too"
    return len(losses.mean) > 2 and losses.mean[2] >= destroyed > losses.mean[0]

def search_body_lr(
    learn:Learner, # The learner, which is restored at the end
    lr:float|HeadLR, # Peak rate of the head, η_L, or the result of `head_lr_find`
    plan:Plan, # The plan of the fit, with the rate to start at
    plan_at:Callable, # Function that returns the plan for another rate of the group below the head
    wd:float|None=None, # Weight decay, as in `fit`
) -> BodyLR: # The chosen rate, the rates tried and their losses, and how they were found
    "Find the rate of the group below the head by fits in miniature, starting at the rate of `plan`"
    from .miniature import miniature_losses
    accumulated = batches_per_step(learn)
    steps = n_steps(fit_steps(learn, plan.n_epoch))
    def _losses_at(body_lr):
        with restored(learn),learn.no_bar(),learn.no_logging():
            measure_nothing(learn)
            return miniature_losses(learn, plan_at(body_lr), steps*accumulated, N_ITEMS, wd)
    def _search(): return lower_lr(_losses_at, plan.phases[0].lrs[-2], destroyed_from(lr))
    lrs,losses,chosen = run_search(learn, _search, "the body's rate")
    if not np.isfinite(losses.mean).any():
        raise ValueError(f'the validation loss is not finite at any of {len(lrs)} rates of the body: expected one at which it is; fix the '
                         'data or the loss, or give a lower `lr`')
    return BodyLR(chosen, lrs, losses.mean, f'validation loss after {steps} steps of the plan in miniature, at {len(lrs)} rates')
