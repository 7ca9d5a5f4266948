"How fast every other layer goes: discriminative rates (ULMFiT, section 3.2)"
__all__ = ['discriminative_lrs', 'DiscriminativeLR']

import numpy as np
from fastai.callback.schedule import ParamScheduler
from fastai.learner import Learner
from fastcore.basics import patch, store_attr

from .checks import check_count, check_list, check_number, check_rates
from .groups import GroupCallback, check_alone, check_groups


def discriminative_lrs(
    lr:float, # Rate of the last group, the head
    n_groups:int, # Number of layer groups
    factor:float=2.6, # Each group's rate is its upper neighbour's divided by this
    min_scale:float=0., # No rate is lower than `lr` times this
    span:float=None, # Instead of `factor`: how many times lower than the head's the lowest rate is, however many groups
    decay:float=None, # Instead of `factor`: each group's rate is its upper neighbour's times this, for transformers 0.65 to 0.95
) -> np.ndarray: # Rates, shape [n_groups], input first
    "Rates that fall by `factor` a layer group, from `lr` at the head (ULMFiT, section 3.2), or by `span` in all, or by `decay`"
    check_number(lr, 'lr')
    check_count(n_groups, 'n_groups')
    check_fall(factor, min_scale, span, decay)
    if span is not None: factor = span ** (1/max(n_groups-1, 1))
    if decay is not None: factor = 1/decay
    lrs = np.divide.accumulate(np.array([lr] + [factor]*(n_groups-1), dtype=float))[::-1]
    return np.maximum(lrs, lr*min_scale)

def check_fall(factor, min_scale=0., span=None, decay=None):
    "Raise unless these say how rates fall, in one way"
    check_number(factor, 'factor')
    check_number(min_scale, 'min_scale', high=1, at_least=True)
    if span is not None: check_number(span, 'span', low=1, at_least=True)
    if decay is not None: check_number(decay, 'decay', high=1)
    ways = [f'{k}={v}' for k,v in dict(factor=None if factor == 2.6 else factor, span=span, decay=decay).items() if v is not None]
    if len(ways) > 1: raise ValueError(f'{" and ".join(ways)}: expected one of them, as each says by how much the rates fall')

class DiscriminativeLR(GroupCallback):
    "Every group steps at a multiple of the rate that the scheduler gives the head; hyper-parameters read as without it"
    def __init__(self,
        factor:float=2.6, # A group's multiplier is its upper neighbour's divided by this
        multipliers=None, # Or the multipliers themselves, one a layer group, input first
        min_scale:float=0., # No multiplier is lower than this
        span:float=None, # As in `discriminative_lrs`
        decay:float=None, # As in `discriminative_lrs`
    ):
        check_fall(factor, min_scale, span, decay)
        if multipliers is not None:
            multipliers = check_list(multipliers, 'multipliers', 'one number for each layer group')
            for m in multipliers: check_number(m, 'multipliers')
            if factor != 2.6 or min_scale or span is not None or decay is not None:
                raise ValueError(f'multipliers={multipliers} together with another way to fall: expected one of them')
        store_attr()

    def check_fit(self, learn, n_epoch, lr, cbs, reset_opt):
        super().check_fit(learn, n_epoch, lr, cbs, reset_opt)
        check_alone(DiscriminativeLR, cbs)
        n = len(check_groups(learn, reset_opt))
        if self.multipliers is not None: check_rates(self.multipliers, n, 'multipliers')
        self.scales = self.multipliers or discriminative_lrs(1., n, self.factor, self.min_scale, self.span, self.decay).tolist()
        scheds = [cb.scheds['lr'] for cb in cbs if isinstance(cb, ParamScheduler) and 'lr' in cb.scheds]
        lr = scheds[-1](0.) if scheds else learn.lr if lr is None else lr
        if isinstance(lr, slice) or len(set(np.atleast_1d(lr).tolist())) > 1:
            raise ValueError(f'this fit has one rate per layer group already ({lr}), but DiscriminativeLR expected one for all: '
                             'give the fit one number, or leave DiscriminativeLR out (`fine_tune` always has rates of its own)')

def _discriminative(learn): return next((cb for cb in learn.cbs if isinstance(cb, DiscriminativeLR)), None)

def step_lrs(learn:Learner) -> list: # Rates, one a layer group
    "The rate at which each layer group of `learn` steps now"
    lrs,cb = [h['lr'] for h in learn.opt.hypers],_discriminative(learn)
    return [s*lrs[-1] for s in cb.scales] if cb else lrs

@patch
def _step(self:Learner):
    "As in fastai; with `DiscriminativeLR`, each group at its own rate"
    # Scaled around the step alone: whatever breaks it off, no callback and no later fit finds a scaled rate
    if not _discriminative(self): return self._orig__step()
    old,new = [h['lr'] for h in self.opt.hypers],step_lrs(self)
    self.opt._set_hyper('lr', new)
    try: self._orig__step()
    finally: self.opt._set_hyper('lr', old)
