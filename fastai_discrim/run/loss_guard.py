"Warn when the training loss explodes: in which phase, at which rates, and what to do"
__all__ = []

import numpy as np
import torch
from fastai.callback.core import CancelFitException
from fastai.torch_core import num_distrib

from ..callbacks.base import FitCallback
from ..distributed import all_gather
from ..plan.plan import Plan
from ..user_warning import warn_user

# Losses per check: each check waits for the device
N_LOSSES = 10
# First steps, whose mean loss is that of the untrained head: a cycle begins at low rates, but a few steps later the loss may explode
N_FIRST = 2
# An exploded loss is this many times the first losses. Small batches of an untrained head vary by less than 2. For a trained head, whose
# losses may be near 0, one hard batch can exceed it, so the median of the last half of a check counts
EXPLODED = 4


class LossGuard(FitCallback):
    "Warn if the training loss is far above the first losses; end the fit if the weights are no longer finite"
    def __init__(self, plan:Plan, checkpoint:str|None=None, checkpoint_every:int|None=None):
        self.plan,self.checkpoint,self.checkpoint_every = plan,checkpoint,checkpoint_every
        self.losses,self.first,self.warned = [],None,False

    def after_batch(self):
        if not self.training: return
        self.losses.append(self.learn.loss.detach())
        # Check the losses before each checkpoint within an epoch
        is_written = self.checkpoint_every and self.train_iter % self.checkpoint_every == 0
        if len(self.losses) >= N_LOSSES or is_written: self.check()

    # Keep no tensors after an epoch: `learn.export` would pickle them
    def after_train(self): self.check()
    def after_cancel_fit(self): self.losses = []

    def check(self):
        "Check the losses since the last check"
        if not self.losses: return
        losses = torch.stack([l.float().reshape(()) for l in self.losses]).cpu().numpy()
        self.losses = []
        first,mean,last = _of_all_processes(losses[:N_FIRST].mean(), losses.mean(), np.median(losses[len(losses)//2:]))
        if not np.isfinite(mean):
            # Mixed precision skips a step whose gradients overflow, and the next steps are fine
            if all(p.isfinite().all() for p in self.model.parameters()): return
            warn_user(f'the training loss is not finite {self._where()}, nor are the weights: the fit ends here; {self._advice()}')
            raise CancelFitException()
        if self.first is None: self.first = first
        if last > EXPLODED*self.first > 0 and not self.warned:
            self.warned = True
            # The next checkpoint would have the weights that went wrong
            stop = '' if self.checkpoint is None else 'stop the fit before it writes the next checkpoint, and '
            warn_user(f'the training loss rose from {self.first:.3g} to {last:.3g} {self._where()}: expected it to fall; '
                      f'{stop}{self._advice()}')

    def _where(self):
        "Return the step, the phase and the peak rates of the groups that train, in words"
        n_iter = len(self.dls.train)
        i_phase = self.plan.timeline(n_iter).phase(self.epoch*n_iter + self.iter)
        phase = self.plan.phases[i_phase]
        rates = ', '.join(f'{self.plan.names[i]} at {phase.lrs[i]:.1e}' for i in phase.groups)
        return f'in epoch {self.epoch}, step {self.iter}, phase {i_phase+1}, with peak rates {rates}'

    def _advice(self):
        "Return what to do, in words"
        source = '' if self.checkpoint is None else f', or from `learn.load_checkpoint({self.checkpoint!r})`,'
        return f'start again from the pretrained weights{source} with a lower `body_lr` (`lr` if only the head trains)'

def _of_all_processes(*means):
    "Return the mean of each number over all processes that train, so that they end together; a search trains in a single process"
    if num_distrib() > 1: means = np.mean(all_gather(means), axis=0)
    return map(float, means)
