"Warn if fine-tuning has destroyed the pretrained features of the body, judged by the losses of the search for the head's rate"
__all__ = []

import numpy as np
from fastai.learner import Learner

from ..plan.origin import HeadLR
from ..user_warning import warn_user
from .choice import lowers


def has_collapsed(losses, head:HeadLR) -> bool:
    """Tell whether all of `losses`, those after fine-tuning, are closer to the loss of an untrained head than to that of a head trained on
    frozen features; False if the search, which found `head`, didn't measure both"""
    if not np.isfinite(head.untrained): return False
    alone = np.nanmin(head.losses)
    return bool(len(losses) and lowers(head.untrained, alone) and min(losses) > (alone+head.untrained)/2)

def _last_losses(learn):
    "Return the smoothed training loss at the end of the last fit, and the validation loss if there is one"
    recorder = getattr(learn, 'recorder', None)
    if recorder is None or not recorder.values: return []
    losses = [float(recorder.smooth_loss.value)]
    last = dict(zip(recorder.metric_names[1:], recorder.values[-1]))
    if 'valid_loss' in last: losses.append(float(last['valid_loss']))
    return losses

def warn_of_collapse(learn:Learner, head:HeadLR):
    "Warn if the last fit left the network hardly better than an untrained head, while a head on frozen features does better"
    losses = _last_losses(learn)
    if not has_collapsed(losses, head): return
    warn_user(f'the fit ended with a loss of {losses[-1]:.3g}, but an untrained head has {head.untrained:.3g} and a head trained on frozen '
              f'features {np.nanmin(head.losses):.3g}: the body has lost its pretrained features; start again from the pretrained weights '
              'with a lower `body_lr`')
