"Fit in miniature: run a plan in a few steps, and validate after them"
__all__ = []

from copy import copy
from dataclasses import replace
from itertools import islice
from warnings import catch_warnings, simplefilter

import numpy as np
from fastai.callback.core import Callback, CancelFitException, CancelValidException
from fastai.learner import Learner
from fastcore.basics import GetAttr

from ..checks import has_valid
from ..plan.opening import with_own_steps
from ..plan.plan import Plan
from ..run import fit_plan  # noqa: F401, for `learn.fit_plan`
from .frozen_features import shuffled
from .losses import Losses
from .part_losses import gather_losses, part_losses


class FirstBatches(GetAttr):
    "The first `n` batches of a loader, which starts again if it has fewer; all other attributes are those of the loader"
    _default = 'dl'
    def __init__(self, dl, n:int): self.dl,self.n = dl,n
    def __len__(self): return self.n
    def __iter__(self):
        left = self.n
        while left:
            n_before = left
            for b in islice(self.dl, left):
                left -= 1
                yield b
            if left == n_before: raise ValueError('the training set has no batch: expected at least one')

def miniature(plan:Plan, n_steps:int) -> Plan:
    "Return `plan` scaled to one epoch of `n_steps` steps, with the same rates, schedule and share of each phase"
    shares = [(p.epochs/plan.n_epoch, i) for i,p in enumerate(plan.phases)]
    begun,phases = set(),[]
    for epochs,i in with_own_steps(shares, n_steps):
        phase = replace(plan.phases[i], epochs=epochs, early_stop=None)
        # The phase that begins the cycle may have no step in the miniature
        leader = max(j for j in range(i+1) if plan.phases[j].sched is not None)
        if leader not in begun: phase = replace(phase, sched=plan.phases[leader].sched, moms=plan.phases[leader].moms)
        begun.add(leader)
        phases.append(phase)
    return replace(plan, phases=phases)

class NoValidation(Callback):
    "Skip the validation at the end of the epoch, and tell in `cancelled` whether a callback cancelled the fit"
    cancelled = False
    def before_validate(self): raise CancelValidException()
    def after_cancel_fit(self): self.cancelled = True

class ValidLosses(Callback):
    "Keep the `part_losses` of the first `n_items` items in `batches`"
    def __init__(self, n_items:int): self.n_items,self.batches = n_items,[]

    def after_batch(self):
        self.batches.append(part_losses(self.learn.loss_func, self.learn.pred, self.yb, float(self.learn.loss)))
        if sum(sum(sizes) for _,sizes in self.batches) >= self.n_items: raise CancelValidException()

def miniature_losses(learn:Learner, plan:Plan, n_steps:int, n_items:int, wd:float|None=None) -> Losses:
    """Fit `plan` in `n_steps` steps, which changes `learn`, and return the validation losses of at most `n_items` items, in whole batches.
    Raise `CancelFitException` if a callback cancels the fit, or the first step of its epoch"""
    train = learn.dls.train
    valid = learn.dls.valid if has_valid(learn) else train
    learn.dls = copy(learn.dls)
    learn.dls.loaders = [FirstBatches(train, n_steps), valid]
    end = NoValidation()
    with catch_warnings():
        # The whole fit gives these warnings itself
        simplefilter('ignore')
        learn.fit_plan(miniature(plan, n_steps), wd=wd, cbs=end, reset_opt=True)
    n_done,losses = learn.train_iter,ValidLosses(n_items)
    learn.validate(dl=shuffled(valid, n_items), cbs=losses)
    # A callback cancelled the pass, and `validate` caught its exception
    if not losses.batches: raise CancelValidException()
    res = gather_losses([losses.batches])
    # `fit` also caught the exception of a callback, unless it ended early because of a loss that is not finite. A callback that only cuts
    # epochs short, as `ShortEpochCallback` does, is no reason to stop
    is_cancelled = end.cancelled and n_done < n_steps or not n_done
    if is_cancelled and np.isfinite(res.mean).all(): raise CancelFitException()
    return res
