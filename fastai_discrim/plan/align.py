"Align the phases of several plans by the layer groups that train in them"
__all__ = []

from functools import reduce


def what_trains(phase, names:tuple) -> str:
    "Describe which groups, by their `names`, train in a phase: 'all groups', 'head', 'rnns.2 to head', 'encoder, head'"
    groups = phase.groups
    if len(groups) == len(names): return 'all groups'
    contiguous = groups[-1]-groups[0] == len(groups)-1
    if contiguous and len(groups) > 1: return f'{names[groups[0]]} to {names[groups[-1]]}'
    return ', '.join(names[i] for i in groups)

def _common(a, b):
    "Return the index pairs of a longest common subsequence of `a` and `b`"
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
    "Merge `a` and `b` into one sequence, in which their common items appear once"
    res,i,j = [],0,0
    for i_next,j_next in [*_common(a, b), (len(a), len(b))]:
        res += [*a[i:i_next], *b[j:j_next], *a[i_next:i_next+1]]
        i,j = i_next+1,j_next+1
    return res

def align(
    plans:list, # For each plan, what trains in its phases, in order
) -> tuple: # What trains in each row, and for each plan the index of its phase in each row, None where it has no such phase
    "Put phases in which the same groups train into one row, and keep the order of each plan"
    # The longest plan comes first, so that the others fit into it
    rows = reduce(_merged, sorted(plans, key=len, reverse=True))
    indices = []
    for phases in plans:
        index_by_row = {row: i for i,row in _common(phases, rows)}
        indices.append([index_by_row.get(row) for row in range(len(rows))])
    return rows,indices
