"The loop over epochs and batches while a plan runs: it begins where a checkpoint is, and leaves out what a phase that ended early does"
__all__ = []

from contextlib import contextmanager

from fastai.callback.core import CancelEpochException
from fastai.imports import noop
from fastai.learner import Learner

from ..callbacks.base import overridden
from ..distributed import n_processes
from ..plan.plan import Plan
from .nested_fit import nested_fit


class PlanLoop:
    "Position of a plan's fit, and its loop in place of fastai's"
    def __init__(self,
        learn:Learner, # The learner that fits
    ):
        self.learn,self.fastai_fit,self.fastai_do_fit,self.fastai_one_batch = learn,learn.fit,learn._do_fit,learn.one_batch
        # Has the plan's fit begun? Is it in its loop? Is another fit in the middle of it?
        self.begun = self.running = self.nested = False
        # The epoch that is being fitted, whatever is validated in the middle of it
        self.epoch = 0
        # Where the fit begins: its first epoch, and the batches of it that were trained before
        self.first_epoch = self.batches_done = 0
        # Where the fit goes on when a phase has ended early
        self.next_epoch = 0
        self.after_skipped = noop

    def fit(self, *args, **kwargs):
        "Fit as fastai does; a fit that a callback begins in the middle of the plan's has nothing of the plan"
        if self.nested or not self.begun:
            self.begun = True
            return self.fastai_fit(*args, **kwargs)
        with nested_fit(self.learn), overridden(self, nested=True): return self.fastai_fit(*args, **kwargs)

    def do_fit(self):
        "Fit as fastai does, but from `first_epoch` on and without the epochs before `next_epoch`"
        if self.nested or self.running: return self.fastai_do_fit()
        # Read once, as fastai does: a fit in the middle sets it
        n_epoch = self.learn.n_epoch
        self.running,epoch = True,self.first_epoch
        while epoch < n_epoch:
            self.learn.epoch = self.epoch = epoch
            self.learn._with_events(self._do_epoch, 'epoch', CancelEpochException)
            epoch = max(epoch+1, self.next_epoch)

    def _do_epoch(self):
        # A callback may have validated before it, for which fastai counts from 0
        self.learn.epoch = self.epoch
        self.learn._do_epoch()

    def one_batch(self, i, b):
        "Train or validate on a batch as fastai does; batches that were trained before a checkpoint only set the order of the others"
        if self.nested or not self.learn.training or i >= self.batches_done: return self.fastai_one_batch(i, b)
        self.learn.iter = i
        if i == self.batches_done-1:
            self.batches_done = 0
            self.after_skipped()

@contextmanager
def plan_loop(
    learn:Learner, # The learner that fits inside
    plan:Plan, # The plan that it runs
    epoch:int=0, # Where the fit begins
    batches:int=0, # Batches of that epoch that were trained before, in each process
):
    "Run `plan` inside: `learn` has its loop, and `learn.phase` is the phase that runs"
    loop,n_iter = PlanLoop(learn),len(learn.dls.train)
    begin = plan.timeline(n_iter).phase(epoch*n_iter + batches*n_processes())
    with overridden(learn, fit=loop.fit, _do_fit=loop.do_fit, one_batch=loop.one_batch, phase=plan.phases[begin]): yield loop
