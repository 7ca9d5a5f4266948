"Tables and a picture of what benchmarks/text.py found: test errors in per cent, means over the seeds with 95 % intervals of Student's t"
import json
from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np
from fastcore.basics import groupby
from scipy import stats
from text_data import SETS
from vision import interval

# Howard & Ruder 2018, tables 6 and 7: validation error, %, on IMDb, TREC-6 and AG, all of each, and which of these stands beside ours
PAPER_SETS = dict(imdb2k=0, imdb10k=0, trec6=1, ag=2)
PAPER = dict(
    table6=dict(none=(6.99, 6.38, 6.09), full=(5.86, 6.54, 5.61), full_discr=(5.55, 6.36, 5.47), full_discr_stlr=(5.00, 5.69, 5.38)),
    table7=dict(full=(6.87, 6.86, 5.81), full_discr=(5.57, 6.21, 5.62), last=(6.49, 16.09, 8.38), chain_thaw=(5.39, 6.71, 5.90),
                freez=(6.37, 6.86, 5.81), freez_discr=(5.39, 5.86, 6.04), freez_stlr=(5.04, 6.02, 5.35), freez_cos=(5.70, 6.38, 5.29),
                freez_discr_stlr=(5.00, 5.69, 5.38)))
NAMES = dict(fine_tune='`fine_tune(n)`', fine_tune_found='`fine_tune(n, lr)`, lr from `lr_find`',
             fine_tune_eta='`fine_tune(n, lr)`, lr from `head_lr_find`', one_cycle='`fit_one_cycle(n)`, unfrozen',
             by_hand="the tutorial's steps", at_once='`fit_ulmfit(n, gradual=False)`', fit_ulmfit='`fit_ulmfit(n)`')
TITLES = dict(trec6='TREC-6', docstrings='docstrings', ag='AG News', imdb2k='IMDb, 2,000', imdb10k='IMDb, 10,000',
              ag1k='AG News, 1,000')
TITLES |= {f'{k}{n}': f'{title}, {n}' for n in (100, 500)
           for k,title in dict(trec='TREC-6', docstrings='docstrings', ag='AG News', imdb='IMDb').items()}
TITLES |= dict(trec6_24='TREC-6, 24 epochs', trec500_30='TREC-6, 500, 30 epochs')

def read(folder):
    "Runs by study, set, arm and seed"
    res = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for name in SETS:
        path = folder/f'text_{name}.json'
        for r in json.loads(path.read_text()) if path.exists() else []: res[r['study']][name][r['arm']][r['seed']] = r
    # The last row of table 6 is that of table 7; only TREC-6 had it run for both
    for name,arms in res.get('table6', {}).items():
        if not arms['full_discr_stlr']: arms['full_discr_stlr'] = res['table7'][name]['freez_discr_stlr']
    return res

def errors(runs):
    "Test errors of one arm, %"
    return [100*(1-r['test_accuracy']) for r in runs.values()]

def shown(xs, seeds=5, form='{:.1f} ± {:.1f}'):
    "Mean and interval, and the number of seeds where it is another"
    if not xs: return ''
    if len(xs) == 1: return f'{xs[0]:.1f} (1 seed)'
    return form.format(*interval(xs)) + (f' ({len(xs)} seeds)' if len(xs) != seeds else '')

def markdown(*rows):
    "A table, its head first"
    return '\n'.join('| ' + ' | '.join(map(str, r)) + ' |' for r in (rows[0], ('---',)*len(rows[0]), *rows[1:]))

def paired(a, b):
    "Mean of the errors of arm `a` less those of `b` in the seeds that both have, and its interval"
    xs = [100*(b[s]['test_accuracy']-a[s]['test_accuracy']) for s in a if s in b]
    return shown(xs, form='{:+.1f} ± {:.1f}') if len(xs) > 1 else ''

def apart(a, b):
    "Do the 95 % intervals of `a` and `b` overlap?"
    if min(len(a), len(b)) < 2: return ''
    (m,h),(n,k) = interval(a),interval(b)
    return 'apart' if abs(m-n) > h+k else 'overlap'

def slower(a, b):
    "How much longer `a` took than `b` in the seeds that both have"
    both = a.keys() & b.keys()
    return f'{sum(a[s]["seconds"] for s in both)/sum(b[s]["seconds"] for s in both):.2f}' if both else ''

def today(sets):
    "An arm a row, a set a column, below them differences seed by seed, and times"
    rows = [(name, *(shown(errors(s[arm])) for s in sets.values())) for arm,name in NAMES.items() if any(arm in s for s in sets.values())]
    pairs = [('fit_ulmfit', arm) for arm in NAMES if arm != 'fit_ulmfit'] + [('at_once', 'one_cycle')]
    diffs = [(f'{NAMES[a]} minus {NAMES[b]}', *(paired(s[a], s[b]) for s in sets.values())) for a,b in pairs]
    two = [(s['fit_ulmfit'], s['fine_tune']) for s in sets.values()]
    last = 'intervals of `fit_ulmfit(n)` and `fine_tune(n)`',*(apart(*map(errors, o)) for o in two)
    time = 'time of `fit_ulmfit(n)` over that of `fine_tune(n)`',*(slower(*o) for o in two)
    return markdown(('arm', *map(TITLES.get, sets)), *rows, *(d for d in diffs if any(d[1:])), last, time)

def rows_of(study, sets):
    "An arm a row, and for each set its error minus that of `full`, and the paper's figure and rank correlation, where it has the set"
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
        # Of the seeds that all rows have
        means = [np.mean(errors({k: s[arm][k] for k in seeds})) for arm in arms]
        last.append(f'{stats.spearmanr(means, theirs).statistic:.2f}')
    return markdown(*zip(*cols), last)

def parts(sets):
    "Sets with more than 500 labels, those with few, and those that are others over again with more epochs"
    def _part(k): return 'today, more epochs' if '_' in k else 'today, few labels' if SETS[k].labelled in (100, 500) else 'today'
    return {part: {k: sets[k] for k in ks} for part,ks in groupby(sets, _part).items()}

def factors(arms):
    "For each factor the rate of the lowest mean validation loss, and the test errors at that; of the seeds that all arms have"
    seeds,tried = set.intersection(*map(set, arms.values())),defaultdict(dict)
    for arm,runs in arms.items():
        factor,lr = map(float, arm.split(' at '))
        tried[factor][lr] = {s: runs[s] for s in seeds}
    def _loss(runs): return np.nan_to_num(np.mean([r['valid_loss'] for r in runs.values()]), nan=np.inf)
    best = {f: min(lrs, key=lambda lr: _loss(lrs[lr])) for f,lrs in sorted(tried.items())}
    return {f: (lr, lr in (min(tried[f]), max(tried[f])), errors(tried[f][lr])) for f,lr in best.items()} if seeds else {}

def factor(sets):
    "A factor a row, and for each set the error, and the rate that suits it, with a star where it is the lowest or highest that was tried"
    found = {name: factors(arms) for name,arms in sets.items()}
    def _cell(lr, edge, xs): return f'{shown(xs)} ({lr:g}{"*"*edge})'
    rows = [(f'{f:g}', *(_cell(*o[f]) if f in o else '' for o in found.values())) for f in sorted({f for o in found.values() for f in o})]
    return markdown(('factor', *(f'{TITLES[name]} (η_L)' for name in found)), *rows)

def near(res):
    "A rate a row, those of the study `factor` too, and the errors at the rates that `head_lr_find` gave minus its own, seed by seed"
    cols = []
    for name,arms in res['near'].items():
        arms = {k.removeprefix('2.6 at '): v for k,v in {**res['factor'][name], **arms}.items() if k.startswith('2.6 at ')}
        found = res['today'][name]['fit_ulmfit']
        lrs = [r['lr'] for r in found.values()] or [np.nan]
        cols += [(f'{TITLES[name]}: η_L', *(rates := sorted(arms, key=float)), f'{min(lrs):.3f} to {max(lrs):.3f}, found'),
                 ('error', *(shown(errors(arms[lr])) for lr in rates), shown(errors(found))),
                 ('found minus it', *(paired(found, arms[lr]) for lr in rates), '')]
    return markdown(*zip(*cols))

def tables(study, res):
    "The tables of a study by title"
    sets = res[study]
    if study == 'near': return {study: near(res)}
    if study == 'factor': return {study: factor(sets)}
    if study != 'today': return {study: rows_of(study, sets)}
    return {title: today(s) for title,s in parts(sets).items()}

def report(folder, studies):
    "The tables of `studies` as Markdown"
    res = read(folder)
    return '\n'.join(f'\n{title}: test error, %\n\n{t}' for o in studies if o in res for title,t in tables(o, res).items())

def plot(folder, file):
    "Test error of each arm of `today`, with its interval, on each set of more than 500 labels"
    sets = parts(read(folder)['today']).get('today', {})
    fig,ax = plt.subplots(figsize=(6.4, 1.3 + 0.55*len(sets)), layout='constrained')
    for i,(arm,name) in enumerate(NAMES.items()):
        at = [(y + 0.12*(i-(len(NAMES)-1)/2), *interval(errors(s[arm]))) for y,s in enumerate(sets.values()) if len(s[arm]) > 1]
        if not at: continue
        y,mean,half = zip(*at)
        ours = arm in ('fit_ulmfit', 'at_once')
        ax.errorbar(mean, y, xerr=half, fmt='o', ms=6 if ours else 4, color='k' if ours else f'C{i}', mfc='w' if arm == 'at_once' else None,
                    lw=1.5, label=name.replace('`', ''))
    ax.set(yticks=range(len(sets)), yticklabels=[TITLES[k] for k in sets], xlabel='test error, %: mean and 95 % interval', xlim=(0, None))
    ax.invert_yaxis()
    ax.grid(axis='x', alpha=.3)
    fig.legend(fontsize=7.5, loc='outside upper center', ncols=3)
    plt.savefig(file, dpi=130)
