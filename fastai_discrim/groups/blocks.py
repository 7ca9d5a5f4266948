"The general rule for the layers of a model: the stem, the repeated blocks, the head"
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

# A norm after the last block that is declared before the blocks has one of these words in its name
LAST_NORM_NAME = re.compile('final|last|after|post')

# What has one of these words in its name, and is declared before the blocks, is of the input
INPUT_NAME = re.compile('emb|patch|stem')

class NoLayerOrder(ValueError):
    "Say why the layers of a model can't be put in order"

class Blocks:
    "Put the layers of one model in order, by its repeated blocks"
    def __init__(self,
        model:nn.Module, # It is not changed
        order:RunOrder|None=None, # In which order its modules run; None to go by names, widths and the order of declaration
    ):
        self.order = order
        self.blocks = repeated_blocks(model)
        self.block_params = {p for m in self.blocks for p in m.parameters()}

    def layers(self,
        m:nn.Module, # The model or a part of it
        head:bool=False, # Does `m` end with the model's head? A list at its end is then left whole
    ) -> list: # Lists of parameters
        "Return the layers of `m`, input first; raise `NoLayerOrder` if their order can't be known"
        if is_timm_model(m): return timm_layers(m)
        # All that decodes is new with every U-Net, and so its head
        if isinstance(m, if_loaded('fastai.vision.models.unet', 'DynamicUnet')):
            return [*self.layers(m.layers[0]), params(m.layers[1:])]
        return self._list_layers(m, head) if is_plain_list(m) else self._module_layers(m, head)

    def _has_blocks(self, m):
        "Tell whether `m` is a block or holds one"
        return any(o in self.blocks for o in m.modules())

    def _is_opened(self, m):
        "Tell whether `m` is more than one layer: it holds blocks or, in a model without any, a list of layers"
        if is_timm_model(m): return True
        if self.blocks: return m not in self.blocks and self._has_blocks(m)
        holds_list = any(self._is_opened(c) for c in m.children())
        if not is_plain_list(m): return holds_list
        return not is_embedding(m) and not is_parallel(m) and (holds_list or len(children_with_params(m)) > 1)

    def _list_layers(self, m, head):
        "Return the layers of the members of a plain list, one member after another"
        members,res = children_with_params(m),[]
        members = list((self.order.sort(members) if self.order and not isinstance(m, nn.Sequential) else members).values())
        for i,c in enumerate(members):
            is_first,at_end = i == 0,head and i == len(members)-1
            new = self.layers(c, at_end) if self._is_opened_member(c, len(members), is_first, at_end) else [params(c)]
            # A norm goes with the layer below it, or with the layer above if it comes first
            if not is_first and (is_norm(c) or all(map(is_norm, members[:i]))): res[-1] += new.pop(0)
            res += new
        return [own_params(m) + res[0], *res[1:]] if res else [own_params(m)]

    def _is_opened_member(self, c, n_members, is_first, at_end):
        "Tell whether the member `c` of a plain list is more than one layer"
        # A list without blocks at the end of the model is its head
        if at_end and not is_first and not self._has_blocks(c): return False
        if is_plain_list(c): return not is_embedding(c) and not is_parallel(c)
        # Of three or more, each is a layer, unless blocks say otherwise; of two, one may be the body
        return self._is_opened(c) and (bool(self.blocks) or n_members < 3)

    def _module_layers(self, m, head):
        "Return the layers of a module that is no list: the stem, the layers of its trunk, and what comes after as one layer"
        children,trunk = self._ordered(m)
        names = list(children)
        first,last = names.index(trunk[0]),names.index(trunk[-1])
        # What `m` has outside of its children is of the input
        stem,middle,end = [own_params(m)],[],[]
        part = stem
        for i,(name,c) in enumerate(children.items()):
            new = self.layers(c, head and name == names[-1]) if self._is_opened(c) else [params(c)]
            # A model's embeddings are of the input, wherever they are
            of_input = is_embedding(c) or is_norm(c) and 'embedding' in name
            if is_norm(c) and not of_input:
                part[-1] += new[0]
                continue
            if of_input or i < first: part = stem
            else: part = middle if i <= last else end
            part += new
        return self._with_whole_stem([sum(stem, []), *middle, sum(end, [])])

    def _with_whole_stem(self, layers):
        "Merge the layers below the first block: the stem may go on inside of what holds the blocks"
        n_stem = 1
        for i,ps in enumerate(layers):
            if not self.block_params.isdisjoint(ps):
                n_stem = i
                break
        return [ps for ps in [sum(layers[:n_stem], []), *layers[n_stem:]] if ps]

    def _ordered(self, m):
        "Return the children of `m` in the order in which they run, and the names of its trunk: those that are or hold blocks"
        children = children_with_params(m)
        trunk = [n for n,c in children.items() if c in self.blocks or self._is_opened(c)]
        if not trunk: raise NoLayerOrder('in which no repeated blocks follow each other')
        return self._as_run(children, trunk) if self.order else self._as_declared(m, children, trunk)

    def _as_run(self, children, trunk):
        "Order by a run of the model; refuse parts of which none takes what the one before it gives"
        children = self.order.sort(children)
        names = list(children)
        heads = list(takewhile(is_head_name, reversed(names)))
        trunk = [n for n in names if n in trunk and n not in heads] or trunk
        if not self.blocks and len(trunk) > 1 and trunk[-1] == names[-1]: trunk.pop()
        holders = [n for n in trunk if children[n] not in self.blocks]
        if not all(self.order.follow(children[a], children[b]) for a,b in pairwise(holders)):
            raise NoLayerOrder(f'as {", ".join(holders)} stand side by side in a run')
        return children,trunk

    def _as_declared(self, m, children, trunk):
        "Order by declaration, but for what names and widths tell; refuse what they leave open"
        heads,norms = self._declared_early(m, children, trunk)
        trunk = [n for n in trunk if n not in heads]
        names = [n for n in children if n not in heads and n not in norms]
        # Without blocks, as in a VGG, the list at the end is the head
        if not self.blocks and len(trunk) > 1 and trunk[-1] == names[-1] and not heads: trunk.pop()
        after_trunk = names.index(trunk[-1])+1
        children = {n: children[n] for n in [*names[:after_trunk], *norms, *names[after_trunk:], *heads]}
        if doubtful := side_by_side(children, trunk, self.blocks):
            raise NoLayerOrder(f'as {", ".join(doubtful)} may stand side by side')
        return children,trunk

    def _declared_early(self, m, children, trunk):
        "Return the names of heads, and of last norms, that `m` declares before its body"
        body = next((n for n in trunk if not is_head_name(n)), trunk[0])
        early = list(children)[:list(children).index(body)]
        # Models of Hugging Face name their body: all the rest is head
        names_body = getattr(m, 'base_model_prefix', None) == body
        heads = [n for n in early if names_body or is_head_name(n)]
        norms = [n for n in early if n not in heads and is_norm(children[n]) and LAST_NORM_NAME.search(n)]
        late = self._late(children, [n for n in early if n not in heads and n not in norms], trunk)
        return heads + [n for n in late if not is_norm(children[n])],norms + [n for n in late if is_norm(children[n])]

    def _late(self, children, names, trunk):
        "Return those of `names`, declared before the body, that run after it; refuse what can't be known"
        late,left = {},[n for n in children if n in names or n in trunk]
        for n in names:
            if INPUT_NAME.search(n): continue
            following = next(o for o in left[left.index(n)+1:] if o in trunk or not is_norm(children[o]))
            after = [children[o] for o in list(children)[list(children).index(n)+1:]]
            late[n] = runs_late(children[n], after, children[following], children[trunk[-1]])
        if doubtful := [n for n,is_late in late.items() if is_late is None]:
            raise NoLayerOrder(f'as {", ".join(doubtful)}, declared before the body, may run after it')
        return [n for n,is_late in late.items() if is_late]
