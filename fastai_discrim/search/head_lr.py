"Find the head's rate, η_L, by fine-tuning only the head (ULMFiT, section 3.2)"
__all__ = []

from numbers import Integral

import numpy as np
from fastai.learner import Learner
from fastai.torch_core import get_model, rank_distrib
from fastcore.basics import ifnone, patch
from fastprogress.fastprogress import progress_bar

from ..callbacks.freezing import freeze_all_but
from ..checks import check_count, check_data, check_list, check_moms, check_number
from ..data_state import random_states, set_random
from ..groups.by_hand import check_some_train
from ..groups.layer_groups import check_groups
from ..plan.origin import HeadLR
from ..plan.schedules import STLR, Schedule
from ..user_warning import warn_user
from .caution import caution, check_finite, far_targets, is_trained
from .choice import about_as_good, search_lrs
from .frozen_head import FeatureHead
from .head_cost import MAX_STEPS, most_steps
from .losses import joined_parts, mean_losses
from .plot import plot_search
from .run_search import measure_nothing, run_search
from .split_head import HeadNotSeparable, split_head
from .trained_loss import check_trained_loss

# `frozen_features`, `head_trials` and `range_test` are imported inside functions: they import fastai.callback.schedule and .progress, which
# change the default callbacks of every learner


def _check_lrs(lrs):
    "Return the rates to try in ascending order, without duplicates"
    if isinstance(lrs, Integral): raise TypeError(f'lrs={lrs}: expected rates to try, in a list or tuple; give epochs as `n_epoch={lrs}`')
    lrs = check_list(lrs, 'lrs', 'rates to try')
    for lr in lrs: check_number(lr, 'lrs')
    lrs = np.unique(lrs)
    if len(lrs) < 2: raise ValueError(f'lrs={lrs.tolist()}: expected at least 2 rates to choose from; give more, or None')
    return lrs

def _losses_at(learn, head, sets, runs, **fit_args):
    "Return a function that trains the head at each rate on each of `sets` and returns its validation losses, the mean over `runs` orders"
    from .head_trials import trial_losses
    states = random_states()
    def _losses(lrs):
        # All rates see the same batches, even those that are tried later
        set_random(states)
        trials = [(train, valid) for _ in range(runs) for train,valid in sets]
        # `display=False` would print an empty bar
        bar = progress_bar(trials, leave=False) if hasattr(learn, 'progress') else trials
        losses = [trial_losses(learn, head, train, valid, lrs, **fit_args) for train,valid in bar]
        of_runs = [joined_parts(losses[i:i+len(sets)]) for i in range(0, len(losses), len(sets))]
        return mean_losses(of_runs)
    return _losses

def _size(params): return sum(p.numel() for p in params)

def _limited(most, sets, runs, n_epoch):
    "Limit the trials at one rate to about `most` steps: return fewer `sets`, fewer runs on each and fewer epochs if need be"
    is_costly = most < MAX_STEPS
    if is_costly: sets = sets[:max(1, most//len(sets[0][0]))]
    n_epoch = min(n_epoch, max(1, most//sum(len(t) for t,_ in sets)))
    # With several folds, one run each is enough
    return sets,1 if is_costly or len(sets) > 1 else runs,n_epoch

def _by_trials(learn, head, lrs, n_batch, runs, n_epoch, **fit_args):
    "Choose by the validation loss of the head on frozen features; return the `HeadLR`, and a warning or None"
    from .folds import folds
    from .frozen_features import train_and_valid_features
    n_params = _size(head.params),_size(get_model(learn.model).parameters())
    most = most_steps(n_params, head.costs)
    train,valid = train_and_valid_features(learn, head, min(n_batch, most) if most < MAX_STEPS else n_batch)
    sets,runs,n_epoch = _limited(most, folds(train, valid), runs, n_epoch)
    tried,losses = search_lrs(_losses_at(learn, head, sets, runs, n_epoch=n_epoch, **fit_args), lrs)
    check_finite(losses)
    good = about_as_good(losses.at(slice(-1)))
    lr = float(tried[good[0]])
    how = f'validation loss of the head, {n_epoch} epoch{"s" if n_epoch > 1 else ""} at each of {len(tried)} rates'
    if len(sets) > 1: how += f', {len(sets)}-fold cross-validation'
    *means,untrained = losses.mean
    predict = FeatureHead(head).eval()
    # A trained head may have nothing left to learn
    trained = is_trained(learn, predict, train)
    warning = None if trained else caution(losses, lr, far_targets(learn, predict, train))
    if trained: untrained = float('nan')
    return HeadLR(lr, tried, np.array(means), how, untrained, tuple(map(float, tried[good]))),warning

def _head_lr(learn, n_groups, lrs, **trial_args):
    "Return the `HeadLR`, and a warning or None; `learn` is changed"
    # This also imports fastai.callback.progress, which adds `no_bar` to the learner
    from .range_test import range_test
    measure_nothing(learn)
    # A compiled model doesn't call hooks; the original model has the same parameters
    if hasattr(learn.model, '_orig_mod'): learn.model = learn.model._orig_mod
    if learn.opt is None: learn.create_opt()
    freeze_all_but(learn, (n_groups-1,))
    try:
        with learn.no_bar(),learn.no_logging():
            head = split_head(learn, learn.opt.param_lists[-1])
            check_trained_loss(learn, learn.pred.ndim)
    except HeadNotSeparable as e: return range_test(learn, lrs, str(e))
    return _by_trials(learn, head, lrs, **trial_args)

@patch
def head_lr_find(self:Learner,
    lrs=None, # Rates to try; None for 13 from 1e-3 to 1, and more beyond an end if the best rate is clear and near it
    n_epoch:int=1, # Epochs that the head is trained at each rate
    show_plot:bool=True, # Plot the loss against the rate?
    *,
    n_batch:int=50, # Training batches, at most, that run through the body, with a quarter as many validation items: limits time and memory
    runs:int=2, # Trainings at each rate, in different orders; their mean loss counts
    sched:Schedule|None=None, # Schedule of the training; None for the paper's, `STLR()`
    moms:tuple|None=None, # Momentum, as many values as the schedule takes; None for `learn.moms`
    wd:float|None=None, # Weight decay, as in `fit`
) -> HeadLR: # The chosen rate, the rates tried and their losses, and how they were found
    """Find η_L by fine-tuning only the head, once per rate, on frozen features, so that the body runs once. Choose the lowest rate that is
    about as good as the best; with fewer than 500 items, by cross-validation, with fewer folds for a costly head. If the head can't run
    without the body, run a range test and log that. Leave no trace on the learner; raise `ValueError` if no loss is finite

    >>> found = learn.head_lr_find(n_epoch=4, show_plot=False)
    >>> found
    HeadLR(lr=..., by validation loss of the head, 4 epochs at each of ... rates, 5-fold cross-validation)
    >>> plan = learn.ulmfit_plan(4, found)   # at that rate, and it says so
    """
    sched = ifnone(sched, STLR())
    if lrs is not None: lrs = _check_lrs(lrs)
    for name,n in dict(n_epoch=n_epoch, n_batch=n_batch, runs=runs).items(): check_count(n, name)
    if not isinstance(sched, Schedule): raise TypeError(f'sched={sched!r}: expected a Schedule, such as STLR() or OneCycle()')
    if moms is not None: check_moms(moms, counts=sched.n_moms)
    groups = check_groups(self)
    if len(groups)-1 in check_some_train(self, groups):
        raise ValueError('all parameters of the head are frozen by hand: expected some that train; give a rate, as in '
                         '`fit_ulmfit(6, 1e-2)`, or let them train by `learn.unfreeze()`')
    check_data(self)
    def _search():
        return _head_lr(self, len(groups), lrs, n_epoch=n_epoch, n_batch=n_batch, runs=runs, sched=sched, moms=moms, wd=wd)
    res,warning = run_search(self, _search, 'η_L')
    if rank_distrib() != 0: return res
    if warning: warn_user(warning)
    if show_plot: plot_search(res, 'head', 'training loss, smoothed' if res.how.startswith('range test') else 'validation loss')
    return res
