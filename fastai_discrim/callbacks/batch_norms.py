"Batch norms whose running statistics are those of the fit, however short it is"
__all__ = ['DebiasBatchNorm']

import torch
from fastai.torch_core import get_model
from torch import nn

from .base import FitCallback

# What weighs less in the running statistics is no bias to speak of
LITTLE = 0.01


def _kept_share(norm, n_steps):
    "Return the weight that the running statistics of before have after `n_steps` steps"
    return (1-norm.momentum)**n_steps

def biased_norms(
    model:nn.Module, # The model
    n_steps:int, # Training steps of a fit
) -> dict: # Batch norms, by name
    "Return the batch norms whose running statistics would keep more than 1 % of the earlier ones in a fit of `n_steps` steps"
    def _is_biased(m):
        averages = isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats and m.momentum
        return averages and LITTLE < _kept_share(m, n_steps) < 1
    return {name: m for name,m in get_model(model).named_modules() if _is_biased(m)}

class DebiasBatchNorm(FitCallback):
    """Take the statistics of before the fit out of the running statistics of batch norms, as Adam corrects the bias of its averages (Kingma &
    Ba 2015, section 3). Networks with a momentum of 0.01, such as EfficientNets, need 460 steps to forget 99 % of the pretrained
    statistics: after a shorter fit they would validate with statistics of other data. Correct them after each epoch, before it validates.
    Batch norms that don't train, or forget in time, stay as they are bit for bit

    >>> learn.fit_one_cycle(2, 1e-2, cbs=DebiasBatchNorm())
    """
    # Tensors, which `learn.export` leaves out
    _stateattrs = ('before',)
    # By name, for each batch norm that would be biased: mean, variance and number of batches as the fit began, and at the last correction
    before = None

    def before_fit(self):
        # Our fits add one: two would correct twice
        is_first = next(cb for cb in self.learn.cbs if isinstance(cb, DebiasBatchNorm)) is self
        norms = biased_norms(self.model, self.n_epoch*len(self.dls.train)) if is_first else {}
        self.before = {k: [m.running_mean.clone(), m.running_var.clone(), *2*[int(m.num_batches_tracked)]] for k,m in norms.items()}

    def after_train(self): self._correct()

    def after_fit(self):
        # A fit that ends within an epoch has had no `after_train`
        self._correct()
        self.before = None

    def _correct(self):
        "Leave a weighted mean over the batches of the fit in the running statistics, with the weights that momentum gives them"
        modules = dict(get_model(self.model).named_modules())
        for name,(mean,var,n_begun,n_last) in self.before.items():
            norm,n = modules[name],int(modules[name].num_batches_tracked)
            if n == n_last: continue
            kept = _kept_share(norm, n-n_begun)
            for running,earlier in ((norm.running_mean, mean), (norm.running_var, var)):
                # From here on the earlier statistics are the corrected ones
                running.sub_(kept*earlier.to(running)).div_(1-kept)
                earlier.copy_(running)
            # Rounding can make a variance of 0 negative
            norm.running_var.clamp_(min=0)
            self.before[name][3] = n
