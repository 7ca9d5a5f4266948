"""How does a fit depend on the rates of head and body, and does its miniature in a few steps tell which are best?

    python benchmarks/rates.py [--cells minilm_trec6_300 minilm_trec6_100 ..] [--seeds 1]
    python benchmarks/rates.py --table

Cells are those of real_models.py. For each pair of rates the plan of `fit_ulmfit` is run whole, and in miniature, as `body_lr_find` does:
in half of the steps, at most 40. Both are judged on 400 training items that are neither labelled nor validate, never on the test set.
Results: a line of JSON a fit in --out, written as it ends; fits that are there are not run again."""
import argparse
import json
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from fastai.torch_core import set_seed
from real_models import versions
from real_models_data import CELLS, IMAGES, _by_length, _padded, draw, draw_images, enlarged, learner, loaders, token_ids
from real_models_report import title
from text_data import SHARED
from text_report import markdown

from fastai_discrim.search.body_lr import n_steps
from fastai_discrim.search.miniature import miniature_losses
from fastai_discrim.search.restored import restored

# Pairs of rates, head and body, by model: the head's as found with the body frozen first; the paper's ratio at three of the body's rates
PAIRS = dict(minilm=[(.056, 3e-4), (.01, 3e-4), (.003, 3e-4), (.001, 3e-4), (.00078, 3e-4), (.00052, 2e-4), (.00026, 1e-4), (.003, 1e-3)],
             lite0=[(.001, 1e-3), (.003, 1e-3), (.001, 3e-3), (.001, 3e-4)])
N_ITEMS = 400

def others(name, seed) -> list:
    "Draw training items of a cell that neither train nor validate"
    cell = CELLS[name]
    if cell.model == 'minilm':
        train = token_ids(cell.data)[0]
        used,n = draw(len(train), cell.labels, seed),len(train)
    else:
        (x,y),_ = IMAGES[cell.data][0]()
        used,n = draw_images(y, cell.labels, seed),len(y)
    left = np.setdiff1d(np.arange(n), np.concatenate(used))
    idxs = np.random.default_rng(seed).permutation(left)[:N_ITEMS]
    return _by_length([train[i] for i in idxs]) if cell.model == 'minilm' else enlarged(x[idxs], [y[i] for i in idxs])

def losses(name, seed, head, body, args) -> dict:
    "Fit in miniature and whole, and return the losses and the error on items that were not used"
    learn,n = learner(name, seed, args),CELLS[name].epochs
    dl = loaders([], [], others(name, seed), 64, _padded if CELLS[name].model == 'minilm' else None).loaders[2]
    steps = n_steps(n*len(learn.dls.train))
    plan = learn.ulmfit_plan(n, head, body)
    with learn.no_bar(),learn.no_logging():
        set_seed(seed)
        with restored(learn):
            miniature_losses(learn, plan, steps, N_ITEMS)
            short,_ = learn.validate(dl=dl)
        set_seed(seed)
        learn.fit_plan(plan)
        loss,accuracy = learn.validate(dl=dl)
    return dict(steps=n*len(learn.dls.train), miniature_steps=steps, miniature_loss=short, loss=loss, error=1-accuracy)

def read(path) -> list:
    "Read the fits that there are"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

def table(runs) -> str:
    "Make a table: a pair of rates a row, the losses after the miniature and after the fit, and its error, means over the seeds"
    rows = []
    for cell,head,body in dict.fromkeys((r['cell'], r['head'], r['body']) for r in runs):
        same = [r for r in runs if (r['cell'], r['head'], r['body']) == (cell, head, body)]
        mean = {k: np.mean([r[k] for r in same]) for k in ('miniature_loss', 'loss', 'error')}
        shown = f'{mean["miniature_loss"]:.2f}',f'{mean["loss"]:.2f}',f'{100*mean["error"]:.1f}'
        rows.append((f'{CELLS[cell].model}, {title(cell)}', f'{head:g}', f'{body:g}', *shown, len(same)))
    return markdown(('cell', 'head at', 'body at', 'loss, miniature', 'loss, whole fit', 'error, %', 'seeds'), *rows)

def main():
    "Run what is asked for, and print the table"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cells', nargs='+', choices=[k for k,c in CELLS.items() if c.model in PAIRS], metavar='CELL',
                        default=['minilm_trec6_300', 'minilm_trec6_100', 'lite0_cifar10_50'], help='of real_models.py')
    parser.add_argument('--seeds', type=int, default=1, help='number of seeds')
    parser.add_argument('--cache', type=Path, default=Path('text_cache'), help='folder for tokens')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results/rates.jsonl', help='file of the results')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--table', action='store_true', help='only the table of the results there are')
    args = parser.parse_args()
    args.weights = SHARED if SHARED.exists() else None
    warnings.filterwarnings('ignore')
    os.environ['HF_HUB_OFFLINE'] = '1'
    torch.set_num_threads(args.threads)
    todo = [] if args.table else [(c, s, *pair) for s in range(args.seeds) for c in args.cells for pair in PAIRS[CELLS[c].model]]
    how = versions(args) if todo else {}
    for cell,seed,head,body in todo:
        what = dict(cell=cell, seed=seed, head=head, body=body)
        if any(what.items() <= r.items() for r in read(args.out)): continue
        with args.out.open('a') as f: f.write(json.dumps(what | losses(cell, seed, head, body, args) | how) + '\n')
    print(table(read(args.out)))

if __name__ == '__main__': main()
