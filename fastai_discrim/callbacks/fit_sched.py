"Fit under the paper's schedule or fastai 0.7's, as `fit_one_cycle` does under the 1cycle policy"
__all__ = []

from fastai.learner import Learner
from fastcore.basics import ifnone, patch
from fastcore.foundation import L

from ..checks import as_rate, check_names
from ..groups.layer_groups import own_lr
from ..plan.schedules import STLR, CLRBeta, Schedule


def fit_sched(learn:Learner, n_epoch:int, lr_max, sched:Schedule, moms, cbs=None, wd=None, reset_opt=False, start_epoch=0):
    "Fit under one cycle of `sched`; `moms` has as many values as `sched` needs, and the other arguments are as in `fit_stlr`"
    # Import inside the function, because fastai.callback.schedule changes the default callbacks when it is imported
    from .cycle_scheduler import CycleScheduler
    if lr_max is None: lr_max = own_lr(learn, reset_opt)
    # A single rate, such as a tensor or the result of `lr_find`
    elif hasattr(lr_max, '_fields') or not getattr(lr_max, 'ndim', 1): lr_max = as_rate(lr_max, 'lr_max')
    scheduler = CycleScheduler(sched, lr_max, ifnone(moms, learn.moms))
    learn.fit(n_epoch, cbs=scheduler+L(cbs), wd=wd, reset_opt=reset_opt, start_epoch=start_epoch)

@patch
@check_names
def fit_stlr(self:Learner,
    n_epoch:int, # Number of epochs
    lr_max=None, # Peak rate, as in `fit_one_cycle`: a number, a `slice`, or one number per layer group; None for `learn.lr`
    cut_frac:float=0.1, # Fraction of the steps in which the rate rises
    ratio:float=32, # The rate starts and ends at `lr_max/ratio`
    wd:float|None=None, # Weight decay, as in `fit`
    moms:tuple|None=None, # Momentum: start, at the peak rate, end; None for `learn.moms`
    cbs=None, # One callback, many, or a class
    reset_opt:bool=False, # As in `fit`
    start_epoch:int=0, # As in `fit`
):
    """Fit `n_epoch` epochs under the slanted triangle of `SchedSTLR` (ULMFiT, section 3.2)

    >>> learn.fit_stlr(2, 1e-2)
    >>> learn.recorder.group_lrs[:, -1].round(6)[:4]
    array([0.000312, 0.006367, 0.009731, 0.009058])
    """
    fit_sched(self, n_epoch, lr_max, STLR(cut_frac, ratio), moms, cbs, wd, reset_opt, start_epoch)

@patch
@check_names
def fit_clr_beta(self:Learner,
    n_epoch:int, # Number of epochs
    lr_max=None, # Peak rate, as in `fit_one_cycle`: a number, a `slice`, or one number per layer group; None for `learn.lr`
    div:float=10, # The rate starts at `lr_max/div`
    pct:float=10, # Percentage of the steps, at the end, in which the rate falls to `lr_max/div/100`
    moms:tuple=(0.95, 0.85), # Momentum: highest, lowest
    wd:float|None=None, # Weight decay, as in `fit`
    cbs=None, # One callback, many, or a class
    reset_opt:bool=False, # As in `fit`
    start_epoch:int=0, # As in `fit`
):
    "Fit `n_epoch` epochs under the triangle and tail of `SchedCLRBeta` (fastai 0.7's `use_clr_beta=(div, pct, *moms)`)"
    fit_sched(self, n_epoch, lr_max, CLRBeta(div, pct), moms, cbs, wd, reset_opt, start_epoch)
