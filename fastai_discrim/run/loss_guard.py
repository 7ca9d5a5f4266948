"Say at once when the loss of a fit explodes: in which phase, at which rates, and how to go on"
__all__ = []

import numpy as np
import torch
from fastai.callback.core import CancelFitException
from fastai.torch_core import num_distrib

from ..callbacks.base import FitCallback
from ..distributed import all_gather
from ..plan.plan import Plan
from ..user_warning import warn_user

# Losses are looked at so many at a time: each look waits for the device
N_LOSSES = 10
# The loss of the untrained head: of the first steps, at the low rates that a cycle begins with, as later ones may have exploded
N_FIRST = 2
# An untrained network that gives every class the same probability is at the first losses; noise of small batches stays below twice that
EXPLODED = 4


class LossGuard(FitCallback):
    "Warn where the training loss is far above that of the untrained head; end the fit where the weights are no longer finite"
    # A run that goes on looks at its own losses
    in_checkpoint = False

    def __init__(self,
        plan:Plan, # The plan that runs
        checkpoint:str|None=None, # Name of the fit's checkpoint
        checkpoint_every:int|None=None, # Steps between checkpoints within an epoch: what these hold has been looked at
    ):
        self.plan,self.checkpoint,self.checkpoint_every = plan,checkpoint,checkpoint_every
        self.losses,self.first,self.warned = [],None,False

    def after_batch(self):
        if not self.training: return
        self.losses.append(self.learn.loss.detach())
        is_written = self.checkpoint_every and self.train_iter % self.checkpoint_every == 0
        if len(self.losses) >= N_LOSSES or is_written: self.check()

    # No tensor is left: an exported learner would have it
    def after_train(self): self.check()
    def after_cancel_fit(self): self.losses = []

    def check(self):
        "Look at the losses since the last look"
        if not self.losses: return
        losses = torch.stack([l.float().reshape(()) for l in self.losses]).cpu().numpy()
        self.losses = []
        first,mean = _of_all_processes(losses[:N_FIRST].mean(), losses.mean())
        if not np.isfinite(mean):
            # Under mixed precision a step whose gradients overflow is skipped, and the next ones are good
            if all(p.isfinite().all() for p in self.model.parameters()): return
            warn_user(f'the training loss is not finite {self._where()}, nor are the weights: the fit ends here; {self._advice()}')
            raise CancelFitException()
        if self.first is None: self.first = first
        if mean > EXPLODED*self.first > 0 and not self.warned:
            self.warned = True
            warn_user(f'the training loss is {mean:.3g} {self._where()}, where it began with {self.first:.3g}: expected a lower one; '
                      f'{self._advice()}')

    def _where(self):
        "Say in which step, phase and at which rates the fit is"
        phase = self.plan.phases.index(self.learn.phase)
        rates = ', '.join(f'{name} at {lr:.1e}' for i,(name,lr) in enumerate(zip(self.plan.names, self.learn.phase.lrs))
                          if i in self.learn.phase.groups)
        return f'in epoch {self.epoch}, step {self.iter}, phase {phase+1}, with peak rates {rates}'

    def _advice(self):
        "Say what to do"
        lower = 'with a lower `body_lr`, or a lower `lr` if the head alone trains'
        again = f'try again from the pretrained weights {lower}'
        if self.checkpoint is None: return again
        return f'{again}; or stop, go back by `learn.load_checkpoint({self.checkpoint!r})`, and fit {lower}, and another `checkpoint`'

def _of_all_processes(*means):
    "Return the mean of each number over all processes that train: they have to end together. A search trains in one of them alone"
    if num_distrib() > 1: means = np.mean(all_gather(means), axis=0)
    return map(float, means)
