"Compare plans side by side: a table of their differences, and a figure"
__all__ = ['compare_plans']

import math

import matplotlib.pyplot as plt
import pandas as pd

from .align import align, what_trains
from .plan import Plan

# Rows of the table that describe a phase, apart from the rates of its groups
PHASE_ROWS = ['phase', 'epochs', 'schedule', 'momentum', 'early stop']
NO_PHASE,NO_GROUP = 'no such phase','no such group'
# Significant digits to try in this order, until different values look different. 17 digits tell any two floats apart; `%g` shows 6
DIGITS,EPOCH_DIGITS = (3, 6, 12, 17),(6, 12, 17)
# Inches: width of a plan in the figure, height of its rates, height of the strip of one group
WIDTH,RATES_HEIGHT,STRIP_HEIGHT = 3.6,2.6,0.24

def _plan_rows(plan):
    "Return what describes a plan as a whole, by row"
    rows = {'epochs': plan.n_epoch, 'phases': len(plan.phases), 'layer groups': plan.n_groups}
    optional = {'train_bn': plan.train_bn, 'clip': plan.clip}
    return rows | {k: v for k,v in optional.items() if v is not None}

def _phase_rows(plan, i, names):
    "Return what describes phase `i` of a plan, by row. Frozen groups have no row, as the section's title says which groups train"
    phase = plan.phases[i]
    goes_on = phase.sched is None
    rows = {'phase': i+1, 'epochs': phase.epochs} | {names[g]: phase.lrs[g] for g in phase.groups}
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
    "Format a value for the table, floats with `digits` significant digits"
    if v is None: return ''
    return f'{v:.{digits}g}' if isinstance(v, float) else str(v)

def _row_text(values, digits_to_try):
    "Format the values of a row with the fewest digits that tell different values apart"
    n_different = len(set(values))
    for digits in digits_to_try:
        texts = [_as_text(v, digits) for v in values]
        if len(set(texts)) == n_different: break
    return texts

def _numbered(titles):
    "Number titles that occur more than once: 'head', 'head (2)'"
    return [t if t not in titles[:i] else f'{t} ({titles[:i].count(t)+1})' for i,t in enumerate(titles)]

def _sections(plans):
    "Return pairs of a title and, for each plan, its rows in that section; the rows are None for a plan without this phase"
    names_by_plan = [_group_names(p, plans) for p in plans]
    def _titles(plan, names): return [what_trains(phase, names) for phase in plan.phases]
    titles,indices_by_plan = align(list(map(_titles, plans, names_by_plan)))
    sections = [('all', [_plan_rows(p) for p in plans])]
    def _rows(plan, i, names): return None if i is None else _phase_rows(plan, i, names)
    for title,indices in zip(_numbered(titles), zip(*indices_by_plan)):
        sections.append((title, list(map(_rows, plans, indices, names_by_plan))))
    return sections

def _keys_in_order(rows_by_plan):
    "Return the keys of all rows, in the order of the plan that has most rows"
    longest_first = sorted((rows for rows in rows_by_plan if rows), key=len, reverse=True)
    return dict.fromkeys(key for rows in longest_first for key in rows)

def _value(rows, key):
    "Return the entry of `key` for one plan; `rows` is None for a plan without this phase"
    if rows is None: return NO_PHASE if key == 'phase' else None
    if key in rows: return rows[key]
    # In the section of a phase, any other key is the name of a layer group
    is_group = 'phase' in rows and key not in PHASE_ROWS
    return NO_GROUP if is_group else None

def _difference_table(plans):
    "Return the rows in which `plans`, by name, differ"
    table = {}
    for title,rows_by_plan in _sections(list(plans.values())):
        for key in _keys_in_order(rows_by_plan):
            values = [_value(rows, key) for rows in rows_by_plan]
            # If some plans lack a phase, the table says so and shows its length; all other rows compare only the plans that have it
            compared = values if key in ('phase', 'epochs') else [v for v,rows in zip(values, rows_by_plan) if rows]
            if len(set(compared)) > 1: table[title,key] = _row_text(values, EPOCH_DIGITS if key == 'epochs' else DIGITS)
    index = pd.MultiIndex.from_tuples(table, names=['what trains', 'what differs']) if table else None
    return pd.DataFrame(table.values(), columns=list(plans), index=index)

def _plot(plans, yscale):
    "Draw the plans side by side, all on the same scales of rates and epochs"
    n_cols = 2 if len(plans) == 4 else min(len(plans), 3)
    n_rows = math.ceil(len(plans)/n_cols)
    strips = STRIP_HEIGHT*(1 + max(p.n_groups for p in plans.values()))
    figsize = (1 + WIDTH*n_cols, n_rows*(RATES_HEIGHT+strips))
    heights = [RATES_HEIGHT, strips]*n_rows
    _,axs = plt.subplots(2*n_rows, n_cols, figsize=figsize, squeeze=False, layout='constrained', height_ratios=heights)
    longest,drawn = max(p.n_epoch for p in plans.values()),[]
    for i,(name,plan) in enumerate(plans.items()):
        row,col = divmod(i, n_cols)
        rates,training = axs[2*row:2*row+2,col]
        plan.plot(axs=(rates, training), yscale=yscale, n_epoch=longest)
        rates.set_title(name, fontsize='medium', loc='left')
        drawn.append((plan, rates))
        if not col: continue
        # The labels of the leftmost plan serve the whole row
        rates.set_ylabel('')
        training.set_title('', loc='left')
        if drawn[-2][0].names == plan.names: training.set_yticklabels([])
    for ax in axs.flat:
        if not ax.has_data(): ax.remove()
    limits = [rates.get_ylim() for _,rates in drawn]
    for _,rates in drawn: rates.set_ylim(min(low for low,_ in limits), max(high for _,high in limits))

def compare_plans(
    *plans:Plan, # Two or more plans
    show_plot:bool=True, # Draw the plans side by side?
    yscale:str='log', # 'log', or 'linear', on which a slanted triangle looks like one
    **named:Plan, # Plans by the name that the table shows
) -> pd.DataFrame: # One column per plan, one row per difference
    """Show where plans differ, phase by phase. Phases in which the same groups train share their rows, whatever their numbers are.
    Raise `ValueError` unless there are two plans or more

    >>> triangle = Plan([Phase(1, (1,), (1e-3, 1e-2)), Phase(2, (0, 1), (1e-3, 1e-2))], ['body', 'head'])
    >>> compare_plans(triangle=triangle, cosine=triangle.under(Cos()), show_plot=False)
                                             triangle       cosine
    what trains what differs
    head        schedule      STLR(cut_frac=0.1, ratio=32)  Cos(hold=0)
    all groups  schedule      STLR(cut_frac=0.1, ratio=32)  Cos(hold=0)
    """
    numbered = {f'plan {i}': p for i,p in enumerate(plans, 1)}
    twice = numbered.keys() & named.keys()
    if twice: raise ValueError(f'{sorted(twice)}: expected other names, as plans without a name are called so')
    by_name = {**numbered, **named}
    for name,plan in by_name.items():
        if not isinstance(plan, Plan):
            raise TypeError(f'{name} is a {type(plan).__name__}: expected a Plan, such as `recipes.paper_clas.plan()`')
    if len(by_name) < 2: raise ValueError(f'{len(by_name)} plan: expected two or more to compare')
    table = _difference_table(by_name)
    if show_plot: _plot(by_name, yscale)
    return table
