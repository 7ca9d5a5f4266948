"What is a layer: the layers of a model, input first, head last"
__all__ = ['layerwise_split']

import numpy as np
from fastai.collab import EmbeddingDotBias
from fastai.text.models.core import LinearDecoder, SentenceEncoder, _model_meta
from fastai.torch_core import get_model, params
from fastcore.foundation import L
from torch import nn

from .blocks import Blocks, Unordered
from .checks import check_count


def _text_split(model):
    "fastai's own splitter for `model`, where it is one of fastai's text models"
    if not isinstance(model, nn.Sequential) or len(model) != 2: return None
    body,head = model
    if isinstance(body, SentenceEncoder): return _model_meta.get(type(body.module), {}).get('split_clas')
    if isinstance(head, LinearDecoder):   return _model_meta.get(type(body), {}).get('split_lm')

def _dot_split(model):
    "Factors, then biases, for a collaborative model without layers"
    if isinstance(model, EmbeddingDotBias): return lambda m: [params(m.u_weight)+params(m.i_weight), params(m.u_bias)+params(m.i_bias)]

def _merged(groups, n_groups):
    "Neighbours merged, about as many layers in each; the head stays alone"
    check_count(n_groups, 'n_groups')
    n = len(groups)
    if not 2 <= n_groups <= n: raise ValueError(f'n_groups={n_groups}: expected at least 2, and at most the {n} layers of this model')
    parts = np.array_split(range(len(groups)-1), n_groups-1)
    return L([p for i in part for p in groups[i]] for part in parts) + [groups[-1]]

def _refused(model, why):
    kids = ', '.join(f'{n} ({type(c).__name__})' for n,c in model.named_children()) or 'none'
    return ValueError(f'layerwise_split found no order of the layers of {type(model).__name__}, {why} (its children: {kids}): write a '
                      'splitter, `lambda m: L(m.stem, m.blocks, m.head).map(params)`, input first')

def _once(model, groups):
    "Each parameter in one group: the last that has it"
    embeddings = {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    # One that is used again on the way, as by a decoder, stays with the input
    again,seen,res = embeddings & set(groups[0]) - set(groups[-1]),set(),L()
    for ps in reversed([groups[0], *([p for p in ps if p not in again] for ps in groups[1:])]):
        res.append([p for p in dict.fromkeys(ps) if p not in seen])
        seen.update(ps)
    return L(ps for ps in reversed(res) if ps)

def layerwise_split(
    model:nn.Module, # One of fastai, torchvision, timm or transformers, an `nn.Sequential`, or any that has repeated blocks
    n_groups:int=None, # Merge neighbours to have so many groups, the head alone; None for a group a layer
) -> L: # Lists of parameters, input first, head last
    "Split `model` into its layers, or `n_groups` of neighbours, without changing it; a tied weight goes with the last layer that has it"
    model = get_model(model)
    # What `torch.compile` has wrapped
    model = getattr(model, '_orig_mod', model)
    if not params(model): raise ValueError(f'{type(model).__name__} has no parameters: expected a model with layers')
    if split := _text_split(model) or _dot_split(model): groups = L(split(model))
    else:
        try: groups = _once(model, Blocks(model).layers(model, head=True))
        except Unordered as e: raise _refused(model, e) from None
    return groups if n_groups is None else _merged(groups, n_groups)
