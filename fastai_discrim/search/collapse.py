"Warn if fine-tuning ended worse than a head on frozen features, judged by the losses of the search for the head's rate"
__all__ = []

import numpy as np
from fastai.learner import Learner

from ..plan.origin import HeadLR
from ..user_warning import warn_user
from .choice import HIGHEST_USUAL

# A head that gains less than this fraction of the untrained loss is no reference: losses of other items differ by as much
LEAST_GAIN = 0.1

def has_collapsed(losses, head:HeadLR) -> bool:
    """Tell whether all of `losses`, those after fine-tuning, are closer to the loss of an untrained head than to that of a head trained on
    frozen features; False if the search, which found `head`, didn't measure both, or if such a head learns little"""
    if not np.isfinite(head.untrained): return False
    alone = _loss_alone(head)
    learns = head.untrained-alone > LEAST_GAIN*abs(head.untrained)
    return bool(len(losses) and learns and min(losses) > (alone+head.untrained)/2)

def _loss_alone(head):
    "Return the loss of a head that trains on frozen features, at the rate that was found"
    return float(np.interp(head.lr, head.lrs, head.losses))

def _last_losses(learn):
    "Return the smoothed training loss at the end of the last fit, and the validation loss if there is one"
    recorder = getattr(learn, 'recorder', None)
    if recorder is None or not recorder.values: return []
    losses = [float(recorder.smooth_loss.value)]
    last = dict(zip(recorder.metric_names[1:], recorder.values[-1]))
    # None if the validation set is empty
    if last.get('valid_loss') is not None: losses.append(float(last['valid_loss']))
    return losses

def warn_of_collapse(learn:Learner, head:HeadLR):
    "Warn if the last fit left the network hardly better than an untrained head, while a head on frozen features does better"
    losses = _last_losses(learn)
    if not has_collapsed(losses, head): return
    if head.lr > HIGHEST_USUAL:
        advice = (f'The head alone needs a rate of {head.lr:.2g}, far above what the body bears: if the targets are numbers, scale them to '
                  'a mean of 0 and a standard deviation of 1')
    else:
        advice = ('If the loss rose during the fit, the body has lost its pretrained features: start again from the pretrained weights '
                  'with a lower `body_lr`. If not, give the fit more epochs or a higher `body_lr`')
    warn_user(f'the fit ended with a loss of {losses[-1]:.3g}, but an untrained head has {head.untrained:.3g} and a head trained on frozen '
              f'features {_loss_alone(head):.3g}. {advice}')
