"Plans side by side: where they differ, as a table and as a figure"
__all__ = ['compare_plans']

import math

import matplotlib.pyplot as plt
import pandas as pd

from .plan import Plan

# What the table says of a phase beside the rates of its groups
PHASE_ROWS = ['epochs', 'schedule', 'momentum', 'early stop']
# Significant digits, tried in order until values that differ look different. 17 tell any two floats apart; `%g` shows 6
DIGITS,EPOCH_DIGITS = (3, 6, 12, 17),(6, 12, 17)

def _rows(plan, names):
    "Return all that a plan says, by (where, what)"
    rows = {('all', 'epochs'): plan.n_epoch, ('all', 'phases'): len(plan.phases), ('all', 'layer groups'): plan.n_groups}
    if plan.train_bn is not None: rows['all','train_bn'] = plan.train_bn
    for i,phase in enumerate(plan.phases, 1): rows |= {(f'phase {i}', what): v for what,v in _phase_rows(phase, names).items()}
    return rows

def _phase_rows(phase, names):
    "Return all that a phase says, by name"
    goes_on = phase.sched is None
    rows = {'epochs': phase.epochs}
    for i,(name,lr) in enumerate(zip(names, phase.lrs)): rows[name] = lr if i in phase.groups else 'frozen'
    rows['schedule'] = 'goes on' if goes_on else phase.sched
    rows['momentum'] = phase.moms or ('goes on' if goes_on else "the learner's")
    if phase.early_stop: rows['early stop'] = phase.early_stop
    return rows

def _group_names(plan, plans):
    "Return names for the groups of `plan`: those of the first of `plans` that has as many groups and names for them"
    numbers = tuple(str(i) for i in range(plan.n_groups))
    named = [p.names for p in plans if p.n_groups == plan.n_groups and p.names != numbers]
    names = named[0] if named else numbers
    clash = len(set(names)) < len(names) or set(names) & set(PHASE_ROWS)
    return [f'{i} {name}' for i,name in enumerate(names)] if clash else names

def _as_text(v, digits):
    "Return a value as the table shows it, floats with `digits` significant digits"
    if v is None: return ''
    return f'{v:.{digits}g}' if isinstance(v, float) else str(v)

def _row_text(values, digits_to_try):
    "Return the values of a row as text, with as few digits as let those that differ look different"
    n_different = len(set(values))
    for digits in digits_to_try:
        texts = [_as_text(v, digits) for v in values]
        if len(set(texts)) == n_different: break
    return texts

def _keys_in_order(rows_by_plan):
    "Return the keys of all rows, phase by phase; within a phase in the order of the plan that has most"
    longest_first = sorted(rows_by_plan, key=len, reverse=True)
    keys = dict.fromkeys(key for rows in longest_first for key in rows)
    def _phase(key): return 0 if key[0] == 'all' else int(key[0].removeprefix('phase '))
    return sorted(keys, key=_phase)

def _difference_table(plans):
    "Return the rows in which `plans`, by name, differ"
    rows_by_plan = [_rows(p, _group_names(p, plans.values())) for p in plans.values()]
    table = {}
    for key in _keys_in_order(rows_by_plan):
        values = [rows.get(key) for rows in rows_by_plan]
        if len(set(values)) > 1: table[key] = _row_text(values, EPOCH_DIGITS if key[1] == 'epochs' else DIGITS)
    index = pd.MultiIndex.from_tuples(table, names=['where', 'what']) if table else None
    return pd.DataFrame(table.values(), columns=list(plans), index=index)

def _plot(plans):
    "Draw the plans side by side, their rates on one scale"
    n_cols = 2 if len(plans) == 4 else min(len(plans), 3)
    n_rows = math.ceil(len(plans)/n_cols)
    # Of the strips that show what trains, beside 10 for the rates
    strips = 1 + max(p.n_groups for p in plans.values())
    figsize = (1 + 3.6*n_cols, n_rows*(2.6 + 0.24*strips))
    fig,axs = plt.subplots(2*n_rows, n_cols, figsize=figsize, squeeze=False, layout='constrained', height_ratios=[10, strips]*n_rows)
    for i,(name,plan) in enumerate(plans.items()):
        row,col = divmod(i, n_cols)
        rates,training = axs[2*row,col],axs[2*row+1,col]
        plan.plot(axs=(rates, training))
        rates.set_title(name)
        rates.set_xlim(training.get_xlim())
        if col: rates.set_ylabel('')
    for ax in axs.flat:
        if not ax.has_data(): ax.remove()
    used = [ax for ax in axs[::2].flat if ax.lines]
    limits = [ax.get_ylim() for ax in used]
    for ax in used: ax.set_ylim(min(low for low,_ in limits), max(high for _,high in limits))

def compare_plans(
    *plans:Plan, # Two or more
    show_plot:bool=True, # Draw them side by side?
    **named:Plan, # Plans with a name for each
) -> pd.DataFrame: # One column a plan, one row for each thing in which they differ
    "Show where plans differ; the rates of frozen groups are left out. Raises unless there are two plans or more"
    numbered = {f'plan {i}': p for i,p in enumerate(plans, 1)}
    twice = numbered.keys() & named.keys()
    if twice: raise ValueError(f'{sorted(twice)}: expected other names, as those without one get these')
    plans = {**numbered, **named}
    for name,plan in plans.items():
        if not isinstance(plan, Plan):
            raise TypeError(f'{name} is a {type(plan).__name__}: expected a Plan, such as `recipes.paper_clas.plan()`')
    if len(plans) < 2: raise ValueError(f'{len(plans)} plan: expected two or more to compare')
    table = _difference_table(plans)
    if show_plot: _plot(plans)
    return table
