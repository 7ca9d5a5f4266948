"What is the head's rate, η_L: found by fine-tuning the head alone, and nothing is left of it (ULMFiT, section 3.2)"
__all__ = ['HeadLR']

from collections import namedtuple
from itertools import takewhile
from warnings import warn

import matplotlib.pyplot as plt
import numpy as np
from fastai.callback.core import CancelEpochException, CancelFitException, CancelTrainException, CancelValidException
from fastai.callback.schedule import minimum
from fastai.learner import Learner
from fastai.torch_core import find_bs, get_random_states, rank_distrib, set_random_states
from fastcore.basics import ifnone, patch
from fastprogress.fastprogress import progress_bar
from torch.utils.data import DataLoader, IterableDataset

from .candidates import candidate_losses
from .checks import check_count, check_data, check_list, check_moms, check_number, count_items
from .groups import check_groups
from .kept import StandAside, keep, split_head
from .schedule import STLR, Schedule
from .several import alone, by_first, say
from .unfreeze import train_only
from .untouched import untouched

HeadLR = namedtuple('HeadLR', 'lr lrs losses how')
HeadLR.__doc__ = "What `head_lr_find` found: the rate `lr`, the `losses` at the `lrs` that it was chosen from, and in words `how`"

def eta(
    lr:float|HeadLR, # The head's rate, η_L, or what `head_lr_find` gave
) -> tuple: # The rate, and what a `Plan` keeps of its origin
    "η_L as a number, and where it came from"
    if not isinstance(lr, HeadLR): return lr,dict(lr=lr, lr_from='given')
    return lr.lr,dict(lr=lr.lr, lr_from=f'head_lr_find, {lr.how}', tried=zip(lr.lrs, lr.losses))

def _range_test(learn, lo, hi, runs=3, num_it=100):
    "A tenth of the rate where the mean loss of range tests, each over other batches, is lowest; the rates and these losses"
    curves = []
    for _ in range(runs):
        learn.lr_find(lo, hi, num_it, show_plot=False, suggest_funcs=None)
        lrs = learn.recorder.lrs[num_it//10:-5]
        curves.append(list(takewhile(np.isfinite, map(float, learn.recorder.losses[num_it//10:-5]))))
    # A run ends early where its loss diverges: only what all of them reached can be averaged
    k = min(map(len, curves))
    if k < 2: raise ValueError(f'the loss was finite at {k} rates: expected at least 2; mend the data or the loss, leave out a '
                                'callback that ends a fit, or try lower `lrs`')
    lrs,losses = np.array(lrs[:k]),np.mean([c[:k] for c in curves], axis=0)
    if not losses[0]-losses.min() > 0.01*abs(losses[0]):
        warn(f'no rate of the range test lowers the loss, {losses[0]:.4g}, by 1 %: the one it gives says little; choose one by hand',
             stacklevel=4)
    return minimum(lrs, losses, num_it)[0],lrs,losses

def _shuffled(dl, n):
    "`dl` in random order if it has more than `n` items, for its first ones may be of one class; as it is if that can't be had"
    if isinstance(dl.dataset, IterableDataset) or (size := count_items(dl)) is None or size <= n: return dl
    if hasattr(dl, 'new'): return dl.new(shuffle=True)
    return dl if dl.batch_size is None else DataLoader(dl.dataset, dl.batch_size, shuffle=True, collate_fn=dl.collate_fn)

def _kept_data(learn, entry, n_batch):
    "What goes into the head, and the targets, from a share of the training set and of the validation set, in batches"
    train = keep(learn, entry, learn.dls.train, n_batch)
    if len(learn.dls.loaders) > 1 and len(dl := learn.dls.valid):
        n = max(sum(find_bs(b[1:]) for b in train)//4, 1)
        return train,keep(learn, entry, _shuffled(dl, n), n_items=n)
    k = -(-len(train)//5)
    if k == len(train): raise ValueError('there is no validation set, and 1 batch to train on: expected 2, one to be held out; '
                                         'give the learner a validation set, or smaller batches')
    say(learn, f'head_lr_find: no validation set, so {k} of {len(train)} training batches are held out')
    return train[k:],train[:k]

def _noise(idle, n_items):
    "How far two losses over `n_items` may differ by chance"
    # Two standard errors where the losses of two heads that are about as good differ most from item to item: by a quarter of an idle head's
    # (`benchmarks/head_lr.py --noise`: 0.04 to 0.24)
    return 0.5*abs(idle)/n_items**0.5 if np.isfinite(idle) else 0.

def _centre(lrs, losses, idle, noise=0.):
    "The middle, on a log scale, of the rates whose losses are about as low as the best: there they are flat, and differ by `noise`"
    i,low = np.nanargmin(losses),np.nanmin(losses)
    # What is meant by about: a fifth of the gain over an `idle` head. The choice then hardly changes from run to run, at no cost in loss
    scale = 0.2*max(idle-low, 0) + noise
    if not 0 < scale < np.inf: return float(lrs[i])
    excess = np.nan_to_num(losses-low, nan=np.inf)/scale
    far = np.flatnonzero(excess > 3)
    around = slice(far[far < i].max(initial=-1)+1, far[far > i].min(initial=len(lrs)))
    return float(np.exp(np.average(np.log(lrs[around]), weights=np.exp(-excess[around]))))

def _check(learn, lrs, n_epoch, n_batch, runs, sched, moms):
    "The rates in order, and the number of layer groups; or an error, before anything is changed"
    if lrs is not None:
        lrs = check_list(lrs, 'lrs', 'rates to try')
        for lr in lrs: check_number(lr, 'lrs')
        lrs = np.unique(lrs)
        if len(lrs) < 2: raise ValueError(f'lrs={lrs.tolist()}: expected at least 2 rates to choose from; give more, or None')
    for k,v in dict(n_epoch=n_epoch, n_batch=n_batch, runs=runs).items(): check_count(v, k)
    if not isinstance(sched, Schedule): raise TypeError(f'sched={sched!r}: expected a Schedule, such as STLR() or OneCycle()')
    if moms is not None: check_moms(moms, counts=sched.n_moms)
    n = len(check_groups(learn))
    check_data(learn)
    return lrs,n

def _search(find, lrs, n_items=np.inf):
    """The rates, the losses that `find` gives for them and for none; without `lrs` from 1e-3 to 1, and on while the best is near an end,
    and better than the middle by more than chance makes of the `n_items` that validate"""
    fixed,step = lrs is not None,10**0.25
    if not fixed: lrs = np.geomspace(1e-3, 1, 13)
    # A rate of almost 0 moves nothing but a batch norm's statistics
    idle,*losses = find(np.array([1e-12, *lrs]))
    losses = np.array(losses)
    while not fixed and np.isfinite(losses).any():
        i = np.nanargmin(losses)
        # Few items can't tell the best from the middle: then what lies beyond it is not worth a look
        if losses[len(losses)//2]-losses[i] < _noise(idle, n_items): break
        new = lrs[0]/step**np.arange(4, 0, -1) if i < 2 else lrs[-1]*step**np.arange(1, 5) if i > len(lrs)-3 else None
        if new is None or new[0] < 1e-7 or new[-1] > 1e3: break
        order = np.argsort(lrs := np.concatenate([lrs, new]))
        lrs,losses = lrs[order],np.concatenate([losses, find(new)])[order]
    return lrs,losses,idle

def _check_losses(lrs, losses, idle):
    "Raise if there is nothing to choose from, warn if it does not matter what is chosen"
    if not np.isfinite(losses).any():
        raise ValueError(f'the validation loss is not finite at any of {len(lrs)} rates from {lrs[0]:.1e} to {lrs[-1]:.1e}: '
                         'expected one at which it is; mend the data or the loss, or try lower `lrs`')
    if not idle-np.nanmin(losses) > 0.01*abs(idle):
        warn(f'no rate lowers the validation loss of an untrained head, {idle:.4g}, by 1 %: this one says little; '
             'give the head more epochs by `n_epoch`, or look at the data', stacklevel=3)

def _plot(res, ylabel):
    _,ax = plt.subplots(figsize=(6, 3.5), layout='constrained')
    ax.plot(res.lrs, res.losses, marker='o' if len(res.lrs) < 50 else None, ms=4)
    ax.axvline(res.lr, color='C1', ls='--', label=f'chosen: {res.lr:.2e}')
    ax.set(xscale='log', xlabel='learning rate of the head', ylabel=ylabel)
    # Where the loss diverges says little, and would flatten the rest
    low,start = np.nanmin(res.losses),np.nanmax(res.losses[:len(res.losses)//2])
    top = min(ax.get_ylim()[1], low + 2*(start-low))
    if top > low: ax.set_ylim(low - 0.1*(top-low), top)
    ax.legend()

def _found(learn, lrs, n, n_epoch, n_batch, runs, sched, moms, wd):
    "What `head_lr_find` gives; the learner is changed"
    # They cost time, and may fail for a few items
    learn.metrics = []
    if learn.opt is None: learn.create_opt()
    train_only(learn, (n-1,))
    head,why = split_head(learn, learn.opt.param_lists[-1])
    if head is None:
        say(learn, f'head_lr_find: {why}, so this is a range test, averaged over 3 runs')
        lo,hi = (1e-5, 10) if lrs is None else map(float, lrs[[0, -1]])
        with learn.added_cbs(StandAside()): return HeadLR(*_range_test(learn, lo, hi), f'range test of the head, as {why}')
    data,states = _kept_data(learn, head, n_batch),get_random_states()
    def _find(rates):
        set_random_states(**states)
        bar = progress_bar(range(runs), leave=False, display=hasattr(learn, 'progress'))
        return np.mean([candidate_losses(learn, head, *data, rates, n_epoch, sched, moms, wd) for _ in bar], axis=0)
    n_items = sum(find_bs(b[1:]) for b in data[1])
    tried,losses,idle = _search(_find, lrs, n_items)
    _check_losses(tried, losses, idle)
    lr = _centre(tried, losses, idle, _noise(idle, n_items)) if lrs is None else float(lrs[np.nanargmin(losses)])
    return HeadLR(lr, tried, losses, f'validation loss of the head, {n_epoch} epoch{"s"*(n_epoch > 1)} at each of {len(tried)} rates')

@patch
def head_lr_find(self:Learner,
    lrs=None, # Rates to try, of which the best is taken; None for 13 from 1e-3 to 1, and further where the best is clear and near an end
    n_epoch:int=1, # Epochs that the head is trained at each
    show_plot:bool=True, # Plot the loss against the rate?
    *,
    n_batch:int=50, # Training batches, at most, that run through the body, and validation items a quarter as many: bounds time and memory
    runs:int=2, # Trainings at each rate, each in another order: their mean loss counts
    sched:Schedule=None, # Schedule of the training; None for the paper's, `STLR()`
    moms:tuple=None, # Momentum: start, at the peak rate, end; None for `learn.moms`
    wd:float=None, # Weight decay, as in `fit`
) -> HeadLR: # The chosen rate, the rates tried and their losses, and how they were found
    "Find η_L by fine-tuning the head alone, once per rate, on what the frozen body gives it: the body runs once, and what it gives is kept"
    sched = ifnone(sched, STLR())
    lrs,n = _check(self, lrs, n_epoch, n_batch, runs, sched, moms)
    def _find():
        with untouched(self),alone(self):
            try: return _found(self, lrs, n, n_epoch, n_batch, runs, sched, moms, wd)
            except (CancelFitException, CancelEpochException, CancelTrainException, CancelValidException) as e:
                names = ', '.join(type(cb).__name__ for cb in self.cbs)
                raise ValueError(f'a callback called the pass over the data off, one of {names}: expected a whole one, from which η_L is '
                                 'found; give a rate, or fit without that callback') from e
    # All processes go on with one and the same
    res = by_first(_find)
    if show_plot and rank_distrib() == 0: _plot(res, 'training loss, smoothed' if res.how.startswith('range') else 'validation loss')
    return res
