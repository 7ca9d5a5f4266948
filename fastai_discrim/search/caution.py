"Warn of a rate of the head that is unreliable, and of targets far from what the network predicts"
__all__ = []

import numpy as np
import torch
from fastai.learner import Learner
from fastai.torch_core import find_bs
from torch import Tensor

from .choice import HIGHEST_USUAL, lowers
from .frozen_head import FeatureHead, has_items_first, items, list_tensors, map_tensors
from .losses import Losses
from .split_head import CANNOT_RUN

# The mean of the targets is far from that of the predictions if it differs by more than this many standard deviations, or units
FAR = 2
# The loss of a trained head is lower by more than this fraction than with the same targets in another order. That of a new head may be a
# little lower by chance
LEAST_LEARNT = 0.2


@torch.no_grad()
def far_targets(learn:Learner, head:FeatureHead, batches:list) -> str|None:
    "Return a warning if the targets in `batches`, features with targets, are numbers far from the predictions of `head`"
    features,*yb = batches[0]
    if len(yb) != 1 or not all(isinstance(t, Tensor) and t.is_floating_point() for _,t in batches): return None
    pred,y = head(features),torch.cat([t.flatten() for _,t in batches]).float()
    if pred.numel() != yb[0].numel(): return None
    mean,spread,guess = y.mean(),y.std(unbiased=False),pred.float().mean()
    if abs(mean-guess) <= FAR*max(spread, 1): return None
    # Not so if the loss compares other values, as one for logits or for logarithms does, or has none so far from the predictions
    try: is_closer = learn.loss_func(pred + (mean-guess), *yb) < learn.loss_func(pred, *yb)/2
    except CANNOT_RUN: return None
    if not is_closer: return None
    return (f'the targets have a mean of {mean:.3g} and a standard deviation of {spread:.3g}, and the network predicts {guess:.3g} before '
            'training: expected targets near the predictions, as the head may need a far higher rate than the body; scale the targets to '
            'a mean of 0 and a standard deviation of 1, or the predictions by `y_range`')

@torch.no_grad()
def is_trained(learn:Learner, head:FeatureHead, batches:list) -> bool:
    "Tell whether the head predicts the targets in shuffled `batches` before the search: with those of other items, its loss is higher"
    own,other = 0.,0.
    # The batch before the first one is the last
    for (features,*yb),(_,*previous) in zip(batches, batches[-1:] + batches):
        pred,n = head(features),find_bs(yb)
        others = map_tensors(_of_next_item, yb) if n > 1 else items(previous, 0, 1)
        if not has_items_first([pred, yb], n) or _shapes(others) != _shapes(yb): return False
        own += float(learn.loss_func(pred, *yb))*n
        other += float(learn.loss_func(pred, *others))*n
    return other-own > LEAST_LEARNT*abs(other)

def _of_next_item(t): return t.roll(1, 0)

def _shapes(o): return [t.shape for t in list_tensors(o)]

def check_finite(losses:Losses):
    "Raise `ValueError` unless the loss is finite at one rate; the last of the `losses` is that of the head before training"
    n_rates = len(losses.mean)-1
    if np.isfinite(losses.mean[:-1]).any(): return
    raise ValueError(f'the validation loss is not finite at any of {n_rates} rates: expected one at which it is; fix the data or the loss, '
                     'or try lower `lrs`')

def caution(
    losses:Losses, # Losses of the heads, with the head before training as the last candidate
    lr:float, # The rate that was found
    far:str|None, # The warning of `far_targets`
) -> str|None:
    "Return a warning if no rate is clearly better than none, or if the rate is far too high"
    *tried,untrained = losses.mean
    best = int(np.nanargmin(tried))
    if not (losses.is_clearly_lower(best, len(tried)) and lowers(untrained, tried[best])):
        return (f'no rate clearly lowers the validation loss that the head has before training, {untrained:.4g}: the rate found is '
                'unreliable; give the head more epochs by `n_epoch`, or look at the data') + (f'. Also, {far}' if far else '')
    if far: return far
    if lr <= HIGHEST_USUAL: return None
    return (f'η_L = {lr:.2g}: expected at most {HIGHEST_USUAL}; a higher one means that the targets are far from the outputs of the '
            'network; scale them to a mean of 0 and a standard deviation of 1')
