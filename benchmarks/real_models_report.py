"Report the results of benchmarks/real_models.py as tables and a plot: test errors in %, means over the seeds with 95 % t-intervals"
import json
from collections import defaultdict
from hashlib import sha256

import matplotlib.pyplot as plt
import numpy as np
import sentences
from real_models_data import CELLS, SHORT
from text_report import markdown, shown
from vision import interval

MODELS = dict(awd='AWD-LSTM', minilm='MiniLM-L6', lite0='EfficientNet-Lite0')
DATA = dict(trec6='TREC-6', docstrings='docstrings', ag='AG News', imdb='IMDb', cifar10='CIFAR-10', digits='digits', **sentences.NAMES)
# Names of the arms; an arm that isn't here is shown by its key
NAMES = dict(floor='tf-idf, logistic regression', floor_whole='tf-idf, logistic regression, of whole texts',
             scratch='from scratch', fine_tune='`fine_tune(n-1)`', one_cycle='`fit_one_cycle(n)`, unfrozen',
             fine_tune_found="`fine_tune(n-1, lr)`, `lr_find`'s",
             one_cycle_found="`fit_one_cycle(n, lr)`, unfrozen, `lr_find`'s",
             fine_tune_debiased='`fine_tune(n-1, cbs=DebiasBatchNorm)`',
             one_cycle_debiased='`fit_one_cycle(n, cbs=DebiasBatchNorm)`, unfrozen',
             adamw_best='AdamW, best of five by validation loss', ulmfit='`fit_ulmfit(n)`', ulmfit_at_once='`fit_ulmfit(n, gradual=False)`',
             ulmfit_papers_body='`fit_ulmfit(n)`, the body at η_L / 2.6', ulmfit_unclipped='`fit_ulmfit(n, clip=inf)`')
NAMES |= {f'adamw_{lr}': f'AdamW at {lr}' for lr in ('2e-5', '5e-5', '1e-4', '2e-4', '5e-4')}
# Arms that cost one run and need only a number of epochs; and the error below chance level from which a run counts as having learnt
ONE_LINERS,MARGIN = ('fine_tune', 'one_cycle', 'fine_tune_found', 'one_cycle_found', 'adamw_5e-5'),0.1
N_RATES = 5
# Arms that train no network
FLOORS = 'floor','floor_whole'

def read_lines(path) -> list:
    "Read the runs of one cell, without lines that were cut short"
    res = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try: res.append(json.loads(line))
        except json.JSONDecodeError: print(f'{path}: a line is not whole, and its run is not there')
    return res

def best_of(arms) -> dict:
    "Choose the AdamW run with the lowest validation loss for each seed that all rates have"
    tried = [runs for arm,runs in arms.items() if arm.startswith('adamw_')]
    if len(tried) < N_RATES: return {}
    seeds = set.intersection(*map(set, tried))
    return {s: min((o[s] for o in tried), key=lambda r: np.nan_to_num(r['valid_loss'], nan=np.inf)) for s in sorted(seeds)}

def read(folder) -> dict:
    "Read all runs by cell, arm and seed, and add an arm for the best of AdamW's rates"
    res = {}
    for cell in CELLS:
        arms = defaultdict(dict)
        for r in read_lines(folder/f'{cell}.jsonl'): arms[r['arm']][r['seed']] = r
        if best := best_of(arms): arms['adamw_best'] = best
        if arms: res[cell] = dict(arms)
    return res

def errors(runs) -> list:
    "List the test errors of one arm in %, in order of the seeds"
    return [100*runs[s]['test_error'] for s in sorted(runs)]

def minus(a, b) -> list:
    "List the errors of arm `a` minus those of `b`, for the seeds that both have"
    return [100*(a[s]['test_error']-b[s]['test_error']) for s in sorted(a) if s in b]

def relative(a, b) -> float:
    "Return by how many per cent the mean error of `a` differs from that of `b`, for the seeds that both have"
    both = a.keys() & b.keys()
    if not both: return np.nan
    mine,other = (np.mean([o[s]['test_error'] for s in both]) for o in (a, b))
    return 100*(mine/other-1) if other > 0 else np.nan

def beyond_chance(diffs) -> bool:
    "Tell whether the 95 % interval of the mean difference is above 0"
    if len(diffs) < 2: return False
    mean,half = interval(diffs)
    return bool(mean > half)

def collapsed(arm, arms) -> int:
    "Count the runs of `arm` that ended at chance level, although another arm of the cell learnt"
    limits = [r['chance']-MARGIN for runs in arms.values() for r in runs.values() if 'chance' in r]
    if not limits: return 0
    learnt = any(np.mean(errors(runs)) < 100*limits[0] for k,runs in arms.items() if k != arm)
    return learnt*sum(r['test_error'] > limits[0] for r in arms[arm].values())

def title(cell) -> str:
    c = CELLS[cell]
    return f'{DATA[c.data]}, {c.labels or "all"}' + ' a class'*(c.model == 'lite0')

def order(res) -> list:
    "List the arms that have results: the known ones first, the package's last"
    known = [*FLOORS, 'scratch', *ONE_LINERS[:4]]
    there = list(dict.fromkeys(arm for arms in res.values() for arm in arms))
    ours = [o for o in there if o.startswith('ulmfit')]
    return [o for o in known if o in there] + [o for o in there if o not in known+ours] + ours

def tables(res) -> list:
    "Make a table of errors, a table of differences and a table of relative errors for each model"
    parts = []
    for model,name in MODELS.items():
        cells = {k: v for k,v in res.items() if CELLS[k].model == model}
        if not cells: continue
        arms,head = order(cells),list(map(title, cells))
        def _rows(f, arms, cells=cells): return [(NAMES.get(o, o), *(f(c[o], c) if o in c else '' for c in cells.values())) for o in arms]
        def _minus(runs, c): return signed(minus(runs, c.get('fine_tune', {})))
        def _relative(runs, c): return f'{relative(runs, c.get("fine_tune", {})):+.0f} %'.replace('+nan %', '')
        others = [o for o in arms if o != 'fine_tune']
        parts += [f'{name}: test error, %', markdown(('arm', *head), *_rows(lambda runs, _: shown(errors(runs)) + lost(runs), arms)),
                  f'{name}: minus `fine_tune(n-1)`, seed by seed', markdown(('arm', *head), *_rows(_minus, others)),
                  f'{name}: error relative to that of `fine_tune(n-1)`', markdown(('arm', *head), *_rows(_relative, others))]
    return parts

def signed(diffs) -> str:
    "Format differences with their sign, and the difference of a single seed without an interval"
    return f'{diffs[0]:+.1f} (1 seed)' if len(diffs) == 1 else shown(diffs, form='{:+.1f} ± {:.1f}')

def lost(runs) -> str:
    "Format the number of runs that diverged"
    n = sum(r.get('diverged', False) for r in runs.values())
    return f', {n} diverged' if n else ''

# Columns of the summary
SUMMARY = 'floor','fine_tune','one_cycle','adamw_2e-4','adamw_5e-4','ulmfit'

def summary(res) -> str:
    "Make one table of all cells with `fit_ulmfit`: its test error, %, and those of the alternatives"
    arms = [o for o in SUMMARY if any(o in c and 'ulmfit' in c for c in res.values())]
    rows = [(f'{MODELS[CELLS[k].model]}, {title(k)}', CELLS[k].epochs, *(shown(errors(c[o])) if o in c else '' for o in arms),
             signed(minus(c['ulmfit'], c.get('fine_tune', {})))) for k,c in res.items() if 'ulmfit' in c]
    return markdown(('model, data, labels', 'epochs', *(NAMES.get(o, o) for o in arms), 'minus `fine_tune`'), *rows)

def targets(res) -> str:
    "Make a table of the number of cells in which each arm is better than others, or not worse beyond chance"
    head = ('model', 'arm', 'cells', 'runs at chance', 'lower mean than `fine_tune`', 'worse than it beyond chance',
            'median relative to it', 'better than the best other one-liner or within chance',
            'mean minus AdamW, best of five', 'below tf-idf')
    rows = []
    for model,name in MODELS.items():
        for arm in [o for o in order(res) if o not in (*FLOORS, 'fine_tune')]:
            cells = [c for k,c in res.items() if CELLS[k].model == model and arm in c and minus(c[arm], c.get('fine_tune', {}))]
            if not cells: continue
            against = [minus(c[arm], c['fine_tune']) for c in cells]
            below = [np.mean(minus(c[arm], c['floor'])) < 0 for c in cells if 'floor' in c]
            best = [np.mean(minus(c[arm], c['adamw_best'])) for c in cells if 'adamw_best' in c]
            median = np.median([relative(c[arm], c['fine_tune']) for c in cells])
            n_good = sum(not beyond_chance(minus(c[arm], c[best_other(arm, c)])) for c in cells)
            rows.append((name, NAMES.get(arm, arm), len(cells), sum(collapsed(arm, c) for c in cells), sum(np.mean(o) < 0 for o in against),
                         sum(map(beyond_chance, against)), f'{median:+.0f} %', n_good, f'{np.mean(best):+.1f}' if best else '',
                         f'{sum(below)} of {len(below)}' if below else ''))
        if medians := in_hindsight(res, model):
            rows.append((name, 'the best arm of each cell, by test error', len(medians), *['']*3, f'{np.median(medians):+.0f} %', *['']*3))
    return markdown(head, *rows)

def in_hindsight(res, model) -> list:
    """List the error, relative to that of `fine_tune`, of the arm with the lowest mean error in each cell: no choice of one arm per cell
    can be better"""
    found = []
    for arms in (c for k,c in res.items() if CELLS[k].model == model and 'fine_tune' in c):
        # An arm with fewer seeds may owe its error to the seeds that it has
        whole = [runs for arm,runs in arms.items() if arm not in FLOORS and runs.keys() >= arms['fine_tune'].keys()]
        found.append(min(relative(runs, arms['fine_tune']) for runs in whole))
    return found

def best_other(arm, arms) -> str:
    "Return the arm with the lowest mean error among the other one-liners"
    return min((o for o in ONE_LINERS if o != arm and o in arms), key=lambda o: np.mean(errors(arms[o])))

def report(folder) -> str:
    "Make the tables as Markdown"
    res = read(folder)
    parts = ['', 'Test error, %', summary(res), *tables(res), 'Against the others, cell by cell', targets(res)]
    return '\n\n'.join(parts) if res else f'no results in {folder}'

PLOTTED = 'floor','scratch','fine_tune','one_cycle','adamw_best','ulmfit'

def fingerprint(res) -> str:
    "Return a hash of the errors that `plot` draws, which the picture holds: a test compares it with that of the results"
    drawn = {cell: {arm: errors(arms[arm]) for arm in PLOTTED if arm in arms} for cell,arms in res.items()}
    return sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()

def plot(folder, file):
    "Plot test error against labelled examples, one panel for each model and data set (the paper's Figure 3)"
    res,panels = read(folder),defaultdict(list)
    for k in res:
        if k not in SHORT: panels[CELLS[k].model, CELLS[k].data].append(k)
    panels = {o: cells for o,cells in panels.items() if len(cells) > 1}
    if not panels: raise SystemExit(f'no model has results for two numbers of labels in {folder}: expected at least one to plot')
    cols = min(len(panels), 3)
    rows = -(-len(panels)//cols)
    fig,axs = plt.subplots(rows, cols, figsize=(3.4*max(cols, 2), 3.2*rows), layout='constrained', squeeze=False)
    shown_arms = [o for o in order(res) if o in PLOTTED]
    for ax,((model,data),cells) in zip(axs.flat, panels.items()):
        for i,arm in enumerate(shown_arms):
            points = sorted(_point(res[k], arm) for k in cells if arm in res[k])
            if points: draw_line(ax, points, arm, f'C{i}')
        ax.set(xscale='log', title=f'{MODELS[model]}, {DATA[data]}', xlabel='labelled examples', ylabel='test error, %')
        ax.set_ylim(0, min(ax.get_ylim()[1], 100))
        ticks = sorted({next(iter(runs.values()))['labelled'] for k in cells for runs in res[k].values()})
        ax.set_xticks(ticks, [f'{n:,}' for n in ticks])
        ax.minorticks_off()
    for ax in axs.flat[len(panels):]: ax.remove()
    handles = {label: h for ax in fig.axes for h,label in zip(*ax.get_legend_handles_labels())}
    title = 'hollow: fewer seeds than fit_ulmfit'
    fig.legend(handles.values(), handles.keys(), loc='outside lower center', ncols=max(cols, 2), fontsize=8, title=title)
    plt.savefig(file, dpi=110, metadata=dict(Source=fingerprint(res)))

def _point(arms, arm) -> tuple:
    "Return labelled examples, mean error, half of its interval, and whether the arm has fewer seeds than `fit_ulmfit` in this cell"
    runs = arms[arm]
    mean,half = interval(errors(runs))
    # The interval of two seeds may be wider than the axis
    return next(iter(runs.values()))['labelled'],mean,half if len(runs) > 2 else 0,not arms.get('ulmfit', {}).keys() <= runs.keys()

def draw_line(ax, points, arm, color):
    "Draw the means of an arm, with intervals for three seeds or more; a point is hollow if `fit_ulmfit` has more seeds"
    n,mean,half,fewer = zip(*points)
    width,color = (2, 'k') if arm == 'ulmfit' else (1.2, color)
    ax.errorbar(n, mean, yerr=np.nan_to_num(half), marker='o', ms=4, lw=width, color=color,
                ls='--' if arm in ('floor', 'scratch') else '-', label=NAMES.get(arm, arm).replace('`', ''))
    hollow = [(x, y) for x,y,few in zip(n, mean, fewer) if few]
    if hollow: ax.plot(*zip(*hollow), 'o', ms=4, mfc='w', mec=color, zorder=3)
