"Correct the running statistics of batch norms for the pretrained ones, which outlast a short fit"
__all__ = ['DebiasBatchNorm']

from fastai.learner import Learner
from fastai.torch_core import get_model
from torch import nn

from ..distributed import n_processes
from ..groups.norms import keeps_stats
from .base import FitCallback, is_first

# A share of earlier statistics up to this doesn't matter
LITTLE = 0.01


def _kept_share(norm, n_steps):
    "Return the share of the earlier running statistics that is left after `n_steps` steps"
    return (1-norm.momentum)**n_steps

def _is_new(norm):
    "Tell whether a batch norm has seen no data yet: its running statistics are those that torch creates"
    return not norm.running_mean.any() and bool((norm.running_var == 1).all())

def biased_norms(model:nn.Module, n_steps:int) -> dict:
    "Return the batch norms, by name, that keep more than 1 % of their earlier running statistics in a fit of `n_steps` steps"
    def _is_biased(m):
        if not isinstance(m, nn.modules.batchnorm._BatchNorm) or not keeps_stats(m) or not m.momentum: return False
        return _kept_share(m, n_steps) > LITTLE and not _is_new(m)
    return {name: m for name,m in get_model(model).named_modules() if _is_biased(m)}

def n_updates(learn:Learner, n_epoch:int) -> int:
    "Return how often a batch norm updates its running statistics in `n_epoch` epochs: once per batch of its process"
    # `DistributedTrainer` shares the batches later in `before_fit` than `DebiasBatchNorm` counts them
    return n_epoch*len(learn.dls.train)//n_processes()

class DebiasBatchNorm(FitCallback):
    """Remove the statistics from before the fit from the running statistics of batch norms, as Adam removes the bias of its averages
    (Kingma & Ba 2015, section 3). A batch norm with a momentum of 0.01, as in torchvision's MobileNetV3, takes 459 steps to forget 99 % of
    the pretrained statistics; after a shorter fit it validates with statistics of other data. The correction comes after each epoch, before
    the validation. Batch norms that are new, that are frozen or that forget in time stay bit for bit as they are

    >>> learn.fit_one_cycle(2, 1e-2, cbs=DebiasBatchNorm())
    """
    # `learn.export` leaves these out: they belong to one fit, and one of them holds tensors
    _stateattrs = 'begun','earlier'
    # By the name of the batch norm: its number of batches as the fit began; mean, variance and number of batches as the epoch began
    begun,earlier = {},{}

    def before_fit(self):
        # `fit_plan` may add a second one, which would correct twice
        norms = biased_norms(self.model, n_updates(self.learn, self.n_epoch)) if is_first(self) else {}
        self.begun,self.earlier = {k: int(m.num_batches_tracked) for k,m in norms.items()},{}

    def before_train(self):
        # Not from the last correction: another callback may have loaded weights of an earlier epoch since
        norms = self._norms()
        self.earlier = {k: [m.running_mean.clone(), m.running_var.clone(), int(m.num_batches_tracked)] for k,m in norms.items()}

    def after_train(self): self._correct()

    # An epoch that is cancelled has no `after_train`, and a fit that is cancelled within an epoch has no `after_epoch`
    def after_epoch(self): self._correct()
    def after_fit(self): self._correct()

    def _norms(self):
        "Return the batch norms to correct, by name; the modules may be others than when the fit began, as in several processes"
        modules = dict(get_model(self.model).named_modules())
        return {k: modules[k] for k in self.begun}

    def _correct(self):
        "Leave a mean over the batches of the fit in the running statistics, with the weights that momentum gives them, scaled to sum to 1"
        for k,m in self._norms().items():
            if k not in self.earlier: continue
            mean,var,n_before = self.earlier[k]
            n = int(m.num_batches_tracked)
            if n == n_before: continue
            kept = _kept_share(m, n-self.begun[k])
            for running,earlier in ((m.running_mean, mean), (m.running_var, var)): running.sub_(kept*earlier.to(running)).div_(1-kept)
            # Rounding can make a variance of 0 negative
            m.running_var.clamp_(min=0)
        self.earlier = {}
