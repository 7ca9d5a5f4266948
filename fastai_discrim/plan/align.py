"Phases of several plans, aligned by what trains in them"
__all__ = []

from functools import reduce


def what_trains(
    phase, # A `Phase`
    names:tuple, # A name for each layer group, input first
) -> str:
    "Say which groups train: 'all groups', 'head', 'rnns.2 to head', 'encoder, head'"
    groups = phase.groups
    if len(groups) == len(names): return 'all groups'
    whole = groups[-1]-groups[0] == len(groups)-1
    if whole and len(groups) > 1: return f'{names[groups[0]]} to {names[groups[-1]]}'
    return ', '.join(names[i] for i in groups)

def _common(a, b):
    "Return pairs of indices of a longest common subsequence of `a` and `b`"
    lengths = [[0]*(len(b)+1) for _ in range(len(a)+1)]
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            lengths[i][j] = lengths[i+1][j+1]+1 if a[i] == b[j] else max(lengths[i+1][j], lengths[i][j+1])
    i = j = 0
    pairs = []
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            pairs.append((i, j))
            i,j = i+1,j+1
        elif lengths[i+1][j] >= lengths[i][j+1]: i += 1
        else: j += 1
    return pairs

def _merged(a, b):
    "Return a sequence that has `a` and `b` in it, with what they share once"
    res,i,j = [],0,0
    for i_next,j_next in [*_common(a, b), (len(a), len(b))]:
        res += [*a[i:i_next], *b[j:j_next], *a[i_next:i_next+1]]
        i,j = i_next+1,j_next+1
    return res

def _places(phases, rows):
    "Return the index in `phases` for each of `rows`, None where they lack it"
    at = {j: i for i,j in _common(phases, rows)}
    return [at.get(j) for j in range(len(rows))]

def align(
    plans:list, # For each plan what trains in its phases, in order
) -> tuple: # What trains in each row, and for each plan the index of its phase in each row, None where it has no such phase
    "Put phases in which the same trains into one row, and keep the order of each plan"
    # The longest first, so that the others fit into it
    rows = reduce(_merged, sorted(plans, key=len, reverse=True))
    return rows,[_places(phases, rows) for phases in plans]
