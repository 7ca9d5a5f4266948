"Remove layer groups from phases if the user froze all of their parameters"
__all__ = []

from dataclasses import replace


def pass_over(
    phases:list, # Pairs of epochs and the groups that train in them, the last with the fewest epochs that it may have
    dead:tuple, # Indices of groups with nothing left to train
) -> list: # Pairs of epochs and groups
    "Remove `dead` groups, and phases that would have opened nothing else; raise `ValueError` if no phase is left"
    res = []
    for epochs,groups in phases:
        left = tuple(g for g in groups if g not in dead)
        opens_nothing = len(left) < len(groups) and (not left or res and res[-1][1] == left)
        if not opens_nothing: res.append((epochs, left))
    if not res: raise _nothing_trains('would train', {g for _,groups in phases for g in groups})
    # The last phase that remains runs to the end of the fit
    least,groups = phases[-1][0],res[-1][1]
    return [*res[:-1], (least, groups)]

def _nothing_trains(which, groups):
    "Return the error for phases in which all `groups` are frozen by hand"
    return ValueError(f'all groups that {which}, {sorted(groups)}, are frozen by hand: expected one with something to train; '
                      '`learn.unfreeze()` lets all of them train')

def pass_over_in_plan(plan, dead:tuple):
    """Remove `dead` groups from `plan`. A phase that trains no other group leaves its epochs to the phase after it, or to the phase before
    it if it is the last. Raise `ValueError` if no group is left"""
    trained = {g for p in plan.phases for g in p.groups}
    dead = trained.intersection(dead)
    if not dead: return plan
    if dead == trained: raise _nothing_trains('the plan trains', dead)
    names = [plan.names[g] for g in sorted(dead)]
    return replace(plan, phases=_without(plan.phases, dead), passed_over=(*plan.passed_over, *names))

def _without(phases, dead):
    "Return `phases` without `dead` groups; at least one group remains"
    res,dropped = [],[]
    for p in phases:
        groups = tuple(g for g in p.groups if g not in dead)
        if not groups:
            dropped.append(p)
            continue
        # If a dropped phase began the cycle that this phase continues, the cycle begins here
        begun = [d for d in dropped if d.sched is not None] if p.sched is None else []
        cycle = dict(sched=begun[-1].sched, moms=begun[-1].moms) if begun else {}
        res.append(replace(p, groups=groups, epochs=p.epochs + sum(d.epochs for d in dropped), **cycle))
        dropped = []
    return [*res[:-1], replace(res[-1], epochs=res[-1].epochs + sum(d.epochs for d in dropped))]
