"Freeze layer groups so that their parameters stay the same bit for bit"
__all__ = []

from fastai.learner import Learner
from fastai.torch_core import params
from torch import nn

from ..groups.by_hand import frozen_by_hand, mark_frozen, param_names
from ..groups.modules import own_params
from ..groups.norms import group_trains, keeps_stats, norm_ids


def sync_lookahead(opt, frozen:bool=False):
    "Set the slow weights to the current weights, perhaps only for `frozen` parameters, if `opt` is a `Lookahead`"
    for slow,fast in zip(getattr(opt, 'slow_weights', None) or [], opt.param_lists):
        for s,f in zip(slow, fast):
            if not (frozen and f.requires_grad): s.data.copy_(f.data)

def freeze_all_but(
    learn:Learner, # A learner with an optimiser
    groups, # Indices of the layer groups to train
    train_bn:bool|None=None, # Do norm layers of frozen groups train? None for `learn.train_bn`
):
    "Train only `groups`; parameters that the user froze by hand stay frozen, and the optimiser keeps its state"
    opt,norms,names,by_hand = learn.opt,norm_ids(learn.model),param_names(learn),frozen_by_hand(learn)
    def _trains_in_frozen_group(p):
        if train_bn is None: return opt.state.get(p, {}).get('force_train', False)
        return train_bn and id(p) in norms
    for i,g in enumerate(opt.param_lists):
        for p in g:
            p.requires_grad_(not by_hand.get(names[p]) and (i in groups or _trains_in_frozen_group(p)))
            # fastai's optimisers apply weight decay to every parameter that has a gradient, even one of zeros
            if not p.requires_grad: p.grad = None
    # `Lookahead` pulls all weights towards its slow weights, even without a gradient
    sync_lookahead(opt, frozen=True)
    mark_frozen(learn, {n: by_hand.get(n, False) for n in names.values()})
    # Set fastai's index to the first group that trains: what the user freezes in it, or above it, then counts as frozen by hand
    opt.frozen_idx = next((i for i,g in enumerate(opt.param_lists) if group_trains(g, norms)), len(opt.param_lists))

def frozen_norms(model:nn.Module) -> set:
    "Return the frozen layers with running statistics, such as batch norms"
    parents = {c: m for m in model.modules() for c in m.children()}
    def _is_frozen(m): return not any(p.requires_grad for p in own_params(m) or _params_around(m, parents))
    return {m for m in model.modules() if keeps_stats(m) and _is_frozen(m)}

def _params_around(m, parents):
    """Return the parameters that decide whether `m`, a layer without parameters, is frozen: those of the module that holds it or, if only
    some of these train, those of the layer before `m`"""
    around = m
    while around in parents and not params(around): around = parents[around]
    ps = params(around)
    if len({p.requires_grad for p in ps}) < 2: return ps
    members = list(around.modules())
    before = [o for o in members[:members.index(m)] if own_params(o)]
    return own_params(before[-1]) if before else ps
