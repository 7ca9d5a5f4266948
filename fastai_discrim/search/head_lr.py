"Find the head's rate, η_L, by fine-tuning the head alone (ULMFiT, section 3.2)"
__all__ = []

from warnings import warn

import numpy as np
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException, CancelValidException
from fastai.learner import Learner
from fastai.torch_core import rank_distrib
from fastcore.basics import ifnone, patch
from fastprogress.fastprogress import progress_bar

from ..callbacks.ddp import single_process
from ..callbacks.freezing import freeze_all_but
from ..checks import check_count, check_data, check_list, check_moms, check_number
from ..data_state import random_states, set_random
from ..distributed import on_rank0
from ..groups.layer_groups import check_groups
from ..plan.origin import HeadLR
from ..plan.schedules import STLR, Schedule
from .choice import loss_noise, lowers, middle_lr, search_lrs
from .plot import plot_head_lr
from .restored import restored
from .split_head import HeadNotSeparable, split_head

# frozen_features, head_trials and range_test are imported where they are used: they import fastai.callback.schedule and .progress, which
# change the default callbacks of everybody


class PauseTrackers(Callback):
    "Pause loggers and trackers, which look for a callback of this name, as in `get_preds`"
    name = 'gather_preds'

def _check_lrs(lrs):
    "Return the rates to try in ascending order, each once"
    lrs = check_list(lrs, 'lrs', 'rates to try')
    for lr in lrs: check_number(lr, 'lrs')
    lrs = np.unique(lrs)
    if len(lrs) < 2: raise ValueError(f'lrs={lrs.tolist()}: expected at least 2 rates to choose from; give more, or None')
    return lrs

def _losses_at(learn, head, train, valid, runs, **fit_args):
    "Return a function from rates to the validation losses of the head, trained at each: the mean over `runs` orders of the batches"
    from .head_trials import trial_losses
    states = random_states()
    def _losses(lrs):
        # All rates see the same batches, also those that are tried later
        set_random(states)
        # `display=False` would print an empty bar
        bar = progress_bar(range(runs), leave=False) if hasattr(learn, 'progress') else range(runs)
        return np.mean([trial_losses(learn, head, train, valid, lrs, **fit_args) for _ in bar], axis=0)
    return _losses

def _caution(lrs, losses, untrained):
    "Return a warning if it does not matter which rate is chosen, or None; raise if there is nothing to choose from"
    if not np.isfinite(losses).any():
        raise ValueError(f'the validation loss is not finite at any of {len(lrs)} rates from {lrs[0]:.1e} to {lrs[-1]:.1e}: '
                         'expected one at which it is; fix the data or the loss, or try lower `lrs`')
    if lowers(untrained, np.nanmin(losses)): return None
    return (f'no rate lowers the validation loss of an untrained head, {untrained:.4g}, by 1 %: this one says little; '
            'give the head more epochs by `n_epoch`, or look at the data')

def _by_trials(learn, head, lrs, n_batch, runs, n_epoch, **fit_args):
    "Return the `HeadLR` by the validation loss of the head on frozen features; and a warning, or None"
    from .frozen_features import items_in, train_and_valid_features
    train,valid = train_and_valid_features(learn, head, n_batch)
    n_items = items_in(valid)
    losses_at = _losses_at(learn, head, train, valid, runs, n_epoch=n_epoch, **fit_args)
    tried,losses,untrained = search_lrs(losses_at, lrs, n_items)
    caution = _caution(tried, losses, untrained)
    if lrs is None: lr = middle_lr(tried, losses, untrained, loss_noise(untrained, n_items))
    else: lr = float(lrs[np.nanargmin(losses)])
    epochs = f'{n_epoch} epoch{"s" if n_epoch > 1 else ""}'
    return HeadLR(lr, tried, losses, f'validation loss of the head, {epochs} at each of {len(tried)} rates'),caution

def _head_lr(learn, n_groups, lrs, **trial_args):
    "Return the `HeadLR` of `learn`, and a warning, or None; `learn` is changed"
    # fastai.callback.progress, which gives `no_bar`, comes with it
    from .range_test import range_test
    # They cost time, and may fail for a few items
    learn.metrics = []
    if learn.opt is None: learn.create_opt()
    freeze_all_but(learn, (n_groups-1,))
    try:
        with learn.no_bar(): head = split_head(learn, learn.opt.param_lists[-1])
    except HeadNotSeparable as e: return range_test(learn, lrs, str(e))
    return _by_trials(learn, head, lrs, **trial_args)

@patch
def head_lr_find(self:Learner,
    lrs=None, # Rates to try, of which the best is taken; None for 13 from 1e-3 to 1, and further where the best is clear and near an end
    n_epoch:int=1, # Epochs that the head is trained at each
    show_plot:bool=True, # Plot the loss against the rate?
    *,
    n_batch:int=50, # Training batches, at most, that run through the body, and validation items a quarter as many: bounds time and memory
    runs:int=2, # Trainings at each rate, each in another order: their mean loss counts
    sched:Schedule=None, # Schedule of the training; None for the paper's, `STLR()`
    moms:tuple=None, # Momentum, as many values as the schedule takes; None for `learn.moms`
    wd:float=None, # Weight decay, as in `fit`
) -> HeadLR: # The chosen rate, the rates tried and their losses, and how they were found
    """Find η_L by fine-tuning the head alone, once per rate, on frozen features: the body runs once. Where the body is needed, find it by a
    range test, and log that. Leave no trace on the learner; raise `ValueError` where no loss is finite"""
    sched = ifnone(sched, STLR())
    if lrs is not None: lrs = _check_lrs(lrs)
    for name,n in dict(n_epoch=n_epoch, n_batch=n_batch, runs=runs).items(): check_count(n, name)
    if not isinstance(sched, Schedule): raise TypeError(f'sched={sched!r}: expected a Schedule, such as STLR() or OneCycle()')
    if moms is not None: check_moms(moms, counts=sched.n_moms)
    n_groups = len(check_groups(self))
    check_data(self)
    def _search():
        with restored(self),single_process(self):
            try:
                with self.added_cbs(PauseTrackers()):
                    return _head_lr(self, n_groups, lrs, n_epoch=n_epoch, n_batch=n_batch, runs=runs, sched=sched, moms=moms, wd=wd)
            except (CancelFitException, CancelEpochException, CancelTrainException, CancelValidException) as e:
                names = ', '.join(type(cb).__name__ for cb in self.cbs)
                raise ValueError(f'a callback called the pass over the data off, one of {names}: expected a whole one, from which η_L is '
                                 'found; give a rate, or fit without that callback') from e
    res,caution = on_rank0(_search)
    if rank_distrib() != 0: return res
    if caution: warn(caution, stacklevel=2)
    if show_plot: plot_head_lr(res, 'training loss, smoothed' if res.how.startswith('range test') else 'validation loss')
    return res
