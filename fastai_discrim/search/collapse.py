"Say where fine-tuning has destroyed what the pretrained body had learnt, as far as a search for the head's rate tells"
__all__ = []

import numpy as np
from fastai.learner import Learner

from ..plan.origin import HeadLR
from ..user_warning import warn_user
from .choice import lowers


def has_collapsed(
    losses, # Losses of the network after it was fine-tuned, of training and validation
    head:HeadLR, # What `head_lr_find` found before that
) -> bool:
    """Tell whether all of `losses` are nearer to that of an untrained head than to that of the head alone, on the features of the frozen
    body; not where the search doesn't know these"""
    alone = np.nanmin(head.losses)
    return bool(len(losses) and lowers(head.untrained, alone) and min(losses) > (alone+head.untrained)/2)

def _last_losses(learn):
    "Return the smoothed training loss at the end of the last fit, and the validation loss where there is one"
    recorder = getattr(learn, 'recorder', None)
    if recorder is None or not recorder.values: return []
    last = dict(zip(recorder.metric_names[1:], recorder.values[-1]))
    return [float(recorder.smooth_loss.value), *(float(last[k]) for k in ['valid_loss'] if k in last)]

def warn_of_collapse(
    learn:Learner, # The learner, after a fit
    head:HeadLR, # What `head_lr_find` found before it
):
    "Warn where the fit left the network not much better than with an untrained head, while the head alone does better"
    losses = _last_losses(learn)
    if not has_collapsed(losses, head): return
    warn_user(f'the fit ended at a loss of {losses[-1]:.3g}, where an untrained head has {head.untrained:.3g}, and the head alone, on the '
              f'features of the frozen body, {np.nanmin(head.losses):.3g}: what the body had learnt is lost; try again from the pretrained '
              'weights with a lower `body_lr`')
