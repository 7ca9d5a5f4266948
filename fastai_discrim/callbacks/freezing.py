"Frozen means frozen: which parameters train, so that the others stay as they are bit for bit"
__all__ = []

from fastai.learner import Learner
from torch import nn

from ..groups.by_hand import frozen_by_hand, mark_frozen, param_names
from ..groups.norms import group_trains, norm_ids

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
    train_bn:bool=None, # Do norm layers of the others train? None for what the learner was made with
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
    "Return the batch norms whose weights don't train"
    return {m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.affine and not m.weight.requires_grad}

def keep_norm_stats(
    model:nn.Module, # The model, in training mode
):
    "Keep the running statistics of batch norms that don't train"
    for m in frozen_norms(model): m.eval()
