"Tell by widths and names which modules run one after another and which run side by side"
__all__ = []

from itertools import dropwhile, pairwise

from fastcore.basics import first
from torch import nn

from .modules import children_with_params, is_embedding, is_norm, is_plain_list, without_number

# A module with a child of one of these exact names is a model by itself; `fc1` would not count, as it may be part of a block
MODEL_HEADS = {'head', 'classifier', 'fc', 'score', 'lm_head'}

# Attributes that hold the number of features that a layer takes, and that it gives
TAKES = 'in_features','in_channels','input_size'
GIVES = 'out_features','out_channels','hidden_size'

def _ints(m, attrs):
    "List the integer values of `attrs` in the modules of `m`"
    values = [getattr(o, a, None) for o in m.modules() for a in attrs]
    return [v for v in values if isinstance(v, int)]

def widths(m):
    "Return the numbers of features that `m` takes and gives, by its first and last layers that have them; (None, None) if one is unknown"
    n_in,n_out = _ints(m, TAKES),_ints(m, GIVES)
    return (n_in[0], n_out[-1]) if n_in and n_out else (None, None)

def takes(n_in:int, n_out:int, m:nn.Module) -> bool:
    "Tell whether a layer that takes `n_in` features can take the output of `m`, which gives `n_out`"
    if n_in == n_out: return True
    # A flattened image has a multiple of its channels as features, and a bidirectional RNN twice its hidden size
    layers = [o for o in m.modules() if any(isinstance(getattr(o, a, None), int) for a in GIVES)]
    return n_in % n_out == 0 and not isinstance(layers[-1], nn.Linear)

def _fits(ms, multiple=False):
    """Tell for each module of `ms` but the first whether it can take the output of the one before it, or with `multiple` a multiple of
    that: True, False, or None if unknown"""
    res = []
    for a,b in pairwise(ms):
        n_out,n_in = widths(a)[1],widths(b)[0]
        if n_out and n_in: res.append(takes(n_in, n_out, a) or multiple and n_in % n_out == 0)
        else: res.append(None)
    return res

def is_parallel(m:nn.Module) -> bool:
    "Tell whether the members of `m`, a plain list, run side by side: by their widths, none can take the output of the one before it"
    if isinstance(m, nn.Sequential): return False
    members = [c for c in children_with_params(m).values() if not is_norm(c)]
    if set(_fits(members, multiple=True)) != {False}: return False
    # The widths of blocks prove nothing, since the first or last layer of a block may be on a side path
    are_flat = all(is_plain_list(c) or not children_with_params(c) for c in members)
    are_models = any(not MODEL_HEADS.isdisjoint(children_with_params(c)) for c in members)
    return are_flat or are_models or _are_heads(members)

def _are_heads(ms):
    "Tell whether `ms` have the same input width, different output widths, and no lists of layers inside"
    n_ins,n_outs = {widths(m)[0] for m in ms},{widths(m)[1] for m in ms}
    has_lists = any(isinstance(o, nn.ModuleList) for m in ms for o in m.modules())
    return len(n_ins) == 1 and len(n_outs) > 1 and not has_lists

def side_by_side(
    children:dict, # Children of one module by name, in the order in which they would run
    trunk:list, # Names of the children that are blocks or hold blocks
    blocks:set, # The blocks
) -> list: # Names; empty if the order is known
    "List the children that hold blocks, and lists like them, if some of these may run side by side"
    holders = [n for n in trunk if children[n] not in blocks]
    doubtful = [] if _order_is_known(children, trunk, holders) else list(holders)
    doubtful += _parts_of_layers(children, holders)
    doubtful += _concatenated(children, holders)
    doubtful += _encoders_after_decoders(children)
    return list(dict.fromkeys(holders + doubtful)) if doubtful else []

def _order_is_known(children, trunk, holders):
    "Tell whether names or widths prove that `holders` run in this order"
    are_numbered = len({without_number(n) for n in holders}) < 2
    if are_numbered and False not in _fits([children[n] for n in holders]): return True
    if len(holders) == 2 and 'encoder' in holders[0] and 'decoder' in holders[1]: return True
    names = list(children)
    between = [children[n] for n in names[names.index(trunk[0]):names.index(trunk[-1])+1]]
    # A module between two parts may concatenate several tokens of the first
    multiple = len(between) > len(holders)
    # Towers of one width would fit in either order, which proves nothing
    return all(_fits(between, multiple)) and not all(_fits(between[::-1], multiple))

def _parts_of_layers(children, holders):
    "List lists of equal length, such as `attentions` and `norms`, which may each hold one part of every layer"
    lists = [n for n,c in children.items() if type(c) is nn.ModuleList and len(c) > 1 and not is_embedding(c)]
    res = []
    for holder in holders:
        if holder not in lists: continue
        res += [n for n in lists if len(children[n]) == len(children[holder]) and without_number(n) != without_number(holder)]
    return res

def _concatenated(children, holders):
    "Return `holders` if the module after them takes as many features as all of them give together"
    if len(holders) < 2: return []
    n_outs = [widths(children[n])[1] for n in holders]
    after = list(children.values())[list(children).index(holders[-1])+1:]
    n_in = first(n for n,_ in map(widths, after) if n)
    if n_in is None or None in n_outs or takes(n_in, n_outs[-1], children[holders[-1]]): return []
    return holders if n_in == sum(n_outs) else []

def _encoders_after_decoders(children):
    "List the encoders that are declared after a decoder"
    from_decoder = list(dropwhile(lambda n: 'decoder' not in n, children))
    return [n for n in from_decoder[1:] if 'encoder' in n]
