"""Measure how a fit depends on the rates of head and body, and whether a short fit in miniature tells which rates are best.

    python benchmarks/rates.py [--cells minilm_trec6_300 minilm_trec6_100 ..] [--seeds 1] [--heads 0.00078 ..] [--unclipped] [--epochs 1]
    python benchmarks/rates.py --table

The cells are those of real_models.py. For each pair of rates the plan of `fit_ulmfit` runs whole, and in miniature as in `body_lr_find`:
in half of the steps, and in at most 40. For the AWD-LSTM, the factor by which the rates of the body fall differs, too, and the fraction of
the fit in which the rates rise. The gradients of the transformer are clipped as in `fit_ulmfit`, or not at all. Whole fit and miniature
are evaluated on 400 training items (AWD-LSTM: 1,500) that neither train nor validate, never on the test set.
Results: --out gets a line of JSON when a fit ends; fits that are in --out are not run again."""
import argparse
import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.torch_core import set_seed
from real_models import versions
from real_models_data import CELLS, IMAGES, _by_length, _padded, draw, draw_images, enlarged, learner, loaders, token_ids
from real_models_report import title
from text_data import SHARED, tokens
from text_report import markdown

from fastai_discrim.plan.schedules import STLR
from fastai_discrim.search.body_lr import n_steps
from fastai_discrim.search.miniature import miniature_losses
from fastai_discrim.search.restored import restored

# Rates of head and body, by model, the factor by which those of the body fall, and `cut_frac`; None for the default. For MiniLM, the first
# head's rate is that found with a frozen body, and six pairs have the paper's ratio; for EfficientNet-Lite0, it is the one that the
# search found on CIFAR-10 with 50 labels per class, and two more are 2.6 times and once the body's rate
MINILM = [(.056, 3e-4), (.01, 3e-4), (.003, 3e-4), (.001, 3e-4), (.00078, 3e-4), (.00052, 2e-4), (.00026, 1e-4), (.003, 1e-3),
          (.0013, 5e-4), (.0018, 7e-4), (.0026, 1e-3)]
LITE0 = [(.0018, 1e-3), (.0018, 2e-3), (.0018, 3e-3), (.0026, 1e-3), (.001, 1e-3)]
AWD = [(.003, .001, 1., None), (.003, .003, 1., None), (.003, .003, 2.6, None), (.003, .0077, 1., None), (.003, .0077, 2.6, None),
       (.003, .003, 1., .5), (.003, .0077, 1., .5)]
PAIRS = dict(minilm=[(*pair, None, None) for pair in MINILM], lite0=[(*pair, None, None) for pair in LITE0], awd=AWD)
# Fields of a result that say which fit it is
KEYS = 'cell', 'seed', 'epochs', 'head', 'body', 'clipped', 'factor', 'cut_frac'
# Items on which a fit is evaluated, at most
N_ITEMS,N_ITEMS_AWD = 400,1500

def unused(n, used, seed, most) -> np.ndarray:
    "Draw the indices of at most `most` of `n` items, without those in `used`, lists of indices"
    return np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(n), np.concatenate(used)))[:most]

def others(learn, name, seed, args):
    "Return a loader of training items that neither train nor validate in a cell"
    cell = CELLS[name]
    if cell.model == 'lite0':
        (x,y),_ = IMAGES[cell.data][0]()
        idxs = unused(len(y), draw_images(y, cell.labels, seed), seed, N_ITEMS)
        return loaders([], [], enlarged(x[idxs], [y[i] for i in idxs]), 64).loaders[2]
    is_awd = cell.model == 'awd'
    train = tokens(cell.data, args.cache)[0] if is_awd else token_ids(cell.data)[0]
    idxs = unused(len(train), draw(len(train), cell.labels, seed), seed, N_ITEMS_AWD if is_awd else N_ITEMS)
    if is_awd: return DataLoaders(*learn.dls.loaders[:2]).test_dl(train.iloc[idxs], with_labels=True)
    return loaders([], [], _by_length([train[i] for i in idxs]), 64, _padded).loaders[2]

def losses(args, cell, seed, epochs, head, body, clipped, factor=None, cut_frac=None) -> dict:
    "Run the fit in miniature and whole, and return the losses and the error on unused items"
    learn = learner(cell, seed, args)
    dl = others(learn, cell, seed, args)
    n_fit = epochs*len(learn.dls.train)
    steps = n_steps(n_fit)
    plan = learn.ulmfit_plan(epochs, head, body, factor, cut_frac, clip=None if clipped else math.inf)
    with learn.no_bar(),learn.no_logging():
        set_seed(seed)
        with restored(learn):
            miniature_losses(learn, plan, steps, N_ITEMS)
            short,_ = learn.validate(dl=dl)
        set_seed(seed)
        learn.fit_plan(plan)
        loss,accuracy = learn.validate(dl=dl)
    return dict(steps=n_fit, miniature_steps=steps, miniature_loss=short, loss=loss, error=1-accuracy)

def read(path) -> list:
    "Read the saved fits"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

def table(runs) -> str:
    "Make a table with one row for each pair of rates: mean losses after the miniature and after the fit, and the mean error of the fit"
    rows = []
    def _key(r): return r['cell'],r['steps'],r['head'],r['body'],r['clipped'],r.get('factor'),r.get('cut_frac', STLR.cut_frac)
    by_cell = sorted(runs, key=lambda r: list(CELLS).index(r['cell']))
    for key in dict.fromkeys(map(_key, by_cell)):
        same,(cell,steps,head,body,clipped,factor,cut_frac) = [r for r in runs if _key(r) == key],key
        mean = {k: np.mean([r[k] for r in same]) for k in ('miniature_loss', 'loss', 'error')}
        shown = f'{mean["miniature_loss"]:.2f}',f'{mean["loss"]:.2f}',f'{100*mean["error"]:.1f}'
        how = f'{head:g}', f'{body:g}', f'{factor:g}' if factor else '', f'{cut_frac:g}', 'yes' if clipped else 'no'
        rows.append((f'{CELLS[cell].model}, {title(cell)}', steps, *how, *shown, len(same)))
    columns = 'cell', 'steps', 'head at', 'body at', 'factor', 'rise', 'clipped', 'loss, miniature', 'loss, whole fit', 'error, %', 'seeds'
    return markdown(columns, *rows)

def main():
    "Run the chosen fits, and print the table"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cells', nargs='+', choices=[k for k,c in CELLS.items() if c.model in PAIRS], metavar='CELL',
                        default=['minilm_trec6_300', 'minilm_trec6_100', 'lite0_cifar10_50'], help='cells of real_models.py')
    parser.add_argument('--heads', nargs='+', type=float, metavar='LR', help='only pairs with these rates of the head')
    parser.add_argument('--unclipped', action='store_true', help='do not clip the gradients of a transformer')
    parser.add_argument('--epochs', type=int, help='epochs of a fit, if not those of the cell')
    parser.add_argument('--seeds', type=int, default=1, help='number of seeds')
    parser.add_argument('--cache', type=Path, default=Path('text_cache'), help='folder for tokens')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results/rates.jsonl', help='file of the results')
    parser.add_argument('--threads', type=int, default=1, help="number of torch's threads")
    parser.add_argument('--table', action='store_true', help='only print the table of the results in --out')
    args = parser.parse_args()
    args.weights = SHARED if SHARED.exists() else None
    warnings.filterwarnings('ignore')
    os.environ['HF_HUB_OFFLINE'] = '1'
    torch.set_num_threads(args.threads)
    todo = [] if args.table else [(c, s, *pair) for s in range(args.seeds) for c in args.cells for pair in PAIRS[CELLS[c].model]
                                  if args.heads is None or pair[0] in args.heads]
    how = versions(args) if todo else {}
    for cell,seed,head,body,factor,cut_frac in todo:
        clipped = CELLS[cell].model == 'minilm' and not args.unclipped
        what = dict(cell=cell, seed=seed, epochs=args.epochs or CELLS[cell].epochs, head=head, body=body, clipped=clipped)
        what |= {k: v for k,v in dict(factor=factor, cut_frac=cut_frac).items() if v}
        if any(what == {k: v for k,v in r.items() if k in KEYS} for r in read(args.out)): continue
        measured = losses(args, **what)
        with args.out.open('a') as f: f.write(json.dumps(what | measured | how) + '\n')
    print(table(read(args.out)))

if __name__ == '__main__': main()
