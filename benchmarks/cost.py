"""Measure the cost of ULMFiT's sequence in three parts. Each part compares two arms in one run, and the arms take turns.

    python benchmarks/cost.py [--parts frozen growth whole] [--out benchmarks/results/cost.json]
    python benchmarks/cost.py --table

- frozen: time of a batch in each phase of gradual unfreezing. `fit_plan` is compared with stock fastai by hand: `freeze_to`, and `fit` with
  the same triangles of rate and momentum, made of fastai's own `SchedLin`. The model is an AWD-LSTM classifier with five groups on random
  tokens. The phases run one by one, so that the arms can take turns every few batches. Each time, the benchmark checks that both arms train
  the same parameters at the same rates.
- growth: cost of more groups, epochs and batches. `learn.fit_plan(learn.ulmfit_plan(..))` is compared with a loop of such fits by hand, on
  a deep MLP of tiny layers, one per group, where nearly all time is overhead. The time of `fit_plan` includes planning; the loop gets its
  rates for free. CPU time.
- whole: cost of the whole sequence. It is compared with `fit_one_cycle` of all layers at one rate for the same epochs, on docstrings of six
  installed packages: nine tenths train, the others validate. The encoder is a small AWD-LSTM that was trained on their language. Each arm
  has the rate of --rates with the lowest validation loss for a tuning seed; these runs aren't timed. Every run has its own process, head,
  loaders and draw of texts, the same for both arms. The loss to reach is the higher of the two arms' lowest losses, and is looked for at
  the end of each epoch only. Times include validation.

Stock arms run fastai's own methods, without the wrappers that importing fastai_discrim adds. Before each fit the gradients are dropped, as
stock fastai would otherwise step frozen parameters by gradients that are left. All arms use one thread. Other work on the machine affects
CPU time less than wall time. Peak memory is the most that the process holds during the fit, and is measured on Linux only. All parts take a
quarter of an hour on two idle cores. Parts that are run replace those in --out; the others stay."""
import argparse
import json
import platform
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import fastai
import numpy as np
import torch
from callback_cost import Clock, loaders, stock
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler, SchedLin, combine_scheds
from fastai.data.core import Datasets
from fastai.data.external import fastai_cfg
from fastai.data.transforms import ColReader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.text.data import LMDataLoader, Numericalize
from fastai.text.learner import TextLearner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config
from fastai.text.models.core import get_text_classifier
from fastai.torch_core import set_seed
from fastprogress.fastprogress import progress_bar
from text_data import classifier, tokens
from text_report import markdown
from torch import nn

from fastai_discrim import __version__
from fastai_discrim.all import layerwise_split
from fastai_discrim.demo.ulmfit_demo import SMALL, language_model

ARMS,TUNING_SEED,ENCODER = ('stock', 'ours'),1000,dict(epochs=2, rate=1e-2, seed=0)
# Groups, epochs, and batches per epoch
GROWTH = [*((n, 50, 4) for n in (2, 5, 10, 20, 50)), *((5, n, 4) for n in (10, 100, 1000)), *((5, 10, n) for n in (1, 10, 100))]

def now():
    "Return wall time and CPU time in seconds"
    return time.perf_counter(),time.process_time()

class Both(Clock):
    "Record when each batch ends, by both clocks, in one list for each epoch"
    def __init__(self): self.times = []
    def before_train(self): self.times.append([now()])
    def after_batch(self): self.times[-1].append(now())
    def seconds(self, skip): return np.concatenate([np.diff(o, axis=0)[skip:] for o in self.times])

def by_hand(learn, phase, *cbs):
    "Run a phase as one would write it in stock fastai, at the rates and momentum of the plan"
    s,lrs,moms = phase.sched,np.array(phase.lrs),learn.moms
    def _triangle(start, peak, end): return combine_scheds([s.cut_frac, 1-s.cut_frac], [SchedLin(start, peak), SchedLin(peak, end)])
    learn.freeze_to(-len(phase.groups))
    learn.fit(phase.epochs, cbs=[ParamScheduler({'lr': _triangle(lrs/s.ratio, lrs, lrs/s.ratio), 'mom': _triangle(*moms)}), *cbs])

def in_turn(arms, i, learn):
    "Yield the names of the arms, in reverse order every second time. Drop the gradients, and restore fastai's own methods for `stock`"
    for k in list(arms)[::1 if i%2 else -1]:
        for p in learn.model.parameters(): p.grad = None
        with stock() if k == 'stock' else nullcontext(): yield k

def frozen(args):
    "Measure the median seconds of a batch in each phase and arm, one row for each repeat"
    torch.manual_seed(0)
    x = torch.randint(3, 15_000, (32*args.batches, 40))
    model = get_text_classifier(AWD_LSTM, 15_000, 2, config=dict(awd_lstm_clas_config, emb_sz=200, n_hid=400))
    learn = TextLearner(loaders(x, x[:,0] % 2, 32), model, loss_func=CrossEntropyLossFlat(), splitter=layerwise_split)
    plan,res = learn.ulmfit_plan(5, 1e-3, epochs=1),[]
    with learn.no_bar(),learn.no_logging():
        for i in progress_bar(range(args.repeats)):
            res.append([])
            for p in plan.phases:
                seconds,ran,one = {},{},replace(plan, phases=[p])
                for k in in_turn(ARMS, i, learn):
                    clock = Both()
                    if k == 'ours': learn.fit_plan(one, cbs=clock)
                    else: by_hand(learn, p, clock)
                    # Skip the first batches, which warm up
                    seconds[k] = np.median(clock.seconds(skip=2), axis=0).tolist()
                    ran[k] = [p.requires_grad for p in model.parameters()],learn.recorder.hps['lr'],learn.recorder.hps['mom']
                assert ran['stock'][0] == ran['ours'][0], 'the arms train different parameters'
                assert np.allclose(ran['stock'][1:], ran['ours'][1:]), 'the arms train at different rates or momentum'
                res[-1].append(seconds)
    return dict(batches=args.batches, repeats=res)

def grown(groups, epochs, batches, seconds):
    "Measure the CPU seconds of each fit in each arm (all, an average batch, all except the batches) and those of planning alone"
    torch.manual_seed(0)
    x = torch.randn(4*batches, 4)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(groups)))
    learn = Learner(loaders(x, (x.sum(1) > 0).long(), 4), model, loss_func=CrossEntropyLossFlat(), splitter=layerwise_split)
    def _plan(): return learn.ulmfit_plan(epochs, 1e-3, epochs=1)
    phases,res,i = _plan().phases,{k: [] for k in (*ARMS, 'planning')},0
    assert len(phases) == groups, f'{len(phases)} phases of {groups} groups'
    with learn.no_bar(),learn.no_logging():
        while i < 3 or sum(o[0] for k in ARMS for o in res[k]) < seconds:
            for k in in_turn(res, i, learn):
                clock,start = Both(),now()
                if k == 'ours': learn.fit_plan(_plan(), cbs=clock)
                elif k == 'planning': _plan()
                else:
                    for p in phases: by_hand(learn, p, clock)
                spent = now()[1] - start[1]
                # Skip the first batch of each epoch, which also waits for the loader
                known = clock.seconds(skip=1)[:,1] if batches > 1 and k != 'planning' else np.array([])
                batch = known.mean() if len(known) else None
                # Skip the first round, which warms up
                if i: res[k].append((spent, batch, spent - epochs*batches*batch if len(known) else None))
            i += 1
    return dict(groups=groups, epochs=epochs, batches=batches, seconds=res)

def growth(args):
    "Measure all sizes by `grown`"
    return [grown(*size, args.seconds) for size in progress_bar(list(dict.fromkeys(GROWTH)))]

def memory(reset=False):
    "Return the most memory in MiB that this process has held since the last `reset`; None except on Linux"
    if not Path('/proc/self/clear_refs').exists(): return None
    # `ru_maxrss` won't do, as a process inherits it from its parent
    if reset: Path('/proc/self/clear_refs').write_text('5')
    return next(int(row.split()[1])/1024 for row in Path('/proc/self/status').read_text().splitlines() if row.startswith('VmHWM'))

class Curve(Callback):
    "Record time, validation loss and peak memory at the end of each epoch"
    order,rows = 100,()
    def after_epoch(self):
        seconds = np.subtract(now(), self.start).tolist()
        self.rows = [*self.rows, dict(wall=seconds[0], cpu=seconds[1], loss=self.recorder.values[-1][1], peak=memory())]

def encoder(cache):
    "Train an encoder on the language of the docstrings, save it in `cache`, and return its name"
    train,_,vocab = tokens('docstrings', cache)
    name = 'cost_' + '_'.join(f'{k}{v}' for k,v in ENCODER.items())
    if not (cache/f'models/{name}.pth').exists():
        set_seed(ENCODER['seed'])
        n = len(train)//10
        dsets = Datasets(train, [[ColReader('text'), Numericalize(vocab)]], splits=(range(n, len(train)), range(n)), dl_type=LMDataLoader)
        learn = language_model(dsets.dataloaders(bs=32, seq_len=72, num_workers=0), path=cache)
        with learn.no_bar(): learn.fit_one_cycle(ENCODER['epochs'], ENCODER['rate'])
        learn.save_encoder(name)
    return name

def run(arm, rate, seed, epochs, cache, name):
    "Run one fit, and return its `Curve`"
    learn,curve = classifier('docstrings', None, cache, name, seed, sizes=SMALL),Curve()
    before,curve.start = memory(reset=True),now()
    with learn.no_bar(),learn.no_logging():
        if arm == 'ours': learn.fit_plan(learn.ulmfit_plan(epochs, rate, epochs=1), cbs=curve)
        else:
            with stock():
                learn.unfreeze()
                learn.fit_one_cycle(epochs, rate, cbs=curve)
    return dict(arm=arm, rate=rate, seed=seed, before=before, curve=curve.rows)

def init_process():
    "Use one thread, and ignore warnings"
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)

def alone(f, *args):
    "Return the result of `f`, which runs in a process of its own"
    with ProcessPoolExecutor(1, mp_context=get_context('spawn'), initializer=init_process) as pool: return pool.submit(f, *args).result()

def best(r): return min(np.nan_to_num(o['loss'], nan=np.inf) for o in r['curve'])

def whole(args):
    "Choose the rate of each arm, then time its runs"
    rest = args.epochs,args.cache,alone(encoder, args.cache)
    # A single rate needs no tuning
    tries = [(lr, arm) for lr in args.rates for arm in ARMS] if len(args.rates) > 1 else []
    tuning = [alone(run, arm, lr, TUNING_SEED, *rest) for lr,arm in progress_bar(tries)] if tries else []
    rates = {arm: min((r for r in tuning if r['arm'] == arm), key=best)['rate'] if tries else args.rates[0] for arm in ARMS}
    todo = [(seed, arm) for seed in range(args.seeds) for arm in ARMS[::1 if seed%2 else -1]]
    runs = [alone(run, arm, rates[arm], seed, *rest) for seed,arm in progress_bar(todo)]
    tuned = {arm: {r['rate']: best(r) for r in tuning if r['arm'] == arm} for arm in ARMS}
    return dict(epochs=args.epochs, rates=rates, tuned=tuned, runs=runs)

def interval(xs):
    "Format the median and its 95 % interval by bootstrap"
    draws = np.median(np.random.default_rng(0).choice(xs, (10_000, len(xs))), axis=1)
    return '{:.3f} ({:.3f} to {:.3f})'.format(np.median(xs), *np.percentile(draws, [2.5, 97.5]))

def frozen_table(res):
    "Make a table with one row for each phase. A ratio compares two runs that follow each other; the table has the median over the repeats"
    x = np.array([[[o[k] for k in ARMS] for o in phases] for phases in res['repeats']])
    def _row(y): return *(f'{1000*v:.1f}' for v in np.median(y[...,1], axis=0)),*(interval(y[:,1,c]/y[:,0,c]) for c in (1, 0))
    rows = [(f'{i+1} of {x.shape[1]}', *_row(x[:,i])) for i in range(x.shape[1])]
    rows.append(('all phases but the last', *_row(x[:,:-1].mean(1))))
    return markdown(('groups open', 'stock, CPU ms a batch', '`fit_plan`', 'ratio, CPU time', 'ratio, wall time'), *rows)

def growth_row(r):
    "Make a row: sizes, and medians over the fits of a whole fit, of a batch, of all except the batches, and of planning"
    def _median(k, i): return np.median(np.array([o[i] for o in r['seconds'][k]], dtype=float))
    def _cells(i, scale):
        a,b = (scale*_median(k, i) for k in ARMS)
        return (f'{a:.0f}', f'{b:.0f}', f'{b/a:.2f}') if a > 0 else ('',)*3
    return r['groups'],r['epochs'],r['batches'],*_cells(0, 1e3),*_cells(1, 1e6),*_cells(2, 1e3),f'{1e3*_median("planning", 0):.1f}'

def growth_table(res):
    "Make a table with one row for each size"
    heads = [(f'loop, {o}', '`fit_plan`', 'ratio') for o in ('ms a fit', 'µs a batch', 'ms a fit but for its batches')]
    return markdown(('groups', 'epochs', 'batches an epoch', *(o for h in heads for o in h), 'planning alone, ms'), *map(growth_row, res))

def reached(r, loss): return next(o for o in r['curve'] if o['loss'] <= loss)

def whole_table(res):
    "Make a table with one row for each measure: medians over the seeds, and median, lowest and highest ratio"
    by = {(r['arm'], r['seed']): r for r in res['runs']}
    pairs = [[by[a,s] for a in ARMS] for s in sorted({s for _,s in by})]
    target = [max(map(best, p)) for p in pairs]
    what = {'best validation loss': lambda r,t: best(r), 'wall time, s': lambda r,t: r['curve'][-1]['wall'],
            'CPU time, s': lambda r,t: r['curve'][-1]['cpu'],
            'epochs to the loss that both reach': lambda r,t: 1 + r['curve'].index(reached(r, t)),
            'wall time to it, s': lambda r,t: reached(r, t)['wall'], 'CPU time to it, s': lambda r,t: reached(r, t)['cpu']}
    if pairs[0][0]['before'] is not None:
        what |= {'peak memory, MiB': lambda r,t: r['curve'][-1]['peak'],
                 'above what was held before the fit, MiB': lambda r,t: r['curve'][-1]['peak']-r['before'],
                 'the same by the end of the first epoch': lambda r,t: r['curve'][0]['peak']-r['before']}
    rows = []
    for k,f in what.items():
        v = np.array([[f(r, t) for r in p] for p,t in zip(pairs, target)])
        (a,b),ratio = np.median(v, axis=0),v[:,1]/v[:,0]
        rows.append((k, f'{a:.4g}', f'{b:.4g}', f'{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})'))
    tried = '; '.join(f'{a}: ' + (', '.join(f'{float(lr):.0e} {loss:.3f}' for lr,loss in res['tuned'][a].items()) or 'none') for a in ARMS)
    names = f'`fit_one_cycle`, {res["rates"]["stock"]:.0e}',f'`fit_plan`, {res["rates"]["ours"]:.0e}'
    return (f'{res["epochs"]} epochs, {len(pairs)} seeds. Rates tried with the tuning seed, and validation loss: {tried}\n\n'
            + markdown(('over the whole fit', *names, 'ratio (lowest to highest)'), *rows))

PARTS = dict(frozen=(frozen, frozen_table), growth=(growth, growth_table), whole=(whole, whole_table))

def main(args):
    "Run the parts, and save the result of each part when it ends"
    for k in args.parts:
        start = time.perf_counter()
        res = PARTS[k][0](args)
        kept = json.loads(args.out.read_text()) if args.out.exists() else {}
        about = dict(fastai_discrim=__version__, fastai=fastai.__version__, torch=torch.__version__, python=platform.python_version())
        kept[k] = dict(versions=about, seconds=round(time.perf_counter()-start), result=res)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        new = args.out.with_suffix('.part')
        new.write_text(json.dumps(kept))
        new.replace(args.out)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS), help='parts to run; all if none is given')
    parser.add_argument('--repeats', type=int, default=16, help='frozen: number of turns of each arm in each phase')
    parser.add_argument('--batches', type=int, default=8, help='frozen: batches in each turn; the first two are not counted')
    parser.add_argument('--seconds', type=float, default=2, help='growth: CPU seconds for each size; each arm runs at least twice')
    parser.add_argument('--epochs', type=int, default=5, help='whole: epochs of both arms')
    parser.add_argument('--seeds', type=int, default=3, help='whole: seeds that are timed')
    parser.add_argument('--rates', type=float, nargs='+', default=[3e-3, 1e-2, 3e-2, 1e-1], help='whole: rates that each arm tries')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results/cost.json', help='file of the results')
    parser.add_argument('--cache', type=Path, default=fastai_cfg().path('model')/'cost', help='folder for tokens and encoder')
    parser.add_argument('--table', action='store_true', help='only print the tables of the results in --out')
    args = parser.parse_args()
    init_process()
    if not args.table: main(args)
    for k,v in json.loads(args.out.read_text()).items(): print(f'\n{k}, {v["seconds"]} s\n\n{PARTS[k][1](v["result"])}')
