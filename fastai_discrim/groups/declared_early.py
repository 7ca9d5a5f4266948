"What a model declares before its body and runs after it, told by widths, and by whether the body takes tokens"
__all__ = []

from fastcore.basics import first
from torch import nn

from .modules import is_embedding, is_norm, own_params
from .parallel import takes, widths


def _takes_tokens(m):
    "Tell whether `m` begins with an embedding"
    return isinstance(first(o for o in m.modules() if own_params(o)), nn.Embedding)

def _norm_width(m):
    "Return how many features the norm layer `m` has; None if it doesn't say so"
    for o in m.modules():
        for v in (getattr(o, a, None) for a in ('num_features', 'num_channels', 'normalized_shape')):
            if v is not None: return v if isinstance(v, int) else v[-1]
    return None

def runs_late(
    m:nn.Module, # What is declared before the body
    after:list, # What is declared after it: children of the same module, in order
    following:nn.Module, # The next of these, norms aside
    body:nn.Module, # The last part of the body
) -> bool|None: # None if it can't be known
    "Tell whether `m` runs after the body"
    if is_embedding(m): return False
    tokens,(n_next,_),(_,n_body) = _takes_tokens(following) or any(map(is_embedding, after)),widths(following),widths(body)
    if is_norm(m):
        # One for what an embedding gives is as wide as the last one
        if tokens: return None if _norm_width(m) == n_body else False
        return n_next is not None and n_body is not None and n_next != _norm_width(m) == n_body
    n_in,n_out = widths(m)
    if n_in is None: return False
    takes_body = n_body is not None and takes(n_in, n_body, body)
    # What gives numbers can't come before what takes tokens
    if tokens: return True if takes_body else None
    return takes_body and n_next is not None and not takes(n_next, n_out, m)
