"How a plan shows itself: in one line, as a table, as text and as HTML"
__all__ = []

from html import escape
from textwrap import fill

import pandas as pd

from .align import what_trains

# A plan says how to raise the lowest rate where it is this many times below the highest
WIDE_SPAN = 1000
# Characters: a table whose epochs and rates are wider would not fit into a notebook's or a terminal's width; length of a line of text
WIDEST_TABLE,LINE = 72,100


def plan_counts(
    plan, # A `Plan`, as in all that follows
) -> str:
    "Say how large the plan is"
    counts = dict(epoch=plan.n_epoch, phase=len(plan.phases), group=plan.n_groups)
    return ', '.join(f'{n} {what}{"s" * (n != 1)}' for what,n in counts.items())

def plan_title(
    plan,
) -> str:
    "Say in one line what the plan is"
    title = f'Plan: {plan_counts(plan)}; peak rates'
    # What a source calls its rate need not be that of the head
    name = 'η_L' if all(p.lrs[-1] == plan.lr for p in plan.phases) else 'lr'
    if plan.lr: title += f'; {name} = {plan.lr:.4g}, {plan.lr_from}'
    if plan.body_lr: title += f'; body {plan.body_lr:.4g}, {plan.body_lr_from}'
    training = [[p.lrs[i] for i in p.groups] for p in plan.phases]
    span = max(max(lrs)/min(lrs) for lrs in training)
    if span > WIDE_SPAN: title += f'; the lowest is 1/{span:,.0f} of the highest: `min_scale`, `span` or `decay` raise it'
    if plan.passed_over: title += f'; passed over, as frozen by hand: {", ".join(plan.passed_over)}'
    if plan.train_bn is not None: title += f'; norm layers of frozen groups {"train" if plan.train_bn else "stay as they are"} (`train_bn`)'
    return title + (f'; from {plan.source}' if plan.source else '')

def _lengths(plan):
    "Return the epochs of each phase"
    whole = all(isinstance(p.epochs, int) for p in plan.phases)
    return [p.epochs if whole else f'{p.epochs:.3g}' for p in plan.phases]

def _schedule_text(p):
    "Say what a phase's schedule is"
    return ', '.join(filter(None, [str(p.sched or 'goes on'), p.moms and f'moms={p.moms}', p.early_stop and str(p.early_stop)]))

def _as_table(rows, columns):
    "Return a table with one row a phase"
    return pd.DataFrame(rows, columns=columns, index=range(1, len(rows)+1)).rename_axis('phase')

def plan_table(
    plan,
    frozen:str, # What stands where a group does not train
) -> pd.DataFrame: # One row a phase
    "Show what trains in which phase, at which peak rate"
    rows = [(epochs, *(f'{lr:.2e}' if i in p.groups else frozen for i,lr in enumerate(p.lrs)), _schedule_text(p))
            for epochs,p in zip(_lengths(plan), plan.phases)]
    return _as_table(rows, ['epochs', *plan.names, 'schedule'])

def _is_wide(plan):
    "Tell whether `plan_table` is too wide to be shown whole"
    return sum(max(len(c), len('1.00e-02')) + 2 for c in ('epochs', *plan.names)) > WIDEST_TABLE

def _range(lrs):
    "Say what the lowest and the highest rate are"
    low,high = f'{min(lrs):.2e}',f'{max(lrs):.2e}'
    return high if low == high else f'{low} to {high}'

def _narrow_table(plan):
    "Return the table of a plan with many groups: one column for what trains, one for the lowest and the highest rate of that"
    rows = [(epochs, what_trains(p, plan.names), _range([p.lrs[i] for i in p.groups]), _schedule_text(p))
            for epochs,p in zip(_lengths(plan), plan.phases)]
    return _as_table(rows, ['epochs', 'trains', 'peak rates', 'schedule'])

def _rates_text(plan):
    "Return the rate of each group, where it is the same in all phases"
    if len({p.lrs for p in plan.phases}) > 1: return 'Peak rates differ from phase to phase: `plan.table()` has all'
    return 'Peak rates: ' + ', '.join(f'{name}={lr:.2e}' for name,lr in zip(plan.names, plan.phases[0].lrs))

def plan_text(
    plan,
) -> str:
    "Show the plan in a terminal"
    if not _is_wide(plan): return f'{plan_title(plan)}\n{plan.table().to_string()}'
    rates = fill(_rates_text(plan), LINE, break_long_words=False, break_on_hyphens=False)
    return f'{plan_title(plan)}\n{_narrow_table(plan).to_string()}\n{rates}'

def plan_html(
    plan,
) -> str:
    "Show the plan in a notebook"
    wide = _is_wide(plan)
    table = (_narrow_table(plan) if wide else plan.table('<span style="opacity:.45">frozen</span>')).rename(columns=escape)
    for column in ('trains', 'schedule')[not wide:]: table[column] = table[column].map(escape)
    rates = f'<p>{escape(_rates_text(plan))}</p>' if wide else ''
    return f'<p>{escape(plan_title(plan))}</p>{table.to_html(escape=False)}{rates}'
