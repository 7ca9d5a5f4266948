"Which modules run one after another and which side by side, told by their widths and their names"
__all__ = []

from itertools import pairwise

from fastcore.basics import first
from torch import nn

from .modules import children_with_params, is_embedding, is_norm, is_plain_list, without_number

# A module with a child of one of these names is a model by itself. Only exact names count: `fc1` may be part of a block
MODEL_HEADS = {'head', 'classifier', 'fc', 'score', 'lm_head'}

# Attributes of layers that say how many features they give
GIVES = 'out_features','out_channels','hidden_size'

def _ints(m, *attrs):
    "Return all values that the modules of `m` have for `attrs` and that are whole numbers, in order"
    values = [getattr(o, a, None) for o in m.modules() for a in attrs]
    return [v for v in values if isinstance(v, int)]

def widths(m):
    "Return how many features `m` takes and gives, by its first and last layer that say so; None for both if one is unknown"
    n_in,n_out = _ints(m, 'in_features', 'in_channels', 'input_size'),_ints(m, *GIVES)
    return (n_in[0], n_out[-1]) if n_in and n_out else (None, None)

def _fits(ms, multiple=False):
    """Tell for each two neighbours in `ms` whether the second can take what the first gives, or with `multiple` several tokens of it: True,
    False, or None if it is unknown"""
    res = []
    for a,b in pairwise(ms):
        (_,n_out),(n_in,_) = widths(a),widths(b)
        res.append(takes(n_in, n_out, a) or multiple and n_in % n_out == 0 if n_out and n_in else None)
    return res

def takes(
    n_in:int, # Features that a layer takes
    n_out:int, # Features that `m` gives
    m:nn.Module, # What comes before that layer
) -> bool:
    "Tell whether a layer can take what `m` gives"
    if n_in == n_out: return True
    # A flattened image has a multiple of its channels, and an RNN that runs both ways twice its features
    layers = [o for o in m.modules() if any(isinstance(getattr(o, a, None), int) for a in GIVES)]
    return n_in % n_out == 0 and not isinstance(layers[-1], nn.Linear)

def _do_follow(ms, multiple):
    "Tell whether the widths say that each of `ms` takes what the one before it gives"
    return all(_fits(ms, multiple))

def _may_follow(ms):
    "Tell whether no width forbids that each of `ms` takes what the one before it gives"
    return False not in _fits(ms)

def is_parallel(
    m:nn.Module, # A plain list
) -> bool:
    "Tell whether the members of `m` stand side by side: none of them takes what the one before it gives"
    if isinstance(m, nn.Sequential): return False
    members = [c for c in children_with_params(m).values() if not is_norm(c)]
    fits = _fits(members, multiple=True)
    if not fits or set(fits) != {False}: return False
    # The first and the last layer of a block may be on a side path, so the widths of blocks don't tell
    return _are_heads(members) or all(map(_is_flat, members)) or any(map(_has_head, members))

def _are_heads(ms):
    "Tell whether `ms` take the same features and give different ones, without lists of layers inside"
    pairs = [widths(m) for m in ms]
    n_ins,n_outs = {n_in for n_in,_ in pairs},{n_out for _,n_out in pairs}
    has_lists = any(isinstance(o, nn.ModuleList) for m in ms for o in m.modules())
    return len(n_ins) == 1 and len(n_outs) > 1 and not has_lists

def _is_flat(m):
    "Tell whether `m` is a plain list or a single layer"
    return is_plain_list(m) or not children_with_params(m)

def _has_head(m):
    "Tell whether `m` is a model by itself"
    return not MODEL_HEADS.isdisjoint(children_with_params(m))

def side_by_side(
    children:dict, # Children of one module by name, in the order in which they would run
    trunk:list, # Names of those that are blocks or hold them
    blocks:set, # The blocks
) -> list: # Names; none if the order is sure
    "List the children that hold blocks, and their like, if some of these may stand side by side"
    holders = [n for n in trunk if children[n] not in blocks]
    doubtful = [] if _order_is_known(children, trunk, holders) else list(holders)
    doubtful += _parts_of_layers(children, holders)
    doubtful += _put_together(children, holders)
    doubtful += _encoders_after_decoders(children)
    return list(dict.fromkeys(holders + doubtful)) if doubtful else []

def _order_is_known(children, trunk, holders):
    "Tell whether names or widths say that `holders` run in this order"
    has_numbers = len({without_number(n) for n in holders}) < 2
    if has_numbers and _may_follow([children[n] for n in holders]): return True
    if len(holders) == 2 and 'encoder' in holders[0] and 'decoder' in holders[1]: return True
    names = list(children)
    between = [children[n] for n in names[names.index(trunk[0]):names.index(trunk[-1])+1]]
    # What connects two parts may put several tokens of the first together
    multiple = len(between) > len(holders)
    # Towers of one width follow each other in either order
    return _do_follow(between, multiple) and not _do_follow(between[::-1], multiple)

def _parts_of_layers(children, holders):
    "List lists of equal length, such as `attentions` and `norms`: each may have a part of every layer"
    lists = [n for n,c in children.items() if type(c) is nn.ModuleList and len(c) > 1 and not is_embedding(c)]
    def _is_like(n, holder): return len(children[n]) == len(children[holder]) and without_number(n) != without_number(holder)
    return [n for h in holders if h in lists for n in lists if _is_like(n, h)]

def _put_together(children, holders):
    "List `holders` where what comes after them takes as much as all of them give together"
    outs = [widths(children[n])[1] for n in holders]
    after = list(children.values())[list(children).index(holders[-1])+1:] if len(holders) > 1 else []
    n_in = first(n for n,_ in map(widths, after) if n)
    if n_in is None or None in outs or takes(n_in, outs[-1], children[holders[-1]]): return []
    return holders if n_in == sum(outs) else []

def _encoders_after_decoders(children):
    "List the encoders that come after a decoder"
    res,seen_decoder = [],False
    for n in children:
        if 'encoder' in n and seen_decoder: res.append(n)
        seen_decoder = seen_decoder or 'decoder' in n
    return res
