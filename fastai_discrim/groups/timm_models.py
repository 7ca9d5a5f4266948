"The layers of timm's models, as timm itself groups them"
__all__ = []

from importlib.util import find_spec

from torch import nn


def is_timm_model(
    m:nn.Module, # A model or a part of one
) -> bool:
    "Tell whether timm is installed and `m` says how its parameters are grouped, as timm's models do"
    return hasattr(m, 'group_matcher') and find_spec('timm') is not None

def timm_layers(
    m:nn.Module, # A model for which `is_timm_model`
) -> list: # Lists of parameters, input first
    "Return the layers of `m` as its `group_matcher` has them"
    from timm.models import group_parameters
    named,res = dict(m.named_parameters()),[]
    for names in group_parameters(m, m.group_matcher(coarse=False)).values():
        ps = [named[n] for n in names]
        is_last_norm = all(p.dim() < 2 for p in ps)
        # It is no layer of its own
        if res and is_last_norm: res[-1] += ps
        else: res.append(ps)
    return res
