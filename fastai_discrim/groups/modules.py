"Recognise the kinds of modules that matter for layer groups: plain lists, norms, embeddings, heads"
__all__ = []

import re

from fastai.torch_core import get_model, norm_types, params
from torch import nn

# Names of heads in fastai, torchvision, timm and transformers
HEAD_NAME = re.compile(r'(^|_)(head|heads|classifier|fc|score|qa_outputs)(_|\d|$)')

def unwrapped(
    model:nn.Module, # Any model
) -> nn.Module:
    "Return the model inside `DistributedDataParallel` or `torch.compile`, or `model` itself"
    model = get_model(model)
    return getattr(model, '_orig_mod', model)

def own_params(
    m:nn.Module, # A module
) -> list: # Parameters
    "Return the parameters of `m` itself, without those of its children"
    return list(m.parameters(recurse=False))

def children_with_params(
    m:nn.Module, # A module
) -> dict: # Children by name; unlike `named_children` this has a child with two names twice
    "Return the children of `m` that have parameters"
    return {n: c for n,c in m._modules.items() if c is not None and params(c)}

def is_plain_list(
    m:nn.Module, # A module
) -> bool:
    "Tell whether `m` only holds its members, or only runs them one after another"
    if isinstance(m, nn.Sequential): return type(m).forward is nn.Sequential.forward
    return isinstance(m, (nn.ModuleList, nn.ModuleDict))

def is_norm(
    m:nn.Module, # A module with parameters
) -> bool:
    "Tell whether all parameters of `m` belong to norm layers"
    return all(_is_norm_layer(o) for o in m.modules() if o._parameters)

def _is_norm_layer(m):
    "Tell whether `m` is a norm layer by fastai's `norm_types` or by the name of its class"
    if isinstance(m, norm_types): return True
    return 'norm' in type(m).__name__.lower() and all(p.dim() < 2 for p in m.parameters())

def is_embedding(
    m:nn.Module, # A module with parameters
) -> bool:
    "Tell whether all parameters of `m` belong to embeddings"
    return all(isinstance(o, nn.Embedding) for o in m.modules() if o._parameters)

def is_head_name(
    name:str, # The name of a module in its parent
) -> bool:
    "Tell whether a module with this name is a head"
    return HEAD_NAME.search(name) is not None

def without_number(
    name:str, # The name of a module in its parent, such as `layer1` or `conv2d_4a`
) -> str: # The name without number, such as `layer` or `conv2d_`
    "Strip the number at the end of `name`, and a letter after it"
    return re.sub(r'\d+[a-z]?$', '', name)
