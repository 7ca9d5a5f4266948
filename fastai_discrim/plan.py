"All of it as one thing: phases as plain data that can be seen, saved, compared and run"
__all__ = ['Phase', 'Plan']

import json
from dataclasses import asdict, dataclass, field
from html import escape

import numpy as np
import pandas as pd
from fastai.callback.schedule import ParamScheduler
from fastai.learner import Learner
from fastcore.basics import patch
from fastcore.foundation import L

from .checks import check_count, check_data, check_list, check_moms, check_rates
from .groups import check_groups, group_labels
from .rates import DiscriminativeLR
from .record import plot_lrs
from .schedule import STLR, Schedule, fit_scheds
from .unfreeze import Unfreezing


@dataclass(frozen=True)
class Phase:
    "Some epochs in which the same layer groups train under one schedule"
    epochs: int # Length in epochs
    groups: tuple # Indices of the layer groups that train
    lrs: tuple # Peak rate of every layer group, input first, frozen ones too: `train_bn` keeps their norm layers training
    sched: Schedule = STLR() # Shape of the rate over the phase
    moms: tuple = None # Momentum: start, at the peak rate, end; None for `learn.moms`

    def __post_init__(self):
        check_count(self.epochs, 'epochs')
        lrs = check_list(self.lrs, 'lrs', 'a rate for each layer group')
        groups = check_list(self.groups, 'groups', 'the indices of layer groups')
        check_rates(lrs, len(lrs), 'lrs')
        if not groups or len(set(groups)) < len(groups) or any(isinstance(g, bool) or g not in range(len(lrs)) for g in groups):
            raise ValueError(f'groups={self.groups!r}: expected the indices, each once, of some of the {len(lrs)} groups that `lrs` is for')
        if not isinstance(self.sched, Schedule): raise TypeError(f'sched={self.sched!r}: expected a Schedule, such as STLR() or OneCycle()')
        if self.moms is not None: check_moms(self.moms)
        # The same values in other clothes (lists, numpy) make equal phases, and write equal JSON
        for k,v in dict(epochs=int(self.epochs), groups=tuple(sorted(map(int, groups))), lrs=tuple(map(float, lrs)),
                        moms=None if self.moms is None else tuple(map(float, self.moms))).items(): object.__setattr__(self, k, v)

    def curve(self,
        steps:int, # Iterations in the phase
    ) -> np.ndarray: # Rates, shape [steps, groups], 0 where frozen
        "Rate of every layer group at every step of the phase"
        rate = self.sched.scheds(np.array(self.lrs), self.moms or (0.,)*3)['lr']
        return np.stack([rate(i/steps) for i in range(steps)]) * np.isin(range(len(self.lrs)), self.groups)

@dataclass(frozen=True, repr=False)
class Plan:
    "What trains when, and how fast: a tuple of `Phase`s. It shows itself as a table, phase by layer group"
    phases: tuple # `Phase`s, in order
    names: tuple = field(default=(), compare=False) # A name for each layer group, input first; for display only
    lr_from: str = field(default='', compare=False) # Where the head's rate, η_L, came from; for display only

    def __post_init__(self):
        phases = check_list(self.phases, 'phases', 'at least one Phase')
        if not phases or not all(isinstance(p, Phase) for p in phases): raise TypeError(f'phases={phases!r}: expected at least one Phase')
        object.__setattr__(self, 'phases', tuple(phases))
        object.__setattr__(self, 'names', tuple(map(str, self.names)) or tuple(map(str, range(self.n_groups))))
        if len(ns := {len(p.lrs) for p in self.phases} | {len(self.names)}) > 1:
            raise ValueError(f'the phases and names are for {sorted(ns)} layer groups: expected the same number in all')

    @property
    def n_epoch(self) -> int: return sum(p.epochs for p in self.phases)
    @property
    def n_groups(self) -> int: return len(self.phases[0].lrs)

    def at(self,
        epoch:int, # Counted from 0
    ) -> tuple: # The phase's first epoch, and the phase
        "The phase that `epoch` lies in"
        start = 0
        for p in self.phases:
            if epoch < start + p.epochs: return start,p
            start += p.epochs
        raise ValueError(f'epoch={epoch}: expected one below {self.n_epoch}, the length of the plan')

    def lrs(self,
        n_iter:int, # Iterations an epoch
    ) -> np.ndarray: # Shape [steps, groups], 0 where frozen: exactly what `recorder.group_lrs` will hold
        "Rate of every layer group at every step"
        check_count(n_iter, 'n_iter')
        return np.concatenate([p.curve(p.epochs*n_iter) for p in self.phases])

    def table(self,
        frozen:str='frozen', # What stands where a group does not train
    ) -> pd.DataFrame: # One row a phase
        "What trains in which phase, at which peak rate"
        def _sched(p): return repr(p.sched) + ('' if p.moms is None else f', moms={p.moms}')
        rows = [(p.epochs, *(f'{lr:.2e}' if i in p.groups else frozen for i,lr in enumerate(p.lrs)), _sched(p)) for p in self.phases]
        return pd.DataFrame(rows, columns=['epochs', *self.names, 'schedule'], index=range(1, len(rows)+1)).rename_axis('phase')

    def _title(self):
        counts = dict(epoch=self.n_epoch, phase=len(self.phases), group=self.n_groups)
        title = 'Plan: ' + ', '.join(f'{n} {what}{"s" * (n != 1)}' for what,n in counts.items()) + '; peak rates'
        return title + (f'; η_L: {self.lr_from}' if self.lr_from else '')
    def __repr__(self): return f'{self._title()}\n{self.table().to_string()}'
    def _repr_html_(self):
        table = self.table('<span style="opacity:.45">frozen</span>').rename(columns=escape)
        return f'<p>{escape(self._title())}</p>' + table.to_html(escape=False)

    def plot(self,
        n_iter:int=None, # Iterations an epoch, for an axis in iterations; None for one in epochs
        axs=None, # Two axes, for the rates and for what trains
        figsize:tuple=None, # Inches
    ):
        "Plot the rate of every layer group over time, and when it is frozen"
        steps,scale = (100, 100) if n_iter is None else (n_iter, None)
        return plot_lrs(self.lrs(steps), self.names, n_iter=scale, axs=axs, figsize=figsize)

    def to_json(self) -> str:
        "The plan as text, which `Plan.from_json` reads"
        phases = [{**asdict(p), 'sched': {'name': type(p.sched).__name__, **asdict(p.sched)}} for p in self.phases]
        d = dict(fastai_discrim='Plan', version=1, names=self.names, lr_from=self.lr_from, phases=phases)
        return json.dumps(d, indent=1, default=float)

    @classmethod
    def from_json(cls,
        text:str, # What `to_json` gave
    ): # A `Plan`
        "The plan that `to_json` wrote; `ValueError` if `text` is no plan"
        kinds = {c.__name__: c for c in Schedule.__subclasses__()}
        try:
            d = json.loads(text)
            kind = d['fastai_discrim'],d['version']
            if kind != ('Plan', 1): raise ValueError(f'a {kind[0]} of version {kind[1]}')
            phases = [Phase(**{**p, 'sched': kinds[(s := dict(p['sched'])).pop('name')](**s)}) for p in d['phases']]
            return cls(phases, d['names'], str(d.get('lr_from', '')))
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise ValueError(f'{str(text)[:60]!r} is no plan ({type(e).__name__}: {e}), expected `plan.to_json()`') from e

class PlanUnfreezing(Unfreezing):
    "Let train what the plan says"
    def __init__(self, plan:Plan): self.plan = plan
    def stages(self, n_groups): return [(p.epochs, p.groups) for p in self.plan.phases]

class PlanScheduler(ParamScheduler):
    "Set the rates and momentum that the plan says"
    def __init__(self, plan:Plan): self.plan,self.scheds = plan,{'lr': None}

    def before_fit(self):
        super().before_fit()
        self.recorder.plan = self.plan

    def before_train(self):
        self.start,phase = self.plan.at(self.epoch)
        self.n_epochs = phase.epochs
        self.scheds = fit_scheds(self.opt, phase.sched, np.array(phase.lrs), phase.moms or self.moms)
        for k in self.scheds: self.hps.setdefault(k, [])

    def before_batch(self):
        # In whole steps, as `Phase.curve` has it: `pct_train` gathers rounding
        self._update_val(((self.epoch-self.start)*self.n_iter + self.iter) / (self.n_epochs*self.n_iter))

@patch(as_prop=True)
def phase(self:Learner) -> Phase: # None where no plan is running
    "The phase of the plan that is being fitted"
    for cb in self._grab_cbs(PlanUnfreezing): return cb.plan.at(self.epoch)[1]

def check_plan(
    learn:Learner, # The learner that is to run it
    plan:Plan, # The plan
    cbs=None, # The callbacks that are to run with it
    reset_opt:bool=False, # Will the optimiser be created anew?
):
    "Raise unless `learn` can run `plan`; nothing is changed"
    if not isinstance(plan, Plan): raise TypeError(f'plan={plan!r}: expected a Plan, such as `learn.ulmfit_plan(6, 1e-2)`')
    groups = check_groups(learn, reset_opt)
    if len(groups) != plan.n_groups:
        raise ValueError(f'the plan is for {plan.n_groups} layer groups ({", ".join(plan.names)}), the learner has {len(groups)} '
                         f'({", ".join(group_labels(learn, groups))}): make the plan from this learner, or give it the plan\'s splitter')
    for cb in [*learn.cbs, *L(cbs)]:
        kind = cb if isinstance(cb, type) else type(cb)
        if issubclass(kind, (DiscriminativeLR, Unfreezing, ParamScheduler)):
            raise ValueError(f'{kind.__name__} together with a plan, which says every rate and what trains: expected none; '
                             'leave it out, or `learn.remove_cb` it')
    check_data(learn)

@patch
def fit_plan(self:Learner,
    plan:Plan, # What to do
    cbs=None, # One callback, many, or a class
    wd:float=None, # Weight decay, as in `fit`
    *,
    reset_opt:bool=False, # As in `fit`
    start_epoch:int=0, # As in `fit`
):
    "Fit as `plan` says, in one go: one progress bar, one recorder; `learn.phase` tells other callbacks where they are"
    check_plan(self, plan, cbs, reset_opt)
    self.fit(plan.n_epoch, lr=list(plan.phases[0].lrs), wd=wd, cbs=[PlanUnfreezing(plan), PlanScheduler(plan)]+L(cbs),
             reset_opt=reset_opt, start_epoch=start_epoch)
