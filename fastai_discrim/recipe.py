"What someone published, so that it can be seen, compared and run: a plan builder, and the settings that belong to it"
__all__ = ['Recipe']

from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from warnings import warn

import numpy as np
from fastai.callback.training import GradientClip
from fastai.learner import Learner
from fastai.optimizer import Adam
from fastai.text.models import awd_lstm_clas_config, awd_lstm_lm_config
from fastcore.basics import patch
from fastcore.foundation import L

from .checks import check_count, check_number
from .fit_plan import check_plan
from .groups import check_groups, group_labels, is_lm
from .head import HeadLR, eta
from .plan import Phase, Plan
from .rates import discriminative_lrs
from .resume import check_checkpoint, check_run
from .schedule import Schedule

# The layer groups of fastai's text models
GROUPS = {'language model': ('rnns.0', 'rnns.1', 'rnns.2', 'head'), 'classifier': ('encoder', 'rnns.0', 'rnns.1', 'rnns.2', 'head')}

@dataclass(frozen=True)
class Step:
    "A phase, before it is known what the head's rate will be"
    epochs: int # Length in epochs
    groups: tuple # Indices of the layer groups that train
    rates: float|tuple # How many times lower a group's rate is than that of the one above, or each group's multiple of `lr`
    sched: Schedule # Shape of the rate
    scale: float = 1. # `lr` is multiplied by this

    def lrs(self,
        lr:float, # The rate that the recipe is for
        n_groups:int, # Layer groups
    ) -> np.ndarray: # Peak rates, shape [n_groups], input first
        "Peak rate of every layer group"
        lr *= self.scale
        return lr*np.array(self.rates) if np.ndim(self.rates) else discriminative_lrs(lr, n_groups, self.rates)

@dataclass(frozen=True, repr=False)
class Recipe:
    "Published numbers: `plan` makes the plan, `dls_kwargs` and `learner_kwargs` are for fastai's constructors. None: the source is silent"
    name: str
    kind: str # 'language model' or 'classifier'
    source: str # Where the numbers are written
    lr: float # η_L, or what the source calls `lr`
    steps: tuple # `Step`s, in order
    moms: tuple = None # Momentum, β1 of Adam: start, at the peak rate, end
    sqr_mom: float = None # β2 of Adam
    wd: float = None # Weight decay
    clip: float = None # Norm that gradients are clipped to
    bs: int = None # Batch size
    val_bs: int = None # Batch size of validation, where it is another
    bptt: int = None # Tokens of a text that are read at once
    drops: dict = field(default=None, hash=False) # Dropouts by fastai's names
    drop_mult: float = None # What they are multiplied by
    note: str = '' # What a reader should know

    @property
    def n_epoch(self) -> int: return sum(s.epochs for s in self.steps)
    @property
    def names(self) -> tuple: return GROUPS[self.kind]

    def plan(self,
        n_epoch:int=None, # Epochs in all, the last phase has what the others leave; None for the published number
        lr:float|HeadLR=None, # The rate that all others follow, or what `head_lr_find` gave; None for the published one
    ) -> Plan: # Made, not run
        "The published plan, or as it would be with other epochs or another rate"
        *first,last = self.steps
        done,n = self.n_epoch-last.epochs,self.n_epoch if n_epoch is None else n_epoch
        check_count(n)
        if n <= done: raise ValueError(f'n_epoch={n}: expected at least {done+1}, as {self.name} takes {done} epochs before its last phase')
        given,(lr,origin) = lr is not None,(self.lr, dict(lr=self.lr, lr_from='as published')) if lr is None else eta(lr)
        check_number(lr, 'lr')
        changed = [f'{what} {v:g}' for what,v,c in (('epochs', n, n != self.n_epoch), ('lr', lr, given and lr != self.lr)) if c]
        steps = [*first, replace(last, epochs=n-done)]
        phases = [Phase(s.epochs, s.groups, s.lrs(lr, len(self.names)), s.sched, self.moms) for s in steps]
        source = f'{self.name}, {self.source}' + (f'; changed: {", ".join(changed)}' if changed else '')
        return Plan(phases, self.names, **origin, source=source)

    @property
    def dls_kwargs(self) -> dict:
        "For `TextDataLoaders.from_df` and the like: batch size and sequence length"
        return {k:v for k,v in dict(bs=self.bs, val_bs=self.val_bs, seq_len=self.bptt).items() if v is not None}

    @property
    def learner_kwargs(self) -> dict:
        "For `language_model_learner` or `text_classifier_learner`: dropouts, weight decay, momentum, and Adam as it was in fastai 0.7"
        lm = self.kind == 'language model'
        res = dict(drop_mult=self.drop_mult, wd=self.wd, moms=self.moms)
        if self.drops: res['config'] = {**(awd_lstm_lm_config if lm else awd_lstm_clas_config), **self.drops}
        # It decayed weights through the gradient, which fastai's default of 0.01 is not meant for
        if self.sqr_mom: res['opt_func'] = partial(Adam, sqr_mom=self.sqr_mom, eps=1e-8, decouple_wd=self.wd is None)
        if self.bptt and not lm: res.update(seq_len=self.bptt, max_len=20*self.bptt, lin_ftrs=[50], ps=[0.1])
        return {k:v for k,v in res.items() if v is not None}

    def settings(self) -> dict: # By name; what the source doesn't say is left out
        "What surrounds the plan, for display"
        moms = self.moms and (self.moms[0] if len(set(self.moms)) == 1 else self.moms)
        drops = self.drops and ', '.join(f'{k} {v:g}' for k,v in self.drops.items())
        if self.drop_mult not in (None, 1): drops = (drops or 'as in fastai') + f', all times {self.drop_mult:g}'
        bs = self.bs and (f'{self.bs}' if self.val_bs is None else f'{self.bs}, {self.val_bs} to validate')
        res = {'batch size': bs, 'bptt': self.bptt, 'β1': moms, 'β2': self.sqr_mom, 'weight decay': self.wd, 'clip': self.clip,
               'dropout': drops}
        return {k:f'{v:g}' if isinstance(v, float) else str(v) for k,v in res.items() if v is not None}

    def _about(self):
        return '; '.join(filter(None, [f'{self.name}, for a {self.kind}', *(f'{k} {v}' for k,v in self.settings().items()), self.note]))
    def __repr__(self): return f'{self._about()}\n{self.plan()}'
    def _repr_html_(self): return f'<p>{escape(self._about())}</p>' + self.plan()._repr_html_()

def _check_recipe(learn, recipe, plan, cbs, reset_opt):
    "Raise unless `learn` can run `recipe`; nothing is changed"
    if is_lm(learn) != (recipe.kind == 'language model'):
        raise ValueError(f'{recipe.name} is for a {recipe.kind}, and the learner has {"a" if is_lm(learn) else "no"} language model: '
                         'expected a recipe for what it has; `recipes` lists them')
    check_plan(learn, plan, cbs, reset_opt)
    clips = [cb for cb in [*learn.cbs, *L(cbs)] if cb is GradientClip or isinstance(cb, GradientClip)]
    if clips and recipe.clip is not None:
        raise ValueError(f'GradientClip together with {recipe.name}, which clips at {recipe.clip:g}: expected none; leave it out, or '
                         '`learn.remove_cb(GradientClip)`')

@patch
def apply_recipe(self:Learner,
    recipe:Recipe, # What to do, such as `recipes.paper_clas`
    n_epoch:int=None, # Epochs in all; None for the published number
    lr:float|HeadLR=None, # The rate that all others follow, or what `head_lr_find` gave; None for the published one
    cbs=None, # One callback, many, or a class
    checkpoint:str=None, # Name of the file that the same call goes on from, as in `fit_plan`
    *,
    checkpoint_every:int=None, # As in `fit_plan`
    reset_opt:bool=False, # As in `fit`
    start_epoch:int=0, # As in `fit`
):
    "Run `recipe`: its plan, its β1, β2 and weight decay, which stay with the optimiser, and its clipping. Data and model are left as built"
    if not isinstance(recipe, Recipe): raise TypeError(f'recipe={recipe!r}: expected a Recipe, such as `recipes.paper_clas`')
    check_checkpoint(checkpoint, checkpoint_every, start_epoch)
    plan = recipe.plan(n_epoch, lr)
    _check_recipe(self, recipe, plan, cbs, reset_opt)
    plan = replace(plan, names=group_labels(self, check_groups(self, reset_opt)))
    if checkpoint is not None: check_run(self, plan, checkpoint, recipe.wd, reset_opt)
    if self.opt is None or reset_opt: self.create_opt()
    for k,name,v in (('mom', 'β1', recipe.moms), ('sqr_mom', 'β2', recipe.sqr_mom)):
        if v is not None and k not in self.opt.hypers[0]: warn(f'{name}={v} is ignored: the optimiser has none', stacklevel=2)
        elif k == 'sqr_mom' and v is not None: self.opt.set_hyper(k, v)
    cbs = L(cbs) if recipe.clip is None else L(GradientClip(recipe.clip)) + L(cbs)
    self.fit_plan(plan, cbs, recipe.wd, checkpoint, checkpoint_every=checkpoint_every, start_epoch=start_epoch)
