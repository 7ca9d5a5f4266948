"Split timm models into layers by timm's own rules"
__all__ = []

from importlib.util import find_spec

from torch import nn


def is_timm_model(m:nn.Module) -> bool:
    "Tell whether `m` has the `group_matcher` of timm's models, and timm is installed"
    return hasattr(m, 'group_matcher') and find_spec('timm') is not None

def timm_layers(m:nn.Module) -> list:
    "Return the layers of `m`, a timm model, as lists of parameters by its `group_matcher`, input first"
    from timm.models import group_parameters
    named,res = dict(m.named_parameters()),[]
    for names in group_parameters(m, m.group_matcher(coarse=False)).values():
        ps = [named[n] for n in names]
        is_norm = all(p.dim() < 2 for p in ps)
        # The norm after the last block is no layer of its own
        if res and is_norm: res[-1] += ps
        else: res.append(ps)
    return res
