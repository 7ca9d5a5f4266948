"""The paper's tables 6 and 7 once more, and the factor 2.6, on classifiers of texts.

    python benchmarks/text.py [--studies table7 table6 factor] [--sets trec6 ag ..] [--arms ..] [--seeds 5] [--first-seed 0]
    python benchmarks/text.py --table

Every run starts from one pretrained language model, fine-tuned on the training texts of its set, labels unseen. A seed draws which texts
are labelled, which of these validate, the head's first weights and the order of the batches. All arms of a set share these, and the
number of epochs. Each run makes its own loaders and model. The test set is looked at once a run, at its end. Intervals are of the
seeds, over one language model and one test set.

- table7: the paper's rows that fine-tune, as recipes: its rates, dropouts, and betas of Adam
- table6: the last row of table 7, from language models that were fine-tuned by the plans of table 6, once each, with fastai's dropouts;
          the last of these plans made the one that all other studies start from, so that this row is table 7's
- factor: an epoch a layer group, for factors from 1 to 6 at several rates, of which the validation sets choose one a factor.
          `drop_mult=0.5`, as in fastai's tutorial

Data: docstrings are on every machine. TREC-6 is read from FASTAI_HOME/data/trec6/{train,test}.csv (label,text), and AG News and IMDb are
fastai's: what isn't in FASTAI_HOME is downloaded. 10,000 of the training texts of these two are used, 3,000 of the test texts, and of AG
News the first 32 tokens of a text, of IMDb the last 100: two cores do no more in a day. A set that can't be had is left out.
Weights: a pretrained AWD-LSTM of embedding 200 and hidden 400 in --weights; where there is none, fastai's own are downloaded.
Results: a JSON file a set in --out, written after every run; runs that it has are not run again. What runs at the same time on one set
needs folders of its own."""
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
    "An epoch a layer group, each phase a slanted triangle, at given rates"
    learn.fit_ulmfit(n, lr, factor=factor, epochs=1)
    return lr

def by_recipe(name):
    "What trains as a published row does, and what its learner is made with"
    return lambda learn, n: learn.fit_plan(recipes[name].plan(n_epoch=n)),recipes[name].learner_kwargs

TUTORIAL = dict(drop_mult=0.5)
TABLE7 = 'full', 'full_discr', 'last', 'chain_thaw', 'freez', 'freez_discr', 'freez_stlr', 'freez_cos', 'freez_discr_stlr'
# How the language model is fine-tuned; None for not at all
LMS = dict(none=None, full=recipes.table6_full, full_discr=recipes.table6_full_discr, full_discr_stlr=recipes.table6_full_discr_stlr)
FACTORS,RATES = (1, 1.6, 2.6, 4, 6),(1e-3, 3e-3, 1e-2, 3e-2, 1e-1)

# For each study its arms: what trains a learner, what that is made with, and the language model that it starts from
STUDIES = dict(
    table7={k: (*by_recipe(f'table7_{k}'), 'full_discr_stlr') for k in TABLE7},
    table6={k: (*by_recipe('table7_freez_discr_stlr'), k) for k in LMS if k != 'full_discr_stlr'},
    factor={f'{f:g} at {lr:g}': (partial(stepwise, lr=lr, factor=f), TUTORIAL, 'full_discr_stlr') for f in FACTORS for lr in RATES})

def encoder(texts, way, args):
    "Name of the encoder that was fine-tuned on `texts` in this `way`, made once"
    file = f'{texts}_{way}_{LM_EPOCHS[texts]}_epochs' + ('' if args.weights else '_wt103')
    if not (args.cache/'models'/f'{file}.pth').exists():
        learn = language_model(texts, args.cache, args.weights)
        print(f'language model of {texts}: {way}')
        if LMS[way]: learn.fit_plan(LMS[way].plan(n_epoch=LM_EPOCHS[texts]))
        (args.cache/'models').mkdir(exist_ok=True)
        learn.save_encoder(file)
    return file

def run(name, study, arm, seed, args):
    "One run, as the results have it"
    fit,kwargs,way = STUDIES[study][arm]
    learn = classifier(name, args.cache, encoder(SETS[name].texts, way, args), seed, SIZES if args.weights else {}, **kwargs)
    set_seed(seed)
    start = time.perf_counter()
    with learn.no_bar(),learn.no_logging():
        lr = fit(learn, SETS[name].epochs)
        seconds = time.perf_counter()-start
        (vloss,vacc),(tloss,tacc) = (learn.validate(ds_idx=i) for i in (1, 2))
    return dict(study=study, arm=arm, seed=seed, epochs=SETS[name].epochs, lr=lr, valid_loss=vloss, valid_accuracy=vacc, test_loss=tloss,
                test_accuracy=tacc, seconds=round(seconds, 1), **args.how)

def run_set(name, args):
    "All runs of one set that its file does not have"
    path = args.out/f'text_{name}.json'
    def _read(): return json.loads(path.read_text()) if path.exists() else []
    def _key(r): return r['study'],r['arm'],r['seed']
    odd = {r.get('weights', args.how['weights']) for r in _read()} - {args.how['weights']}
    if odd: raise SystemExit(f'{path} has runs from other weights ({", ".join(odd)}): expected {args.how["weights"]}; give another --out')
    # Seed by seed, so that a run that is cut short has the same seeds for all arms
    seeds = range(args.first_seed, args.first_seed+args.seeds)
    todo = [(study, arm, seed) for study in args.studies for seed in seeds for arm in STUDIES[study] if not args.arms or arm in args.arms]
    for study,arm,seed in progress_bar([o for o in todo if o not in {*map(_key, _read())}]):
        res = run(name, study, arm, seed, args)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix('.part')
        new.write_text('[' + ',\n '.join(map(json.dumps, [*_read(), res])) + ']\n')
        new.replace(path)

def commit():
    "Of this checkout, and whether anything but results was changed since; None where there is none"
    if not which('git'): return None
    def _git(*args): return subprocess.run(['git', *args], cwd=Path(__file__).parents[1], capture_output=True, text=True).stdout.strip()
    changed = _git('status', '--porcelain', '--untracked-files=no', '.', ':!benchmarks/results')
    return _git('rev-parse', '--short', 'HEAD') + '-dirty'*bool(changed) or None

def main():
    "Run what is asked for, and print the tables of these studies"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--studies', nargs='+', choices=STUDIES, default=list(STUDIES), help='what is compared')
    parser.add_argument('--sets', nargs='+', choices=SETS, default=list(SETS), help='data sets; `trec500`: 500 labelled, 10 epochs')
    parser.add_argument('--arms', nargs='+', help='only these arms')
    parser.add_argument('--seeds', type=int, default=5, help='number of seeds')
    parser.add_argument('--first-seed', type=int, default=0, help='the first of them')
    parser.add_argument('--weights', type=Path, help='folder of the pretrained language model')
    parser.add_argument('--cache', type=Path, default=Path('text_cache'), help='folder for tokens and fine-tuned language models')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results', help='folder of the results')
    parser.add_argument('--threads', type=int, help='of torch')
    parser.add_argument('--table', action='store_true', help='only the tables of the results there are')
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
