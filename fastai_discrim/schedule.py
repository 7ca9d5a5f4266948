"How the rate moves in time: slanted triangles (ULMFiT, section 3.2) and the schedules they are compared with"
__all__ = ['SchedSTLR', 'SchedCLRBeta', 'Schedule', 'STLR', 'CLRBeta', 'OneCycle', 'Cos', 'Flat']

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from fastai.callback.schedule import ParamScheduler, SchedCos, SchedNo, combined_cos, sched_lin
from fastai.learner import Learner
from fastcore.basics import patch

from .checks import check_count, check_data, check_moms, check_number, check_rates
from .groups import check_cbs, check_groups, made, own_lr


# `set_hyper` takes a float or an array, but not numpy's float64
def _floats(o): return np.array(o, dtype=float) if np.ndim(o) else float(o)

def sched_lines(xs, ys, pos):
    "Straight lines through the points (`xs`, `ys`), at `pos`"
    return float(np.interp(pos, xs, ys))

def _climb(lo, hi, up):
    "From `lo` at `up`=0 to `hi` at `up`=1, and by no rounding above"
    return _floats(np.minimum(sched_lin(lo, hi, up), hi))

def sched_stlr(lr_max, cut_frac, ratio, pos):
    "The slanted triangle at `pos` in [0, 1]"
    return _climb(lr_max/ratio, lr_max, sched_lines([0, cut_frac, 1], [0, 1, 0], pos))

def sched_clr_beta(lr_max, div, pct, pos):
    "The triangle and its tail at `pos` in [0, 1]"
    end = 1 - pct/100
    if pos <= end: return _climb(lr_max/div, lr_max, sched_lines([0, end/2, end], [0, 1, 0], pos))
    return sched_lin(lr_max/div, lr_max/div/100, (pos-end) / (1-end))

def SchedSTLR(
    lr_max, # Peak rate, a number or an array of one a layer group
    cut_frac:float=0.1, # Fraction of the cycle in which the rate rises
    ratio:float=32, # The rate starts and ends at `lr_max/ratio`
) -> partial: # Position in [0, 1] to rate
    "Slanted triangle, linear up to `lr_max` and down again (ULMFiT, section 3.2; fastai 0.7's `use_clr=(ratio, 1/cut_frac)`)"
    STLR(cut_frac, ratio)
    check_rates(lr_max, np.size(lr_max), 'lr_max')
    return partial(sched_stlr, _floats(lr_max), cut_frac, ratio)

def SchedCLRBeta(
    lr_max, # Peak rate, a number or an array of one a layer group
    div:float=10, # The rate starts at `lr_max/div`
    pct:float=10, # Percentage of the cycle, at its end, in which the rate falls to `lr_max/div/100`
) -> partial: # Position in [0, 1] to rate
    "Linear from `lr_max/div` up to `lr_max` and back, then down to a hundredth of that (fastai 0.7's `use_clr_beta=(div, pct, ...)`)"
    CLRBeta(div, pct)
    check_rates(lr_max, np.size(lr_max), 'lr_max')
    return partial(sched_clr_beta, _floats(lr_max), div, pct)

class Schedule:
    "A shape that rates and momentum take over a cycle: a frozen dataclass, which `scheds` turns into what `ParamScheduler` runs"
    n_moms = (3,)
    def __str__(self):
        args = (f'{k}={v:.4g}' if isinstance(v, float) else f'{k}={v!r}' for k,v in asdict(self).items())
        return f'{type(self).__name__}({", ".join(args)})'
    def scheds(self,
        lrs, # Peak rate, a number or an array of one a layer group
        moms, # Momentum: start, at the peak rate, end
    ) -> dict: # 'lr' and 'mom', each position in [0, 1] to value
        raise NotImplementedError(f'{type(self).__name__} has no `scheds`')

@dataclass(frozen=True)
class STLR(Schedule):
    "The slanted triangle of `SchedSTLR`; momentum turns where the rate does"
    cut_frac: float = 0.1
    ratio: float = 32
    def __post_init__(self):
        check_number(self.cut_frac, 'cut_frac', high=1)
        check_number(self.ratio, 'ratio', low=1, at_least=True)
    def scheds(self, lrs, moms):
        return {'lr': SchedSTLR(lrs, self.cut_frac, self.ratio), 'mom': partial(sched_lines, [0, self.cut_frac, 1], moms)}

@dataclass(frozen=True)
class CLRBeta(Schedule):
    "The triangle and tail of `SchedCLRBeta`; momentum turns where the rate does and stays at its start in the tail"
    div: float = 10
    pct: float = 10
    n_moms = (2, 3)
    def __post_init__(self):
        check_number(self.div, 'div', low=1, at_least=True)
        check_number(self.pct, 'pct', high=100)
    def scheds(self, lrs, moms):
        end = 1 - self.pct/100
        return {'lr': SchedCLRBeta(lrs, self.div, self.pct), 'mom': partial(sched_lines, [0, end/2, end], [moms[0], moms[1], moms[0]])}

@dataclass(frozen=True)
class OneCycle(Schedule):
    "The cosines of `fit_one_cycle`"
    div: float = 25.
    div_final: float = 1e5
    pct_start: float = 0.25
    def __post_init__(self):
        check_number(self.div, 'div')
        check_number(self.div_final, 'div_final')
        check_number(self.pct_start, 'pct_start', high=1)
    def scheds(self, lrs, moms):
        lrs = _floats(lrs)
        return {'lr': combined_cos(self.pct_start, lrs/self.div, lrs, lrs/self.div_final), 'mom': combined_cos(self.pct_start, *moms)}

def sched_cos(lr_max, warm, pos):
    "A cosine at `pos` in [0, 1], but for a hundredth of the peak rate before `warm`"
    return lr_max/100 if pos < warm else SchedCos(lr_max, 0)(pos)

@dataclass(frozen=True)
class Cos(Schedule):
    "Cosine from the peak rate down to 0, as in `fit_sgdr`; momentum as at the peak. fastai 0.7's cosine has `warm=0.05`"
    warm: float = 0. # Fraction of the cycle, at its start, that stays at a hundredth of the peak rate
    def __post_init__(self): check_number(self.warm, 'warm', high=1, at_least=True)
    def scheds(self, lrs, moms): return {'lr': partial(sched_cos, _floats(lrs), self.warm), 'mom': SchedNo(moms[1], None)}

@dataclass(frozen=True)
class Flat(Schedule):
    "The peak rate throughout; momentum as at the peak"
    def scheds(self, lrs, moms): return {'lr': SchedNo(_floats(lrs), None), 'mom': SchedNo(moms[1], None)}

def fit_scheds(opt, sched, lrs, moms):
    "What `ParamScheduler` runs under `opt`: without momentum where the optimiser has none"
    return {k:f for k,f in sched.scheds(lrs, moms).items() if k in opt.hypers[0]}

def _fit_sched(self, n_epoch, lr_max, sched, wd, moms, cbs, reset_opt, start_epoch):
    "`fit_one_cycle` with any `Schedule`, and with its arguments checked first"
    lr_max,moms = own_lr(self, reset_opt) if lr_max is None else lr_max,self.moms if moms is None else moms
    check_count(n_epoch)
    check_rates(lr_max, len(check_groups(self, reset_opt, at_least=1)), 'lr_max')
    check_moms(moms, counts=sched.n_moms)
    check_data(self)
    cbs = made(cbs)
    check_cbs(self, n_epoch, lr_max, [*self.cbs, *cbs], reset_opt)
    # Here rather than in `fit`, for the rates are spread over its groups
    if self.opt is None or reset_opt: self.create_opt()
    self.opt.set_hyper('lr', lr_max)
    lrs = np.array([h['lr'] for h in self.opt.hypers])
    self.fit(n_epoch, cbs=ParamScheduler(fit_scheds(self.opt, sched, lrs, moms))+cbs, wd=wd, start_epoch=start_epoch)

@patch
def fit_stlr(self:Learner,
    n_epoch:int, # Epochs
    lr_max=None, # Peak rate, as in `fit_one_cycle`: a number, a `slice`, or one a layer group; None for `learn.lr`
    cut_frac:float=0.1, # Fraction of the iterations in which the rate rises
    ratio:float=32, # The rate starts and ends at `lr_max/ratio`
    wd:float=None, # Weight decay, as in `fit`
    moms:tuple=None, # Momentum: start, at the peak rate, end; None for `learn.moms`
    cbs=None, # One callback, many, or a class
    reset_opt:bool=False, # As in `fit`
    start_epoch:int=0, # As in `fit`
):
    "Fit `n_epoch` epochs under the slanted triangle of `SchedSTLR` (ULMFiT, section 3.2)"
    _fit_sched(self, n_epoch, lr_max, STLR(cut_frac, ratio), wd, moms, cbs, reset_opt, start_epoch)

@patch
def fit_clr_beta(self:Learner,
    n_epoch:int, # Epochs
    lr_max=None, # Peak rate, as in `fit_one_cycle`: a number, a `slice`, or one a layer group; None for `learn.lr`
    div:float=10, # The rate starts at `lr_max/div`
    pct:float=10, # Percentage of the iterations, at the end, in which the rate falls to `lr_max/div/100`
    moms:tuple=(0.95, 0.85), # Momentum: highest, lowest
    wd:float=None, # Weight decay, as in `fit`
    cbs=None, # One callback, many, or a class
    reset_opt:bool=False, # As in `fit`
    start_epoch:int=0, # As in `fit`
):
    "Fit `n_epoch` epochs under the triangle and tail of `SchedCLRBeta` (fastai 0.7's `use_clr_beta=(div, pct, *moms)`)"
    _fit_sched(self, n_epoch, lr_max, CLRBeta(div, pct), wd, moms, cbs, reset_opt, start_epoch)
