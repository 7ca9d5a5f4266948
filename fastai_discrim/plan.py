"All of it as one thing: phases as plain data that can be seen, saved, compared and run"
__all__ = ['Plateau', 'Phase', 'Plan']

import json
from dataclasses import asdict, dataclass, field, replace
from html import escape

import numpy as np
import pandas as pd

from .as_json import dumps, plain
from .checks import check_count, check_list, check_moms, check_number, check_rates, check_train_bn
from .record import plot_lrs
from .schedule import STLR, Schedule


@dataclass(frozen=True)
class Plateau:
    "When a phase ends before its last epoch: what is watched has stopped improving, as `EarlyStoppingCallback` has it"
    patience: int = 1 # Epochs without improvement
    monitor: str = 'valid_loss' # The loss or metric that is watched
    min_delta: float = 0. # What counts as an improvement
    best: bool = False # Do the weights of the phase's best epoch come back at its end?
    lower: bool = None # Is lower better? None: yes if the monitor's name has 'loss' or 'error' in it, as in fastai
    def __post_init__(self):
        check_count(self.patience, 'patience')
        check_number(self.min_delta, 'min_delta', at_least=True)
        if not isinstance(self.monitor, str): raise TypeError(f'monitor={self.monitor!r}: expected the name of a loss or metric')
        for k,kinds in dict(best=bool | np.bool_, lower=bool | np.bool_ | None).items():
            if not isinstance(v := getattr(self, k), kinds):
                raise TypeError(f'{k}={v!r}: expected True or False' + ', or None to go by its name'*(k == 'lower'))
        for k,v in dict(patience=int(self.patience), min_delta=float(self.min_delta), best=bool(self.best),
                        lower=None if self.lower is None else bool(self.lower)).items(): object.__setattr__(self, k, v)
    def __str__(self):
        delta = f' within {self.min_delta:g}' if self.min_delta else ''
        way = {None: '', True: ' (lower is better)', False: ' (higher is better)'}[self.lower]
        return f'until {self.monitor}{way} stalls{delta} for {self.patience}' + (', on from the best' if self.best else '')

@dataclass(frozen=True)
class Phase:
    "Some epochs in which the same layer groups train under one schedule"
    epochs: int # Length in epochs
    groups: tuple # Indices of the layer groups that train
    lrs: tuple # Peak rate of every layer group, input first, frozen ones too: `train_bn` keeps their norm layers training
    sched: Schedule = STLR() # Shape of the rate over the phase; None to go on with the cycle that a phase before it began
    moms: tuple = None # Momentum: start, at the peak rate, end; None for `learn.moms`, and where a cycle goes on
    ends: Plateau = None # What may end it before; None for nothing
    def __post_init__(self):
        check_count(self.epochs, 'epochs')
        lrs = check_list(self.lrs, 'lrs', 'a rate for each layer group')
        groups = check_list(self.groups, 'groups', 'the indices of layer groups')
        check_rates(lrs, len(lrs), 'lrs')
        if not groups or len(set(groups)) < len(groups) or any(isinstance(g, bool) or g not in range(len(lrs)) for g in groups):
            raise ValueError(f'groups={self.groups!r}: expected the indices, each once, of some of the {len(lrs)} groups that `lrs` is for')
        if not isinstance(self.sched, Schedule | None): raise TypeError(f'sched={self.sched!r}: expected a Schedule or None')
        if self.sched is not None and not getattr(getattr(self.sched, '__dataclass_params__', None), 'frozen', False):
            raise TypeError(f'{type(self.sched).__name__} is no frozen dataclass: expected one, as plans are compared and written; put '
                            '`@dataclass(frozen=True)` above it')
        if self.moms is not None: check_moms(self.moms)
        if self.sched is None and self.moms is not None:
            raise ValueError(f'moms={self.moms}: expected None where `sched` is None; give them to the phase that begins the cycle')
        if not isinstance(self.ends, Plateau | None): raise TypeError(f'ends={self.ends!r}: expected a Plateau or None')
        # The same values in other clothes (lists, numpy) make equal phases, and write equal JSON
        for k,v in dict(epochs=int(self.epochs), groups=tuple(sorted(map(int, groups))), lrs=tuple(map(float, lrs)),
                        moms=None if self.moms is None else tuple(map(float, self.moms))).items(): object.__setattr__(self, k, v)

@dataclass(frozen=True, repr=False)
class Plan:
    "What trains when, and how fast: a tuple of `Phase`s. It shows itself as a table, phase by layer group"
    phases: tuple # `Phase`s, in order
    names: tuple = field(default=(), compare=False) # A name for each layer group, input first; for display only
    lr: float = field(default=None, compare=False) # The rate that all follow, η_L; for display only, as are these:
    lr_from: str = field(default='', compare=False) # Where it came from
    tried: tuple = field(default=(), compare=False) # Pairs of rate and loss that it was chosen from
    source: str = field(default='', compare=False) # Where the plan is published
    train_bn: bool = None # Do norm layers of frozen groups train? False also keeps their running statistics; None: as the learner has it

    def __post_init__(self):
        phases = check_list(self.phases, 'phases', 'at least one Phase')
        if not phases or not all(isinstance(p, Phase) for p in phases): raise TypeError(f'phases={phases!r}: expected at least one Phase')
        object.__setattr__(self, 'phases', tuple(phases))
        object.__setattr__(self, 'names', tuple(map(str, self.names)) or tuple(map(str, range(self.n_groups))))
        object.__setattr__(self, 'lr', self.lr and float(self.lr))
        object.__setattr__(self, 'tried', tuple((float(lr), float(loss)) for lr,loss in self.tried))
        if len(ns := {len(p.lrs) for p in self.phases} | {len(self.names)}) > 1:
            raise ValueError(f'the phases and names are for {sorted(ns)} layer groups: expected the same number in all')
        if any(p.ends and q.sched is None for p,q in zip(phases, phases[1:])):
            raise ValueError('sched=None after a phase with `ends`: expected a Schedule, as no one knows where the cycle would be')
        check_train_bn(self.train_bn)
        if phases[0].sched is None: raise ValueError('sched=None in the first phase: expected a Schedule, as there is none to go on with')

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

    def cycle_at(self,
        epoch:int, # Counted from 0
    ) -> tuple: # The cycle's first epoch, its length in epochs, and the phase that begins it
        "The cycle of a schedule that `epoch` lies in: that of its own phase, or the one that this goes on with"
        self.at(epoch)
        done = start = 0
        for p,nxt in zip(self.phases, [*self.phases[1:], self.phases[0]]):
            if p.sched is not None: start,begun = done,p
            done += p.epochs
            if epoch < done and nxt.sched is not None: return start,done-start,begun

    def lrs(self,
        n_iter:int, # Iterations an epoch
    ) -> np.ndarray: # Shape [steps, groups], 0 where frozen: exactly what `recorder.group_lrs` will hold
        "Rate of every layer group at every step"
        check_count(n_iter, 'n_iter')
        return np.concatenate([self._curve(epoch, n_iter) for epoch in range(self.n_epoch)])

    def _curve(self, epoch, n_iter):
        phase,(first,n_epochs,begun) = self.at(epoch)[1],self.cycle_at(epoch)
        rate = begun.sched.scheds(np.array(phase.lrs), begun.moms or (0.,)*3)['lr']
        steps = np.stack([rate(((epoch-first)*n_iter + i) / (n_epochs*n_iter)) for i in range(n_iter)])
        return steps * np.isin(range(self.n_groups), phase.groups)

    def under(self,
        sched:Schedule, # Shape of the rate
        whole:bool=False, # One cycle over the whole plan, or one anew in each phase?
    ): # A `Plan` with the same phases and peak rates
        "The plan under another schedule"
        begun,phases = self.phases[0],[]
        for i,p in enumerate(self.phases):
            if p.sched is not None: begun = p
            phases.append(replace(p, sched=None, moms=None) if whole and i else replace(p, sched=sched, moms=begun.moms))
        return replace(self, phases=phases, source=self.source and f'{self.source}; changed: under {sched}{", whole" if whole else ""}')

    def table(self,
        frozen:str='frozen', # What stands where a group does not train
    ) -> pd.DataFrame: # One row a phase
        "What trains in which phase, at which peak rate"
        def _sched(p): return ', '.join(filter(None, [str(p.sched or 'goes on'), p.moms and f'moms={p.moms}', p.ends and str(p.ends)]))
        rows = [(p.epochs, *(f'{lr:.2e}' if i in p.groups else frozen for i,lr in enumerate(p.lrs)), _sched(p)) for p in self.phases]
        return pd.DataFrame(rows, columns=['epochs', *self.names, 'schedule'], index=range(1, len(rows)+1)).rename_axis('phase')

    def _title(self):
        counts = dict(epoch=self.n_epoch, phase=len(self.phases), group=self.n_groups)
        title = 'Plan: ' + ', '.join(f'{n} {what}{"s" * (n != 1)}' for what,n in counts.items()) + '; peak rates'
        # What a source calls its rate need not be that of the head
        name = 'η_L' if all(p.lrs[-1] == self.lr for p in self.phases) else 'lr'
        if self.lr: title += f'; {name} = {self.lr:.4g}, {self.lr_from}'
        lrs,norms = [[p.lrs[i] for i in p.groups] for p in self.phases],'train' if self.train_bn else 'stay as they are'
        fall = max(max(ls)/min(ls) for ls in lrs)
        if fall > 1000: title += f'; the lowest is 1/{fall:,.0f} of the highest: `min_scale`, `span` or `decay` raise it'
        if self.train_bn is not None: title += f'; norm layers of frozen groups {norms} (`train_bn`)'
        return title + (f'; from {self.source}' if self.source else '')
    def __repr__(self): return f'{self._title()}\n{self.table().to_string()}'
    def _repr_html_(self):
        table = self.table('<span style="opacity:.45">frozen</span>').rename(columns=escape)
        table['schedule'] = table['schedule'].map(escape)
        return f'<p>{escape(self._title())}</p>' + table.to_html(escape=False)

    def plot(self,
        n_iter:int=None, # Iterations an epoch, for an axis in iterations; None for one in epochs
        axs=None, # Two axes, for the rates and for what trains
        figsize:tuple=None, # Inches
    ):
        "Plot the rate of every layer group over time, and when it is frozen"
        steps,scale = (100, 100) if n_iter is None else (n_iter, None)
        return plot_lrs(self.lrs(steps), self.names, n_iter=scale, axs=axs, figsize=figsize)

    def to_dict(self) -> dict:
        "The plan as what JSON can hold"
        phases = [{**asdict(p), 'sched': p.sched and {'name': type(p.sched).__name__, **asdict(p.sched)}} for p in self.phases]
        about = dict(source=self.source, lr=self.lr, lr_from=self.lr_from, tried=[(lr, plain(loss)) for lr,loss in self.tried],
                     names=self.names, **({} if self.train_bn is None else dict(train_bn=self.train_bn)))
        return dict(fastai_discrim='Plan', version=1, **about, phases=phases)

    def to_json(self) -> str:
        "The plan as text, which `Plan.from_json` reads"
        return dumps(self.to_dict())

    @classmethod
    def from_json(cls,
        text:str, # What `to_json` gave, or the record that `recorder.save_run` wrote
    ): # A `Plan`
        "The plan that `to_json` wrote, or that of a recorded run; `ValueError` if `text` holds no plan"
        try:
            d = json.loads(text)
            if d['fastai_discrim'] == 'Run' and d['version'] == 1: d = d['plan']
            kind = d['fastai_discrim'],d['version']
            if kind != ('Plan', 1): raise ValueError(f'a {kind[0]} of version {kind[1]}, where this fastai_discrim reads version 1')
            phases = [Phase(**{**p, 'sched': _sched(p['sched']), 'ends': (e := p.get('ends')) and Plateau(**e)}) for p in d['phases']]
            about = {k: d[k] for k in ('lr', 'lr_from', 'tried', 'source', 'train_bn') if d.get(k) not in (None, '')}
            return cls(phases, d['names'], **about)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            raise ValueError(f'{str(text)[:60]!r} is no plan ({type(e).__name__}: {e}), expected `plan.to_json()`') from e

def _kinds(cls): return {k: c for sub in cls.__subclasses__() for k,c in {sub.__name__: sub, **_kinds(sub)}.items()}

def _sched(d):
    "The schedule that `to_dict` wrote"
    if d is None: return None
    d,kinds = dict(d),_kinds(Schedule)
    if (name := d.pop('name')) not in kinds:
        raise ValueError(f'there is no schedule {name!r}, only {", ".join(kinds)}: if it is your own, import it first')
    return kinds[name](**{k: tuple(v) if isinstance(v, list) else v for k,v in d.items()})
