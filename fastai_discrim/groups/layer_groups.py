"Check, list and change the layer groups of a learner: `learn.layer_groups()`, `learn.regroup()`"
__all__ = []

from collections import Counter
from functools import partial
from weakref import WeakKeyDictionary

import pandas as pd
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import get_model
from fastcore.basics import patch
from fastcore.foundation import L
from torch import Tensor
from torch.nn.parameter import is_lazy

from .by_hand import frozen_by_hand, frozen_marks, mark_frozen, param_names, renew_opt
from .labels import group_names
from .modules import unwrapped
from .norms import group_trains, norm_ids
from .run_order import learner_input, run_order
from .split import layerwise_split


def _groups_and_source(learn, reset_opt):
    "Return the layer groups of `learn`, and the name of what they come from"
    # fastai accepts a ready optimiser as `opt_func`
    if isinstance(learn.opt_func, OptimWrapper): return L(learn.opt_func.param_lists),'the optimiser'
    if learn.opt is not None and not reset_opt: return L(learn.opt.param_lists),'the optimiser'
    _order_by_run(learn)
    groups = L(learn.splitter(learn.model))
    # fastai treats a plain list of parameters as one group
    if groups and all(isinstance(p, Tensor) for p in groups): groups = L([list(groups)])
    splitter = getattr(learn.splitter, 'func', learn.splitter)
    return groups,f'the splitter {getattr(splitter, "__name__", learn.splitter)}'

# For each model that was run: names of its modules, and the result of `_other_order`
_ORDERS = WeakKeyDictionary()

def _order_by_run(learn):
    "Give the splitter of `learn` the order in which layers run on a batch, if `layerwise_split` alone finds another order, or none"
    splitter,model = learn.splitter,unwrapped(learn.model)
    kwargs = getattr(splitter, 'keywords', {})
    if getattr(splitter, 'func', splitter) is not layerwise_split or 'x' in kwargs or 'order' in kwargs: return
    # A run would initialise lazy layers
    if any(map(is_lazy, model.parameters())): return
    names = [n for n,_ in model.named_modules()]
    known = _ORDERS.get(model)
    if known is None or known[0] != names: _ORDERS[model] = known = names,_other_order(learn, model)
    if known[1] is not None: learn.splitter = partial(layerwise_split, **kwargs, order=known[1])

def _other_order(learn, model):
    "Return the order in which the modules of `model` run on a batch; None if it gives the same groups, or the model can't run"
    # After `load_learner` there are no items, and some models need callbacks that change the batch first
    try:
        x = learner_input(learn)
        order = run_order(model, x)
    except Exception: return None
    by_run = layerwise_split(model, x=x)
    try: same = [set(g) for g in by_run] == [set(g) for g in layerwise_split(model)]
    except ValueError: same = False
    return None if same else order.names

def _check_types(groups, source, again):
    "Raise unless `groups` are lists of parameters"
    items = [o for g in groups for o in (g if isinstance(g, (list, L)) else [g])]
    odd = [type(o).__name__ for o in items if not isinstance(o, Tensor)]
    if odd: raise TypeError(f'{source} gave layer groups made of {odd[0]}, expected a list of lists of parameters: '
                            f'make the splitter return `L(groups).map(list)`, then call `{again}`')

def _check_each_once(groups, source, model, again):
    "Raise unless each parameter of `model` is in exactly one of `groups`"
    names = {p: n for n,p in get_model(model).named_parameters()}
    count = Counter(p for g in groups for p in g)
    def _refuse(fault, ps, advice):
        shown = ', '.join(names[p] for p in ps[:3]) + (', ...' if len(ps) > 3 else '')
        raise ValueError(f'{source} {fault} {len(ps)} of {len(names)} parameters ({shown}): {advice}, then call `{again}`')
    n_foreign = sum(p not in names for p in count)
    if n_foreign:
        raise ValueError(f'{source} has {n_foreign} parameters that are not in the model: expected the parameters of `learn.model`; '
                         f'make the splitter return these, then call `{again}`')
    repeated = [p for p in count if count[p] > 1]
    if repeated: _refuse('repeats', repeated, 'put each in one group only')
    missing = [p for p in names if p not in count]
    # fastai's default splitter makes one group, without frozen parameters
    if missing and len(groups) > 1: _refuse('leaves out', missing, 'put each in a group')

def check_groups(
    learn:Learner, # The learner
    reset_opt:bool=False, # Will the optimiser be created again?
    at_least:int=2, # Least number of groups
    again:str='learn.create_opt()', # What to call after the splitter is corrected, for the messages
) -> L: # Lists of parameters, those of the optimiser or those that it would get
    "Return the layer groups of `learn`; raise `TypeError` or `ValueError` if they can't be trained one by one"
    groups,source = _groups_and_source(learn, reset_opt)
    _check_types(groups, source, again)
    _check_each_once(groups, source, learn.model, again)
    for i,g in enumerate(groups):
        if len(g): continue
        raise ValueError(f'{source} gives no parameters in layer group {i}: leave this group out, then call `{again}`')
    if len(groups) < at_least:
        raise ValueError(f'{source} gives {len(groups)} layer group, expected at least {at_least}: build the learner with '
                         '`splitter=layerwise_split`, or call `learn.regroup()`')
    return groups

def own_lr(learn:Learner, reset_opt:bool=False) -> float:
    "Return `learn.lr`, or the rate in `learn.opt_func`, which replaces it when fastai creates the optimiser, as with `reset_opt`"
    if learn.opt is not None and not reset_opt: return learn.lr
    return getattr(learn.opt_func, 'keywords', {}).get('lr', learn.lr)

@patch
def layer_groups(self:Learner) -> pd.DataFrame: # One row per layer group, input first
    """List the layer groups: modules, number of parameters, how many of these train now, current rate

    >>> learn.layer_groups()
          modules  parameters  training     lr
    group
    0           0          40        40  0.001
    1           2          72        72  0.001
    2           4          18        18  0.001
    """
    groups = check_groups(self, at_least=1)
    lrs = [own_lr(self)]*len(groups) if self.opt is None else [h['lr'] for h in self.opt.hypers]
    rows = []
    for names,group,lr in zip(group_names(self, groups), groups, lrs):
        size,training = sum(p.numel() for p in group),sum(p.numel() for p in group if p.requires_grad)
        rows.append((', '.join(names), size, training, lr))
    return pd.DataFrame(rows, columns=['modules', 'parameters', 'training', 'lr']).rename_axis('group')

@patch
def regroup(self:Learner,
    splitter=layerwise_split, # Function from the model to lists of parameters, input first
    n_groups:int|None=None, # Merge neighbouring layers into this many groups, as in `layerwise_split`
) -> Learner: # The learner itself
    "Change the layer groups of a learner; frozen groups stay frozen, and the optimiser keeps its state and its rates"
    if not callable(splitter):
        raise TypeError(f'splitter={splitter!r}: expected a function of a model; for a number of groups, use `n_groups={splitter!r}`')
    if isinstance(self.opt_func, OptimWrapper):
        raise ValueError('opt_func is an optimiser with groups of its own: expected a function that creates one, such as '
                         '`partial(OptimWrapper, opt=...)`')
    old_opt,old_splitter,by_hand = self.opt,self.splitter,frozen_by_hand(self)
    self.splitter = splitter if n_groups is None else partial(splitter, n_groups=n_groups)
    try:
        check_groups(self, reset_opt=True, again='learn.regroup(...)')
        renew_opt(self)
    except Exception:
        self.splitter = old_splitter
        raise
    norms = norm_ids(self.model)
    if old_opt is not None:
        _carry_state(old_opt, self.opt)
        _carry_slow_weights(old_opt, self.opt)
        _carry_hypers(old_opt, self.opt)
    _unfreeze_partly_frozen(self, by_hand, norms)
    self.opt.frozen_idx = _n_frozen(self, by_hand, norms)
    return self

def _carry_state(old, new):
    "Copy the state of each parameter from the optimiser `old` to `new`"
    pairs = [(old.state, new.state)]
    if isinstance(old, OptimWrapper): pairs.append((old.opt.state, new.opt.state))
    params = {p for g in old.param_lists for p in g}
    for old_state,new_state in pairs:
        for k in list(old_state):
            if k in params: new_state[k] = {**old_state[k], **new_state.get(k, {})}
            # A key that is no tensor holds marks of all parameters
            elif not isinstance(k, Tensor): new_state.setdefault(k, old_state[k])

def _carry_slow_weights(old, new):
    "Copy the slow weights of `Lookahead` from `old` to `new`; parameters without slow weights get their current values"
    if not getattr(old, 'slow_weights', None): return
    slow = {p: s for ps,ss in zip(old.param_lists, old.slow_weights) for p,s in zip(ps, ss)}
    def _slow(p): return slow[p] if p in slow else p.detach().clone()
    new.count,new.slow_weights = old.count,L(L(_slow(p) for p in g) for g in new.param_lists)

def _carry_hypers(old, new):
    "Give each group of `new` the hyper-parameters that its last parameter had in `old`"
    group_of = {p: i for i,g in enumerate(old.param_lists) for p in g}
    old_hypers = old.hypers
    hypers = [old_hypers[group_of.get(g[-1], -1)] for g in new.param_lists]
    for k in hypers[0]: new.set_hyper(k, [h[k] for h in hypers])

def _unfreeze_partly_frozen(learn, by_hand, norms):
    "Unfreeze all of a group that trains in part, but for parameters that are frozen by hand"
    names = param_names(learn)
    for g in learn.opt.param_lists:
        if not group_trains(g, norms): continue
        for p in g:
            if by_hand.get(names[p]) is False: p.requires_grad_(True)
    mark_frozen(learn, frozen_marks(learn))

def _n_frozen(learn, by_hand, norms):
    "Count the lowest groups that are frozen as groups; a group with an unmarked parameter that is frozen by hand isn't one of them"
    names,marks,groups = param_names(learn),frozen_marks(learn),learn.opt.param_lists
    def _is_frozen(g): return not group_trains(g, norms) and all(names[p] in marks for p in g if names[p] in by_hand)
    return next((i for i,g in enumerate(groups) if not _is_frozen(g)), len(groups))
