"Frozen means frozen: which parameters train, so that the others stay as they are bit for bit"
__all__ = []

from warnings import warn

from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import get_model
from torch import nn

from ..groups.norms import group_trains, norm_ids

# Mark of what the user froze. It is kept where `learn.freeze_to`, and so `learn.unfreeze`, clears it: in the optimiser's state
BY_HAND = 'frozen_by_hand'
BATCH_NORMS = nn.BatchNorm1d,nn.BatchNorm2d,nn.BatchNorm3d

def _marked(opt, names):
    "Return the names of the parameters that are marked as frozen by hand"
    # torch's optimisers take a parameter with a state of any kind for one that has been stepped
    if isinstance(opt, OptimWrapper): return set(opt.opt.state.get(BY_HAND, ()))
    return {n for p,n in names.items() if opt.state.get(p, {}).get(BY_HAND)}

def _mark(opt, names, by_hand):
    "Mark the parameters named in `by_hand`, and no others"
    if isinstance(opt, OptimWrapper):
        if by_hand: opt.opt.state[BY_HAND] = sorted(by_hand)
        else: opt.opt.state.pop(BY_HAND, None)
        return
    for p,n in names.items():
        if n in by_hand: opt.state[p] = {**opt.state.get(p, {}), BY_HAND: True}
        else: opt.state.get(p, {}).pop(BY_HAND, None)

def _frozen_by_hand(learn, names, norms):
    "Return the names of what is frozen in a group that otherwise trains, or was so when `freeze_all_but` froze the group"
    now = {names[p] for g in learn.opt.param_lists if group_trains(g, norms) for p in g if not p.requires_grad}
    # What someone has unfrozen since is to train
    known = {n for p,n in names.items() if not p.requires_grad} & _marked(learn.opt, names)
    if new := now - known:
        warn(f'{len(new)} parameters are frozen in a layer group that otherwise trains, and stay so ({", ".join(sorted(new)[:3])}): '
             '`learn.unfreeze()` lets all of them train', stacklevel=3)
    return known | now

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
    train_bn:bool=None, # Do norm layers of the others train? None for what the learner was made with
):
    "Let only `groups` train. The others are frozen bit for bit, but for norm layers under `train_bn`; the optimiser keeps its state"
    opt,norms = learn.opt,norm_ids(learn.model)
    names = {p:n for n,p in get_model(learn.model).named_parameters()}
    by_hand = _frozen_by_hand(learn, names, norms)
    def _trains_always(p):
        if train_bn is None: return opt.state.get(p, {}).get('force_train', False)
        return train_bn and id(p) in norms
    for i,g in enumerate(opt.param_lists):
        for p in g:
            p.requires_grad_(names[p] not in by_hand and (i in groups or _trains_always(p)))
            # fastai's optimisers step, and so decay, whatever has a gradient, also one of zeros
            if not p.requires_grad: p.grad = None
    # Lookahead pulls all weights to its slow ones, whether they have a gradient or not
    sync_lookahead(opt, frozen=True)
    _mark(opt, names, by_hand)

def frozen_norms(
    model:nn.Module, # The model
) -> set: # Modules
    "Return the batch norms whose weights don't train"
    return {m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.affine and not m.weight.requires_grad}

def keep_norm_stats(
    model:nn.Module, # The model, in training mode
):
    "Keep the running statistics of batch norms that don't train"
    for m in frozen_norms(model): m.eval()
