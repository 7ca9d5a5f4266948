"Show a plan: as one line, as a table, as text and as HTML"
__all__ = []

from html import escape
from textwrap import fill

import pandas as pd

from .align import what_trains

# If the highest rate is more than this many times the lowest, the title says how to raise the lowest
WIDE_SPAN = 1000
# Characters. A table whose epochs and rates are wider is narrowed, to fit into a notebook or a terminal; lines of text are this long
WIDEST_TABLE,LINE = 72,100


def plan_counts(plan) -> str:
    "Count the epochs, phases and groups of `plan`"
    counts = dict(epoch=plan.n_epoch, phase=len(plan.phases), group=plan.n_groups)
    return ', '.join(f'{n} {what}{"s" * (n != 1)}' for what,n in counts.items())

def plan_title(plan) -> str:
    "Describe `plan` in one line"
    title = f'Plan: {plan_counts(plan)}; peak rates'
    # A recipe's `lr` may be another rate than the head's
    name = 'η_L' if all(p.lrs[-1] == plan.lr for p in plan.phases) else 'lr'
    if plan.lr: title += f'; {name} = {plan.lr:.4g}, {plan.lr_from}'
    if plan.body_lr: title += f'; body {plan.body_lr:.4g}, {plan.body_lr_from}'
    training = [[p.lrs[i] for i in p.groups] for p in plan.phases]
    span = max(max(lrs)/min(lrs) for lrs in training)
    if span > WIDE_SPAN: title += f'; the lowest is 1/{span:,.0f} of the highest: `min_scale`, `span` or `decay` raise it'
    if plan.passed_over: title += f'; passed over, as frozen by hand: {", ".join(plan.passed_over)}'
    if plan.train_bn is not None: title += f'; norm layers of frozen groups {"train" if plan.train_bn else "stay as they are"} (`train_bn`)'
    if plan.clip is not None: title += f'; gradients clipped to a norm of {plan.clip:g}'
    return title + (f'; from {plan.source}' if plan.source else '')

def _as_table(plan, columns, cells):
    "Make a table with one row per phase: its epochs, the `cells` of a phase in `columns`, and its schedule"
    whole = all(isinstance(p.epochs, int) for p in plan.phases)
    rows = [(p.epochs if whole else f'{p.epochs:.3g}', *cells(p), _schedule_text(p)) for p in plan.phases]
    return pd.DataFrame(rows, columns=['epochs', *columns, 'schedule'], index=range(1, len(rows)+1)).rename_axis('phase')

def _schedule_text(p):
    "Describe the schedule of a phase, and what may end the phase early"
    parts = [str(p.sched or 'goes on'), p.moms and f'moms={p.moms}', p.early_stop and str(p.early_stop)]
    return ', '.join(part for part in parts if part)

def plan_table(plan, frozen:str) -> pd.DataFrame:
    "Return a table of what trains in which phase, and at which peak rate; `frozen` is the text of the cells of frozen groups"
    def _rates(p): return [f'{lr:.2e}' if i in p.groups else frozen for i,lr in enumerate(p.lrs)]
    return _as_table(plan, plan.names, _rates)

def _is_wide(plan):
    "Tell whether `plan_table` is too wide to be shown whole"
    return sum(max(len(c), len('1.00e-02')) + 2 for c in ('epochs', *plan.names)) > WIDEST_TABLE

def _narrow_table(plan):
    "Return the table of a plan with many groups: one column for what trains, and one for its lowest and highest rate"
    def _cells(p):
        lrs = [p.lrs[i] for i in p.groups]
        low,high = f'{min(lrs):.2e}',f'{max(lrs):.2e}'
        return what_trains(p, plan.names),high if low == high else f'{low} to {high}'
    return _as_table(plan, ['trains', 'peak rates'], _cells)

def _rates_text(plan):
    "List the peak rate of each group, unless a rate differs from phase to phase"
    if len({p.lrs for p in plan.phases}) > 1: return 'Peak rates differ from phase to phase: `plan.table()` has all'
    return 'Peak rates: ' + ', '.join(f'{name}={lr:.2e}' for name,lr in zip(plan.names, plan.phases[0].lrs))

def plan_text(plan) -> str:
    "Return `plan` as text for a terminal"
    if not _is_wide(plan): return f'{plan_title(plan)}\n{plan.table().to_string()}'
    rates = fill(_rates_text(plan), LINE, break_long_words=False, break_on_hyphens=False)
    return f'{plan_title(plan)}\n{_narrow_table(plan).to_string()}\n{rates}'

def plan_html(plan) -> str:
    "Return `plan` as HTML for a notebook"
    wide = _is_wide(plan)
    table = (_narrow_table(plan) if wide else plan.table('<span style="opacity:.45">frozen</span>')).rename(columns=escape)
    for column in ['trains', 'schedule'] if wide else ['schedule']: table[column] = table[column].map(escape)
    rates = f'<p>{escape(_rates_text(plan))}</p>' if wide else ''
    return f'<p>{escape(plan_title(plan))}</p>{table.to_html(escape=False)}{rates}'
