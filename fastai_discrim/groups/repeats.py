"The blocks of a model: the modules that it repeats"
__all__ = []

from collections import Counter, namedtuple

from torch import nn

from .modules import children_with_params, is_head_name, is_norm, is_plain_list, without_number
from .parallel import is_parallel

Member = namedtuple('Member', 'name module parent')

def repeated_blocks(
    m:nn.Module, # A model or a part of one
) -> set: # Modules
    "Collect the blocks of `m`, the modules that it has many of; what repeats inside a block is part of that block"
    members = [o for o in _members(m) if _may_be_block(o.module)]
    count = Counter(map(_kind, members))
    blocks = set()
    for o in members:
        if count[_kind(o)] >= _least(o.parent) and not _is_stage(o.module): blocks.add(o.module)
        else: blocks |= repeated_blocks(o.module)
    return blocks

def _members(m):
    "Give the children of `m` and the members of lists among them; what is in a head belongs to the head"
    for name,c in children_with_params(m).items():
        if is_head_name(name): continue
        if is_plain_list(c) and not is_parallel(c): yield from _members(c)
        else: yield Member(name, c, m)

def _may_be_block(m):
    "Tell whether `m` is more than a single layer, a list or a norm"
    return not is_plain_list(m) and bool(children_with_params(m)) and not is_norm(m)

def _kind(o):
    "Return what repeats of `o` have in common: the class, and for an attribute the name too"
    return type(o.module) if is_plain_list(o.parent) else (type(o.module), without_number(o.name))

def _least(parent):
    "Return how many of a kind make it a block, by where they are"
    if isinstance(parent, nn.ModuleList): return 1
    # Two attributes may be an encoder and a decoder
    return 2 if is_plain_list(parent) else 3

def _is_stage(m):
    "Tell whether `m` holds blocks, and is none, however often it is repeated"
    return 'stage' in type(m).__name__.lower()
