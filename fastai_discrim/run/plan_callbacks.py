"Run a plan by callbacks: set what trains, and at which rates"
__all__ = []

import numpy as np
from fastai.callback.schedule import ParamScheduler

from ..callbacks.base import FitCallback, in_validation
from ..callbacks.unfreezing import Unfreezing
from ..plan.plan import Plan
from ..plan.schedules import usable_scheds
from .plan_loop import PlanLoop


class PlanUnfreezing(Unfreezing):
    "Freeze and open layer groups as the plan says"
    def __init__(self, plan:Plan): self.plan,self.train_bn = plan,plan.train_bn
    # `check_plan` has checked the rest
    def check_fit(self, fit): self.check_callbacks(fit.cbs)
    # The plan has all its epochs, and has passed over dead groups
    def fill(self, n_groups, n_epoch, dead=()): return [(p.epochs, p.groups) for p in self.plan.phases]

    def enter(self, phase):
        super().enter(phase)
        self._set_phase()

    def before_batch(self):
        super().before_batch()
        # A checkpoint within an epoch restores `current` without a call of `enter`
        self._set_phase()

    def _set_phase(self):
        "Set `learn.phase`; not with `setattr`, as the model may have a `phase` too"
        vars(self.learn)['phase'] = self.plan.phases[self.current]

class PlanScheduler(FitCallback, ParamScheduler):
    "Set the rates and momentum of the plan"
    order = ParamScheduler.order

    def __init__(self, plan:Plan, loop:PlanLoop): self.plan,self.loop,self.scheds = plan,loop,{'lr': None}

    def __call__(self, event_name):
        # A validation in the middle of a fit sets `epoch` to 0, and fastai doesn't restore it
        if in_validation(self.learn): self.learn.epoch = self.loop.epoch
        else: super().__call__(event_name)

    def before_train(self):
        # Not `learn.n_iter`, which a validation in the middle of an epoch changes
        self.steps_per_epoch = len(self.dls.train)
        self.timeline,self.scheduled = self.plan.timeline(self.steps_per_epoch),None

    def before_batch(self):
        # `self.learn.iter` and not `self.iter`: the attribute lookup of `Callback` takes longer than the rest of this method
        step = self.learn.epoch*self.steps_per_epoch + self.learn.iter
        phase,(leader,place) = self.plan.phases[self.timeline.phase(step)],self.timeline.cycle(step)
        if phase is not self.scheduled: self._schedule(phase, self.plan.phases[leader])
        self._update_val(place)

    def _schedule(self, phase, begun):
        "Make the schedules of a phase, which continues the cycle that the phase `begun` began"
        self.scheduled = phase
        self.scheds = usable_scheds(self.opt, begun.sched, np.array(phase.lrs), begun.moms or self.learn.moms)
        for k in self.scheds: self.hps.setdefault(k, [])
