"What is a layer: the layer groups of a model, input first, head last"
__all__ = ['layerwise_split']

import re

import pandas as pd
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.text.models.core import LinearDecoder, SentenceEncoder, _model_meta
from fastai.torch_core import get_model, norm_types, params
from fastcore.basics import patch
from fastcore.foundation import L
from torch import Tensor, nn

from .checks import check_data, check_epochs


def _text_split(model):
    "fastai's own splitter for `model`, where it is one of fastai's text models"
    if not isinstance(model, nn.Sequential) or len(model) != 2: return None
    body,head = model
    if isinstance(body, SentenceEncoder): return _model_meta.get(type(body.module), {}).get('split_clas')
    if isinstance(head, LinearDecoder):   return _model_meta.get(type(body), {}).get('split_lm')

def _is_norm(m): return all(isinstance(o, norm_types) for o in m.modules() if o._parameters)

def _layers(m, head):
    "Parameters of each layer of a `nn.Sequential`; the last child stays whole if it is the `head`"
    kids,res = [c for c in m if params(c)],[]
    for i,c in enumerate(kids):
        last = i == len(kids)-1
        whole = not isinstance(c, nn.Sequential) or (head and last and i > 0)
        new = [params(c)] if whole else _layers(c, head and last)
        # A norm is no layer of its own: it goes with the layer below it, or above where it comes first
        if i > 0 and (_is_norm(c) or all(map(_is_norm, kids[:i]))): res[-1] += new.pop(0)
        res += new
    own = list(m.parameters(recurse=False))
    return [own + res[0], *res[1:]] if res else [own]

def layerwise_split(
    model:nn.Module, # One of fastai's text models, or any `nn.Sequential`
) -> L: # Lists of parameters, input first, head last
    "Split `model` into its layers, without changing it; a tied weight goes with the last layer that has it"
    model = get_model(model)
    if split := _text_split(model): return L(split(model))
    if not isinstance(model, nn.Sequential) or not params(model):
        kids = ', '.join(f'{n} ({type(c).__name__})' for n,c in model.named_children()) or 'none'
        raise ValueError(f'layerwise_split knows the order of layers in an nn.Sequential with parameters, not in {type(model).__name__} '
                         f'(its children: {kids}): write a splitter, `lambda m: L(m.stem, m.blocks, m.head).map(params)`, input first')
    seen,groups = set(),L()
    for ps in reversed(_layers(model, head=True)):
        groups.append([p for p in dict.fromkeys(ps) if p not in seen])
        seen.update(ps)
    return L(g for g in reversed(groups) if g)

def _listed(ps, names):
    return ', '.join(names.get(p, 'one that is not in the model') for p in ps[:3]) + (', ...' if len(ps) > 3 else '')

def check_groups(
    learn:Learner, # The learner whose layer groups are wanted
    reset_opt:bool=False, # Will its optimiser be created anew?
    at_least:int=2, # How many groups are needed
) -> L: # The lists of parameters that its optimiser has or would be given
    "The layer groups of `learn`, or an error that says why they can't be trained one by one; nothing is changed"
    wrapped = isinstance(learn.opt_func, OptimWrapper)
    opt = learn.opt_func if wrapped else None if reset_opt else learn.opt
    groups = L(learn.splitter(learn.model) if opt is None else opt.param_lists)
    who = 'the optimiser' if wrapped else f'the splitter {getattr(learn.splitter, "__name__", learn.splitter)}'
    if groups and all(isinstance(p, Tensor) for p in groups): groups = L([list(groups)])
    odd = [type(o).__name__ for g in groups for o in (g if isinstance(g, (list, L)) else [g]) if not isinstance(o, Tensor)]
    if odd: raise TypeError(f'{who} gave layer groups made of {odd[0]}, expected a list of lists of parameters: make it return '
                            '`L(groups).map(list)`, and let `learn.create_opt()` build the optimiser anew')
    names = {p:n for n,p in get_model(learn.model).named_parameters()}
    flat = [p for g in groups for p in g]
    left,extra = [p for p in names if p not in set(flat)],[p for p in flat if p not in names]
    twice = [p for p in dict.fromkeys(flat) if sum(o is p for o in flat) > 1] if len(set(flat)) < len(flat) else []
    for ps,what,mend in [(left, 'leaves out', 'put every parameter in one group'), (twice, 'has twice', 'put it in one group only'),
                         (extra, 'holds', '`learn.create_opt()` builds the optimiser anew')]:
        if ps and (len(groups) > 1 or what != 'leaves out'):
            raise ValueError(f'{who} {what} {len(ps)} of {len(names)} parameters ({_listed(ps, names)}): {mend}')
    if len(groups) < at_least:
        raise ValueError(f'{who} gives {len(groups)} layer group, expected at least {at_least}: build the learner with '
                         '`splitter=layerwise_split`, or set `learn.splitter = layerwise_split; learn.create_opt()`')
    return groups

def group_trains(
    opt, # fastai's `Optimizer` or `OptimWrapper`
    group:list, # Parameters of one layer group
) -> bool: # Does any of them train, but for norm layers that `train_bn` keeps training in frozen groups?
    "Whether `group` trains; read from `requires_grad`, as `opt.frozen_idx` can't be trusted"
    own = [p for p in group if not opt.state.get(p, {}).get('force_train')] or group
    return any(p.requires_grad for p in own)

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
    def _short(n): return re.sub(r'^((\d+|module)\.)+(?=[a-zA-Z_])', '', n)
    return L(_short(ns[0]) + ('' if len(ns) == 1 else f' .. {_short(ns[-1])}') for ns in group_names(learn, groups)[:-1]) + 'head'

@patch
def layer_groups(self:Learner) -> pd.DataFrame: # One row a layer group, input first
    "Table of the layer groups: their modules, parameters, how many of these train now, and the current rate"
    groups = check_groups(self, at_least=1)
    if self.opt is None: self.create_opt()
    rows = [(', '.join(ns), sum(p.numel() for p in g), sum(p.numel() for p in g if p.requires_grad), h['lr'])
            for ns,g,h in zip(group_names(self, groups), groups, self.opt.hypers)]
    return pd.DataFrame(rows, columns=['modules', 'parameters', 'training', 'lr']).rename_axis('group')

class GroupCallback(Callback):
    "Base of the callbacks that work on layer groups: a fit is checked before its first epoch and leaves no gradient after its last"
    run_valid = False
    def check_fit(self):
        "Raise if the fit that is about to begin can't be done; not an event of fastai's, whose `before_fit` is for validation too"
        check_epochs(self.n_epoch)
        check_groups(self.learn)
        check_data(self.learn)

@patch
def _do_fit(self:Learner):
    "As in fastai; a fit with a `GroupCallback` is checked first, and no gradient of it, finished or broken off, reaches the next"
    cbs = self._grab_cbs(GroupCallback)
    for cb in cbs: cb.check_fit()
    # fastai calls no event when a fit ends in Ctrl-C or an error, so a callback alone could not clean up
    try: self._orig__do_fit()
    finally:
        if cbs:
            for p in self.model.parameters(): p.grad = None
