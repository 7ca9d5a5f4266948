"""`head_lr_find` against `lr_find`: how good, how steady and how dear is the rate that each gives the head of a frozen text classifier?

    python benchmarks/head_lr.py [--sets docstrings trec6 ag imdb] [--seeds 5] [--out benchmarks/results/head_lr.json]
    python benchmarks/head_lr.py --table
    python benchmarks/head_lr.py --growth
    python benchmarks/head_lr.py --noise

A seed sets the split, the head's first weights and the order of the batches; each finder has a learner and data loaders of its own.
Then the head is fully trained at every rate: those that `head_lr_find` tried, and those that were chosen. That is one epoch of slanted
triangle, as in the head's phase of `fit_ulmfit`, over the whole training set, the body in training mode. All rates share the body's
passes, so they see the same batches under the same dropout; each is trained eight times, the head under another dropout each time, and
the mean counts: the lowest of many noisy losses would be too low.

- regret: the loss at the chosen rate over the lowest at any of the rates, on 15 % of the data that neither finder saw
- spread: the highest rate that was chosen over the seeds, by the lowest
- cost: time of `head_lr_find` by that of `lr_find`
- noise: the standard deviation, over the validation texts of 1,000, of the difference between the losses of the best head and another one,
  by the mean loss of an untrained one; of rates whose loss lies above the best by less than a fifth of what the best gains

Data: docstrings are on every machine. TREC-6 and AG News are read from FASTAI_HOME/data/trec6/train.csv (label,text) and `URLs.AG_NEWS`,
of which 10,000 rows are taken, and IMDb from `URLs.IMDB`, 5,000 reviews. What can't be had is left out.
Weights: a pretrained AWD-LSTM of embedding 200 and hidden 400 in --weights; where that is not, fastai's own, which are downloaded."""
import argparse
import json
import platform
import random
import time
import warnings
from copy import deepcopy
from functools import partial
from pathlib import Path
from urllib.error import URLError

import fastai
import numpy as np
import pandas as pd
import torch
from fastai.callback.schedule import minimum, slide, steep, valley
from fastai.data.core import DataLoaders, Datasets
from fastai.data.external import URLs, fastai_cfg, untar_data
from fastai.data.transforms import Categorize, ColReader, RandomSplitter, get_text_files
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.text.core import tokenize_df
from fastai.text.data import Numericalize, Pad_Chunk, SortedDL, make_vocab
from fastai.text.learner import TextLearner, text_classifier_learner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config
from fastai.text.models.core import get_text_classifier
from fastai.torch_core import set_seed
from text import commit
from torch import nn
from torch.nn.functional import cross_entropy

from fastai_discrim import __version__
from fastai_discrim.all import docstrings, layerwise_split
from fastai_discrim.search.head_trials import HeadLosses, Heads, SumLoss

SHARED = Path(__file__).resolve().parents[2]/'shared/weights'

def _docstrings(): return docstrings(n_max=150).rename(columns={'package': 'label'})

def _trec6(): return pd.read_csv(fastai_cfg().path('data')/'trec6/train.csv')

def _ag():
    df = pd.read_csv(untar_data(URLs.AG_NEWS)/'train.csv', header=None, names=['label', 'title', 'text'], keep_default_na=False)
    df['text'] = df['title'] + '. ' + df['text']
    return df if len(df) <= 10_000 else df.sample(10_000, random_state=0)

def _imdb():
    files = random.Random(0).sample(sorted(get_text_files(untar_data(URLs.IMDB)/'train', folders=['pos', 'neg'])), 5000)
    return pd.DataFrame({'label': [f.parent.name for f in files], 'text': [f.read_text() for f in files]})

SETS = dict(docstrings=_docstrings, trec6=_trec6, ag=_ag, imdb=_imdb)

def tokens(df):
    "Tokenized once for all seeds"
    df,counts = tokenize_df(df.reset_index(drop=True)[['label', 'text']], 'text')
    return df,make_vocab(counts)

def learner(df, vocab, weights, seed, test=False):
    "A frozen classifier as `text_classifier_learner` makes it: 70 % of the data to train on, 15 % to validate on, the rest for `test`"
    set_seed(seed)
    train,rest = RandomSplitter(0.3, seed=seed)(df)
    valid = rest[len(rest)//2:] if test else rest[:len(rest)//2]
    tfms = [[ColReader('text'), Numericalize(vocab)], [ColReader('label'), Categorize()]]
    dsets = Datasets(df, tfms, splits=(train, valid), dl_type=SortedDL)
    dls = dsets.dataloaders(bs=64, before_batch=Pad_Chunk(seq_len=72), num_workers=0)
    if weights is None: return text_classifier_learner(dls, AWD_LSTM)
    learn = text_classifier_learner(dls, AWD_LSTM, config=dict(awd_lstm_clas_config, emb_sz=200, n_hid=400), pretrained=False)
    return learn.load_pretrained(*(weights/f'awd_lstm_200_400{o}' for o in ('.pth', '_vocab.pkl')), model=learn.model[0])

def timed(f):
    start = time.perf_counter()
    return f(),time.perf_counter()-start

def by_lr_find(learn):
    "Valley, and the median of the four suggestions"
    with learn.no_bar():
        res = learn.lr_find(show_plot=False, suggest_funcs=(valley, slide, minimum, steep))
    return res.valley,float(np.median([o for o in res if o is not None]))

def by_head(learn, **kwargs):
    with learn.no_bar(),learn.no_logging(): return learn.head_lr_find(show_plot=False, **kwargs)

class Fan(nn.Module):
    "A classifier's frozen body with many heads, `draws` of them for each rate, that differ by dropout"
    def __init__(self, model, n_rates, draws):
        super().__init__()
        self.body = [model[0]] # in a list, for its weights are not to be trained
        self.heads = nn.ModuleList([Heads([deepcopy(model[1]) for _ in range(n_rates)]) for _ in range(draws)])

    def forward(self, x):
        with torch.no_grad(): features = self.body[0].train(self.training)(x)
        return [pred for heads in self.heads for pred,*_ in heads(features)]

def trained(learn, lrs, draws):
    "`draws` heads fully trained at each of `lrs`, and the loss of each"
    losses,fan = HeadLosses(),Fan(learn.model, len(lrs), draws)
    fit = Learner(learn.dls, fan, loss_func=SumLoss(learn.loss_func), opt_func=learn.opt_func, moms=learn.moms, wd=learn.wd,
                  splitter=lambda m: [list(h.parameters()) for heads in m.heads for h in heads.heads])
    with fit.no_bar(),fit.no_logging(): fit.fit_stlr(1, np.tile(lrs, draws), cbs=losses)
    return fan.eval(),losses.losses

def full_losses(learn, lrs, draws):
    "Loss of the head fully trained at each of `lrs`, the mean over `draws`"
    return trained(learn, lrs, draws)[1].reshape(draws, -1).mean(0)

def noise(learn):
    "Loss of an untrained head, how many of 13 rates are about as good as the best, and lowest and highest noise of these"
    # A rate of almost 0 moves nothing but a batch norm's statistics
    fan,losses = trained(learn, np.array([1e-12, *np.geomspace(1e-3, 1, 13)]), 1)
    with torch.no_grad(): batches = [(fan(x), y.as_subclass(torch.Tensor)) for x,y in learn.dls.valid]
    def _each(p, y): return cross_entropy(p.as_subclass(torch.Tensor), y, reduction='none')
    each = np.concatenate([torch.stack([_each(p, y) for p in preds], 1) for preds,y in batches])
    best = losses[1:].argmin()+1
    sd = (each-each[:,[best]]).std(0)/losses[0]
    good = [i for i,o in enumerate(losses) if i not in (0, best) and o-losses[best] < 0.2*(losses[0]-losses[best])]
    return losses[0],len(good),*((sd[good].min(), sd[good].max()) if good else (np.nan, np.nan))

def one_seed(data, weights, seed, draws):
    "The rates that were chosen, their regrets, and the times that took; which finder goes first changes with the seed"
    times,found = {},{}
    for k,find in sorted(dict(lr_find=by_lr_find, head_lr_find=by_head).items(), reverse=seed % 2):
        found[k],times[k] = timed(partial(find, learner(*data, weights, seed)))
    res,(by_valley,by_median) = found['head_lr_find'],found['lr_find']
    chosen = dict(head_lr_find=res.lr, valley=by_valley, median=by_median)
    losses = full_losses(learner(*data, weights, seed, test=True), np.array([*chosen.values(), *res.lrs]), draws)
    regrets = dict(zip(chosen, (losses/np.nanmin(losses) - 1).tolist()))
    return dict(seed=seed, lrs=chosen, regrets=regrets, times=times, curve=dict(lrs=res.lrs.tolist(), found=res.losses.tolist(),
                full=losses[len(chosen):].tolist()))

def table(results):
    "Markdown, a row for each set and finder"
    rows = []
    for name,seeds in results.items():
        cost = [s['times']['head_lr_find']/s['times']['lr_find'] for s in seeds]
        cost = f'{np.median(cost):.2f} ({min(cost):.2f} .. {max(cost):.2f})'
        for k in seeds[0]['lrs']:
            lrs,regrets = [s['lrs'][k] for s in seeds],[100*s['regrets'][k] for s in seeds]
            rows.append((name, k, f'{min(lrs):.1e} .. {max(lrs):.1e}', f'{max(lrs)/min(lrs):.1f}', f'{np.median(regrets):.1f} %',
                         f'{max(regrets):.1f} %', cost if k == 'head_lr_find' else ''))
    head = 'data', 'finder', 'rates', 'spread', 'regret, median', 'worst', 'cost'
    return '\n'.join('| ' + ' | '.join(r) + ' |' for r in (head, ('---',)*len(head), *rows))

def growth(repeats):
    "How the times grow with documents, their length, and rates, one of them changed at a time; AWD-LSTM 200/400, random words"
    def _learner(n, length):
        set_seed(0)
        x = torch.randint(3, 5000, (n, length))
        data = list(zip(x, (x[:,0] % 2)))
        dls = DataLoaders.from_dsets(data, data[:n//4], bs=64, device='cpu', num_workers=0)
        model = get_text_classifier(AWD_LSTM, 5000, 2, config=dict(awd_lstm_clas_config, emb_sz=200, n_hid=400))
        learn = TextLearner(dls, model, splitter=layerwise_split, loss_func=CrossEntropyLossFlat(), path='.')
        learn.create_opt()
        learn.freeze()
        return learn
    print(f'{"documents":>10}{"words":>7}{"rates":>7}{"head_lr_find, s":>17}{"lr_find, s":>12}{"ratio":>7}')
    for n,length,k in ((1000, 50, 13), (4000, 50, 13), (8000, 50, 13), (4000, 200, 13), (4000, 50, 26), (4000, 50, 52)):
        ours,stock = [],[]
        for _ in range(repeats):
            ours.append(timed(partial(by_head, _learner(n, length), lrs=np.geomspace(1e-3, 1, k)))[1])
            stock.append(timed(partial(by_lr_find, _learner(n, length)))[1])
        a,b = np.median(ours),np.median(stock)
        print(f'{n:>10}{length:>7}{k:>7}{a:>17.1f}{b:>12.1f}{a/b:>7.2f}', flush=True)

def sets(args):
    "Names and tokens of the sets that can be had"
    for name in args.sets:
        try: yield name,tokens(SETS[name]())
        except (OSError, URLError) as e: print(f'{name} is left out: {e}')

def noises(args):
    "`noise` of each set and seed, on 1,000 texts of each set"
    print('| data | seed | untrained | rates as good | noise, lowest | highest |\n' + '| --- '*6 + '|')
    for name,(df,vocab) in sets(args):
        for seed in range(args.first_seed, args.first_seed+args.seeds):
            few = df.sample(min(1000, len(df)), random_state=seed).reset_index(drop=True)
            idle,n,low,high = noise(learner(few, vocab, args.weights, seed))
            print(f'| {name} | {seed} | {idle:.2f} | {n} | {low:.2f} | {high:.2f} |', flush=True)

def main(args):
    "The comparison on all sets and seeds"
    results,versions = {},dict(fastai_discrim=__version__, commit=commit(), fastai=fastai.__version__, torch=torch.__version__,
                               python=platform.python_version(), threads=torch.get_num_threads())
    for name,data in sets(args):
        results[name] = []
        for seed in range(args.first_seed, args.first_seed+args.seeds):
            results[name].append(one_seed(data, args.weights, seed, args.draws))
            print(name, {k: results[name][-1][k] for k in ('seed', 'lrs', 'regrets', 'times')}, flush=True)
            args.out.write_text(json.dumps(dict(weights=args.weights.name if args.weights else 'wt103-fwd', draws=args.draws,
                                                versions=versions, results=results), indent=1) + '\n')

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sets', nargs='+', choices=SETS, default=list(SETS), help='data sets')
    parser.add_argument('--seeds', type=int, default=5, help='number of seeds')
    # The method was made looking at seeds 0 to 4 and 100 to 104
    parser.add_argument('--first-seed', type=int, default=200, help='the first of them')
    parser.add_argument('--draws', type=int, default=8, help='full trainings at each rate')
    parser.add_argument('--weights', type=Path, default=SHARED, help='folder of the pretrained language model')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results/head_lr.json', help='where the results go')
    parser.add_argument('--table', action='store_true', help='only the table of the results there are')
    parser.add_argument('--growth', action='store_true', help='only how the times grow')
    parser.add_argument('--noise', action='store_true', help='only the noise')
    parser.add_argument('--repeats', type=int, default=1, help='of every timing of --growth; the median counts')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    if not (args.weights/'awd_lstm_200_400.pth').exists(): args.weights = None
    if args.growth: growth(args.repeats)
    elif args.noise: noises(args)
    else:
        if not args.table: main(args)
        elif not args.out.exists(): parser.error(f'no results in {args.out}: run it without --table')
        print('\n' + table(json.loads(args.out.read_text())['results']))
