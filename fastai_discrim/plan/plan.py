"Plans: a whole fit as plain data that can be shown, saved, compared and run"
__all__ = ['Plan']

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from os import PathLike

import numpy as np
import pandas as pd

from ..checks import check_count, check_list, check_number, check_train_bn
from .json_text import dumps
from .phase import Phase, set_fields
from .plan_json import plan_fields, plan_to_dict
from .plot import plot_lrs
from .position import ROUNDING, Timeline
from .schedules import Schedule
from .show import plan_counts, plan_html, plan_table, plan_text


@dataclass(frozen=True, repr=False)
class Plan:
    """Describe a whole fit by its `Phase`s: what trains when, and at which rates. A plan shows itself as a table, phase by layer group

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
    phases: Sequence[Phase] # The phases in order
    names: Sequence[str] = field(default=(), compare=False) # A name for each layer group, input first; for display only
    lr: float | None = field(default=None, compare=False) # η_L, the rate that all others follow; for display only
    lr_from: str = field(default='', compare=False) # Origin of `lr`; not compared
    tried: Sequence[tuple[float, float]] = field(default=(), compare=False) # Pairs of rate and loss from which `lr` was chosen; for display
    source: str = field(default='', compare=False) # Where the plan is published; for display only
    train_bn: bool | None = None # Do norm layers of frozen groups train? False also keeps their statistics; None for `learn.train_bn`
    body_lr: float | None = field(default=None, compare=False) # Rate of the group below the head, for display; None if it follows from `lr`
    body_lr_from: str = field(default='', compare=False) # Origin of `body_lr`; not compared
    passed_over: Sequence[str] = field(default=(), compare=False) # Names of groups that never train, as the user froze them; for display
    clip: float | None = None # Largest norm of the gradients; None for no clipping

    def __post_init__(self):
        phases = check_list(self.phases, 'phases', 'at least one Phase')
        if not phases or not all(isinstance(p, Phase) for p in phases): raise TypeError(f'phases={phases!r}: expected at least one Phase')
        names = tuple(map(str, self.names)) or tuple(map(str, range(len(phases[0].lrs))))
        counts = {len(p.lrs) for p in phases} | {len(names)}
        if len(counts) > 1:
            raise ValueError(f'the phases and names are for {sorted(counts)} layer groups: expected the same number in all of them')
        if self.clip is not None: check_number(self.clip, 'clip')
        _check_lengths(phases)
        _check_cycles(phases)
        set_fields(self, phases=tuple(phases), names=names, passed_over=tuple(self.passed_over), lr=self.lr and float(self.lr),
                   body_lr=self.body_lr and float(self.body_lr), clip=self.clip and float(self.clip),
                   train_bn=check_train_bn(self.train_bn), tried=tuple((float(lr), float(loss)) for lr,loss in self.tried))

    @property
    def n_epoch(self) -> int: return round(sum(p.epochs for p in self.phases))
    @property
    def n_groups(self) -> int: return len(self.phases[0].lrs)

    def timeline(self, n_iter:int) -> Timeline:
        "Lay the phases out in steps, `n_iter` per epoch; raise `ValueError` if there are fewer steps than phases"
        return Timeline([p.epochs for p in self.phases], [p.sched is not None for p in self.phases], n_iter)

    def lrs(self,
        n_iter:int, # Steps per epoch
    ) -> np.ndarray: # Shape [steps, groups], 0 where frozen, exactly as `recorder.group_lrs` will hold them
        "Return the rate of every layer group at every step"
        check_count(n_iter, 'n_iter')
        timeline = self.timeline(n_iter)
        return np.concatenate([self.phase_lrs(i, timeline) for i in range(len(self.phases))])

    def phase_lrs(self, i:int, timeline:Timeline) -> np.ndarray:
        "Return the rate of every layer group at every step of phase number `i`, as `lrs` does for all phases"
        phase,begun = self.phases[i],self.phases[timeline.leader[i]]
        # `begun` has a schedule, as it begins the cycle; its momentum has no effect on the rates
        rate = begun.sched.scheds(np.array(phase.lrs), begun.moms or (0.,)*3)['lr']  # type: ignore[union-attr]
        trains = np.isin(range(self.n_groups), phase.groups)
        return np.stack([rate(timeline.cycle(step)[1])*trains for step in range(timeline.starts[i], timeline.ends[i])])

    def under(self,
        sched:Schedule, # Shape of the rate
        whole:bool=False, # Run one cycle over the whole plan, instead of one in each phase?
    ) -> 'Plan': # A plan with the same phases and peak rates
        "Return the plan under another schedule"
        begun,phases = self.phases[0],[]
        for i,p in enumerate(self.phases):
            if p.sched is not None: begun = p
            phases.append(replace(p, sched=None, moms=None) if whole and i else replace(p, sched=sched, moms=begun.moms))
        return replace(self, phases=phases, source=self.source and f'{self.source}; changed: under {sched}{", whole" if whole else ""}')

    def table(self,
        frozen:str='frozen', # Text of the cells of frozen groups
    ) -> pd.DataFrame: # One row per phase
        "Return a table of what trains in which phase, and at which peak rate"
        return plan_table(self, frozen)

    def __repr__(self): return plan_text(self)
    def _repr_html_(self): return plan_html(self)

    def plot(self,
        n_iter:int|None=None, # Steps per epoch, for an axis in steps; None for an axis in epochs
        axs=None, # Two axes, for the rates and for what trains; None to make them
        figsize:tuple|None=None, # Width and height in inches
        yscale:str='log', # 'log', or 'linear', on which a slanted triangle looks like one
        n_epoch:int|None=None, # Length of the axis in epochs, if it is to be longer than the plan
    ):
        "Plot the rate of every layer group over time, and when the group is frozen"
        # Draw so many points that the shortest phase has several
        points = n_iter or min(max(100, math.ceil(10/min(p.epochs for p in self.phases))), 2000)
        return plot_lrs(self.lrs(points), self.names, None if n_iter else points, n_steps=n_epoch and n_epoch*points,
                        phase_ends=self.timeline(points).ends, title=f'Plan: {plan_counts(self)}', yscale=yscale, axs=axs, figsize=figsize)

    def to_dict(self) -> dict:
        "Return the plan as a dictionary that JSON can hold"
        return plan_to_dict(self)

    def to_json(self) -> str:
        "Return the plan as text that `Plan.from_json` can read"
        return dumps(self.to_dict())

    @classmethod
    def from_json(cls,
        text:str, # The text from `to_json`, or the record that `recorder.save_run` wrote
    ) -> 'Plan':
        "Read a plan that `to_json` wrote, or the plan of a recorded run; raise `ValueError` if `text` holds no plan"
        if isinstance(text, PathLike): raise TypeError(f'text={text!r}: expected the text of a plan; give `path.read_text()`')
        try: return cls(**plan_fields(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            raise ValueError(f'{str(text)[:60]!r} is not a plan ({type(e).__name__}: {e}): expected the text from `plan.to_json()`, or the '
                             'record that `recorder.save_run` wrote') from e

def _check_lengths(phases):
    "Raise unless the phases fill whole epochs, and each phase that may end early ends with an epoch"
    ends = list(accumulate(float(p.epochs) for p in phases))
    total = ends[-1]
    if abs(total - round(total)) > ROUNDING or total < 0.5:
        raise ValueError(f'the phases have {total:g} epochs in all: expected a whole number; give the last phase '
                         f'{math.ceil(total) - total + phases[-1].epochs:g}')
    for i,(p,end) in enumerate(zip(phases, ends), 1):
        if p.early_stop and abs(end - round(end)) > ROUNDING:
            raise ValueError(f'early_stop in phase {i}, which ends after {end:g} epochs: expected a phase that ends with an epoch, as '
                             'losses and metrics are measured there; leave `early_stop` out or change `epochs`')

def _check_cycles(phases):
    "Raise unless the position of every phase in its cycle is known"
    if phases[0].sched is None:
        raise ValueError('sched=None in the first phase: expected a Schedule, as no earlier phase has begun a cycle')
    if any(p.early_stop and q.sched is None for p,q in zip(phases, phases[1:])):
        raise ValueError('sched=None after a phase with `early_stop`: expected a Schedule, as that phase may end anywhere in the cycle')
