"The layer groups of a learner: `learn.layer_groups` shows them, `learn.regroup` changes them"
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
    "Return the layer groups that `learn` trains, and where they come from"
    # fastai takes an optimiser that is given in place of a function as it is
    if isinstance(learn.opt_func, OptimWrapper): return L(learn.opt_func.param_lists),'the optimiser'
    if learn.opt is not None and not reset_opt: return L(learn.opt.param_lists),'the optimiser'
    _order_by_run(learn)
    groups = L(learn.splitter(learn.model))
    # fastai takes a list of parameters as one group
    if groups and all(isinstance(p, Tensor) for p in groups): groups = L([list(groups)])
    return groups,f'the splitter {_name(learn.splitter)}'

def _name(splitter):
    "Return the name of a splitter, perhaps a `partial` of one"
    return getattr(getattr(splitter, 'func', splitter), '__name__', splitter)

# What a run of a model has told: names of its modules, and the order in which they ran, where it isn't that of `layerwise_split` alone
_ORDERS = WeakKeyDictionary()

def _order_by_run(learn):
    "Give `learn` the order in which its layers run on a batch, where `layerwise_split` alone has another, or none"
    splitter,model = learn.splitter,unwrapped(learn.model)
    kwargs = getattr(splitter, 'keywords', {})
    if getattr(splitter, 'func', splitter) is not layerwise_split or 'x' in kwargs or 'order' in kwargs: return
    # A run would make the weights of lazy layers
    if any(map(is_lazy, model.parameters())): return
    names = [n for n,_ in model.named_modules()]
    known = _ORDERS.get(model)
    if known is None or known[0] != names: _ORDERS[model] = known = names,_other_order(learn, model)
    if known[1] is not None: learn.splitter = partial(layerwise_split, **kwargs, order=known[1])

def _other_order(learn, model):
    "Return the order in which the modules of `model` run on a batch; None where it leads to the same groups, or can't be known"
    try: x = learner_input(learn)
    # Without items, as after `load_learner`
    except Exception: return None
    try: order = run_order(model, x)
    # Callbacks may make of a batch what the model takes
    except Exception: return None
    by_run = layerwise_split(model, x=x)
    try: same = [set(g) for g in by_run] == [set(g) for g in layerwise_split(model)]
    except ValueError: same = False
    return None if same else order.names

def _check_types(groups, source):
    "Raise unless `groups` are lists of parameters"
    items = [o for g in groups for o in (g if isinstance(g, (list, L)) else [g])]
    odd = [type(o).__name__ for o in items if not isinstance(o, Tensor)]
    if odd: raise TypeError(f'{source} gave layer groups made of {odd[0]}, expected a list of lists of parameters: '
                            'make the splitter return `L(groups).map(list)`, then `learn.create_opt()`')

def _check_each_once(groups, source, model):
    "Raise unless each parameter of `model` is in one of `groups`"
    names = {p: n for n,p in get_model(model).named_parameters()}
    count = Counter(p for g in groups for p in g)
    def _refuse(fault, ps, advice):
        shown = ', '.join(names.get(p, 'one that is not in the model') for p in ps[:3]) + (', ...' if len(ps) > 3 else '')
        raise ValueError(f'{source} {fault} {len(ps)} of {len(names)} parameters ({shown}): {advice}, then `learn.create_opt()`')
    foreign = [p for p in count if p not in names]
    if foreign: _refuse('holds', foreign, 'give it the parameters of `learn.model`')
    repeated = [p for p in count if count[p] > 1]
    if repeated: _refuse('has twice', repeated, 'put each in one group only')
    missing = [p for p in names if p not in count]
    # fastai's default splitter makes one group, and leaves out what is frozen
    if missing and len(groups) > 1: _refuse('leaves out', missing, 'put every one in a group')

def check_groups(
    learn:Learner, # The learner whose layer groups are wanted
    reset_opt:bool=False, # Will its optimiser be created again?
    at_least:int=2, # How many groups are needed
) -> L: # The lists of parameters that its optimiser has or would be given
    "Return the layer groups of `learn`; raise `TypeError` or `ValueError` if they can't be trained one by one"
    groups,source = _groups_and_source(learn, reset_opt)
    _check_types(groups, source)
    _check_each_once(groups, source, learn.model)
    for i,g in enumerate(groups):
        if len(g): continue
        raise ValueError(f'{source} gives a layer group, {i}, without parameters: leave it out, then `learn.create_opt()`')
    if len(groups) < at_least:
        raise ValueError(f'{source} gives {len(groups)} layer group, expected at least {at_least}: build the learner with '
                         '`splitter=layerwise_split`, or call `learn.regroup()`')
    return groups

def own_lr(
    learn:Learner, # The learner that is about to fit
    reset_opt:bool=False, # Will its optimiser be created again?
) -> float:
    "Return `learn.lr`, or the rate in `learn.opt_func`, which fastai puts there when it creates the optimiser"
    if learn.opt is not None and not reset_opt: return learn.lr
    return getattr(learn.opt_func, 'keywords', {}).get('lr', learn.lr)

@patch
def layer_groups(self:Learner) -> pd.DataFrame: # One row a layer group, input first
    """List the layer groups: their modules, their parameters, how many of these train now, and the current rate

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
    splitter=layerwise_split, # Gives lists of parameters, input first, for a model
    n_groups:int|None=None, # For `layerwise_split`: neighbours are merged to have so many
) -> Learner: # The learner itself
    "Change the layer groups of a learner; groups stay frozen that were, and the optimiser keeps its state and its rates"
    if not callable(splitter):
        raise TypeError(f'splitter={splitter!r}: expected a function of a model; or say `n_groups={splitter!r}`')
    if isinstance(self.opt_func, OptimWrapper):
        raise ValueError('opt_func is an optimiser with groups of its own: expected what makes one, '
                         'as `partial(OptimWrapper, opt=...)`')
    old_opt,old_splitter,by_hand = self.opt,self.splitter,frozen_by_hand(self)
    self.splitter = splitter if n_groups is None else partial(splitter, n_groups=n_groups)
    try:
        check_groups(self, reset_opt=True)
        renew_opt(self)
    except Exception:
        self.splitter = old_splitter
        raise
    norms = norm_ids(self.model)
    if old_opt is not None:
        _carry_state(old_opt, self.opt)
        _carry_slow_weights(old_opt, self.opt)
        _carry_hypers(old_opt, self.opt)
    _open_whole_groups(self, by_hand, norms)
    self.opt.frozen_idx = _n_shut(self, by_hand, norms)
    return self

def _carry_state(old, new):
    "Give the optimiser `new` what `old` knows of each parameter"
    pairs = [(old.state, new.state)]
    if isinstance(old, OptimWrapper): pairs.append((old.opt.state, new.opt.state))
    params = {p for g in old.param_lists for p in g}
    for was,now in pairs:
        for k in list(was):
            if k in params: now[k] = {**was[k], **now.get(k, {})}
            # It is no state of one parameter, but a mark on all of them
            elif not isinstance(k, Tensor): now.setdefault(k, was[k])

def _carry_slow_weights(old, new):
    "Give Lookahead the slow weights of `old`; a parameter that had none begins where it is"
    if not getattr(old, 'slow_weights', None): return
    slow = {p: s for ps,ss in zip(old.param_lists, old.slow_weights) for p,s in zip(ps, ss)}
    def _slow(p): return slow[p] if p in slow else p.detach().clone()
    new.count,new.slow_weights = old.count,L(L(_slow(p) for p in g) for g in new.param_lists)

def _carry_hypers(old, new):
    "Give each group of `new` the hyper-parameters of the group of `old` that its last parameter was in"
    group_of = {p: i for i,g in enumerate(old.param_lists) for p in g}
    old_hypers = old.hypers
    hypers = [old_hypers[group_of.get(g[-1], -1)] for g in new.param_lists]
    for k in hypers[0]: new.set_hyper(k, [h[k] for h in hypers])

def _open_whole_groups(learn, by_hand, norms):
    "In groups that train in part, train what was frozen as a whole group before; what was frozen by hand stays so"
    names = param_names(learn)
    for g in learn.opt.param_lists:
        if not group_trains(g, norms): continue
        for p in g:
            if by_hand.get(names[p]) is False: p.requires_grad_(True)
    mark_frozen(learn, frozen_marks(learn))

def _n_shut(learn, by_hand, norms):
    "Count the groups, input first, that are frozen as groups: what is frozen by hand is in none of them, unless it is marked"
    names,marks,groups = param_names(learn),frozen_marks(learn),learn.opt.param_lists
    def _is_shut(g): return not group_trains(g, norms) and all(names[p] in marks for p in g if names[p] in by_hand)
    return next((i for i,g in enumerate(groups) if not _is_shut(g)), len(groups))
