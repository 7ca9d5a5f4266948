"Choose the rates of a plan: given, found by a search, or usual for the kind of network"
__all__ = []

from math import isclose

import numpy as np
from fastai.learner import Learner

from ..checks import as_rate, check_number
from ..groups.layer_groups import own_lr
from ..plan.origin import BodyLR, HeadLR, lr_origin
from ..plan.rates import FACTOR, discriminative_lrs
from .body_prior import BLOCK_DECAY, BodyPrior

# Number of layer groups of the paper's classifier. With more groups, the paper's factor would leave the lowest almost frozen
PAPER_GROUPS = 5


def plan_rates(
    learn:Learner, # The learner that is to run the plan
    prior:BodyPrior, # The usual rate of its body
    n_groups:int, # Number of its layer groups
    lr:float|HeadLR|None, # Peak rate of the head; None for `learn.lr`
    body_lr:float|BodyLR|None, # Peak rate of the group below the head; None to choose it by rule
    n_steps:int, # Number of steps of the fit
    body_trains:bool, # Does any group of the body train?
    factor:float|None, # As in `ulmfit_plan`, like the following
    min_scale:float,
    span:float|None,
    decay:float|None,
) -> tuple: # Fields of a `Plan`: both rates and their origin, without `body_lr` if it follows from the head's; the rates of all groups
    "Return the rates of the head and of the group below it, with their origin, and those of all layer groups"
    rates = dict(lr=own_lr(learn), lr_from='learn.lr') if lr is None else lr_origin(lr)
    fall = dict(factor=factor, min_scale=min_scale, span=span, decay=decay)
    below_head = discriminative_lrs(rates['lr'], n_groups, **fall)[-2]
    body_lr,body_lr_from = _body_lr(prior, lr, below_head, body_lr, n_steps)
    if body_lr is not None:
        users_ratio = 0. if factor is span is decay is None else rates['lr']/below_head
        if body_trains: rates |= _limited_head_lr(lr, body_lr, max(users_ratio, prior.head_ratio))
        rates |= dict(body_lr=body_lr, body_lr_from=body_lr_from)
    if factor is span is decay is None:
        fall['factor'] = _usual_factor(prior, n_groups, isinstance(lr, HeadLR))
        # From the head to the body, the paper's factor holds
        if fall['factor'] != FACTOR and body_lr is None:
            rates |= dict(body_lr=rates['lr']/FACTOR, body_lr_from=f"1/{FACTOR} of the head's")
    return rates,discriminative_lrs(rates['lr'], n_groups, body_lr=rates.get('body_lr'), **fall)

def _body_lr(prior, lr, below_head, body_lr, n_steps):
    "Return the rate of the group below the head, or None if it follows from the head's, and its origin"
    if isinstance(body_lr, BodyLR): return body_lr.lr,f'body_lr_find, {body_lr.how}'
    if body_lr is not None: return check_number(as_rate(body_lr, 'body_lr'), 'body_lr'),'given'
    if prior.lr is None: return None,''
    if isinstance(lr, HeadLR): return prior.lr_in(n_steps),prior.origin(n_steps)
    # The user chose the head's rate: that of the body follows, unless it destroys such networks
    if prior.is_limit and prior.lr < below_head: return prior.lr,f'lowered from {below_head:.1e} to the limit for {prior.kind}'
    return None,''

def _limited_head_lr(lr, body_lr, ratio):
    """Limit an η_L that was found to at most `ratio` times `body_lr`, and at least 1/2.6 of it, or 1/`ratio` if that is lower; return it
    with its origin, or {} if nothing changes. Above these limits, the logits move faster than the features of a training body can follow.
    With few labels and many epochs, the η_L found is so low that the body would have to fit the labels alone"""
    if not isinstance(lr, HeadLR): return {}
    least_ratio = max(FACTOR, ratio)
    bound = float(np.clip(lr.lr, body_lr/least_ratio, body_lr*ratio))
    # A body's rate that follows from η_L may differ from the limit by rounding
    if isclose(lr.lr, bound): return {}
    what = f'at most {ratio:.3g} times' if bound < lr.lr else f'at least 1/{least_ratio:.3g} of'
    if bound == body_lr: what = 'at most'
    return dict(lr=bound, lr_from=f'head_lr_find, {lr.how}: {lr.lr:.1e}, but {what} the rate below it')

def _usual_factor(prior, n_groups, is_found):
    "Return the usual ratio of the rates of neighbouring groups of the body: the paper's with few groups and rates that the user chose"
    if n_groups > PAPER_GROUPS: return 1/BLOCK_DECAY
    return prior.factor if is_found else FACTOR
