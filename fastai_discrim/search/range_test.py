"Find the head's rate by a range test, for heads that can't run without the body"
__all__ = []

from itertools import takewhile

import numpy as np
from fastai.callback.schedule import minimum
from fastai.imports import noop
from fastai.learner import Learner

from ..callbacks.base import overridden
from ..distributed import log_rank0
from ..plan.origin import HeadLR
from .choice import lowers
from .restored import restored_weights

# A single range test depends on the batches that it happens to see
RUNS = 3
LR_MIN,LR_MAX,N_STEPS = 1e-5,10.,100
# As fastai does, skip the start, where the smoothed loss is not yet steady, and the end, where it diverges
SKIPPED = slice(N_STEPS//10, -5)


def _loss_curve(learn, lr_min, lr_max):
    "Run one range test; return its rates, and its smoothed losses before the first that is not finite"
    # `lr_find` saves and loads the weights, which fails for a model whose `forward` adds or resizes buffers
    with restored_weights(learn),overridden(learn, save=noop): learn.lr_find(lr_min, lr_max, N_STEPS, show_plot=False, suggest_funcs=None)
    losses = [float(l) for l in learn.recorder.losses[SKIPPED]]
    return learn.recorder.lrs[SKIPPED],list(takewhile(np.isfinite, losses))

def range_test(
    learn:Learner, # The learner, which is changed; only its head trains
    lrs:np.ndarray=None, # Ascending rates, of which only the first and last count; None for 1e-5 to 10
    why:str='', # Why the head can't run alone, for the log and the result
) -> tuple: # The `HeadLR`, and a warning or None
    "Choose a tenth of the rate with the lowest smoothed training loss, averaged over several range tests"
    log_rank0(learn, f"head_lr_find: the head can't train alone ({why}), so the rate comes from a range test like `lr_find`, averaged over "
              f'{RUNS} runs')
    lr_min,lr_max = (LR_MIN, LR_MAX) if lrs is None else (float(lrs[0]), float(lrs[-1]))
    curves = []
    for _ in range(RUNS):
        tried,curve = _loss_curve(learn, lr_min, lr_max)
        curves.append(curve)
    # A run ends early if its loss diverges: average over the rates that all runs reached
    n = min(map(len, curves))
    if n < 2: raise ValueError(f'the loss was finite at {n} rates: expected at least 2; fix the data or the loss, leave out a '
                                'callback that ends a fit, or try lower `lrs`')
    tried,losses = np.array(tried[:n]),np.mean([c[:n] for c in curves], axis=0)
    caution = None
    if not lowers(losses[0], losses.min()):
        caution = (f'no rate of the range test lowers the loss of {losses[0]:.4g} by 1 %: expected one that does; the rate found is '
                   'unreliable, so choose one by hand')
    lr,_ = minimum(tried, losses, N_STEPS)
    return HeadLR(lr, tried, losses, f'range test of the head, as {why}'),caution
