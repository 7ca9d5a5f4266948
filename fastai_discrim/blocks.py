"The general rule for what a layer is: the repeated blocks of a model, the stem before them, the head after them"
__all__ = []

import re
from collections import Counter
from importlib.util import find_spec
from itertools import pairwise

from fastai.torch_core import norm_types, params
from fastai.vision.models.unet import DynamicUnet
from torch import nn

# What a head is called; and what a module has that is a model by itself, where `fc1` may be part of a block
HEAD = re.compile(r'(^|_)(head|heads|classifier|fc|score|qa_outputs)(_|\d|$)')
WHOLE = {'head', 'classifier', 'fc', 'score', 'lm_head'}

class Unordered(ValueError):
    "Why the layers of a model can't be put in order"

# What hangs on a module itself is of its input
def _own(m): return list(m.parameters(recurse=False))
# One that stands in two places is in both
def _kids(m): return {n:c for n,c in m._modules.items() if c is not None and params(c)}
def _numbered(n): return re.sub(r'\d+[a-z]?$', '', n)

def _is_list(m):
    "Is `m` no more than its members, one after another?"
    return isinstance(m, (nn.ModuleList, nn.ModuleDict)) or isinstance(m, nn.Sequential) and type(m).forward is nn.Sequential.forward

def _is_norm(m):
    def _norm(o): return isinstance(o, norm_types) or 'norm' in type(o).__name__.lower() and all(p.dim() < 2 for p in o.parameters())
    return all(_norm(o) for o in m.modules() if o._parameters)
def _is_embedding(m): return all(isinstance(o, nn.Embedding) for o in m.modules() if o._parameters)

def _widths(m):
    "How many features go into the first layer of `m` that says so, and come out of its last"
    def _of(*names): return [getattr(o, n) for o in m.modules() for n in names if isinstance(getattr(o, n, None), int)]
    ins,outs = _of('in_features', 'in_channels', 'input_size'),_of('out_features', 'out_channels', 'hidden_size')
    return (ins[0],outs[-1]) if ins and outs else (None,None)

def _pairs(ms):
    "For each of `ms` that is followed by another: what comes out of it, and what goes into that"
    return [(out, n_in) for (_,out),(n_in,_) in pairwise(map(_widths, ms))]

# A flattened image has a multiple of its channels
def _follow(ms): return all(out and n_in and n_in % out == 0 for out,n_in in _pairs(ms))
def _may_follow(ms): return all(not out or not n_in or n_in % out == 0 for out,n_in in _pairs(ms))

def _is_parallel(m):
    "Does `m`, whose members have no order by themselves, hold what stands side by side? None of them takes what the one before it gives"
    kids = [c for c in _kids(m).values() if not _is_norm(c)]
    pairs = _pairs(kids)
    if isinstance(m, nn.Sequential) or not pairs or any(not out or not n_in or n_in % out == 0 for out,n_in in pairs): return False
    # What is first and last in a block may be at its side: only whole models, and heads of several tasks, are known by their widths
    ins,outs = zip(*map(_widths, kids))
    heads = len(set(ins)) == 1 < len(set(outs)) and not any(isinstance(o, nn.ModuleList) for c in kids for o in c.modules())
    return heads or all(_is_list(c) or not _kids(c) for c in kids) or any(WHOLE & set(_kids(c)) for c in kids)

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

class Blocks:
    "The layers of one model"
    def __init__(self,
        model:nn.Module, # It is not changed
    ):
        self.blocks = set()
        self._find(model)
        self.inside = {p for m in self.blocks for p in m.parameters()}

    def _members(self, m):
        "The children of `m`, and the members of lists among them, each with what it is in"
        for n,c in _kids(m).items():
            # Blocks of a head are of the head
            if HEAD.search(n): continue
            if _is_list(c) and not _is_parallel(c): yield from self._members(c)
            else: yield n,c,m

    def _find(self, m):
        "Blocks are what `m` has several of; what repeats inside a block is no layer"
        def _kind(n, c, parent): return (type(c),) if _is_list(parent) else (type(c), _numbered(n))
        # A stage is what holds blocks, however many there are
        may_be = [(n, c, p) for n,c,p in self._members(m) if not _is_list(c) and _kids(c) and not _is_norm(c)]
        count = Counter(_kind(*o) for o in may_be)
        for n,c,p in may_be:
            # Of attributes, two may be an encoder and a decoder
            least = 1 if isinstance(p, nn.ModuleList) else 2 if _is_list(p) else 3
            if count[_kind(n, c, p)] >= least and 'stage' not in type(c).__name__.lower(): self.blocks.add(c)
            else: self._find(c)

    def _has_blocks(self, m): return any(o in self.blocks for o in m.modules())

    def _is_trunk(self, m):
        "Is `m` to be opened, as it has blocks inside, or is a list of layers where there are no blocks at all?"
        if _of_timm(m): return True
        if self.blocks: return m not in self.blocks and self._has_blocks(m)
        if not _is_list(m): return any(self._is_trunk(c) for c in m.children())
        return not _is_embedding(m) and not _is_parallel(m) and (len(_kids(m)) > 1 or any(self._is_trunk(c) for c in m.children()))

    def layers(self,
        m:nn.Module, # The model, or a part of it
        head:bool=False, # Does it end with the model's head? A list that is last is then left whole
    ) -> list: # Lists of parameters
        "The layers of `m`, input first"
        if _of_timm(m): return _timm_layers(m)
        # What decodes is new with every U-Net: its head
        if isinstance(m, DynamicUnet): return [*self.layers(m.layers[0]), params(m.layers[1:])]
        return self._list(m, head) if _is_list(m) else self._module(m, head)

    def _list(self, m, head):
        kids,res = list(_kids(m).values()),[]
        for i,c in enumerate(kids):
            last = i == len(kids)-1
            opened = not _is_embedding(c) and not _is_parallel(c) if _is_list(c) else self._is_trunk(c) and (self.blocks or len(kids) < 3)
            if head and last and i > 0 and not self._has_blocks(c): opened = False
            new = self.layers(c, head and last) if opened else [params(c)]
            # A norm is no layer of its own: it goes with the layer below it, or above where it comes first
            if i > 0 and (_is_norm(c) or all(map(_is_norm, kids[:i]))): res[-1] += new.pop(0)
            res += new
        return [_own(m) + res[0], *res[1:]] if res else [_own(m)]

    def _module(self, m, head):
        kids,trunk = self._in_order(m)
        names,stem,middle,after = list(kids),[_own(m)],[],[]
        part = stem
        for i,(n,c) in enumerate(kids.items()):
            new = self.layers(c, head and n == names[-1]) if self._is_trunk(c) else [params(c)]
            # Wherever a model has its embeddings, they are of the input
            of_input = _is_embedding(c) or _is_norm(c) and 'embedding' in n
            if _is_norm(c) and not of_input: part[-1] += new[0]
            else:
                part = stem if of_input or i < names.index(trunk[0]) else middle if i <= names.index(trunk[-1]) else after
                part += new
        res = [sum(stem, []), *middle, sum(after, [])]
        # The stem may go on inside of what holds the blocks
        n = next((i for i,ps in enumerate(res) if self.inside & set(ps)), 1)
        return [ps for ps in [sum(res[:n], []), *res[n:]] if ps]

    def _in_order(self, m):
        "The children of `m`, a head last that is not, and the names of those that hold the blocks or are blocks"
        kids = _kids(m)
        trunk = [n for n,c in kids.items() if self._is_trunk(c) or c in self.blocks]
        if not trunk: raise Unordered('in which no repeated blocks follow each other')
        body = next((n for n in trunk if not HEAD.search(n)), trunk[0])
        early = list(kids)[:list(kids).index(body)]
        # Hugging Face's models name their body
        late = [n for n in early if HEAD.search(n) or getattr(m, 'base_model_prefix', None) == body]
        norms = [n for n in early if n not in late and _is_norm(kids[n]) and re.search('final|last|after|post', n)]
        names,trunk = [n for n in kids if n not in late+norms],[n for n in trunk if n not in late]
        # Without blocks, as in a VGG, the list that is last is the head
        if not self.blocks and len(trunk) > 1 and trunk[-1] == names[-1] and not late: trunk = trunk[:-1]
        at = names.index(trunk[-1])+1
        kids = {n: kids[n] for n in [*names[:at], *norms, *names[at:], *late]}
        self._check(kids, trunk)
        return kids,trunk

    def _check(self, kids, trunk):
        "Raise where children that hold blocks may stand side by side"
        names,apart = list(kids),[n for n in trunk if kids[n] not in self.blocks]
        between = [kids[n] for n in names[names.index(trunk[0]):names.index(trunk[-1])+1]]
        numbered = len({_numbered(n) for n in apart}) < 2 and _may_follow([kids[n] for n in apart])
        pair = len(apart) == 2 and 'encoder' in apart[0] and 'decoder' in apart[1]
        # Else their widths must say that they follow each other, and not the other way round
        side = [] if numbered or pair or _follow(between) and not _follow(between[::-1]) else apart
        # One part of each layer in one list, another part in another
        lists = [n for n,c in kids.items() if type(c) is nn.ModuleList and len(c) > 1 and not _is_embedding(c)]
        for t in set(lists) & set(apart): side += [n for n in lists if len(kids[n]) == len(kids[t]) and _numbered(n) != _numbered(t)]
        side += [n for n in names if 'encoder' in n and any('decoder' in o for o in names[:names.index(n)])]
        if side: raise Unordered(f'as {", ".join(dict.fromkeys([*apart, *side]))} may stand side by side')
