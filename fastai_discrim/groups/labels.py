"Name layer groups by their modules, and label them for tables and plots"
__all__ = []

import re
from functools import lru_cache

from fastai.learner import Learner
from fastai.torch_core import get_model
from fastcore.foundation import L
from torch import device, nn


def group_names(learn:Learner, groups:L) -> L:
    "List the names of the modules in each of `groups`, the layer groups of `learn`"
    return L(_module_names(get_model(learn.model), set(g), set(g)) for g in groups)

def _module_names(m, left, group, prefix=''):
    "List the names of the largest modules in `group`; remove their parameters from `left`"
    res = []
    for name,p in m.named_parameters(prefix, recurse=False):
        if p in left:
            left.discard(p)
            res.append(name)
    for name,c in m.named_children():
        ps,name = set(c.parameters()),f'{prefix}.{name}' if prefix else name
        if ps.isdisjoint(left): continue
        if ps <= group:
            left -= ps
            res.append(name)
        else: res += _module_names(c, left, group, name)
    return res

def group_labels(learn:Learner, groups:L) -> L:
    "Label each of `groups` with the names of its first and last module, without the prefix that all names share; the last is 'head'"
    known = _names_before_the_cut(learn)
    body = [[_renamed(n, known) for n in names] for names in group_names(learn, groups)[:-1]]
    skip = _n_common([n.split('.') for names in body for n in names])
    return L(_label(names, skip) for names in body) + 'head'

@lru_cache
def _children(arch):
    "Return the names and classes of the children of the model that `arch` makes, which is built without memory for weights"
    # torchvision's argument, then timm's
    for kwargs in (dict(weights=None), dict(pretrained=False)):
        try:
            with device('meta'): return [(n, type(c)) for n,c in arch(**kwargs).named_children()]
        except Exception: continue
    return []

def _names_before_the_cut(learn):
    "Map the names of modules in the body of a `vision_learner` to their names in the original model"
    arch,body = vars(learn).get('arch'),next(get_model(learn.model).children(), None)
    if not callable(arch) or type(body) is not nn.Sequential: return {}
    pairs = list(zip(_children(arch), body.named_children()))
    if len(pairs) < len(body) or any(cls is not type(c) for (_,cls),(_,c) in pairs): return {}
    return {f'0.{now}': name for (name,_),(now,_) in pairs if not name.isdigit()}

def _renamed(name, known):
    "Return `name` with its first two parts, such as '0.4', replaced if they are in `known`"
    parts = name.split('.')
    start = '.'.join(parts[:2])
    return '.'.join([known.get(start, start), *parts[2:]])

def _n_common(names):
    "Count the leading parts of `names` that can be left out, because all names share them"
    res = 0
    for i,column in enumerate(zip(*names)):
        # Don't let a label begin with a number, as this says too little
        if not any(part.isdigit() for part in column): res = i
        if len(set(column)) > 1: break
    return res

def _label(names, skip):
    "Join the first and the last of `names`, each without its first `skip` parts and without leading numbers"
    short = [re.sub(r'^((\d+|module)\.)+(?=[a-zA-Z_])', '', '.'.join(n.split('.')[skip:])) for n in names]
    return short[0] if len(short) == 1 else f'{short[0]} .. {short[-1]}'
