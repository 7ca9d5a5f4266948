"Find the rate of the body, by fits in miniature: the plan of the whole fit in a few steps, once per rate"
__all__ = []

import numpy as np
from fastai.learner import Learner
from fastai.torch_core import rank_distrib
from fastcore.basics import patch

from ..plan.origin import BodyLR, HeadLR
from .miniature import miniature_losses
from .plot import plot_search
from .restored import restored
from .run_search import run_search

# From one rate to the next: beyond the best one the loss rises within about one such step
STEP = 3.
# Steps down at most: a millionth of what destroys a network trains nothing
MAX_DOWN = 4
# Steps of a miniature: half of the fit, but at most 40; in a long fit a share of it, so that two of them take less than a tenth
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
    """Divide `first` by 3 for as long as the loss gets clearly lower, or isn't finite. Higher rates are not tried: a few steps like them,
    and many don't (`benchmarks/README.md`)"""
    lrs,losses = [first],losses_at(first)
    while len(lrs) <= MAX_DOWN:
        lrs,losses = [lrs[0]/STEP, *lrs],losses_at(lrs[0]/STEP).joined(losses)
        if np.isfinite(losses.mean[1]) and not losses.is_clearly_lower(0, 1): return np.array(lrs),losses,lrs[1]
    return np.array(lrs),losses,lrs[0]

@patch
def body_lr_find(self:Learner,
    n_epoch:int, # Epochs of the fit that is planned
    lr:float|HeadLR, # Peak rate of the head, η_L, or what `head_lr_find` gave
    show_plot:bool=True, # Plot the loss against the rate?
    *,
    wd:float=None, # Weight decay, as in `fit`
    **kwargs, # As in `ulmfit_plan`
) -> BodyLR: # The chosen rate, the rates tried and their losses, and how they were found
    """Find the rate of the group below the head by fits in miniature: the plan of the whole fit in at most 40 steps, once per rate. Begin
    at what is usual for networks of its kind, the paper's η_L / 2.6 if nothing is, and go down for as long as the validation loss gets
    clearly lower. Leave no trace on the learner"""
    steps = n_steps(n_epoch*len(self.dls.train))
    first = self.ulmfit_plan(n_epoch, lr, **kwargs).phases[0].lrs[-2]
    def _losses_at(body_lr):
        plan = self.ulmfit_plan(n_epoch, lr, body_lr, **kwargs)
        with restored(self),self.no_bar(),self.no_logging():
            self.metrics = []
            return miniature_losses(self, plan, steps, N_ITEMS, wd)
    lrs,losses,chosen = run_search(self, lambda: lower_lr(_losses_at, first), "the body's rate")
    how = f'validation loss after {steps} steps of the plan in miniature, at {len(lrs)} rates'
    res = BodyLR(chosen, lrs, losses.mean, how)
    if show_plot and rank_distrib() == 0: plot_search(res, 'group below the head')
    return res
