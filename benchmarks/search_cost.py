"""Measure the cost of the searches for the rates of head and body, relative to `lr_find` and to the fit that they are for.

    python benchmarks/search_cost.py [--cells minilm_trec6_300 ..]
    python benchmarks/search_cost.py --table

The cells are those of real_models.py. For each cell, one learner runs `lr_find()` by default, `head_lr_find` and `body_lr_find` as
`fit_ulmfit` calls them, and the fit, in this order, in one process. The script measures CPU time, which other work on the machine affects
less than wall time.
Results: --out gets a line of JSON for each cell; cells that are in --out are not run again."""
import argparse
import json
import os
import time
import warnings
from pathlib import Path

import torch
from fastai.torch_core import set_seed
from rates import read
from real_models import versions
from real_models_data import CELLS, learner
from real_models_report import title
from text_data import SHARED
from text_report import markdown

# A short fit of each kind of network, and a longer fit
DEFAULT = 'minilm_trec6_300','minilm_trec6_100','lite0_cifar10_50','awd_trec6_100'

def cpu_seconds(f, *args, **kwargs) -> tuple:
    "Call `f`; return its result and its CPU time in seconds"
    start = time.process_time()
    res = f(*args, **kwargs)
    return res,time.process_time()-start

def costs(name, args) -> dict:
    "Measure one cell: CPU seconds, and the steps of the fit"
    learn,n = learner(name, 0, args),CELLS[name].epochs
    set_seed(0)
    with learn.no_bar(),learn.no_logging():
        # Warm up, so that the first measurement doesn't include what the first steps load and cache
        learn.fit_plan(learn.ulmfit_plan(1, 1e-9))
        _,lr_find = cpu_seconds(learn.lr_find, show_plot=False)
        head,of_head = cpu_seconds(learn.head_lr_find, n_epoch=n, show_plot=False)
        body,of_body = cpu_seconds(learn.body_lr_find, n, head, show_plot=False)
        _,fit = cpu_seconds(learn.fit_plan, learn.ulmfit_plan(n, head, body))
    return dict(cell=name, steps=n*len(learn.dls.train), lr_find=lr_find, head=of_head, body=of_body, fit=fit, n_body=len(body.lrs))

def table(runs) -> str:
    "Make a table with one row for each cell: the searches as multiples of `lr_find`, and of the fit"
    rows = []
    for r in runs:
        both = r['head']+r['body']
        times = (f'{t/r["lr_find"]:.2f}' for t in (r['head'], r['body'], both))
        rows.append((f'{CELLS[r["cell"]].model}, {title(r["cell"])}', r['steps'], *times, f'{both/r["fit"]:.2f}'))
    return markdown(('cell', 'steps of the fit', 'head, in `lr_find`s', 'body, in `lr_find`s', 'both', 'both, in fits'), *rows)

def main():
    "Run the chosen cells, and print the table"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cells', nargs='+', choices=CELLS, default=DEFAULT, metavar='CELL', help='cells of real_models.py')
    parser.add_argument('--weights', type=Path, default=SHARED if SHARED.exists() else None, help='folder of the pretrained AWD-LSTM')
    parser.add_argument('--cache', type=Path, default=Path('text_cache'), help='folder for tokens and fine-tuned language models')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results/search_cost.jsonl', help='file of the results')
    parser.add_argument('--threads', type=int, default=1, help="number of torch's threads")
    parser.add_argument('--table', action='store_true', help='only print the table of the results in --out')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    os.environ['HF_HUB_OFFLINE'] = '1'
    torch.set_num_threads(args.threads)
    args.cache = args.cache.resolve()
    for name in [] if args.table else args.cells:
        if any(r['cell'] == name for r in read(args.out)): continue
        with args.out.open('a') as f: f.write(json.dumps(costs(name, args) | versions(args)) + '\n')
    print(table(read(args.out)))

if __name__ == '__main__': main()
