"Published hyper-parameters as data: a `Recipe` makes a `Plan`, and arguments for fastai's constructors"
__all__ = ['Recipe']

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape

import numpy as np

from ..checks import check_count, check_number
from ..plan.origin import HeadLR, lr_origin
from ..plan.phase import Phase
from ..plan.plan import Plan
from ..plan.rates import discriminative_lrs
from ..plan.schedules import Schedule

LM,CLAS = 'language model','classifier'
# The layer groups of fastai's text models, input first
LAYER_GROUPS = {LM: ('rnns.0', 'rnns.1', 'rnns.2', 'head'), CLAS: ('encoder', 'rnns.0', 'rnns.1', 'rnns.2', 'head')}

@dataclass(frozen=True)
class Step:
    "Describe a phase whose rates are relative to the recipe's `lr`"
    epochs: float # Length in epochs
    groups: Sequence[int] # Indices of the layer groups that train
    rates: float | Sequence[float] # The factor by which rates fall from group to group, or a multiple of `lr` for each group
    sched: Schedule # Shape of the rate over the phase
    scale: float = 1. # Factor of `lr` in this phase

    def lrs(self, lr:float, n_groups:int) -> np.ndarray:
        "Return the peak rates of all `n_groups` layer groups, input first, in a recipe of rate `lr`"
        lr = lr*self.scale
        if np.ndim(self.rates): return lr*np.array(self.rates)
        return discriminative_lrs(lr, n_groups, self.rates)  # type: ignore[arg-type]

@dataclass(frozen=True, repr=False)
class Recipe:
    "Hold published numbers. `plan()` makes the plan; `dls_kwargs` and `learner_kwargs` are arguments for fastai's constructors"
    name: str # Name in `recipes`
    kind: str # 'language model' or 'classifier'
    source: str # Where the numbers are published
    lr: float # η_L, or what the source calls `lr`
    steps: Sequence[Step] # The phases in order
    # In the fields below, None means that the source doesn't state the value
    moms: tuple | None = None # Momentum (β1 of Adam) at start, peak rate and end
    sqr_mom: float | None = None # β2 of Adam
    wd: float | None = None # Weight decay
    clip: float | None = None # Greatest norm of the gradients
    bs: int | None = None # Batch size
    val_bs: int | None = None # Batch size for validation, if it differs
    bptt: int | None = None # Tokens in a sequence
    drops: dict | None = field(default=None, hash=False) # Dropout probabilities by fastai's names
    drop_mult: float | None = None # Factor of all dropout probabilities
    note: str = '' # A remark for readers

    def __post_init__(self):
        if self.kind not in LAYER_GROUPS: raise ValueError(f'kind={self.kind!r}: expected {LM!r} or {CLAS!r}')

    @property
    def n_epoch(self) -> int:
        "Return the published number of epochs"
        return round(sum(s.epochs for s in self.steps))

    @property
    def names(self) -> tuple:
        "Return the names of the layer groups, input first"
        return LAYER_GROUPS[self.kind]

    def plan(self,
        n_epoch:int|None=None, # Epochs in all; the last phase takes what the others leave. None for the published number
        lr:float|HeadLR|None=None, # The rate that all others follow, or a result of `head_lr_find`; None for the published rate
    ) -> Plan: # A plan for `learn.apply_recipe` or `learn.fit_plan`
        "Make the published plan, perhaps with another number of epochs or another rate. Raise `ValueError` if `n_epoch` is too small"
        steps = self.steps if n_epoch is None else self._steps_for(n_epoch)
        origin:dict = dict(lr=self.lr, lr_from='as published')
        if lr is not None: origin = lr_origin(lr, 'give the highest, as the recipe sets the others')
        rate = check_number(origin['lr'], 'lr')
        phases = [Phase(s.epochs, s.groups, s.lrs(rate, len(self.names)), s.sched, self.moms) for s in steps]
        return Plan(phases, self.names, **origin, source=self._source(n_epoch, rate), clip=self.clip)

    def _steps_for(self, n_epoch):
        "Return the steps for `n_epoch` epochs; the last step takes what the others leave"
        check_count(n_epoch)
        *first,last = self.steps
        before_last = sum(s.epochs for s in first)
        if n_epoch <= before_last:
            raise ValueError(f'n_epoch={n_epoch}: expected at least {int(before_last)+1}, as {self.name} takes {before_last:g} epochs '
                             'before its last phase')
        return [*first, replace(last, epochs=n_epoch-before_last)]

    def _source(self, n_epoch, lr):
        "Describe where the plan is published, and how this plan differs from it"
        changed = []
        if n_epoch not in (None, self.n_epoch): changed.append(f'epochs {n_epoch}')
        if lr != self.lr: changed.append(f'lr {lr:g}')
        source = f'{self.name}, {self.source}'
        return f'{source}; changed: {", ".join(changed)}' if changed else source

    @property
    def dls_kwargs(self) -> dict:
        "Return the arguments of `TextDataLoaders.from_df` and the like: batch sizes and sequence length"
        kwargs = dict(bs=self.bs, val_bs=self.val_bs, seq_len=self.bptt)
        return {k:v for k,v in kwargs.items() if v is not None}

    @property
    def learner_kwargs(self) -> dict:
        "Return the arguments of `language_model_learner` or `text_classifier_learner`: dropout, weight decay, momentum, optimiser"
        from fastai.optimizer import Adam
        from fastai.text.models import awd_lstm_clas_config, awd_lstm_lm_config
        config = awd_lstm_lm_config if self.kind == LM else awd_lstm_clas_config
        kwargs: dict = dict(drop_mult=self.drop_mult, wd=self.wd, moms=self.moms)
        if self.drops: kwargs['config'] = {**config, **self.drops}
        # A published weight decay is added to the gradient, as in fastai 0.7; fastai's default of 0.01 would be far too much for that
        if self.sqr_mom: kwargs['opt_func'] = partial(Adam, sqr_mom=self.sqr_mom, eps=1e-8, decouple_wd=self.wd is None)
        # `train_clas.py` has this head and this longest text
        if self.bptt and self.kind == CLAS: kwargs.update(seq_len=self.bptt, max_len=20*self.bptt, lin_ftrs=[50], ps=[0.1])
        return {k:v for k,v in kwargs.items() if v is not None}

    def settings(self) -> dict: # Text by name, without what the source doesn't state
        "Return all settings except the plan, for display"
        bs = self.bs if None in (self.bs, self.val_bs) else f'{self.bs}, {self.val_bs} to validate'
        moms = self.moms[0] if self.moms and len(set(self.moms)) == 1 else self.moms
        values = {'batch size': bs, 'bptt': self.bptt, 'β1': moms, 'β2': self.sqr_mom, 'weight decay': self.wd, 'clip': self.clip,
                  'dropout': self._dropout_text()}
        return {k: f'{v:g}' if isinstance(v, float) else str(v) for k,v in values.items() if v is not None}

    def _dropout_text(self):
        "Describe the dropout probabilities; None if the source doesn't state any"
        drops = ', '.join(f'{k} {v:g}' for k,v in self.drops.items()) if self.drops else None
        if self.drop_mult in (None, 1): return drops
        return f'{drops or "as in fastai"}, all times {self.drop_mult:g}'

    def _title(self):
        "Describe the recipe in one line, which stands above the plan"
        settings = [f'{k} {v}' for k,v in self.settings().items()]
        parts = [f'{self.name}, for a {self.kind}', *settings, self.note]
        return '; '.join(part for part in parts if part)

    def __repr__(self): return f'{self._title()}\n{self.plan()}'
    def _repr_html_(self): return f'<p>{escape(self._title())}</p>' + self.plan()._repr_html_()
