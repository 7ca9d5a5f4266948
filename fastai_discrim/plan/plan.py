"The whole of a fit as plain data: phases that can be seen, saved, compared and run"
__all__ = ['Plan']

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
import pandas as pd

from ..checks import check_count, check_list, check_train_bn
from .json_text import dumps
from .phase import Phase, set_fields
from .plan_json import plan_fields, plan_to_dict
from .plot import plot_lrs
from .position import Timeline, phase_at
from .schedules import Schedule
from .show import plan_counts, plan_html, plan_table, plan_text

# What a sum of fractions of an epoch may be off a whole number by
ROUNDING = 1e-6

@dataclass(frozen=True, repr=False)
class Plan:
    """What trains when, and how fast: a tuple of `Phase`s. It shows itself as a table, phase by layer group

    >>> rates = discriminative_lrs(1e-2, 3, span=100)
    >>> head,whole = Phase(1, (2,), rates),Phase(2, (0, 1, 2), rates)
    >>> plan = Plan([head, whole], ['embedding', 'body', 'head'])
    >>> plan
    Plan: 3 epochs, 2 phases, 3 groups; peak rates
           epochs embedding      body      head                      schedule
    phase
    1           1    frozen    frozen  1.00e-02  STLR(cut_frac=0.1, ratio=32)
    2           2  1.00e-04  1.00e-03  1.00e-02  STLR(cut_frac=0.1, ratio=32)
    >>> plan.lrs(n_iter=10).shape
    (30, 3)
    """
    phases: Sequence[Phase] # In order
    names: Sequence[str] = field(default=(), compare=False) # A name for each layer group, input first; for display only
    lr: float | None = field(default=None, compare=False) # The rate that all follow, η_L; for display only, as are these:
    lr_from: str = field(default='', compare=False) # Where it came from
    tried: Sequence[tuple[float, float]] = field(default=(), compare=False) # Pairs of rate and loss that it was chosen from
    source: str = field(default='', compare=False) # Where the plan is published
    train_bn: bool | None = None # Do norm layers of frozen groups train? False also keeps their statistics; None: as the learner has it
    body_lr: float | None = field(default=None, compare=False) # Rate of the group below the head; None where it follows from `lr`
    body_lr_from: str = field(default='', compare=False) # Where it came from
    passed_over: Sequence[str] = field(default=(), compare=False) # Names of groups that never train, as the user froze them

    def __post_init__(self):
        phases = check_list(self.phases, 'phases', 'at least one Phase')
        if not phases or not all(isinstance(p, Phase) for p in phases): raise TypeError(f'phases={phases!r}: expected at least one Phase')
        names = tuple(map(str, self.names)) or tuple(map(str, range(len(phases[0].lrs))))
        counts = {len(p.lrs) for p in phases} | {len(names)}
        if len(counts) > 1:
            raise ValueError(f'the phases and names are for {sorted(counts)} layer groups: expected the same number in all')
        check_train_bn(self.train_bn)
        _check_lengths(phases)
        _check_cycles(phases)
        set_fields(self, phases=tuple(phases), names=names, passed_over=tuple(self.passed_over), lr=self.lr and float(self.lr),
                   body_lr=self.body_lr and float(self.body_lr),
                   tried=tuple((float(lr), float(loss)) for lr,loss in self.tried))

    @property
    def n_epoch(self) -> int: return round(sum(p.epochs for p in self.phases))
    @property
    def n_groups(self) -> int: return len(self.phases[0].lrs)

    def at(self,
        epochs:float, # Position in epochs, which may be fractional
    ) -> Phase:
        "Return the phase that a position in the fit lies in"
        if not 0 <= epochs < self.n_epoch: raise ValueError(f'epochs={epochs}: expected one below {self.n_epoch}, the length of the plan')
        # A sum of fractions, such as 0.1 + 0.2, is off by 1e-16, which must not move a position to the phase before it
        ends = [round(end, 9) for end in accumulate(p.epochs for p in self.phases)]
        return self.phases[phase_at(round(epochs, 9), ends)]

    def timeline(self,
        n_iter:int, # Steps an epoch
    ) -> Timeline:
        "Lay the phases out in steps; raise `ValueError` if there are fewer steps than phases"
        return Timeline([p.epochs for p in self.phases], [p.sched is not None for p in self.phases], n_iter)

    def lrs(self,
        n_iter:int, # Steps an epoch
    ) -> np.ndarray: # Shape [steps, groups], 0 where frozen: exactly what `recorder.group_lrs` will hold
        "Return the rate of every layer group at every step"
        check_count(n_iter, 'n_iter')
        timeline = self.timeline(n_iter)
        return np.concatenate([self.phase_lrs(i, timeline) for i in range(len(self.phases))])

    def phase_lrs(self,
        i:int, # Index of the phase
        timeline:Timeline, # What `timeline` gave
    ) -> np.ndarray: # Shape [steps, groups], 0 where frozen
        "Return the rate of every layer group at every step of one phase"
        phase,begun = self.phases[i],self.phases[timeline.leader[i]]
        # Momentum doesn't matter here
        # A phase that begins a cycle has a schedule
        rate = begun.sched.scheds(np.array(phase.lrs), begun.moms or (0.,)*3)['lr']  # type: ignore[union-attr]
        trains = np.isin(range(self.n_groups), phase.groups)
        return np.stack([rate(timeline.cycle(step)[1])*trains for step in range(timeline.starts[i], timeline.ends[i])])

    def under(self,
        sched:Schedule, # Shape of the rate
        whole:bool=False, # One cycle over the whole plan, or one in each phase?
    ) -> 'Plan': # The same phases and peak rates
        "Put the plan under another schedule"
        begun,phases = self.phases[0],[]
        for i,p in enumerate(self.phases):
            if p.sched is not None: begun = p
            phases.append(replace(p, sched=None, moms=None) if whole and i else replace(p, sched=sched, moms=begun.moms))
        return replace(self, phases=phases, source=self.source and f'{self.source}; changed: under {sched}{", whole" if whole else ""}')

    def table(self,
        frozen:str='frozen', # What stands where a group does not train
    ) -> pd.DataFrame: # One row a phase
        "Show what trains in which phase, at which peak rate"
        return plan_table(self, frozen)

    def __repr__(self): return plan_text(self)
    def _repr_html_(self): return plan_html(self)

    def plot(self,
        n_iter:int|None=None, # Steps an epoch, for an axis in steps; None for one in epochs
        axs=None, # Two axes, for the rates and for what trains
        figsize:tuple|None=None, # Inches
        yscale:str='log', # 'log', or 'linear', on which a slanted triangle is a triangle
        n_epoch:int|None=None, # Epochs that the axis has, for one that is longer than the plan
    ):
        "Plot the rate of every layer group over time, and when it is frozen"
        # Enough points that the shortest phase has several
        points = n_iter or min(max(100, math.ceil(10/min(p.epochs for p in self.phases))), 2000)
        return plot_lrs(self.lrs(points), self.names, None if n_iter else points, n_steps=n_epoch and n_epoch*points,
                        phase_ends=self.timeline(points).ends, title=f'Plan: {plan_counts(self)}', yscale=yscale, axs=axs, figsize=figsize)

    def to_dict(self) -> dict:
        "Return the plan as what JSON can hold"
        return plan_to_dict(self)

    def to_json(self) -> str:
        "Write the plan as text, which `Plan.from_json` reads"
        return dumps(self.to_dict())

    @classmethod
    def from_json(cls,
        text:str, # What `to_json` gave, or the record that `recorder.save_run` wrote
    ) -> 'Plan':
        "Read the plan that `to_json` wrote, or that of a recorded run; raise `ValueError` if `text` holds no plan"
        fields = plan_fields(text)
        try: return cls(**fields)
        except (ValueError, TypeError) as e:
            raise ValueError(f'{str(text)[:60]!r} is no plan ({type(e).__name__}: {e}), expected `plan.to_json()`') from e

def _check_lengths(phases):
    "Raise unless the phases fill whole epochs, and those that may end early end with one"
    done = list(accumulate(float(p.epochs) for p in phases))
    if abs(done[-1] - round(done[-1])) > ROUNDING or done[-1] < 0.5:
        raise ValueError(f'the phases have {done[-1]:g} epochs in all: expected a whole number; give the last phase '
                         f'{math.ceil(done[-1]) - done[-1] + phases[-1].epochs:g}')
    for i,(p,end) in enumerate(zip(phases, done), 1):
        if p.early_stop and abs(end - round(end)) > ROUNDING:
            raise ValueError(f'early_stop in phase {i}, which ends after {end:g} epochs: expected a phase that ends with an epoch, as '
                             'losses and metrics are measured there; leave early_stop out or change `epochs`')

def _check_cycles(phases):
    "Raise unless every phase knows its place in a cycle"
    if phases[0].sched is None: raise ValueError('sched=None in the first phase: expected a Schedule, as there is none to go on with')
    if any(p.early_stop and q.sched is None for p,q in zip(phases, phases[1:])):
        raise ValueError('sched=None after a phase with `early_stop`: expected a Schedule, as no one knows where the cycle would be')
