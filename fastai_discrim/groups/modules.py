"Recognise the kinds of modules that matter for layer groups: plain lists, norms, embeddings, heads"
__all__ = []

import re

from fastai.torch_core import get_model, norm_types, params
from torch import nn

# Names of heads in fastai, torchvision, timm and transformers
HEAD_NAME = re.compile(r'(^|_)(head|heads|classifier|fc|score|qa_outputs)(_|\d|$)')

def unwrapped(model:nn.Module) -> nn.Module:
    "Return the model inside `DistributedDataParallel` or `torch.compile`, or `model` itself"
    model = get_model(model)
    return getattr(model, '_orig_mod', model)

def own_params(m:nn.Module) -> list:
    "Return the parameters of `m` itself, without those of its children"
    return list(m.parameters(recurse=False))

def children_with_params(m:nn.Module) -> dict:
    "Return the children of `m` that have parameters, by name; unlike in `named_children`, a child with two names is there twice"
    return {n: c for n,c in m._modules.items() if c is not None and params(c)}

def is_plain_list(m:nn.Module) -> bool:
    "Tell whether `m` only holds its members, or only runs them one after another"
    if isinstance(m, nn.Sequential): return type(m).forward is nn.Sequential.forward
    return isinstance(m, (nn.ModuleList, nn.ModuleDict))

def is_norm(m:nn.Module) -> bool:
    "Tell whether all parameters of `m`, which has some, belong to norm layers"
    return all(_is_norm_layer(o) for o in m.modules() if o._parameters)

def _is_norm_layer(m):
    "Tell whether `m` is a norm layer by fastai's `norm_types` or by the name of its class"
    if isinstance(m, norm_types): return True
    return 'norm' in type(m).__name__.lower() and all(p.dim() < 2 for p in m.parameters())

def is_embedding(m:nn.Module) -> bool:
    "Tell whether all parameters of `m`, which has some, belong to embeddings"
    return all(isinstance(o, nn.Embedding) for o in m.modules() if o._parameters)

def is_head_name(name:str) -> bool:
    "Tell whether a module that has this name in its parent is a head"
    return HEAD_NAME.search(name) is not None

def without_number(name:str) -> str:
    "Strip the number at the end of `name`, and a letter after it: `layer1` becomes `layer`, and `conv2d_4a` becomes `conv2d_`"
    return re.sub(r'\d+[a-z]?$', '', name)
