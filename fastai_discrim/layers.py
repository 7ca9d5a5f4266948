"What is a layer: the layers of a model, input first, head last"
__all__ = ['layerwise_split']

from collections import Counter
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
from fastai.collab import EmbeddingDotBias
from fastai.text.models.core import LinearDecoder, SentenceEncoder, _model_meta
from fastai.torch_core import get_model, norm_types, params
from fastai.vision.models.unet import DynamicUnet
from fastcore.foundation import L
from torch import nn

from .checks import check_count

LISTS = nn.Sequential,nn.ModuleList,nn.ModuleDict

class _Unordered(ValueError):
    "Why the layers of a model can't be put in order"

def _text_split(model):
    "fastai's own splitter for `model`, where it is one of fastai's text models"
    if not isinstance(model, nn.Sequential) or len(model) != 2: return None
    body,head = model
    if isinstance(body, SentenceEncoder): return _model_meta.get(type(body.module), {}).get('split_clas')
    if isinstance(head, LinearDecoder):   return _model_meta.get(type(body), {}).get('split_lm')

def _dot_split(model):
    "Factors, then biases, for a collaborative model without layers"
    if isinstance(model, EmbeddingDotBias): return lambda m: [params(m.u_weight)+params(m.i_weight), params(m.u_bias)+params(m.i_bias)]

# What hangs on a module itself is of its input
def _own(m): return list(m.parameters(recurse=False))
# One that stands in two places is in both
def _kids(m): return {n:c for n,c in m._modules.items() if c is not None and params(c)}
def _is_norm(m):
    def _norm(o): return isinstance(o, norm_types) or 'norm' in type(o).__name__.lower() and all(p.dim() < 2 for p in o.parameters())
    return all(_norm(o) for o in m.modules() if o._parameters)
def _is_embedding(m): return all(isinstance(o, nn.Embedding) for o in m.modules() if o._parameters)

def _widths(m):
    "How many features go into the first layer of `m` that says so, and come out of its last"
    def _of(*names): return [getattr(o, n) for o in m.modules() for n in names if isinstance(getattr(o, n, None), int)]
    ins,outs = _of('in_features', 'in_channels', 'input_size'),_of('out_features', 'out_channels', 'hidden_size')
    return (ins[0],outs[-1]) if ins and outs else (None,None)

def _one_order(ms):
    "Do their widths say that `ms` follow each other in this order, and could not in the other?"
    def _follow(ms):
        # A flattened image has a multiple of its channels
        return all(out and n_in and n_in % out == 0 for (_,out),(n_in,_) in pairwise(map(_widths, ms)))
    return len(ms) < 2 or _follow(ms) and not _follow(ms[::-1])

class _Finder:
    "Finds the layers of one model: the repeated blocks, the stem before them, the head after them"
    def __init__(self, model):
        self.blocks,self.candidates = set(),{cls for m in model.modules() for cls in self._repeated(m)}
        self._find(model)
        self.inside = {p for m in self.blocks for p in m.parameters()}

    def _may_be_block(self, m): return not isinstance(m, LISTS) and _kids(m) and not _is_norm(m) and 'stage' not in type(m).__name__.lower()

    def _count(self, m): return Counter(type(c) for c in _kids(m).values() if self._may_be_block(c))
    def _repeats(self, m): return any(n > 1 for o in m.modules() if isinstance(o, LISTS) for n in self._count(o).values())

    def _repeated(self, m):
        "Classes of which `m` has several; of attributes two may be an encoder and a decoder"
        least = 1 if isinstance(m, nn.ModuleList) else 2 if isinstance(m, LISTS) else 3
        return {cls for cls,n in self._count(m).items() if n >= least}

    def _find(self, m):
        "Blocks are the outermost candidates: what repeats inside a block is not a layer"
        here = self.candidates if isinstance(m, LISTS) else self._repeated(m)
        for c in m.children():
            if type(c) in here: self.blocks.add(c)
            else: self._find(c)

    def _has_blocks(self, m): return any(o in self.blocks for o in m.modules())

    def _is_trunk(self, m):
        "Is `m` to be opened, as it has blocks inside, or is a list of layers where there are no blocks at all?"
        if _of_timm(m): return True
        if self.blocks: return m not in self.blocks and self._has_blocks(m)
        if not isinstance(m, LISTS): return any(self._is_trunk(c) for c in m.children())
        return not _is_embedding(m) and (len(_kids(m)) > 1 or any(self._is_trunk(c) for c in m.children()))

    def layers(self, m, head=False):
        "Lists of parameters; a list that is last stays whole if it is to be the `head`"
        if _of_timm(m): return _timm_layers(m)
        # What decodes is new with every U-Net: its head
        if isinstance(m, DynamicUnet): return [*self.layers(m.layers[0]), params(m.layers[1:])]
        return self._list(m, head) if isinstance(m, LISTS) else self._module(m, head)

    def _list(self, m, head):
        kids,res = list(_kids(m).values()),[]
        # Models that are made of blocks themselves may be an ensemble
        nested = [c for c in kids if c in self.blocks and self._repeats(c)]
        if any(out != n_in for (_,out),(n_in,_) in pairwise(map(_widths, nested))):
            raise _Unordered(f'as {len(nested)} of {type(nested[0]).__name__} may stand side by side')
        for i,c in enumerate(kids):
            last = i == len(kids)-1
            opened = self._is_trunk(c) or isinstance(c, LISTS) and not _is_embedding(c)
            if head and last and i > 0 and not self._has_blocks(c): opened = False
            new = self.layers(c, head and last) if opened else [params(c)]
            # A norm is no layer of its own: it goes with the layer below it, or above where it comes first
            if i > 0 and (_is_norm(c) or all(map(_is_norm, kids[:i]))): res[-1] += new.pop(0)
            res += new
        return [_own(m) + res[0], *res[1:]] if res else [_own(m)]

    def _module(self, m, head):
        kids = _kids(m)
        trunk = self._trunk(kids)
        first,rest,last = {},{},None
        for n,c in kids.items():
            new = self.layers(c, head and n == list(kids)[-1]) if self._is_trunk(c) else [params(c)]
            # Wherever a model has its embeddings, they are of the input
            of_input = _is_embedding(c) or _is_norm(c) and 'emb' in n
            if last and _is_norm(c) and not of_input: last[-1] += new[0]
            else: (first if of_input else rest)[n] = last = new
        parts = {**first, **rest}
        at,ls = [i for i,n in enumerate(parts) if n in trunk],list(parts.values())
        def _flat(ls): return [p for l in ls for ps in l for p in ps]
        res = [_own(m) + _flat(ls[:at[0]]), *sum(ls[at[0]:at[-1]+1], []), _flat(ls[at[-1]+1:])]
        # The stem may go on inside of what holds the blocks
        n = next((i for i,ps in enumerate(res) if self.inside & set(ps)), 1)
        return [ps for ps in [sum(res[:n], []), *res[n:]] if ps]

    def _trunk(self, kids):
        "Names of the children that hold the blocks, or are blocks"
        names = [n for n,c in kids.items() if self._is_trunk(c) or c in self.blocks]
        if not names: raise _Unordered('which has no repeated blocks')
        # Without blocks, as in a VGG, the list that is last is the head
        if not self.blocks and len(names) > 1 and names[-1] == list(kids)[-1]: names = names[:-1]
        apart = [n for n in names if kids[n] not in self.blocks]
        # Numbered, or an encoder and its decoder; else their widths must say so
        in_order = len({n.rstrip('0123456789') for n in apart}) < 2 or len(apart) == 2 and 'encoder' in apart[0] and 'decoder' in apart[1]
        if not in_order:
            between = list(kids)[list(kids).index(apart[0]):list(kids).index(apart[-1])+1]
            if not _one_order([kids[n] for n in between]): raise _Unordered(f'as {", ".join(apart)} may stand side by side')
        return names

def _of_timm(m): return hasattr(m, 'group_matcher') and find_spec('timm') is not None

def _timm_layers(m):
    "What timm's own `group_matcher` says of a model of timm's"
    from timm.models import group_parameters
    names,res = dict(m.named_parameters()),[]
    for ns in group_parameters(m, m.group_matcher(coarse=False)).values():
        ps = [names[n] for n in ns]
        # A last norm, which is no layer of its own
        if res and all(p.dim() < 2 for p in ps): res[-1] += ps
        else: res.append(ps)
    return res

def _merged(groups, n_groups):
    "Neighbours merged, about as many layers in each; the head stays alone"
    check_count(n_groups, 'n_groups')
    if not 2 <= n_groups <= len(groups): raise ValueError(f'n_groups={n_groups}: expected 2 to {len(groups)}, the layers of this model')
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
        try: groups = _once(model, _Finder(model).layers(model, head=True))
        except _Unordered as e: raise _refused(model, e) from None
    return groups if n_groups is None else _merged(groups, n_groups)
