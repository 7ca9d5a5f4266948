"Which loss trains: a model or a callback may compute another one in training than in validation"
__all__ = []

import math

from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Learner
from fastcore.basics import first

from ..callbacks.base import group_callbacks
from .restored import restored
from .split_head import HeadNotSeparable

# Rounding in half precision is below it, and so is a term that doesn't matter to a rate
TOL = 1e-2


class SeeLoss(Callback):
    "Keep the loss that trains, that by `loss_func`, and how many dimensions the prediction has; end the fit before its first step"
    # After all that change the loss
    order = 10_000
    def __init__(self): self.seen = None
    def after_loss(self):
        of_pred = self.learn.loss_func(self.pred, *self.yb)
        self.seen = self.learn.loss.mean().item(),of_pred.mean().item(),getattr(self.pred, 'ndim', None)
        raise CancelFitException()

def _run_batch(learn, cb):
    "Run the first batch of a fit, as far as `cb` lets it"
    train = learn.dls.train
    batch = train.one_batch() if hasattr(train, 'one_batch') else first(train)
    # They would check the fit, which is none
    learn.remove_cbs(group_callbacks(learn.cbs))
    learn.n_epoch,learn.epoch,loaders = 1,0,learn.dls.loaders
    def _do_epoch(): learn._with_events(learn._do_epoch_train, 'epoch', CancelFitException)
    try:
        learn.dls.loaders = [[batch], *loaders[1:]]
        with learn.added_cbs(cb): learn._with_events(_do_epoch, 'fit', CancelFitException)
    finally: learn.dls.loaders = loaders

def check_trained_loss(
    learn:Learner, # The learner, which is put back
    ndim:int, # How many dimensions its prediction has in validation
):
    "Raise `HeadNotSeparable` where it isn't `loss_func` of the prediction that trains: heads that run alone have that"
    cb = SeeLoss()
    with restored(learn):
        # What fails in training is said by the fit, as by stock fastai's
        try: _run_batch(learn, cb)
        except Exception: return
    if cb.seen is None: return
    loss,other,train_ndim = cb.seen
    if train_ndim != ndim: raise HeadNotSeparable('the model gives something else in training than in validation')
    # One that is not finite is said later
    if math.isfinite(loss) and not math.isclose(loss, other, rel_tol=TOL, abs_tol=1e-12):
        raise HeadNotSeparable('another loss than `loss_func` trains')
