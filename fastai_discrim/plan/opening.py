"Which layer groups train when: gradual unfreezing (ULMFiT, section 3.3) and chain-thaw (Felbo et al. 2017), as data"
__all__ = []

from itertools import accumulate
from numbers import Number

from .position import step_at

# ULMFiT opens the four groups below the head in 4 of 50 epochs (sections 3.3 and 4.1)
OPENING_SHARE = 4/50
# A fit of whole epochs, but for rounding
WHOLE = 1e-6

def gradual(
    n_groups:int, # Number of layer groups
    epochs=1, # Epochs before each next group opens: a number, perhaps a fraction, or a list, head first; None for the paper's share
    down_to:int=0, # The lowest group that ever trains
    n_epoch:float|None=None, # Epochs of the fit, which the paper's share is of
) -> list: # Pairs of epochs and the groups that train in them; the last pair's epochs are the fewest it may have
    "List the phases of gradual unfreezing: the head alone, then one more group at a time from the top"
    before = n_groups-1 - down_to
    if before < 0: raise ValueError(f'down_to={down_to}: expected at most {n_groups-1} for {n_groups} layer groups')
    if epochs is None: epochs = min(1, OPENING_SHARE*n_epoch/max(before, 1))
    lengths = [epochs]*before if isinstance(epochs, Number) else list(epochs)
    if len(lengths) != before:
        raise ValueError(f'epochs={lengths} has {len(lengths)} values, expected {before}: one for each of {n_groups} layer groups from '
                         f'the head down to {down_to}, but for this last one, which trains to the end')
    lowest = range(n_groups-1, down_to-1, -1)
    return [(n, tuple(range(low, n_groups))) for n,low in zip([*lengths, _least(lengths)], lowest)]

def chain_thaw(
    n_groups:int, # Number of layer groups
    epochs=1, # Epochs for each group, which may be fractional
) -> list: # As `gradual` gives it
    "List the phases of chain-thaw: the head alone, each other group alone from the input up, then all of them"
    head,body = (n_groups-1,),[(i,) for i in range(n_groups-1)]
    return [*((epochs, groups) for groups in (head, *body)), (_least([epochs]), tuple(range(n_groups)))]

def _least(lengths):
    "Return the fewest epochs of the phase after those of `lengths`: one where these are whole, any time at all where they are not"
    return 1 if all(float(n).is_integer() for n in lengths) else 0

def _moved_into(end, n_iter, low, high):
    "Return the end of a phase, in epochs, moved no further than it takes to lie between two steps"
    step = min(max(step_at(end, n_iter), low), high)
    return end if step == step_at(end, n_iter) else step/n_iter

def with_own_steps(
    phases:list, # Pairs of epochs and groups, as `fill` gives them
    n_iter:int, # Steps an epoch
) -> list: # Pairs of epochs and groups, as many epochs in all
    """Open several groups at once where the fit has fewer steps for its opening than groups; the first and the last phase have a step, if
    there are two"""
    ends = list(accumulate(epochs for epochs,_ in phases))
    total = step_at(ends[-1], n_iter)
    # The head has the first step, and all groups the last
    if total > 1: ends[:-1] = [_moved_into(end, n_iter, 1, total-1) for end in ends[:-1]]
    steps = [0, *(step_at(end, n_iter) for end in ends)]
    last = len(phases)-1
    kept = [i for i in range(last) if steps[i] < steps[i+1] < steps[-1]] + [last]
    starts = [0, *(ends[i] for i in kept[:-1])]
    return [(ends[i]-start, phases[i][1]) for i,start in zip(kept, starts)]

def fill(
    phases:list, # Pairs of epochs and groups, the last with the fewest epochs that it may have
    n_epoch:float, # Epochs of the fit
    what:str, # Who says so, for the error message
) -> list: # Pairs of epochs and groups, `n_epoch` epochs in all
    "Give the last phase all the epochs that the others leave; raise `ValueError` if these are too few"
    *first,(least,groups) = phases
    done = sum(n for n,_ in first)
    left = n_epoch-done
    if left < least - WHOLE or left < WHOLE:
        n_groups = 1 + max(i for _,gs in phases for i in gs)
        raise ValueError(f'n_epoch={n_epoch}: expected {"at least" if least else "more than"} {done+least:g}, as {what} takes {done:g} '
                         f'epochs before the last of {n_groups} layer groups opens: fit for longer, give each group fewer epochs, or '
                         'have fewer groups, `learn.regroup(n_groups=...)`')
    return [*first, (left, groups)]
