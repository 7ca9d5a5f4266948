"Choose the body's rate of a recurrent network as the paper does: a rate of the head, divided by 2.6"
__all__ = []

import numpy as np
from fastai.learner import Learner

from ..groups.text_models import is_language_model
from ..plan.origin import BodyLR, HeadLR
from ..plan.rates import FACTOR
from . import head_lr as _head_lr  # noqa: F401, for `learn.head_lr_find`

# The paper's η_L for classifiers and for language models (section 4.1)
PAPER_LR,PAPER_LR_LM = 0.01,0.004

def papers_body_lr(
    learn:Learner, # The learner, which is restored at the end
    lr:float|HeadLR, # Peak rate of the head, η_L, or the result of `head_lr_find`
    wd:float|None=None, # Weight decay, as in `fit`
) -> BodyLR: # The chosen rate, and the head's rates and losses, the rates divided by 2.6
    """Search for the head's rate in one epoch, as a longer fit needs a lower rate for the head only. Of the rates that are about as good,
    take the one nearest to the paper's: the lowest may be too low for the body"""
    # The result of a range test doesn't depend on the number of epochs
    is_range_test = isinstance(lr, HeadLR) and not lr.accepted
    head = lr if is_range_test else learn.head_lr_find(wd=wd, show_plot=False)
    paper_lr = PAPER_LR_LM if is_language_model(learn) else PAPER_LR
    def _distance(o): return abs(np.log(o/paper_lr))
    nearest = min(head.accepted, key=_distance, default=head.lr)
    which = 'the best rate of the head' if nearest == head.lr else f"{nearest:.2g}, about as good as the head's best rate"
    return BodyLR(nearest/FACTOR, np.asarray(head.lrs)/FACTOR, np.asarray(head.losses), f'1/{FACTOR} of {which}, {head.how}')
