"Frozen means frozen: which parameters train, so that the others stay as they are bit for bit"
__all__ = []

from fastai.learner import Learner
from fastai.torch_core import params
from torch import nn

from ..groups.by_hand import frozen_by_hand, mark_frozen, param_names
from ..groups.modules import own_params
from ..groups.norms import group_trains, keeps_stats, norm_ids

# What fastai's `BnFreeze` knows
BATCH_NORMS = nn.BatchNorm1d,nn.BatchNorm2d,nn.BatchNorm3d

def sync_lookahead(
    opt, # An optimiser, perhaps fastai's Lookahead
    frozen:bool=False, # Only for the parameters that don't train?
):
    "Set the slow weights of Lookahead, which it pulls the weights to, to what the weights are now"
    for slow,fast in zip(getattr(opt, 'slow_weights', None) or [], opt.param_lists):
        for s,f in zip(slow, fast):
            if not (frozen and f.requires_grad): s.data.copy_(f.data)

def freeze_all_but(
    learn:Learner, # A learner that has its optimiser
    groups, # Indices of the layer groups that are to train
    train_bn:bool|None=None, # Do norm layers of the others train? None for what the learner was made with
):
    """Let only `groups` train. The others are frozen bit for bit, but for norm layers under `train_bn`; what the user froze by hand stays
    frozen, and the optimiser keeps its state"""
    opt,norms,names,by_hand = learn.opt,norm_ids(learn.model),param_names(learn),frozen_by_hand(learn)
    def _trains_always(p):
        if train_bn is None: return opt.state.get(p, {}).get('force_train', False)
        return train_bn and id(p) in norms
    for i,g in enumerate(opt.param_lists):
        for p in g:
            p.requires_grad_(not by_hand.get(names[p]) and (i in groups or _trains_always(p)))
            # fastai's optimisers step, and so decay, whatever has a gradient, also one of zeros
            if not p.requires_grad: p.grad = None
    # Lookahead pulls all weights to its slow ones, whether they have a gradient or not
    sync_lookahead(opt, frozen=True)
    mark_frozen(learn, {n: by_hand.get(n, False) for n in names.values()})
    # From here on the marks tell what is frozen and why; where fastai's index was before, someone may have frozen by hand since
    opt.frozen_idx = next((i for i,g in enumerate(opt.param_lists) if group_trains(g, norms)), len(opt.param_lists))

def frozen_norms(
    model:nn.Module, # The model
) -> set: # Modules
    "Return the layers with running statistics, such as batch norms, that don't train"
    parents = {c: m for m in model.modules() for c in m.children()}
    return {m for m in model.modules() if keeps_stats(m) and not any(p.requires_grad for p in own_params(m) or _params_around(m, parents))}

def _params_around(m, parents):
    "Return the parameters that tell whether `m`, which has none, trains: of the module that it is in, or of the layer before it in that"
    around = m
    while around in parents and not params(around): around = parents[around]
    ps = params(around)
    if len({p.requires_grad for p in ps}) < 2: return ps
    members = list(around.modules())
    before = [o for o in members[:members.index(m)] if own_params(o)]
    return own_params(before[-1]) if before else ps

def keep_norm_stats(
    model:nn.Module, # The model, in training mode
):
    "Keep the running statistics of layers that don't train"
    for m in frozen_norms(model): m.eval()
