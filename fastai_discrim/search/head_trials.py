"Train copies of one head on frozen features in one fit, each copy at its own rate"
__all__ = []

from numbers import Number

import numpy as np
import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.schedule import ParamScheduler
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastcore.basics import ifnone, listify
from fastcore.imports import noop
from torch import nn

from ..callbacks.batch_norms import DebiasBatchNorm
from ..plan.schedules import Schedule, usable_scheds
from .frozen_head import SplitHead
from .losses import Losses
from .part_losses import gather_losses, part_losses


class Heads(nn.Module):
    "`FeatureHead`s that get the same features under the same dropout"
    def __init__(self, heads:list):
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features):
        # `torch.random.fork_rng` looks up the devices at every call, which takes as long as a small head
        cpu,cuda,preds = torch.get_rng_state(),torch.cuda.get_rng_state_all(),[]
        for head in self.heads:
            torch.set_rng_state(cpu)
            torch.cuda.set_rng_state_all(cuda)
            preds.append(head(features))
        return preds

class SumLoss:
    "Sum the losses of all heads: as no two share a weight, each gets the gradient of its own loss"
    def __init__(self, loss_func): self.loss_func = loss_func

    def __call__(self, preds, *yb):
        self.each = [self.loss_func(p, *yb).as_subclass(torch.Tensor) for p in preds]
        return sum(self.each)

class HeadLosses(Callback):
    "Validate after the last epoch only, and keep the validation losses of all heads in `losses`"
    def before_validate(self):
        if self.epoch < self.n_epoch-1: raise CancelValidException()
        self.batches = [[] for _ in self.model.heads]

    def after_batch(self):
        if self.training: return
        for batches,pred,loss in zip(self.batches, self.pred, self.loss_func.each):
            batches.append(part_losses(self.loss_func.loss_func, pred, self.yb, loss.item()))

    def after_validate(self):
        if self.epoch == self.n_epoch-1: self.losses = gather_losses(self.batches)

def _loader(batches, device, shuffle=False):
    "Return a loader whose items are complete batches"
    return DataLoader(batches, bs=None, shuffle=shuffle, num_workers=0, device=device, create_batch=noop, retain=lambda res,b: res)

def _of_head(wd):
    "Return the weight decay of the last layer group, if there is one per group"
    if isinstance(wd, slice): return wd.stop
    return wd if wd is None or isinstance(wd, Number) else listify(wd)[-1]

def trial_losses(
    learn:Learner, # The learner: its loss, optimiser and weight decay are used, but not its callbacks
    head:SplitHead, # The head of the learner
    train:list, # Batches to train on: features and targets
    valid:list, # Batches to validate on
    lrs:np.ndarray, # Peak rates, one per copy
    n_epoch:int, # Epochs that each head is trained
    sched:Schedule, # Schedule of the training
    moms:tuple|None=None, # Momentum, as many values as the schedule takes; None for `learn.moms`
    wd:float|None=None, # Weight decay, as in `fit`
) -> Losses: # Validation losses, one candidate per rate
    "Train one copy of the head per rate in `lrs`, all from the same weights and on the same batches"
    device = next(learn.model.parameters()).device
    dls = DataLoaders(_loader(train, device, shuffle=True), _loader(valid, device))
    dls.n_inp = 1
    # Each copy is one layer group
    tuner = Learner(dls, Heads(head.copies(len(lrs))), loss_func=SumLoss(learn.loss_func), opt_func=learn.opt_func, path=learn.path,
                    splitter=lambda m: [h.trainable() for h in m.heads], wd=_of_head(learn.wd), wd_bn_bias=learn.wd_bn_bias)
    tuner.create_opt()
    scheds = usable_scheds(tuner.opt, sched, np.array(lrs), ifnone(moms, learn.moms))
    losses = HeadLosses()
    cbs = [ParamScheduler(scheds), DebiasBatchNorm(), losses]
    with tuner.no_bar(),tuner.no_logging(): tuner.fit(n_epoch, wd=_of_head(wd), cbs=cbs)
    return losses.losses
