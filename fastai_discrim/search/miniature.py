"A fit in miniature: its plan in a few steps, and the validation loss after them"
__all__ = []

from copy import copy
from dataclasses import replace
from itertools import islice

from fastai.callback.core import Callback, CancelValidException
from fastai.learner import Learner
from fastcore.basics import GetAttr
from torch import nn

from ..plan.opening import with_own_steps
from ..plan.plan import Plan
from ..run import fit_plan  # noqa: F401, for `learn.fit_plan`
from .choice import Losses
from .frozen_features import shuffled
from .part_losses import gather_losses, part_losses


class FirstBatches(GetAttr):
    "The first `n` batches of a loader, which begins again where it has fewer; in all else it is that loader"
    _default = 'dl'
    def __init__(self, dl, n:int): self.dl,self.n = dl,n
    def __len__(self): return self.n
    def __iter__(self):
        left = self.n
        while left:
            n_before = left
            for b in islice(self.dl, left):
                left -= 1
                yield b
            if left == n_before: raise ValueError('the training set has no batch: expected at least one')

def miniature(
    plan:Plan, # The plan of the whole fit
    n_steps:int, # Steps of the miniature
) -> Plan:
    "Return `plan` in one epoch of `n_steps` steps: the same shares, rates and schedule"
    shares = [(p.epochs/plan.n_epoch, i) for i,p in enumerate(plan.phases)]
    begun,phases = None,[]
    for epochs,i in with_own_steps(shares, n_steps):
        phase = replace(plan.phases[i], epochs=epochs, early_stop=None)
        # The phase that begins the cycle may have no step
        if phase.sched is None and begun is None: phase = replace(phase, sched=plan.phases[0].sched, moms=plan.phases[0].moms)
        begun = phase.sched or begun
        phases.append(phase)
    return replace(plan, phases=phases)

class FreshNormStats(Callback):
    """Average the running statistics of batch norms over the second half of the steps: after a few steps, those of a low momentum are still
    the pretrained ones"""
    def before_train(self):
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
        self.momenta = [(m, m.momentum) for m in norms]

    def before_batch(self):
        if not self.training or self.iter != len(self.dls.train)//2: return
        for m,_ in self.momenta:
            m.reset_running_stats()
            # The average of all that follow
            m.momentum = None

    def after_train(self):
        for m,momentum in self.momenta: m.momentum = momentum
        self.momenta = []
    after_cancel_fit = after_train

class NoValidation(Callback):
    "Leave out the validation at the end of an epoch"
    def before_validate(self): raise CancelValidException()

class ValidLosses(Callback):
    "Keep the losses of parts of the first items, in `batches`"
    def __init__(self, n_items:int): self.n_items,self.batches = n_items,[]

    def after_batch(self):
        self.batches.append(part_losses(self.learn.loss_func, self.learn.pred, self.yb, float(self.learn.loss)))
        if sum(sum(sizes) for _,sizes in self.batches) >= self.n_items: raise CancelValidException()

def miniature_losses(
    learn:Learner, # The learner, which is changed
    plan:Plan, # The plan of the whole fit
    n_steps:int, # Steps of the miniature
    n_items:int, # Validation items at most, in whole batches
    wd:float=None, # Weight decay, as in `fit`
) -> Losses: # Of one candidate
    "Fit `plan` in `n_steps` steps, and return the validation losses after them"
    train,*others = learn.dls.loaders
    learn.dls = copy(learn.dls)
    learn.dls.loaders = [FirstBatches(train, n_steps), *others]
    learn.fit_plan(miniature(plan, n_steps), wd=wd, cbs=[FreshNormStats(), NoValidation()], reset_opt=True)
    losses = ValidLosses(n_items)
    learn.validate(dl=shuffled(others[0] if others and len(others[0]) else train, n_items), cbs=losses)
    return gather_losses([losses.batches])
