"Schedules: the slanted triangle (ULMFiT, section 3.2) and the schedules that it is compared with"
__all__ = ['SchedSTLR', 'SchedCLRBeta', 'Schedule', 'STLR', 'CLRBeta', 'OneCycle', 'Cos', 'Flat']

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from ..checks import check_number, plain_number

# Functions import fastai.callback.schedule where they need it, as importing it changes the default callbacks


def _floats(o):
    "Convert `o` to what `set_hyper` takes: a float or an array, but not numpy's float64"
    return np.array(o, dtype=float) if np.ndim(o) else float(o)

def _peak(lr_max):
    "Check peak rates, and convert them to what `set_hyper` takes"
    lr_max = plain_number(lr_max)
    for lr in lr_max if np.ndim(lr_max) else [lr_max]: check_number(lr, 'lr_max')
    return _floats(lr_max)

def sched_lines(xs, ys, pos):
    "Interpolate between the points (`xs`, `ys`) at `pos`"
    return float(np.interp(pos, xs, ys))

def _linear(start, end, part):
    "Go from `start` at `part`=0 to `end` at `part`=1"
    return start + part*(end-start)

def _rise(low, high, part):
    "Go from `low` at `part`=0 to `high` at `part`=1, and never above `high` by rounding"
    return _floats(np.minimum(_linear(low, high, part), high))

def sched_stlr(lr_max, cut_frac, ratio, pos):
    "Return the slanted triangle's rate at `pos` in [0, 1]"
    return _rise(lr_max/ratio, lr_max, sched_lines([0, cut_frac, 1], [0, 1, 0], pos))

def sched_clr_beta(lr_max, div, pct, pos):
    "Return the rate of the triangle with a tail at `pos` in [0, 1]"
    end = 1 - pct/100
    if pos <= end: return _rise(lr_max/div, lr_max, sched_lines([0, end/2, end], [0, 1, 0], pos))
    return _linear(lr_max/div, lr_max/div/100, (pos-end) / (1-end))

def sched_cos_hold(lr_max, hold, pos):
    "Return the rate at `pos` in [0, 1]: a hundredth of `lr_max` before `hold`, and from there on a cosine from `lr_max` to 0"
    from fastai.callback.schedule import SchedCos
    return lr_max/100 if pos < hold else SchedCos(lr_max, 0)(pos)

def sched_constant(value, pos):
    "Return `value` at any `pos`"
    return value

def SchedSTLR(
    lr_max, # Peak rate: a number, or an array with one for each layer group
    cut_frac:float=0.1, # Fraction of the cycle in which the rate rises
    ratio:float=32, # The rate starts and ends at `lr_max/ratio`
) -> partial: # Position in [0, 1] to rate
    """Make a slanted triangle: linear up to `lr_max` and down (ULMFiT, section 3.2; fastai 0.7's `use_clr=(ratio, 1/cut_frac)`)

    >>> rate = SchedSTLR(1e-2)
    >>> [round(rate(position), 6) for position in (0, 0.05, 0.1, 0.55, 1)]
    [0.000313, 0.005156, 0.01, 0.005156, 0.000313]
    """
    # The dataclass checks the arguments
    STLR(cut_frac, ratio)
    return partial(sched_stlr, _peak(lr_max), cut_frac, ratio)

def SchedCLRBeta(
    lr_max, # Peak rate: a number, or an array with one for each layer group
    div:float=10, # The rate starts at `lr_max/div`
    pct:float=10, # Percentage of the cycle, at its end, in which the rate falls to `lr_max/div/100`
) -> partial: # Position in [0, 1] to rate
    "Make a triangle, from `lr_max/div` to `lr_max` and back, with a tail down to a hundredth (fastai 0.7's `use_clr_beta=(div, pct, ...)`)"
    # The dataclass checks the arguments
    CLRBeta(div, pct)
    return partial(sched_clr_beta, _peak(lr_max), div, pct)

class Schedule:
    "Describe how rate and momentum change over a cycle. Subclasses are frozen dataclasses with a method `scheds`"
    # Numbers of momentum values that the schedule accepts
    n_moms: tuple[int, ...] = (3,)
    def _number(self, name, **bounds): object.__setattr__(self, name, check_number(getattr(self, name), name, **bounds))
    def __str__(self):
        args = (f'{k}={v:.4g}' if isinstance(v, float) else f'{k}={v!r}' for k,v in asdict(self).items())
        return f'{type(self).__name__}({", ".join(args)})'
    def scheds(self,
        lrs, # Peak rate: a number, or an array with one for each layer group
        moms, # Momentum at start, peak rate and end
    ) -> dict: # 'lr' and 'mom', each a function from position in [0, 1] to value
        "Return the schedules of rate and momentum for `ParamScheduler`"
        raise NotImplementedError(f'{type(self).__name__} has no `scheds`')

@dataclass(frozen=True)
class STLR(Schedule):
    "Follow the slanted triangle of `SchedSTLR`. Momentum turns where the rate does"
    cut_frac: float = 0.1 # Fraction of the cycle in which the rate rises
    ratio: float = 32 # The rate starts and ends at its peak divided by this
    def __post_init__(self):
        self._number('cut_frac', high=1)
        self._number('ratio', low=1, at_least=True)
    def scheds(self, lrs, moms):
        return {'lr': SchedSTLR(lrs, self.cut_frac, self.ratio), 'mom': partial(sched_lines, [0, self.cut_frac, 1], moms)}

@dataclass(frozen=True)
class CLRBeta(Schedule):
    "Follow the triangle and tail of `SchedCLRBeta`. Momentum turns where the rate does, and keeps its first value in the tail"
    div: float = 10 # The rate starts at its peak divided by this
    pct: float = 10 # Percentage of the cycle that the tail takes
    n_moms = (2, 3)
    def __post_init__(self):
        self._number('div', low=1, at_least=True)
        self._number('pct', high=100)
    def scheds(self, lrs, moms):
        end = 1 - self.pct/100
        return {'lr': SchedCLRBeta(lrs, self.div, self.pct), 'mom': partial(sched_lines, [0, end/2, end], [moms[0], moms[1], moms[0]])}

@dataclass(frozen=True)
class OneCycle(Schedule):
    "Follow the cosines of fastai's `fit_one_cycle`"
    div: float = 25. # The rate starts at its peak divided by this
    div_final: float = 1e5 # The rate ends at its peak divided by this
    pct_start: float = 0.25 # Fraction of the cycle in which the rate rises
    def __post_init__(self):
        self._number('div')
        self._number('div_final')
        self._number('pct_start', high=1)
    def scheds(self, lrs, moms):
        from fastai.callback.schedule import combined_cos
        lrs = _floats(lrs)
        return {'lr': combined_cos(self.pct_start, lrs/self.div, lrs, lrs/self.div_final), 'mom': combined_cos(self.pct_start, *moms)}

@dataclass(frozen=True)
class Cos(Schedule):
    "Follow a cosine from the peak rate down to 0, as in `fit_sgdr`, at the momentum of the peak rate. fastai 0.7's cosine has `hold=0.05`"
    hold: float = 0. # Fraction of the cycle, at its start, in which the rate is held at a hundredth of its peak
    def __post_init__(self): self._number('hold', high=1, at_least=True)
    def scheds(self, lrs, moms):
        return {'lr': partial(sched_cos_hold, _floats(lrs), self.hold), 'mom': partial(sched_constant, moms[1])}

@dataclass(frozen=True)
class Flat(Schedule):
    "Keep the peak rate, and the momentum of the peak rate, over the whole cycle"
    def scheds(self, lrs, moms): return {'lr': partial(sched_constant, _floats(lrs)), 'mom': partial(sched_constant, moms[1])}

def usable_scheds(
    opt, # The optimiser
    sched:Schedule, # The schedule
    lrs, # Peak rate: a number, or an array with one for each layer group
    moms, # Momentum, as many values as the schedule takes
) -> dict: # Schedules by hyper-parameter, for `ParamScheduler`
    "Return the schedules of the hyper-parameters that `opt` has, as some optimisers have no momentum"
    return {k:f for k,f in sched.scheds(lrs, moms).items() if k in opt.hypers[0]}
