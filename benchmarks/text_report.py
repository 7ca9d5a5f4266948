"Report the results of benchmarks/text.py as tables: test errors in per cent, means over the seeds with 95 % t-intervals"
import json
from collections import defaultdict

import numpy as np
from scipy import stats
from text_data import SETS
from vision import interval

# Howard & Ruder 2018, tables 6 and 7: validation error, %, on the whole of IMDb, TREC-6 and AG; and the paper's column for our sets
PAPER_SETS = dict(imdb2k=0, imdb10k=0, trec6=1, ag=2)
PAPER = dict(
    table6=dict(none=(6.99, 6.38, 6.09), full=(5.86, 6.54, 5.61), full_discr=(5.55, 6.36, 5.47), full_discr_stlr=(5.00, 5.69, 5.38)),
    table7=dict(full=(6.87, 6.86, 5.81), full_discr=(5.57, 6.21, 5.62), last=(6.49, 16.09, 8.38), chain_thaw=(5.39, 6.71, 5.90),
                freez=(6.37, 6.86, 5.81), freez_discr=(5.39, 5.86, 6.04), freez_stlr=(5.04, 6.02, 5.35), freez_cos=(5.70, 6.38, 5.29),
                freez_discr_stlr=(5.00, 5.69, 5.38)))
TITLES = dict(trec6='TREC-6', docstrings='docstrings', ag='AG News', imdb2k='IMDb, 2,000', imdb10k='IMDb, 10,000',
              ag1k='AG News, 1,000')
TITLES |= {f'{k}{n}': f'{title}, {n}' for n in (100, 500)
           for k,title in dict(trec='TREC-6', docstrings='docstrings', ag='AG News', imdb='IMDb').items()}

def read(folder):
    "Read the runs by study, set, arm and seed"
    res = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for name in SETS:
        path = folder/f'text_{name}.json'
        for r in json.loads(path.read_text()) if path.exists() else []: res[r['study']][name][r['arm']][r['seed']] = r
    # The last row of table 6 is also in table 7; only on TREC-6 was it run for both
    for name,arms in res.get('table6', {}).items():
        if not arms['full_discr_stlr']: arms['full_discr_stlr'] = res['table7'][name]['freez_discr_stlr']
    return res

def errors(runs):
    "List the test errors of one arm in %"
    return [100*(1-r['test_accuracy']) for r in runs.values()]

def shown(xs, seeds=5, form='{:.1f} ± {:.1f}'):
    "Format mean and interval, and the number of seeds if it isn't `seeds`"
    if not xs: return ''
    if len(xs) == 1: return f'{xs[0]:.1f} (1 seed)'
    return form.format(*interval(xs)) + (f' ({len(xs)} seeds)' if len(xs) != seeds else '')

def markdown(*rows):
    "Make a table in Markdown; the first row is its head"
    return '\n'.join('| ' + ' | '.join(map(str, r)) + ' |' for r in (rows[0], ('---',)*len(rows[0]), *rows[1:]))

def paired(a, b):
    "Format the mean difference of the errors of arm `a` from those of `b`, for the seeds that both have, and its interval"
    xs = [100*(b[s]['test_accuracy']-a[s]['test_accuracy']) for s in a if s in b]
    return shown(xs, form='{:+.1f} ± {:.1f}') if len(xs) > 1 else ''

def rows_of(study, sets):
    "Make a table with one row for each arm: for each set its error, its error minus that of `full`, and the paper's error if there is one"
    arms = list(PAPER[study])
    cols,last = [('row', *arms)],['rank correlation with the paper']
    for name,s in sets.items():
        ours = [errors(s[arm]) for arm in arms]
        cols += [(TITLES[name], *map(shown, ours)), ('minus full', *(paired(s[arm], s['full']) if arm != 'full' else '' for arm in arms))]
        last += ['', '']
        theirs = [PAPER[study][arm][PAPER_SETS[name]] for arm in arms] if name in PAPER_SETS else None
        seeds = set.intersection(*(set(s[arm]) for arm in arms))
        if theirs is None or not seeds: continue
        cols.append((f'paper: all of {SETS[name].texts}, validation', *(f'{e:.2f}' for e in theirs)))
        # Use the seeds that all rows have
        means = [np.mean(errors({k: s[arm][k] for k in seeds})) for arm in arms]
        last.append(f'{stats.spearmanr(means, theirs).statistic:.2f}')
    return markdown(*zip(*cols), last)

def factors(arms):
    "Find the rate with the lowest mean validation loss for each factor, and the test errors at that rate, for the seeds that all arms have"
    seeds,tried = set.intersection(*map(set, arms.values())),defaultdict(dict)
    for arm,runs in arms.items():
        factor,lr = map(float, arm.split(' at '))
        tried[factor][lr] = {s: runs[s] for s in seeds}
    def _loss(runs): return np.nan_to_num(np.mean([r['valid_loss'] for r in runs.values()]), nan=np.inf)
    best = {f: min(lrs, key=lambda lr: _loss(lrs[lr])) for f,lrs in sorted(tried.items())}
    return {f: (lr, lr in (min(tried[f]), max(tried[f])), errors(tried[f][lr])) for f,lr in best.items()} if seeds else {}

def factor(sets):
    "Make a table with one row for each factor: for each set the error and the best rate, with a star if it is the lowest or highest"
    found = {name: factors(arms) for name,arms in sets.items()}
    def _cell(lr, edge, xs): return f'{shown(xs)} ({lr:g}{"*"*edge})'
    rows = [(f'{f:g}', *(_cell(*o[f]) if f in o else '' for o in found.values())) for f in sorted({f for o in found.values() for f in o})]
    return markdown(('factor', *(f'{TITLES[name]} (η_L)' for name in found)), *rows)

def tables(study, res):
    "Make the table of a study"
    return factor(res[study]) if study == 'factor' else rows_of(study, res[study])

def report(folder, studies):
    "Make the tables of `studies` as Markdown"
    res = read(folder)
    return '\n'.join(f'\n{o}: test error, %\n\n{tables(o, res)}' for o in studies if o in res)
