"Find what a model declares before its body but runs after it, by widths and by whether the body takes tokens"
__all__ = []

from fastcore.basics import first
from torch import nn

from .modules import is_embedding, is_norm, own_params
from .parallel import takes, widths


def _norm_width(m):
    "Return the number of features of the norm layer `m`; None if its attributes don't tell"
    for o in m.modules():
        for attr in ('num_features', 'num_channels', 'normalized_shape'):
            v = getattr(o, attr, None)
            if v is not None: return v if isinstance(v, int) else v[-1]
    return None

def runs_late(
    m:nn.Module, # A module that is declared before the body
    after:list, # Its later siblings, in the order of declaration
    following:nn.Module, # The next of these that is no norm
    body:nn.Module, # The last part of the body
) -> bool|None: # None if this can't be known
    "Tell whether `m` runs after the body"
    if is_embedding(m): return False
    first_layer = first(o for o in following.modules() if own_params(o))
    takes_tokens = isinstance(first_layer, nn.Embedding) or any(map(is_embedding, after))
    n_next,n_body = widths(following)[0],widths(body)[1]
    if is_norm(m):
        n = _norm_width(m)
        # A norm after the embedding has the width of the body, too
        if takes_tokens: return None if n == n_body else False
        return None not in (n_next, n_body) and n_next != n == n_body
    n_in,n_out = widths(m)
    if n_in is None: return False
    takes_body = n_body is not None and takes(n_in, n_body, body)
    # `m` gives numbers, so it can't run before a module that takes tokens
    if takes_tokens: return True if takes_body else None
    return takes_body and n_next is not None and not takes(n_next, n_out, m)
