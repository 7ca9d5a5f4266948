"""Repeat the paper's tables 6 and 7, and compare factors other than 2.6, on text classifiers.

    python benchmarks/text.py [--studies table7 table6 factor] [--sets trec6 ag ..] [--arms ..] [--seeds 5] [--first-seed 0]
    python benchmarks/text.py --table

All runs on a set start from the same pretrained language model, fine-tuned on the training texts of the set without labels. A seed
determines which texts are labelled, which of these validate, the head's initial weights and the order of the batches. All arms of a set
share these, and the number of epochs. Each run makes its own loaders and model, and uses the test set once, at its end. Intervals are over
the seeds, with one language model and one test set.

- table7: the rows of the paper that fine-tune, as recipes, with the paper's rates, dropouts and betas of Adam
- table6: the last row of table 7, from language models that were fine-tuned by the plans of table 6, once each, with fastai's dropouts. All
          other studies start from the language model of the last of these plans, so this row is also in table 7
- factor: one epoch for each layer group, for factors from 1 to 6 at several rates; the validation sets choose one rate for each factor.
          `drop_mult=0.5`, as in fastai's tutorial

Data: docstrings are on every machine. TREC-6 is read from FASTAI_HOME/data/trec6/{train,test}.csv (label,text). AG News and IMDb are
fastai's, and are downloaded if FASTAI_HOME lacks them. Of these two the benchmark uses 10,000 training texts and 3,000 test texts, and of
each text the first 32 tokens (AG News) or the last 100 (IMDb), as two cores can't do more in a day. A set that can't be read is left out.
Weights: a pretrained AWD-LSTM of embedding 200 and hidden 400 in --weights; without it, fastai's own weights are downloaded.
Results: --out has a JSON file for each set, written after each run; runs that are in it are not run again. Processes that run at the same
time on one set need different folders."""
import argparse
import json
import platform
import subprocess
import time
import warnings
from functools import partial
from pathlib import Path
from shutil import which

import fastai
import fastai.callback.schedule  # for `fine_tune`, `fit_one_cycle` and `lr_find`
import torch
from fastai.torch_core import set_seed
from fastprogress.fastprogress import progress_bar
from text_data import LM_EPOCHS, SETS, SHARED, SIZES, classifier, language_model, tokens
from text_report import report

from fastai_discrim import __version__
from fastai_discrim.all import recipes


def stepwise(learn, n, lr, factor):
    "Train for one epoch per layer group, each phase a slanted triangle, at given rates"
    learn.fit_ulmfit(n, lr, factor=factor, epochs=1)
    return lr

def by_recipe(name):
    "Return a function that trains by a published row, and the arguments for its learner"
    return lambda learn, n: learn.fit_plan(recipes[name].plan(n_epoch=n)),recipes[name].learner_kwargs

TUTORIAL = dict(drop_mult=0.5)
TABLE7 = 'full', 'full_discr', 'last', 'chain_thaw', 'freez', 'freez_discr', 'freez_stlr', 'freez_cos', 'freez_discr_stlr'
# Recipes by which the language model is fine-tuned; None for no fine-tuning
LMS = dict(none=None, full=recipes.table6_full, full_discr=recipes.table6_full_discr, full_discr_stlr=recipes.table6_full_discr_stlr)
FACTORS,RATES = (1, 1.6, 2.6, 4, 6),(1e-3, 3e-3, 1e-2, 3e-2, 1e-1)

# The arms of each study: a function that trains a learner, arguments for the learner, and the language model that it starts from
STUDIES = dict(
    table7={k: (*by_recipe(f'table7_{k}'), 'full_discr_stlr') for k in TABLE7},
    table6={k: (*by_recipe('table7_freez_discr_stlr'), k) for k in LMS if k != 'full_discr_stlr'},
    factor={f'{f:g} at {lr:g}': (partial(stepwise, lr=lr, factor=f), TUTORIAL, 'full_discr_stlr') for f in FACTORS for lr in RATES})

def encoder(texts, way, args):
    "Return the name of the encoder that was fine-tuned on `texts` in this `way`; make it if it doesn't exist"
    file = f'{texts}_{way}_{LM_EPOCHS[texts]}_epochs' + ('' if args.weights else '_wt103')
    if not (args.cache/'models'/f'{file}.pth').exists():
        learn = language_model(texts, args.cache, args.weights)
        print(f'language model of {texts}: {way}')
        if LMS[way]: learn.fit_plan(LMS[way].plan(n_epoch=LM_EPOCHS[texts]))
        (args.cache/'models').mkdir(exist_ok=True)
        learn.save_encoder(file)
    return file

def run(name, study, arm, seed, args):
    "Do one run, and return its record"
    fit,kwargs,way = STUDIES[study][arm]
    texts,n_labelled,_ = SETS[name]
    learn = classifier(texts, n_labelled, args.cache, encoder(texts, way, args), seed, SIZES if args.weights else {}, **kwargs)
    set_seed(seed)
    start = time.perf_counter()
    with learn.no_bar(),learn.no_logging():
        lr = fit(learn, SETS[name].epochs)
        seconds = time.perf_counter()-start
        (vloss,vacc),(tloss,tacc) = (learn.validate(ds_idx=i) for i in (1, 2))
    return dict(study=study, arm=arm, seed=seed, epochs=SETS[name].epochs, lr=lr, valid_loss=vloss, valid_accuracy=vacc, test_loss=tloss,
                test_accuracy=tacc, seconds=round(seconds, 1), **args.how)

def run_set(name, args):
    "Do all runs of a set that its file lacks"
    path = args.out/f'text_{name}.json'
    def _read(): return json.loads(path.read_text()) if path.exists() else []
    def _key(r): return r['study'],r['arm'],r['seed']
    odd = {r.get('weights', args.how['weights']) for r in _read()} - {args.how['weights']}
    if odd: raise SystemExit(f'{path} has runs from other weights ({", ".join(odd)}): expected {args.how["weights"]}; give another --out')
    # Go seed by seed, so that a benchmark that is cut short has the same seeds for all arms
    seeds = range(args.first_seed, args.first_seed+args.seeds)
    todo = [(study, arm, seed) for study in args.studies for seed in seeds for arm in STUDIES[study] if not args.arms or arm in args.arms]
    for study,arm,seed in progress_bar([o for o in todo if o not in {*map(_key, _read())}]):
        res = run(name, study, arm, seed, args)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix('.part')
        new.write_text('[' + ',\n '.join(map(json.dumps, [*_read(), res])) + ']\n')
        new.replace(path)

def commit():
    "Return the commit of this checkout, marked if anything except results has changed since; None without a checkout"
    if not which('git'): return None
    def _git(*args): return subprocess.run(['git', *args], cwd=Path(__file__).parents[1], capture_output=True, text=True).stdout.strip()
    changed = _git('status', '--porcelain', '--untracked-files=no', '.', ':!benchmarks/results')
    return _git('rev-parse', '--short', 'HEAD') + '-dirty'*bool(changed) or None

def main():
    "Run the chosen studies, and print their tables"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--studies', nargs='+', choices=STUDIES, default=list(STUDIES), help='studies to run; all if none is given')
    parser.add_argument('--sets', nargs='+', choices=SETS, default=list(SETS), help='data sets; `trec500`: 500 labelled, 10 epochs')
    parser.add_argument('--arms', nargs='+', help='arms to run; all if none is given')
    parser.add_argument('--seeds', type=int, default=5, help='number of seeds')
    parser.add_argument('--first-seed', type=int, default=0, help='the first seed')
    parser.add_argument('--weights', type=Path, help='folder of the pretrained language model')
    parser.add_argument('--cache', type=Path, default=Path('text_cache'), help='folder for tokens and fine-tuned language models')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results', help='folder of the results')
    parser.add_argument('--threads', type=int, help="number of torch's threads")
    parser.add_argument('--table', action='store_true', help='only print the tables of the results in --out')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    if args.threads: torch.set_num_threads(args.threads)
    args.cache = args.cache.resolve()
    if args.weights is None and SHARED.exists(): args.weights = SHARED
    if args.weights and not (args.weights/'awd_lstm_200_400.pth').exists(): parser.error(f'no awd_lstm_200_400.pth in {args.weights}')
    odd = set(args.arms or ()) - {arm for k in args.studies for arm in STUDIES[k]}
    if odd: parser.error(f'no such arms: {", ".join(sorted(odd))}')
    args.how = dict(weights=args.weights.name if args.weights else 'wt103-fwd', threads=torch.get_num_threads(),
                    fastai_discrim=__version__, commit=commit(), fastai=fastai.__version__, torch=torch.__version__,
                    python=platform.python_version())
    for name in [] if args.table else args.sets:
        try: tokens(SETS[name].texts, args.cache)
        except OSError as e: print(f'{name} is left out: {e}')
        else: run_set(name, args)
    print(report(args.out, args.studies))

if __name__ == '__main__': main()
