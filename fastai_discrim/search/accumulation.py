"Count the steps of a fit, under fastai's `GradientAccumulation` and in several processes"
__all__ = []

from math import ceil

from fastai.learner import Learner

from ..callbacks.base import is_kind
from ..checks import batch_size
from ..distributed import n_processes
from ..optional import if_loaded


def batches_per_step(learn:Learner) -> int:
    "Return the number of batches whose gradients a step sums: 1, unless the learner has a `GradientAccumulation`"
    kind = if_loaded('fastai.callback.training', 'GradientAccumulation')
    n_items = max((cb.n_acc for cb in learn.cbs if is_kind(cb, kind)), default=1)
    # A loader that doesn't tell its batch size may have batches of any size
    return ceil(n_items/(batch_size(learn.dls.train) or n_items))

def fit_steps(learn:Learner, n_epoch:float) -> int:
    "Return the number of steps in `n_epoch` epochs: processes share the batches, and `GradientAccumulation` sums several in a step"
    # Outside a fit, the loader has the batches of all processes
    return int(n_epoch*len(learn.dls.train))//(batches_per_step(learn)*n_processes())
