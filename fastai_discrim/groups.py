"The layer groups of a learner: checked, named, shown, made anew"
__all__ = ['layerwise_split']

import re
from collections import Counter
from functools import partial

import pandas as pd
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.text.learner import LMLearner
from fastai.text.models.core import LinearDecoder
from fastai.torch_core import get_model, norm_bias_params
from fastcore.basics import patch
from fastcore.foundation import L
from torch import Tensor, nn

from .checks import check_count, check_data
from .layers import layerwise_split
from .several import mend_trainer


def _listed(ps, names):
    return ', '.join(names.get(p, 'one that is not in the model') for p in ps[:3]) + (', ...' if len(ps) > 3 else '')

def _groups(learn, reset_opt):
    "The layer groups that `learn` trains, and where they come from"
    if isinstance(learn.opt_func, OptimWrapper): return L(learn.opt_func.param_lists),'the optimiser'
    if learn.opt is not None and not reset_opt: return L(learn.opt.param_lists),'the optimiser'
    groups = L(learn.splitter(learn.model))
    # So fastai has it: a list of parameters is one group
    if groups and all(isinstance(p, Tensor) for p in groups): groups = L([list(groups)])
    return groups,f'the splitter {getattr(learn.splitter, "__name__", learn.splitter)}'

def check_groups(
    learn:Learner, # The learner whose layer groups are wanted
    reset_opt:bool=False, # Will its optimiser be created anew?
    at_least:int=2, # How many groups are needed
) -> L: # The lists of parameters that its optimiser has or would be given
    "The layer groups of `learn`, or an error that says why they can't be trained one by one; nothing is changed"
    groups,who = _groups(learn, reset_opt)
    odd = [o for g in groups for o in (g if isinstance(g, (list, L)) else [g]) if not isinstance(o, Tensor)]
    if odd: raise TypeError(f'{who} gave layer groups made of {type(odd[0]).__name__}, expected a list of lists of parameters: '
                            'make the splitter return `L(groups).map(list)`, then `learn.create_opt()`')
    def _refuse(what, ps, mend):
        raise ValueError(f'{who} {what} {len(ps)} of {len(names)} parameters ({_listed(ps, names)}): {mend}, then `learn.create_opt()`')
    names = {p:n for n,p in get_model(learn.model).named_parameters()}
    count = Counter(p for g in groups for p in g)
    if ps := [p for p in count if p not in names]: _refuse('holds', ps, 'give it the parameters of `learn.model`')
    if ps := [p for p in count if count[p] > 1]: _refuse('has twice', ps, 'put each in one group only')
    # fastai's default splitter leaves out what is frozen, and makes one group
    if (ps := [p for p in names if p not in count]) and len(groups) > 1: _refuse('leaves out', ps, 'put every one in a group')
    for i,g in enumerate(groups):
        if not len(g): raise ValueError(f'{who} gives a layer group, {i}, without parameters: leave it out, then `learn.create_opt()`')
    if len(groups) < at_least:
        raise ValueError(f'{who} gives {len(groups)} layer group, expected at least {at_least}: build the learner with '
                         '`splitter=layerwise_split`, or call `learn.regroup()`')
    return groups

def own_lr(
    learn:Learner, # The learner that is about to fit
    reset_opt:bool=False, # Will its optimiser be created anew?
) -> float:
    "`learn.lr`, or the rate that `learn.opt_func` was given, which fastai puts there when it creates the optimiser"
    return getattr(learn.opt_func, 'keywords', {}).get('lr', learn.lr) if learn.opt is None or reset_opt else learn.lr

def is_lm(learn:Learner) -> bool:
    "Is the model of `learn` a language model?"
    def _gives_tokens(m): return isinstance(m, LinearDecoder) or getattr(m, 'get_output_embeddings', lambda: None)() is not None
    return isinstance(learn, LMLearner) or any(map(_gives_tokens, get_model(learn.model).modules()))

def norm_ids(model:nn.Module) -> frozenset: # `id`s of parameters
    "The parameters of norm layers, which `train_bn` keeps training in frozen groups"
    return frozenset(id(p) for p in norm_bias_params(get_model(model), with_bias=False))

def group_trains(
    group:list, # Parameters of one layer group
    norms:frozenset, # What `norm_ids` gave for the model
) -> bool: # Does any of them train, but for norm layers?
    "Whether `group` trains; read from `requires_grad`, as `opt.frozen_idx` can't be trusted"
    if any(p.requires_grad and id(p) not in norms for p in group): return True
    return all(id(p) in norms for p in group) and any(p.requires_grad for p in group)

def _module_names(m, left, group, prefix=''):
    "Names of the largest modules that lie in `group`, each parameter named once"
    res = []
    for n,p in m.named_parameters(prefix, recurse=False):
        if p in left: left.discard(p); res.append(n)
    for n,c in m.named_children():
        ps,n = set(c.parameters()),f'{prefix}.{n}' if prefix else n
        if not ps & left: continue
        if ps <= group: left -= ps; res.append(n)
        else: res += _module_names(c, left, group, n)
    return res

def group_names(
    learn:Learner, # The learner whose groups are named
    groups:L, # Its layer groups, lists of parameters
) -> L: # For each group the names of its modules
    "Names of the modules in each of `groups`"
    return L(_module_names(get_model(learn.model), set(g), set(g)) for g in groups)

def group_labels(
    learn:Learner, # The learner whose groups are labelled
    groups:L, # Its layer groups, lists of parameters
) -> L: # Short names, the last 'head'
    "A short name for each of `groups`, for tables and plots"
    names = group_names(learn, groups)[:-1]
    # What all of them begin with says nothing, but a number alone says less
    heads = list(zip(*(n.split('.') for ns in names for n in ns)))
    k = max((i for i,o in enumerate(heads) if all(len(set(h)) == 1 for h in heads[:i]) and not any(p.isdigit() for p in o)), default=0)
    def _short(n): return re.sub(r'^((\d+|module)\.)+(?=[a-zA-Z_])', '', '.'.join(n.split('.')[k:]))
    return L(_short(ns[0]) + ('' if len(ns) == 1 else f' .. {_short(ns[-1])}') for ns in names) + 'head'

@patch
def layer_groups(self:Learner) -> pd.DataFrame: # One row a layer group, input first
    "Table of the layer groups: their modules, parameters, how many of these train now, and the current rate"
    groups = check_groups(self, at_least=1)
    lrs = [own_lr(self)]*len(groups) if self.opt is None else [h['lr'] for h in self.opt.hypers]
    rows = [(', '.join(ns), sum(p.numel() for p in g), sum(p.numel() for p in g if p.requires_grad), lr)
            for ns,g,lr in zip(group_names(self, groups), groups, lrs)]
    return pd.DataFrame(rows, columns=['modules', 'parameters', 'training', 'lr']).rename_axis('group')

def _carry(old, new):
    "What optimiser `old` knows of each parameter, for `new`, which has them in other groups"
    at = {p:i for i,g in enumerate(old.param_lists) for p in g}
    for a,b in [(old, new)] + ([(old.opt, new.opt)] if isinstance(old, OptimWrapper) else []):
        for p in at:
            if p in a.state: b.state[p] = {**a.state[p], **b.state.get(p, {})}
    if getattr(old, 'slow_weights', None):
        slow = {p:s for ps,ss in zip(old.param_lists, old.slow_weights) for p,s in zip(ps, ss)}
        new.count,new.slow_weights = old.count,L(L(slow[p] if p in slow else p.detach().clone() for p in g) for g in new.param_lists)
    hypers = [old.hypers[at.get(g[-1], -1)] for g in new.param_lists]
    for k in hypers[0]: new._set_hyper(k, [h[k] for h in hypers])

def _open_whole(old, new, norms):
    "Of a group that trains in part, what was frozen as a group of `old` trains too; what was frozen by hand stays so"
    shut = {p for g in old.param_lists if not group_trains(g, norms) for p in g}
    for g in new.param_lists:
        if group_trains(g, norms):
            for p in shut & set(g): p.requires_grad_(True)

@patch
def regroup(self:Learner,
    splitter=layerwise_split, # Gives lists of parameters, input first, for a model
    n_groups:int=None, # For `layerwise_split`: neighbours are merged to have so many
): # The learner
    "Other layer groups for a learner that exists; groups stay frozen that were, and the optimiser keeps its state and its rates"
    if not callable(splitter): raise TypeError(f'splitter={splitter!r}: expected a function of a model; or say `n_groups={splitter!r}`')
    if isinstance(self.opt_func, OptimWrapper):
        raise ValueError('opt_func is an optimiser with groups of its own: expected what makes one, as `partial(OptimWrapper, opt=...)`')
    old,was = self.opt,self.splitter
    self.splitter = splitter if n_groups is None else partial(splitter, n_groups=n_groups)
    try:
        check_groups(self, reset_opt=True)
        self.create_opt()
    except Exception: self.splitter = was; raise
    norms = norm_ids(self.model)
    if old is not None:
        _carry(old, self.opt)
        _open_whole(old, self.opt, norms)
    self.opt.frozen_idx = next((i for i,g in enumerate(self.opt.param_lists) if group_trains(g, norms)), len(self.opt.param_lists))
    return self

class GroupCallback(Callback):
    "Base of the callbacks that work on layer groups: a fit is checked before it changes anything, and leaves no gradient behind"
    run_valid = False
    def __call__(self, event_name):
        # fastai's own look-up, for every event of every batch, costs more than what these callbacks do
        if hasattr(type(self), event_name): return super().__call__(event_name)

    def check_fit(self,
        learn:Learner, # The learner that is about to fit; the callback may not be on it yet
        n_epoch:int, # What `fit` was given
        lr, # What `fit` was given
        cbs:list, # All callbacks of the fit
        reset_opt:bool, # What `fit` was given
    ):
        "Raise if this fit can't be done"
        # `fine_tune` may have no frozen epochs
        if n_epoch != 0 or not hasattr(learn, '_fine_tuning'): check_count(n_epoch)
        check_groups(learn, reset_opt)
        check_data(learn)

def check_alone(kind, cbs):
    "Raise if `cbs` has two of a `kind` that decides the same thing"
    if len(both := [o for o in cbs if isinstance(o, kind)]) > 1:
        raise ValueError(f'{both[0]!r} and {both[1]!r} in one fit: expected one of them; leave one out, or `learn.remove_cb` it')

def made(cbs) -> L: # Callbacks
    "One callback, many, or classes, as callbacks that exist"
    return L(cbs).map(lambda cb: cb() if isinstance(cb, type) else cb)

def check_cbs(
    learn:Learner, # The learner that is about to fit
    n_epoch:int, # Epochs
    lr, # Its rates
    cbs:list, # All callbacks of the fit
    reset_opt:bool=False, # Will the optimiser be created anew?
):
    "Raise if one of our callbacks can't do this fit"
    for cb in cbs:
        if isinstance(cb, GroupCallback): cb.check_fit(learn, n_epoch, lr, cbs, reset_opt)

@patch
def fit(self:Learner, n_epoch, lr=None, wd=None, cbs=None, reset_opt=False, start_epoch=0):
    "As in fastai; `GroupCallback`s check it first, and no gradient of theirs, in whatever way it ends, reaches the next fit"
    # Not by events: `before_fit` is for validation too, and none is called when a fit ends in Ctrl-C or an error
    cbs = made(cbs)
    mend_trainer(self)
    every = [*self.cbs, *cbs]
    check_cbs(self, n_epoch, lr, every, reset_opt)
    if hasattr(self, 'recorder'): self.recorder._group_lrs,self.recorder._norms,self.recorder.plan = [],norm_ids(self.model),None
    try: self._orig_fit(n_epoch, lr=lr, wd=wd, cbs=cbs, reset_opt=reset_opt, start_epoch=start_epoch)
    finally:
        if any(isinstance(cb, GroupCallback) for cb in every):
            for p in self.model.parameters(): p.grad = None
