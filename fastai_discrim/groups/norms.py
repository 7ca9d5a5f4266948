"Norm layers, which `train_bn` keeps training in frozen groups, and whether a group trains apart from them"
__all__ = []

from fastai.torch_core import norm_bias_params
from torch import nn


def norm_ids(
    model:nn.Module, # It may be wrapped in `DistributedDataParallel`
) -> frozenset: # `id`s of parameters
    "Return the parameters of norm layers, by `id`"
    # fastai makes these of batch norms, for several processes, and doesn't take them for norm layers
    synced = [p for m in model.modules() if isinstance(m, nn.SyncBatchNorm) for p in m.parameters()]
    return frozenset(id(p) for p in [*norm_bias_params(model, with_bias=False), *synced])

def keeps_stats(
    m:nn.Module, # A module
) -> bool:
    "Tell whether `m` itself has running statistics, as batch norms have, with weights or without"
    return any(k.startswith('running_') and b is not None for k,b in m._buffers.items())

def group_trains(
    group:list, # Parameters of one layer group
    norms:frozenset, # What `norm_ids` returned for the model
) -> bool: # Does any of its parameters train, norm layers aside?
    "Tell whether `group` trains, from `requires_grad`: `opt.frozen_idx` can be wrong"
    if any(p.requires_grad and id(p) not in norms for p in group): return True
    # A group that has only norm layers is judged by them
    return all(id(p) in norms for p in group) and any(p.requires_grad for p in group)
