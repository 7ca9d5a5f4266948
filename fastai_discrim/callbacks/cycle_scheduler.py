"Run one cycle of a schedule over a fit"
__all__ = []

import numpy as np
from fastai.callback.schedule import ParamScheduler

from ..checks import check_moms, check_rates
from ..plan.schedules import Schedule, usable_scheds
from .base import GroupCallback


class CycleScheduler(GroupCallback, ParamScheduler):
    "Schedule rate and momentum by one cycle of a `Schedule`, with a peak rate for each layer group"
    order,min_groups = ParamScheduler.order,1

    # `lr_max` is as in `fit_one_cycle`, and `moms` has as many values as `sched` needs
    def __init__(self, sched:Schedule, lr_max, moms:tuple): self.sched,self.lr_max,self.moms,self.scheds = sched,lr_max,moms,{'lr': None}

    def check_fit(self, fit):
        check_rates(self.lr_max, len(super().check_fit(fit)), 'lr_max')
        check_moms(self.moms, counts=self.sched.n_moms)

    def before_fit(self):
        # `set_hyper` spreads a `slice` over the layer groups
        self.opt.set_hyper('lr', self.lr_max)
        lrs = np.array([h['lr'] for h in self.opt.hypers])
        self.scheds = usable_scheds(self.opt, self.sched, lrs, self.moms)
        super().before_fit()
