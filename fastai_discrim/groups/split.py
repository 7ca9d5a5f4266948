"Split a model into its layers as layer groups, input first, head last"
__all__ = ['layerwise_split']

import numpy as np
from fastai.torch_core import params
from fastcore.foundation import L
from torch import nn

from ..checks import check_count
from ..optional import if_loaded
from ..portable import Portable
from .blocks import Blocks, NoBlocks, NoLayerOrder
from .modules import children_with_params, own_params, unwrapped
from .run_order import RunOrder, run_order
from .text_models import text_splitter

# How to find the order of the layers of a model with blocks
BY_RUN = 'find it by a run, with `learn.regroup()` or with `partial(layerwise_split, x=x)` for an input `x`, or '
# A message lists the parts of a splitter for a model with at most this many
MAX_PARTS = 5


@Portable
def layerwise_split(
    model:nn.Module, # A model of fastai, torchvision, timm or transformers, an `nn.Sequential`, or any model with repeated blocks
    n_groups:int|None=None, # Merge neighbouring layers into this many groups, with the head alone; None for one group per layer
    *,
    x=None, # Input of `model`, a tensor or a tuple of arguments: run the model on it to find the order of the layers
    order:list|None=None, # Instead of `x`: names of the modules in the order in which they run, which `learn.regroup()` finds
) -> L: # Lists of parameters, input first, head last
    """Split `model` into its layers, or into `n_groups` of neighbouring layers; a tied weight is in the last layer that has it. Without `x`
    and `order`, go by names, widths and the order of declaration; raise `ValueError` if these don't tell the order

    >>> model = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [len(group) for group in layerwise_split(model)]
    [1, 2, 2]
    >>> [len(group) for group in layerwise_split(model, n_groups=2)]
    [3, 2]
    """
    model = unwrapped(model)
    if not params(model): raise ValueError(f'{type(model).__name__} has no parameters: expected a model with layers')
    if splitter := text_splitter(model): groups = L(splitter(model))
    elif isinstance(model, if_loaded('fastai.collab', 'EmbeddingDotBias')):
        # This model has no layers, but factors and biases
        groups = L(params(model.u_weight)+params(model.i_weight), params(model.u_bias)+params(model.i_bias))
    else:
        if x is not None: order = run_order(model, x)
        elif order is not None: order = RunOrder(model, order)
        try: groups = _each_once(model, Blocks(model, order).layers(model, head=True))
        except NoLayerOrder as e: raise _no_order(model, e, order) from None
    return groups if n_groups is None else _merge(groups, n_groups)

def _each_once(model, layers):
    "Keep each parameter only in the last layer that has it, and drop layers that are empty then"
    last = {p: i for i,ps in enumerate(layers) for p in ps}
    embeddings = {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    # An embedding that a later layer shares, such as a decoder, stays with the input, unless it is tied to the head
    for p in layers[0]:
        if p in embeddings and last[p] < len(layers)-1: last[p] = 0
    groups = [[p for p in dict.fromkeys(ps) if last[p] == i] for i,ps in enumerate(layers)]
    return L(ps for ps in groups if ps)

def _merge(groups, n_groups):
    "Merge neighbouring layers into `n_groups` of about equal size, with the head alone"
    check_count(n_groups, 'n_groups')
    n = len(groups)
    if not 2 <= n_groups <= n:
        raise ValueError(f'n_groups={n_groups}: expected at least 2, and at most the {n} layers of this model')
    parts = np.array_split(range(n-1), n_groups-1)
    return L([p for i in part for p in groups[i]] for part in parts) + [groups[-1]]

def _no_order(model, why, order):
    "Return the error for a model whose layers have no known order"
    children = ', '.join(f'{n} ({type(c).__name__})' for n,c in model.named_children()) or 'none'
    by_run = '' if order or isinstance(why, NoBlocks) else BY_RUN
    return ValueError(f"layerwise_split can't tell the order of the layers of {type(model).__name__}: {why} (its children: {children}); "
                      f'{by_run}write a splitter, `lambda m: L({_parts(model)}).map(params)`, input first')

def _parts(model):
    "Return the code of a splitter's parts: all children of a model with few, else an example"
    names = list(children_with_params(model))
    if not 2 <= len(names) <= MAX_PARTS or own_params(model): return 'm.stem, m.blocks, m.head'
    return ', '.join(f'm[{n}]' if n.isdigit() else f'm.{n}' for n in names)
