"Find norm layers, which train in frozen groups under `train_bn`, and tell whether a group trains apart from them"
__all__ = []

from fastai.torch_core import norm_bias_params
from torch import nn


def norm_ids(model:nn.Module) -> frozenset:
    "Return the `id`s of the parameters of norm layers"
    # fastai's `norm_types` lack `SyncBatchNorm`, to which fastai converts batch norms for several processes
    synced = [p for m in model.modules() if isinstance(m, nn.SyncBatchNorm) for p in m.parameters()]
    return frozenset(id(p) for p in [*norm_bias_params(model, with_bias=False), *synced])

def keeps_stats(m:nn.Module) -> bool:
    "Tell whether `m` itself has running statistics, as a batch norm has"
    return any(k.startswith('running_') and b is not None for k,b in m._buffers.items())

def group_trains(group:list, norms:frozenset) -> bool:
    "Tell whether any parameter of `group` has `requires_grad`, apart from `norms`, the model's `norm_ids`; `opt.frozen_idx` can be wrong"
    if any(p.requires_grad and id(p) not in norms for p in group): return True
    # A group of norm layers alone is judged by these
    return all(id(p) in norms for p in group) and any(p.requires_grad for p in group)
