"Discriminative learning rates under any scheduler (ULMFiT, section 3.2)"
__all__ = ['DiscriminativeLR']

from functools import partial

import numpy as np
from fastai.learner import Learner
from fastcore.basics import store_attr

from ..checks import check_list, check_number, check_rates, plain_number
from ..plan.rates import check_fall, discriminative_lrs
from .base import GroupCallback, check_only_one


class DiscriminativeLR(GroupCallback):
    """Train each layer group at a multiple of the head's rate, which the scheduler sets; `opt.hypers` stays as the scheduler sets it

    >>> learn.fit_one_cycle(1, 1e-2, cbs=DiscriminativeLR(factor=10))
    >>> learn.recorder.group_lrs.max(axis=0).round(6)
    array([0.0001, 0.001 , 0.01  ])
    """
    def __init__(self,
        factor:float|None=None, # Each group's multiplier is that of the group above divided by this; None for 2.6
        multipliers=None, # Instead of `factor`: the multipliers, one per layer group, input first
        min_scale:float=0., # Lower bound for the multipliers
        span:float|None=None, # As in `discriminative_lrs`
        decay:float|None=None, # As in `discriminative_lrs`
        body:float|None=None, # Multiplier of the group below the head, from which the lower ones fall; None to fall from the head's
    ):
        check_fall(factor, min_scale, span, decay)
        factor,min_scale,span,decay,body = map(plain_number, (factor, min_scale, span, decay, body))
        if body is not None: check_number(body, 'body')
        if multipliers is not None:
            multipliers = check_list(multipliers, 'multipliers', 'one number for each layer group')
            multipliers = [check_number(m, 'multipliers') for m in multipliers]
            if min_scale or not (factor is span is decay is body is None):
                raise ValueError(f'multipliers={multipliers} together with another way to set the rates: expected one of them')
        store_attr()

    def check_fit(self, fit):
        n = len(super().check_fit(fit))
        check_only_one(DiscriminativeLR, fit.cbs)
        if self.multipliers is not None: check_rates(self.multipliers, n, 'multipliers')
        lr = fit.lr_max()
        if isinstance(lr, slice) or len(set(np.atleast_1d(lr).tolist())) > 1:
            raise ValueError(f'this fit has one rate per layer group already ({lr}), but DiscriminativeLR expected one for all: '
                             'give the fit one number, or leave DiscriminativeLR out (`fine_tune` always has rates of its own)')
        self.scales = self.multipliers
        if self.scales is None:
            self.scales = discriminative_lrs(1., n, self.factor, self.min_scale, self.span, self.decay, self.body).tolist()

    def before_train(self):
        super().before_train()
        # Scale the rates only during the step, so that no callback or later fit finds them scaled, even after an error
        vars(self.learn)['_step'] = partial(self._step, self.learn)

    def after_train(self): vars(self.learn).pop('_step', None)

    def undo(self, learn): vars(learn).pop('_step', None)

    def _step(self, learn):
        "Do the step with the scaled rates"
        step,opt = type(learn)._step,learn.opt
        # An interrupted fit left this override, as another package has replaced `fit`, and with it our cleaning up
        if self.learn is None: vars(learn).pop('_step', None)
        # A fit within this one has rates of its own
        if self not in learn.cbs: return step(learn)
        unscaled = [h['lr'] for h in opt.hypers]
        opt._set_hyper('lr', [s*unscaled[-1] for s in self.scales])
        try: step(learn)
        finally: opt._set_hyper('lr', unscaled)

def step_lrs(learn:Learner) -> list:
    "Return the current rate of each layer group in a fit"
    lrs = [h['lr'] for h in learn.opt.hypers]
    for cb in learn.cbs:
        if isinstance(cb, DiscriminativeLR): return [s*lrs[-1] for s in cb.scales]
    return lrs
