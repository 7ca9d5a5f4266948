"Run ULMFiT in one line: find the rates, make the plan and fit"
__all__ = []

from functools import partial

import numpy as np
from fastai.learner import Learner
from fastai.torch_core import rank_distrib
from fastcore.basics import defaults, ifnone, patch
from fastcore.foundation import L
from fastcore.meta import delegates

from . import ulmfit_plan  # noqa: F401, for `learn.ulmfit_plan`
from .checks import check_names
from .distributed import log_rank0
from .groups.layer_groups import check_groups
from .plan.origin import BodyLR, HeadLR
from .plan.plan import Plan
from .run.checkpoint_file import check_checkpoint, read_checkpoint
from .run.fit_plan import check_plan, run_checked
from .run.run_identity import checkpoint_plan
from .search import head_lr as _head_lr  # noqa: F401, for `learn.head_lr_find`
from .search.body_lr import search_body_lr
from .search.body_prior import body_prior
from .search.collapse import warn_of_collapse
from .search.plot import plot_search


@patch
@check_names
@delegates(Learner.ulmfit_plan, but=['body_lr'])
def body_lr_find(self:Learner,
    n_epoch:int, # Number of epochs of the planned fit
    lr:float|HeadLR, # Peak rate of the head, η_L, or the result of `head_lr_find`
    show_plot:bool=True, # Plot the loss against the rate?
    *,
    wd:float|None=None, # Weight decay, as in `fit`
    **kwargs
) -> BodyLR: # The chosen rate, the rates tried and their losses, and how they were found
    """Find the rate of the group below the head by fits in miniature, which run the planned fit in at most 40 steps, once for each rate.
    Start at the usual rate for this kind of network and this number of steps, or at the paper's η_L / 2.6, and lower it as long as the
    validation loss clearly improves. For recurrent networks, or if only the head trains, search nothing, and return the rate of the
    plan. Leave no trace on the learner"""
    plan = self.ulmfit_plan(n_epoch, lr, **kwargs)
    only_head_trains = all(p.groups == (plan.n_groups-1,) for p in plan.phases)
    if only_head_trains or body_prior(self, check_groups(self)).is_settled: return _planned_body_lr(plan)
    res = search_body_lr(self, lr, plan, lambda body_lr: self.ulmfit_plan(n_epoch, lr, body_lr, **kwargs), wd)
    if show_plot and rank_distrib() == 0: plot_search(res, 'group below the head')
    return res

def _planned_body_lr(plan):
    "Return the rate of the group below the head in `plan`, as the result of a search that tried no rates"
    *_,body_lr,lr = plan.phases[0].lrs
    return BodyLR(body_lr, np.array([]), np.array([]), plan.body_lr_from or f"1/{lr/body_lr:.3g} of the head's")

@patch
@check_names
@delegates(Learner.ulmfit_plan)
def fit_ulmfit(self:Learner,
    n_epoch:int, # Number of epochs in all
    lr:float|HeadLR|None=None, # Peak rate of the head, η_L, or the result of `head_lr_find`; None to find it
    cbs=None, # One callback, many, or a class
    wd:float|None=None, # Weight decay, as in `fit`
    checkpoint:str|None=None, # Name of a file from which the same call resumes, without a new search, as in `fit_plan`
    *,
    body_lr:float|BodyLR|None=None, # Peak rate of the group below the head; None to find it, or to follow a rule if `lr` is a number
    checkpoint_every:int|None=None, # As in `fit_plan`
    reset_opt:bool=False, # As in `fit`
    **kwargs
):
    """Fine-tune as ULMFiT does: find the rates, then unfreeze the layer groups one by one, each at its own rate, under a triangle

    >>> learn.fit_ulmfit(3)
    >>> learn.recorder.plan   # what ran, and where its rates came from
    Plan: 3 epochs, 3 phases, 3 groups; peak rates; η_L = ..., head_lr_find, validation loss of the head...
    """
    if isinstance(n_epoch, Plan): raise TypeError('n_epoch is a Plan: expected a number of epochs; `learn.fit_plan(plan)` runs a plan')
    make_plan = partial(self.ulmfit_plan, n_epoch, **kwargs)
    # Instantiate classes once, for the search and the fit
    cbs = L(cbs).map(lambda cb: cb() if isinstance(cb, type) else cb)
    check_checkpoint(checkpoint, checkpoint_every)
    # Check everything before the search, with a stand-in for an unknown rate
    plan = make_plan(ifnone(lr, defaults.lr), body_lr)
    check_plan(self, plan, cbs, reset_opt)
    state = checkpoint and read_checkpoint(self, checkpoint)
    # Nothing is searched if the user gives a number for `lr`
    if lr is None or isinstance(lr, HeadLR):
        if state: lr,body_lr = map(ifnone, (lr, body_lr), _rates_of(checkpoint_plan(state)))
        # The model may need the callbacks, and the usual rates depend on a `GradientAccumulation` among them
        with self.added_cbs(cbs):
            if not state: lr,body_lr = _find_rates(self, plan, n_epoch, lr, body_lr, wd, kwargs)
            plan = make_plan(lr, body_lr)
    if isinstance(lr, HeadLR) and plan.lr != lr.lr:
        log_rank0(self, f'the head trains at {plan.lr:.2e}, as the plan keeps it close to the rate below it, {plan.body_lr:.2e}')
    run_checked(self, plan, cbs, wd, checkpoint, checkpoint_every, reset_opt, state=state)
    if isinstance(lr, HeadLR) and rank_distrib() == 0: warn_of_collapse(self, lr)

def _find_rates(learn, plan, n_epoch, lr, body_lr, wd, plan_args):
    "Return the rates of the head and of the group below it; find those that are None. `plan` has a stand-in for an unknown rate"
    if lr is None:
        # The plan with a stand-in has the paper's triangle, unless the user gave a schedule; the plan at the rate found may differ
        sched,moms = plan.phases[0].sched,plan.phases[0].moms
        lr = learn.head_lr_find(n_epoch=n_epoch, sched=sched, moms=moms, wd=wd, show_plot=False)
        log_rank0(learn, f'head_lr_find: η_L = {lr.lr:.2e}, {lr.how}')
    if body_lr is None:
        body_lr = learn.body_lr_find(n_epoch, lr, wd=wd, show_plot=False, **plan_args)
        log_rank0(learn, f'body_lr_find: {body_lr.lr:.2e}, {body_lr.how}')
    return lr,body_lr

def _rates_of(plan):
    "Return the rates of the head and of the group below it in the `plan` of a checkpoint; one that was found, as the result of its search"
    def _rate(lr, origin, search, kind):
        return kind(lr, np.array([]), np.array([]), 'as in the checkpoint') if origin.startswith(search) else lr
    return (_rate(plan.phases[0].lrs[-1], plan.lr_from, 'head_lr_find', HeadLR),
            _rate(plan.body_lr, plan.body_lr_from, 'body_lr_find', BodyLR))
