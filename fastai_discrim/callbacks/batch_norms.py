"Correct the running statistics of batch norms for the pretrained ones, which outlast a short fit"
__all__ = ['DebiasBatchNorm']

from fastai.torch_core import get_model
from torch import nn

from .base import FitCallback

# A share of earlier statistics up to this doesn't matter
LITTLE = 0.01


def _kept_share(norm, n_steps):
    "Return the share of the earlier running statistics that is left after `n_steps` steps"
    return (1-norm.momentum)**n_steps

def _is_new(norm):
    "Tell whether the running statistics are those that torch makes a batch norm with: it has seen no data yet"
    return not norm.running_mean.any() and bool((norm.running_var == 1).all())

def biased_norms(
    model:nn.Module, # The model
    n_steps:int, # Training steps of a fit
) -> dict: # Batch norms, by name
    "Return the batch norms that would keep more than 1 % of their pretrained running statistics in a fit of `n_steps` steps"
    def _is_biased(m):
        averages = isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats and m.momentum
        return averages and LITTLE < _kept_share(m, n_steps) < 1 and not _is_new(m)
    return {name: m for name,m in get_model(model).named_modules() if _is_biased(m)}

class DebiasBatchNorm(FitCallback):
    """Remove the statistics from before the fit from the running statistics of batch norms, as Adam removes the bias of its averages
    (Kingma & Ba 2015, section 3). A batch norm with a momentum of 0.01, as in EfficientNets, takes 460 steps to forget 99 % of the
    pretrained statistics; after a shorter fit it validates with statistics of other data. The correction comes after each epoch, before
    the validation. Batch norms that are new, that are frozen or that forget in time stay bit for bit as they are

    >>> learn.fit_one_cycle(2, 1e-2, cbs=DebiasBatchNorm())
    """
    # `learn.export` leaves it out: it holds tensors
    _stateattrs = ('before',)
    # By the name of the batch norm: mean, variance and number of batches when the fit began, and number of batches at the last correction
    before = None

    def before_fit(self):
        # Two of them would correct twice; `fit_ulmfit` adds one by itself
        is_first = next(cb for cb in self.learn.cbs if isinstance(cb, DebiasBatchNorm)) is self
        norms = biased_norms(self.model, self.n_epoch*len(self.dls.train)) if is_first else {}
        self.before = {k: [m.running_mean.clone(), m.running_var.clone(), *2*[int(m.num_batches_tracked)]] for k,m in norms.items()}

    def after_train(self): self._correct()

    def after_fit(self):
        # A fit that is cancelled within an epoch has no `after_train`
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
                # The next correction begins with the corrected ones
                running.sub_(kept*earlier.to(running)).div_(1-kept)
                earlier.copy_(running)
            # Rounding can make a variance of 0 negative
            norm.running_var.clamp_(min=0)
            self.before[name][3] = n
