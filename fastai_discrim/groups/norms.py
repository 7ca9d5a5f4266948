"Norm layers, which `train_bn` keeps training in frozen groups, and whether a group trains apart from them"
__all__ = []

from fastai.torch_core import norm_bias_params
from torch import nn


def norm_ids(
    model:nn.Module, # It may be wrapped in `DistributedDataParallel`
) -> frozenset: # `id`s of parameters
    "Return the parameters of norm layers, by `id`"
    return frozenset(id(p) for p in norm_bias_params(model, with_bias=False))

def group_trains(
    group:list, # Parameters of one layer group
    norms:frozenset, # What `norm_ids` returned for the model
) -> bool: # Does any of its parameters train, norm layers aside?
    "Tell whether `group` trains, from `requires_grad`: `opt.frozen_idx` can be wrong"
    if any(p.requires_grad and id(p) not in norms for p in group): return True
    # A group that has only norm layers is judged by them
    return all(id(p) in norms for p in group) and any(p.requires_grad for p in group)
