"Train by the loss that a model computes itself"
__all__ = []

from fastai.callback.core import Callback, TrainEvalCallback
from torch import Tensor


class ModelLoss(Callback):
    "Give the model `labels`, and train by the loss that it returns; `loss_func` still decodes, and gives the losses of single items"
    # What others do with prediction and loss, they do with these: mixed precision, accumulated gradients
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
        # Where single losses are asked for, the model has only their mean
        if own_loss is None or self.loss.ndim: return
        self.learn.loss_grad = own_loss
        self.learn.loss = own_loss.clone()
