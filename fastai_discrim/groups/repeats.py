"Find the blocks of a model: the modules that it repeats"
__all__ = []

from collections import Counter, namedtuple

from torch import nn

from .modules import children_with_params, is_head_name, is_norm, is_plain_list, without_number
from .parallel import is_parallel

Member = namedtuple('Member', 'name module parent')

def repeated_blocks(m:nn.Module) -> set:
    "Return the blocks of `m`, the modules that it has several of; modules that repeat inside a block are part of it"
    members = [o for o in _members(m) if _may_be_block(o.module)]
    count = Counter(map(_kind, members))
    blocks = set()
    for o in members:
        # A stage holds blocks, but is no block, however often it is repeated
        is_stage = 'stage' in type(o.module).__name__.lower()
        if count[_kind(o)] >= _min_count(o.parent) and not is_stage: blocks.add(o.module)
        else: blocks |= repeated_blocks(o.module)
    return blocks

def _members(m):
    "Yield the children of `m`, with the members of a list instead of the list; leave out heads"
    for name,c in children_with_params(m).items():
        if is_head_name(name): continue
        if is_plain_list(c) and not is_parallel(c): yield from _members(c)
        else: yield Member(name, c, m)

def _may_be_block(m):
    "Tell whether `m` is neither a single layer nor a list nor a norm"
    return not is_plain_list(m) and bool(children_with_params(m)) and not is_norm(m)

def _kind(o):
    "Return what repeated modules have in common: the class, and outside of lists also the name without number"
    return type(o.module) if is_plain_list(o.parent) else (type(o.module), without_number(o.name))

def _min_count(parent):
    "Return how many modules of a kind in `parent` make them blocks"
    if isinstance(parent, nn.ModuleList): return 1
    # Two attributes of one kind may be an encoder and a decoder
    return 2 if is_plain_list(parent) else 3
