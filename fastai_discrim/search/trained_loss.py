"Check which loss trains: a model or a callback may compute another loss in training than in validation"
__all__ = []

import math

from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Learner

from ..callbacks.base import group_callbacks
from ..data_state import first_batch
from .restored import restored
from .split_head import OTHER_LOSS, HeadNotSeparable

# Relative difference to ignore: rounding in half precision, or a term too small to affect a rate
TOL = 1e-2


class SeeLoss(Callback):
    "Keep the training loss, the loss by `loss_func` and the number of dimensions of the prediction; end the fit before its first step"
    # After all callbacks that change the loss
    order = 10_000
    def __init__(self): self.seen = None
    def after_loss(self):
        of_pred = self.learn.loss_func(self.pred, *self.yb)
        self.seen = self.learn.loss.mean().item(),of_pred.mean().item(),getattr(self.pred, 'ndim', None)
        raise CancelFitException()

def _run_batch(learn, cb):
    "Run the first batch of a fit, until `cb` ends it"
    batch = first_batch(learn.dls.train)
    # These callbacks would check the arguments of `fit`, which is not called
    learn.remove_cbs(group_callbacks(learn.cbs))
    learn.n_epoch,learn.epoch,loaders = 1,0,learn.dls.loaders
    def _do_epoch(): learn._with_events(learn._do_epoch_train, 'epoch', CancelFitException)
    try:
        learn.dls.loaders = [[batch], *loaders[1:]]
        with learn.added_cbs(cb): learn._with_events(_do_epoch, 'fit', CancelFitException)
    finally: learn.dls.loaders = loaders

def check_trained_loss(learn:Learner, ndim:int):
    """Raise `HeadNotSeparable` unless the training loss is `loss_func` of a prediction with `ndim` dimensions, as in validation, since a
    head alone trains with that; restore the learner"""
    cb = SeeLoss()
    with restored(learn):
        # An error in training comes up again in the fit, as in stock fastai
        try: _run_batch(learn, cb)
        except Exception: return
    if cb.seen is None: return
    loss,other,train_ndim = cb.seen
    if train_ndim != ndim: raise HeadNotSeparable('the model returns something else in training than in validation')
    # The search itself reports a loss that is not finite
    if math.isfinite(loss) and not math.isclose(loss, other, rel_tol=TOL, abs_tol=1e-12): raise HeadNotSeparable(OTHER_LOSS)
