"A callback that trains by the loss that the model itself computes"
__all__ = []

from fastai.callback.core import Callback, TrainEvalCallback
from torch import Tensor


class ModelLoss(Callback):
    "Pass `labels` to the model, and train by the loss that it returns. `loss_func` still decodes, and computes the losses of single items"
    # Run early, so that mixed precision, gradient accumulation and the like act on this prediction and this loss
    order = TrainEvalCallback.order+1

    def before_batch(self):
        if not self.yb: return
        batch,labels = self.xb[0],self.yb[0].as_subclass(Tensor)
        self.learn.xb = {**batch, 'labels': labels},

    def after_pred(self):
        if isinstance(self.pred, Tensor): return
        self.own_loss = self.pred.loss
        self.learn.pred = self.pred.logits

    def after_loss(self):
        own_loss = self.__dict__.pop('own_loss', None)
        # The loss has dimensions if fastai asks for the losses of single items; the model has only their mean
        if own_loss is None or self.loss.ndim: return
        self.learn.loss_grad = own_loss
        self.learn.loss = own_loss.clone()
