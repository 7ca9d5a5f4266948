"Schedules of layer groups as data: gradual unfreezing (ULMFiT, section 3.3) and chain-thaw (Felbo et al. 2017)"
__all__ = []

from itertools import accumulate
from numbers import Number

from .position import ROUNDING, step_at

# ULMFiT opens the four groups below the head in 4 of 50 epochs (sections 3.3 and 4.1)
OPENING_SHARE = 4/50

def gradual(
    n_groups:int, # Number of layer groups
    epochs=1, # Epochs before each next group opens: a number, perhaps a fraction, or a list, head first; None for the paper's share
    down_to:int=0, # Index of the lowest group that ever trains
    n_epoch:float|None=None, # Epochs of the fit; needed only where `epochs` is None
) -> list: # Pairs of epochs and the groups that train in them; the last pair has the fewest epochs that it may have
    "List the phases of gradual unfreezing: the head alone, then one more group at a time from the top"
    check_down_to(down_to, n_groups)
    n_opened = n_groups-1 - down_to
    if epochs is None: epochs = min(1, OPENING_SHARE*n_epoch/max(n_opened, 1))
    lengths = [epochs]*n_opened if isinstance(epochs, Number) else list(epochs)
    if len(lengths) != n_opened:
        raise ValueError(f'epochs={lengths} has {len(lengths)} values, expected {n_opened}: one for each of {n_groups} layer groups from '
                         f'the head down to {down_to}, except for this last one, which trains to the end')
    lowest = range(n_groups-1, down_to-1, -1)
    return [(n, tuple(range(low, n_groups))) for n,low in zip([*lengths, _least(lengths)], lowest)]

def check_down_to(down_to:int, n_groups:int):
    "Raise `ValueError` unless one of `n_groups` layer groups has the index `down_to`"
    if down_to >= n_groups: raise ValueError(f'down_to={down_to}: expected at most {n_groups-1} for {n_groups} layer groups')

def chain_thaw(n_groups:int, epochs=1) -> list:
    "List the phases of chain-thaw as `gradual` does: the head alone, each other group alone from the input up, then all of them"
    alone = [n_groups-1, *range(n_groups-1)]
    return [*((epochs, (i,)) for i in alone), (_least([epochs]), tuple(range(n_groups)))]

def _least(lengths):
    "Return the fewest epochs of the phase after those of `lengths`: 1 if these are whole, else 0, as any time will do"
    return 1 if all(float(n).is_integer() for n in lengths) else 0

def with_own_steps(
    phases:list, # Pairs of epochs and groups, as from `fill`
    n_iter:int, # Steps per epoch
) -> list: # Pairs of epochs and groups, with as many epochs in all
    """Drop phases that would have no step, so that several groups open at once. The first and the last phase keep a step each, if the fit
    has two"""
    *opening,(_,all_open) = phases
    ends = list(accumulate(epochs for epochs,_ in phases))
    total = step_at(ends[-1], n_iter)
    res,start = [],0
    for end,(_,groups) in zip(ends, opening):
        # The head trains alone in the first step, and the last phase has the last step
        step = min(max(step_at(end, n_iter), 1), total-1)
        if step <= step_at(start, n_iter): continue
        if step != step_at(end, n_iter): end = step/n_iter
        res.append((end-start, groups))
        start = end
    return [*res, (ends[-1]-start, all_open)]

def fill(
    phases:list, # Pairs of epochs and groups, the last with the fewest epochs that it may have
    n_epoch:float, # Epochs of the fit
    what:str, # Name of the strategy, for the error
) -> list: # Pairs of epochs and groups, `n_epoch` epochs in all
    "Give the last phase all epochs that the others leave; raise `ValueError` if these are too few"
    *first,(least,groups) = phases
    done = sum(n for n,_ in first)
    left = n_epoch-done
    if left < least - ROUNDING or left < ROUNDING:
        n_groups = 1 + max(i for _,gs in phases for i in gs)
        raise ValueError(f'n_epoch={n_epoch}: expected {"at least" if least else "more than"} {done+least:g}, as {what} takes {done:g} '
                         f'epochs before the last of {n_groups} layer groups opens: fit for longer, give each group fewer epochs, or '
                         'have fewer groups, `learn.regroup(n_groups=...)`')
    return [*first, (left, groups)]
