"Split any model into stem, repeated blocks and head"
__all__ = []

import re
from itertools import pairwise, takewhile

from fastai.torch_core import params
from torch import nn

from ..optional import if_loaded
from .declared_early import runs_late
from .modules import children_with_params, is_embedding, is_head_name, is_norm, is_plain_list, own_params
from .parallel import is_parallel, side_by_side
from .repeats import repeated_blocks
from .run_order import RunOrder
from .timm_models import is_timm_model, timm_layers

# Words in the name of a norm that is declared before the blocks but runs after them
LAST_NORM_NAME = re.compile('final|last|after|post')

# Words in the name of a module that is declared before the blocks and belongs to the input
INPUT_NAME = re.compile('emb|patch|stem')

class NoLayerOrder(ValueError):
    "Raised with the reason why the layers of a model can't be put in order"

class NoBlocks(NoLayerOrder):
    "Raised if a model has no repeated blocks: a run, which finds the order of blocks, doesn't help"

class Blocks:
    "Put the layers of a model in order by its repeated blocks"
    def __init__(self,
        model:nn.Module, # The model
        order:RunOrder|None=None, # The order in which its modules run; None to go by names, widths and the order of declaration
    ):
        self.order = order
        self.blocks = repeated_blocks(model)
        self.block_params = {p for m in self.blocks for p in m.parameters()}

    def layers(self,
        m:nn.Module, # The model or a part of it
        head:bool=False, # Does `m` end with the model's head? A list at its end is then one layer
    ) -> list: # Lists of parameters
        "Return the layers of `m`, input first; raise `NoLayerOrder` if their order can't be known"
        if is_timm_model(m): return timm_layers(m)
        # The head of a U-Net is its whole decoder, because all of this is newly initialised
        if isinstance(m, if_loaded('fastai.vision.models.unet', 'DynamicUnet')):
            return [*self.layers(m.layers[0]), params(m.layers[1:])]
        return self._list_layers(m, head) if is_plain_list(m) else self._module_layers(m, head)

    def _has_blocks(self, m):
        "Tell whether `m` is a block or holds blocks"
        return any(o in self.blocks for o in m.modules())

    def _is_divided(self, m):
        "Tell whether `m` is more than one layer: it holds blocks or, in a model without blocks, a list of layers"
        if is_timm_model(m): return True
        if self.blocks: return m not in self.blocks and self._has_blocks(m)
        holds_list = any(self._is_divided(c) for c in m.children())
        if not is_plain_list(m): return holds_list
        return not is_embedding(m) and not is_parallel(m) and (holds_list or len(children_with_params(m)) > 1)

    def _list_layers(self, m, head):
        "Return the layers of the members of a plain list, one member after another"
        children,res = children_with_params(m),[]
        if self.order and not isinstance(m, nn.Sequential): children = self.order.sort(children)
        members = list(children.values())
        for i,c in enumerate(members):
            is_first,at_end = i == 0,head and i == len(members)-1
            new = self.layers(c, at_end) if self._is_divided_member(c, len(members), is_first, at_end) else [params(c)]
            # A norm belongs to the layer before it or, at the start of the list, to the layer after it
            if not is_first and (is_norm(c) or all(map(is_norm, members[:i]))): res[-1] += new.pop(0)
            res += new
        return [own_params(m) + res[0], *res[1:]] if res else [own_params(m)]

    def _is_divided_member(self, c, n_members, is_first, at_end):
        "Tell whether the member `c` of a plain list is more than one layer"
        # A list without blocks at the end of the model is the head
        if at_end and not is_first and not self._has_blocks(c): return False
        if is_plain_list(c): return not is_embedding(c) and not is_parallel(c)
        # In a model without blocks, each of three or more members is a layer, but one of two may be the body
        return self._is_divided(c) and (bool(self.blocks) or n_members < 3)

    def _module_layers(self, m, head):
        "Return the layers of a module that is no list: the stem, the layers of the trunk, and everything after the trunk as one layer"
        children,trunk = self._ordered(m)
        names = list(children)
        first,last = names.index(trunk[0]),names.index(trunk[-1])
        # Parameters of `m` itself belong to the stem
        stem,middle,end = [own_params(m)],[],[]
        part = stem
        for i,(name,c) in enumerate(children.items()):
            new = self.layers(c, head and name == names[-1]) if self._is_divided(c) else [params(c)]
            # Embeddings, and norms of embeddings, belong to the stem wherever they are
            in_stem = is_embedding(c) or is_norm(c) and 'embedding' in name
            if is_norm(c) and not in_stem:
                part[-1] += new[0]
                continue
            if in_stem or i < first: part = stem
            else: part = middle if i <= last else end
            part += new
        return self._with_whole_stem([sum(stem, []), *middle, sum(end, [])])

    def _with_whole_stem(self, layers):
        "Merge all layers below the first block into the stem, since the module that holds the blocks may begin with a part of the stem"
        n_stem = next((i for i,ps in enumerate(layers) if not self.block_params.isdisjoint(ps)), 1)
        return [ps for ps in [sum(layers[:n_stem], []), *layers[n_stem:]] if ps]

    def _ordered(self, m):
        "Return the children of `m` in the order in which they run, and the names of the trunk: children that are blocks or hold blocks"
        children = children_with_params(m)
        trunk = [n for n,c in children.items() if c in self.blocks or self._is_divided(c)]
        if not trunk: raise NoBlocks('no repeated blocks follow each other')
        return self._as_run(children, trunk) if self.order else self._as_declared(m, children, trunk)

    def _as_run(self, children, trunk):
        "Order `children` and `trunk` by a run of the model; raise if a part of the trunk doesn't take the output of the one before it"
        children = self.order.sort(children)
        names = list(children)
        heads = list(takewhile(is_head_name, reversed(names)))
        trunk = [n for n in names if n in trunk and n not in heads] or trunk
        if not self.blocks and len(trunk) > 1 and trunk[-1] == names[-1]: trunk.pop()
        holders = [n for n in trunk if children[n] not in self.blocks]
        if not all(self.order.feeds(children[a], children[b]) for a,b in pairwise(holders)):
            raise NoLayerOrder(f'{", ".join(holders)} run side by side')
        return children,trunk

    def _as_declared(self, m, children, trunk):
        "Order `children` and `trunk` by declaration, corrected by names and widths; raise if these don't tell the order"
        heads,norms = self._declared_early(m, children, trunk)
        trunk = [n for n in trunk if n not in heads]
        names = [n for n in children if n not in heads and n not in norms]
        # Without blocks, as in a VGG, the list at the end is the head
        if not self.blocks and len(trunk) > 1 and trunk[-1] == names[-1] and not heads: trunk.pop()
        after_trunk = names.index(trunk[-1])+1
        children = {n: children[n] for n in [*names[:after_trunk], *norms, *names[after_trunk:], *heads]}
        if doubtful := side_by_side(children, trunk, self.blocks):
            raise NoLayerOrder(f'{", ".join(doubtful)} may run side by side')
        return children,trunk

    def _declared_early(self, m, children, trunk):
        "Return the names of heads, and of final norms, that `m` declares before its body"
        body = next((n for n in trunk if not is_head_name(n)), trunk[0])
        early = list(children)[:list(children).index(body)]
        # Models of transformers name their body: everything else is head
        names_body = getattr(m, 'base_model_prefix', None) == body
        heads = [n for n in early if names_body or is_head_name(n)]
        norms = [n for n in early if n not in heads and is_norm(children[n]) and LAST_NORM_NAME.search(n)]
        late = self._late(children, [n for n in early if n not in heads and n not in norms], trunk)
        late_norms = [n for n in late if is_norm(children[n])]
        return heads + [n for n in late if n not in late_norms],norms + late_norms

    def _late(self, children, names, trunk):
        "Return those of `names`, declared before the body, that run after it; raise if this can't be known"
        late,names_left,all_names = {},[n for n in children if n in names or n in trunk],list(children)
        for n in names:
            if INPUT_NAME.search(n): continue
            following = next(o for o in names_left[names_left.index(n)+1:] if o in trunk or not is_norm(children[o]))
            after = [children[o] for o in all_names[all_names.index(n)+1:]]
            late[n] = runs_late(children[n], after, children[following], children[trunk[-1]])
        if doubtful := [n for n,is_late in late.items() if is_late is None]:
            raise NoLayerOrder(f'{", ".join(doubtful)}, declared before the body, may run after it')
        return [n for n,is_late in late.items() if is_late]
