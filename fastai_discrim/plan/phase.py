"Phases of a plan: which layer groups train, for how long, at which rates, and what may end the phase early"
__all__ = ['EarlyStop', 'Phase']

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..checks import check_count, check_flag, check_list, check_moms, check_number
from .position import as_epochs
from .schedules import STLR, Schedule


def set_fields(o, **values):
    "Convert fields of a frozen dataclass in its `__post_init__`, so that equal values of other types make equal objects and equal JSON"
    for k,v in values.items(): object.__setattr__(o, k, v)

@dataclass(frozen=True)
class EarlyStop:
    "End a phase before its last epoch when a loss or metric stops improving, as `EarlyStoppingCallback` ends a fit"
    patience: int = 1 # Epochs without improvement after which the phase ends
    monitor: str = 'valid_loss' # Name of the loss or metric
    min_delta: float = 0. # Least change that counts as an improvement
    best: bool = False # Load the weights of the phase's best epoch at its end?
    lower: bool | None = None # Is lower better? None: yes if the monitor's name contains 'loss' or 'error', as in fastai
    def __post_init__(self):
        check_count(self.patience, 'patience')
        check_number(self.min_delta, 'min_delta', at_least=True)
        if not isinstance(self.monitor, str): raise TypeError(f'monitor={self.monitor!r}: expected the name of a loss or metric')
        set_fields(self, patience=int(self.patience), min_delta=float(self.min_delta), best=check_flag(self.best, 'best'),
                   lower=check_flag(self.lower, 'lower', 'to go by its name'))
    def __str__(self):
        delta = f' within {self.min_delta:g}' if self.min_delta else ''
        way = {None: '', True: ' (lower is better)', False: ' (higher is better)'}[self.lower]
        wait = f'{self.patience} epoch' + 's'*(self.patience != 1)
        return f'until {self.monitor}{way} stalls{delta} for {wait}' + (', on from the best' if self.best else '')

@dataclass(frozen=True)
class Phase:
    "Describe a part of a fit in which the same layer groups train under one schedule"
    epochs: float # Length in epochs, which may be fractional; the phase ends at a whole step
    groups: Sequence[int] # Indices of the layer groups that train
    lrs: Sequence[float] | np.ndarray # Peak rate of every layer group, input first; of frozen groups too, as their norm layers may train
    sched: Schedule | None = STLR() # Shape of the rate over the phase; None to continue the cycle that an earlier phase began
    moms: Sequence[float] | None = None # Momentum at start, peak rate and end; None for `learn.moms`, and in a phase that continues a cycle
    early_stop: EarlyStop | None = None # When to end the phase early; None for never
    def __post_init__(self):
        check_number(self.epochs, 'epochs')
        lrs = check_list(self.lrs, 'lrs', 'a rate for each layer group')
        for lr in lrs: check_number(lr, 'lrs')
        groups = self._check_groups(len(lrs))
        self._check_sched()
        if not isinstance(self.early_stop, EarlyStop | None):
            raise TypeError(f'early_stop={self.early_stop!r}: expected an EarlyStop or None')
        set_fields(self, epochs=as_epochs(self.epochs), groups=groups, lrs=tuple(map(float, lrs)),
                   moms=None if self.moms is None else tuple(map(float, self.moms)))

    def _check_groups(self, n):
        "Return `groups` in order, or raise unless they are distinct indices of `n` layer groups"
        groups = check_list(self.groups, 'groups', 'the indices of layer groups')
        odd = any(isinstance(g, (bool, np.bool_)) or g not in range(n) for g in groups)
        if odd or not groups or len(set(groups)) < len(groups):
            raise ValueError(f'groups={self.groups!r}: expected distinct indices of layer groups below {n}, the number of rates in `lrs`')
        return tuple(sorted(map(int, groups)))

    def _check_sched(self):
        "Raise unless `sched` is a frozen dataclass, so that plans can be compared and written, and `moms` fits it"
        if not isinstance(self.sched, Schedule | None): raise TypeError(f'sched={self.sched!r}: expected a Schedule or None')
        frozen = getattr(getattr(self.sched, '__dataclass_params__', None), 'frozen', False)
        if self.sched is not None and not frozen:
            raise TypeError(f'{type(self.sched).__name__} is not a frozen dataclass: expected one, as plans are compared and written; put '
                            '`@dataclass(frozen=True)` above it')
        if self.moms is not None: check_moms(self.moms, getattr(self.sched, 'n_moms', (3,)))
        if self.sched is None and self.moms is not None:
            raise ValueError(f'moms={self.moms}: expected None where `sched` is None; give them to the phase that begins the cycle')
