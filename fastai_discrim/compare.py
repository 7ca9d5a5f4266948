"Plans side by side: where they differ, as a table and as a figure"
__all__ = ['compare_plans']

import matplotlib.pyplot as plt
import pandas as pd

from .plan import Plan


def _facts(plan, names):
    "All that a plan says, by (where, what)"
    res = {('all', 'epochs'): plan.n_epoch, ('all', 'phases'): len(plan.phases), ('all', 'layer groups'): plan.n_groups}
    if plan.train_bn is not None: res['all','train_bn'] = plan.train_bn
    for k,p in enumerate(plan.phases, 1):
        res[f'phase {k}','epochs'] = p.epochs
        for i,(name,lr) in enumerate(zip(names, p.lrs)): res[f'phase {k}',name] = lr if i in p.groups else 'frozen'
        res[f'phase {k}','schedule'] = p.sched or 'goes on'
        res[f'phase {k}','momentum'] = p.moms or ('goes on' if p.sched is None else "the learner's")
        if p.ends: res[f'phase {k}','ends'] = p.ends
    return res

def _names(plan, plans):
    "What the groups of `plan` are called: as in the first of `plans` that has as many, and by nothing that is called so already"
    names = next(p.names for p in sorted(plans, key=lambda p: p.names == _unnamed(p)) if p.n_groups == plan.n_groups)
    clash = len(set(names)) < len(names) or {'epochs', 'schedule', 'momentum', 'ends'} & set(names)
    return [f'{i} {n}' for i,n in enumerate(names)] if clash else names

def _unnamed(plan): return tuple(map(str, range(plan.n_groups)))

def _shown(values):
    "`values` as text, in which what differs looks different"
    def _text(v, digits): return '' if v is None else f'{v:.{digits}g}' if isinstance(v, float) else str(v)
    return next(t for d in (3, 6, 12, 17) if len(set(t := [_text(v, d) for v in values])) == len(set(values)) or d == 17)

def _order(facts):
    "The keys of all `facts`, phase by phase; within one, in the order of the plan that says most"
    keys = list(dict.fromkeys(k for f in sorted(facts, key=len, reverse=True) for k in f))
    return sorted(keys, key=lambda k: 0 if k[0] == 'all' else int(k[0].split()[1]))

def _plot(plans):
    cols,height = 2 if len(plans) == 4 else min(len(plans), 3),1 + max(p.n_groups for p in plans.values())
    rows = -(-len(plans)//cols)
    fig,axs = plt.subplots(2*rows, cols, figsize=(1 + 3.6*cols, rows*(2.6 + 0.24*height)), squeeze=False, layout='constrained',
                           height_ratios=[10, height]*rows)
    for i,(name,plan) in enumerate(plans.items()):
        rates,spans = axs[i//cols*2:i//cols*2+2,i%cols]
        plan.plot(axs=(rates, spans))
        rates.set_title(name)
        rates.set_xlim(spans.get_xlim())
        if i%cols: rates.set_ylabel('')
    for ax in [a for a in axs.flat if not a.has_data()]: ax.remove()
    tops = [a for a in axs[::2].flat if a.lines]
    low,high = zip(*(a.get_ylim() for a in tops))
    for ax in tops: ax.set_ylim(min(low), max(high))

def compare_plans(
    *plans:Plan, # Two or more
    show_plot:bool=True, # Draw them side by side?
    **named:Plan, # Plans with a name for each
) -> pd.DataFrame: # One column a plan, one row for each thing in which they differ
    "Where plans differ; what frozen groups would have had as a rate is left out"
    numbered = {f'plan {i}': p for i,p in enumerate(plans, 1)}
    if both := numbered.keys() & named.keys(): raise ValueError(f'{sorted(both)}: expected other names, as those without one get these')
    plans = {**numbered, **named}
    for k,p in plans.items():
        if not isinstance(p, Plan): raise TypeError(f'{k} is a {type(p).__name__}: expected a Plan, such as `recipes.paper_clas.plan()`')
    if len(plans) < 2: raise ValueError(f'{len(plans)} plan: expected two or more to compare')
    facts = {k: _facts(p, _names(p, plans.values())) for k,p in plans.items()}
    rows = {key: [f.get(key) for f in facts.values()] for key in _order(facts.values())}
    rows = {key: _shown(v) for key,v in rows.items() if len(set(v)) > 1}
    if show_plot: _plot(plans)
    index = pd.MultiIndex.from_tuples(rows, names=['where', 'what']) if rows else None
    return pd.DataFrame(rows.values(), columns=list(plans), index=index)
