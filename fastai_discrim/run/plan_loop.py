"Loop over epochs and batches of a plan: start where a checkpoint ends, and skip the epochs that a phase leaves out by ending early"
__all__ = []

from contextlib import contextmanager

from fastai.callback.core import CancelEpochException
from fastai.imports import noop
from fastai.learner import Learner
from fastcore.foundation import L

from ..callbacks.base import FitCallback, overridden
from ..callbacks.nested_fit import nested_fit
from ..distributed import n_processes
from ..plan.plan import Plan


class PlanLoop:
    "The position of a fit with a plan, and the loop that replaces fastai's"
    def __init__(self, learn:Learner):
        self.learn,self.fastai_fit,self.fastai_do_fit,self.fastai_one_batch = learn,learn.fit,learn._do_fit,learn.one_batch
        # Has the fit begun? Is it in its loop? Is a nested fit running?
        self.begun = self.running = self.nested = False
        # The current epoch, which a validation in the middle of it doesn't change
        self.epoch = 0
        # Where the fit begins: the epoch, and the number of its batches that were trained before
        self.first_epoch = self.batches_done = 0
        # The next epoch after a phase that has ended early
        self.next_epoch = 0
        # Called after the last batch that was trained before
        self.after_skipped = noop

    def fit(self, *args, **kwargs):
        "Fit as fastai does; a nested fit, which a callback starts, runs without the plan"
        if self.nested or not self.begun:
            self.begun = True
            return self.fastai_fit(*args, **kwargs)
        with nested_fit(self.learn), overridden(self, nested=True): return self.fastai_fit(*args, **kwargs)

    def do_fit(self):
        "Loop as fastai does, but from `first_epoch`, and skip the epochs before `next_epoch`"
        if self.nested or self.running: return self.fastai_do_fit()
        # Read once, as fastai does: a nested fit changes it
        n_epoch = self.learn.n_epoch
        self.running,epoch = True,self.first_epoch
        while epoch < n_epoch:
            self.learn.epoch = self.epoch = epoch
            self.learn._with_events(self._do_epoch, 'epoch', CancelEpochException)
            epoch = max(epoch+1, self.next_epoch)

    def _do_epoch(self):
        # A callback may have validated in `before_epoch`, which sets `epoch` to 0
        self.learn.epoch = self.epoch
        self.learn._do_epoch()

    def one_batch(self, i, b):
        "Train or validate on a batch as fastai does; skip batches that were trained before, which are drawn only to keep the order"
        if self.nested or not self.learn.training or i >= self.batches_done: return self.fastai_one_batch(i, b)
        self.learn.iter = i
        # For its first batch, fastai draws an item, to count the inputs
        self.learn._split(b)
        if i == self.batches_done-1:
            self.batches_done = 0
            self.after_skipped()

@contextmanager
def plan_loop(learn:Learner, plan:Plan, epoch:int=0, batches:int=0):
    """Fit with the loop of `plan` inside the context; `learn.phase` is the current phase. The fit begins in `epoch`, of which each process
    trained so many `batches` before"""
    loop,n_iter = PlanLoop(learn),len(learn.dls.train)
    begin = plan.timeline(n_iter).phase(epoch*n_iter + batches*n_processes())
    overrides = dict(fit=loop.fit, _do_fit=loop.do_fit, one_batch=loop.one_batch, phase=plan.phases[begin])
    def _state():
        "Return what a copy or an export of the learner has: neither the plan nor the callbacks that run it"
        state = {k: v for k,v in type(learn).__getstate__(learn).items() if k not in (*overrides, '__getstate__')}
        return {**state, 'cbs': L(cb for cb in learn.cbs if not isinstance(cb, FitCallback))}
    with overridden(learn, **overrides, __getstate__=_state): yield loop
