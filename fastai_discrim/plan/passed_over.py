"Layer groups with nothing left to train, as the user froze all of their parameters: phases pass them over"
__all__ = []

from dataclasses import replace


def pass_over(
    phases:list, # Pairs of epochs and the groups that train in them, the last with the fewest epochs that it may have
    dead:tuple, # Indices of groups with nothing left to train
) -> list: # Such pairs
    "Leave out `dead` groups, and phases that only they would have begun"
    res = []
    for epochs,groups in phases:
        left = tuple(g for g in groups if g not in dead)
        opens_nothing = len(left) < len(groups) and (not left or res and res[-1][1] == left)
        if not opens_nothing: res.append((epochs, left))
    # The last phase has what is left of the fit, whichever it is
    least,groups = phases[-1][0],res[-1][1]
    return [*res[:-1], (least, groups)]

def pass_over_in_plan(
    plan, # A `Plan`
    dead:tuple, # Indices of groups with nothing left to train, not all of them
): # A `Plan`
    "Leave out `dead` groups; a phase of such groups alone leaves its time to the phase after it, the last to the one before"
    if dead := set(dead) & {g for p in plan.phases for g in p.groups}:
        names = [plan.names[g] for g in sorted(dead)]
        return replace(plan, phases=_without(plan.phases, dead), passed_over=(*plan.passed_over, *names))
    return plan

def _without(phases, dead):
    "Return `phases` without `dead` groups"
    res,waiting = [],[]
    for p in phases:
        groups = tuple(g for g in p.groups if g not in dead)
        if not groups:
            waiting.append(p)
            continue
        # A cycle that went on from a phase that is gone begins here
        begun = [w for w in waiting if w.sched is not None] if p.sched is None else []
        cycle = dict(sched=begun[-1].sched, moms=begun[-1].moms) if begun else {}
        res.append(replace(p, groups=groups, epochs=p.epochs + sum(w.epochs for w in waiting), **cycle))
        waiting = []
    if not res: raise ValueError(f'all groups that the plan trains, {sorted(dead)}, are frozen by hand: expected one with something to '
                                 'train; `learn.unfreeze()` lets all of them train')
    return [*res[:-1], replace(res[-1], epochs=res[-1].epochs + sum(w.epochs for w in waiting))]
