"Choose the rates of a plan: given, found by a search, or usual for the kind of network"
__all__ = []

from fastai.learner import Learner

from ..checks import as_rate, check_number
from ..groups.layer_groups import own_lr
from ..plan.origin import BodyLR, HeadLR, lr_and_origin
from ..plan.rates import FACTOR
from .body_prior import BodyPrior


def plan_rates(
    learn:Learner, # The learner that is to run the plan
    prior:BodyPrior, # The usual rate of its body
    lr:float|HeadLR, # Peak rate of the head; None for `learn.lr`
    body_lr:float|BodyLR, # Peak rate of the group below the head; None to choose it by rule
    factor:float, # The paper's ratio of the head's rate to that of the group below
    n_steps:int, # Number of steps of the fit
) -> dict: # Fields of a `Plan`: both rates and their origin, without `body_lr` if the paper's ratio holds
    "Return the rates of the head and of the group below it, with their origin"
    origin = dict(lr=own_lr(learn), lr_from='learn.lr') if lr is None else _lr(lr)
    check_number(origin['lr'], 'lr')
    body_lr,body_lr_from = _body_lr(prior, lr, origin['lr']/factor, body_lr, n_steps)
    if body_lr is None: return origin
    return origin | _beside(lr, body_lr) | dict(body_lr=body_lr, body_lr_from=body_lr_from)

def _lr(lr):
    "Return η_L and its origin, which may be `learn.lr_find`"
    if isinstance(lr, HeadLR): return lr_and_origin(lr)[1]
    origin = lr_and_origin(as_rate(lr))[1]
    if hasattr(lr, '_fields'):
        field = 'valley' if 'valley' in lr._fields else lr._fields[0]
        origin['lr_from'] = f'lr_find, {field}'
    return origin

def _body_lr(prior, lr, papers_lr, body_lr, n_steps):
    "Return the rate of the group below the head, or None for the paper's ratio, and its origin"
    if isinstance(body_lr, BodyLR): return body_lr.lr,f'body_lr_find, {body_lr.how}'
    if body_lr is not None: return as_rate(body_lr, 'body_lr'),'given'
    if prior.lr is None: return None,''
    if isinstance(lr, HeadLR): return prior.lr_in(n_steps),prior.origin(n_steps)
    # The user chose the head's rate: the paper's ratio holds, unless it gives a rate that destroys such networks
    if prior.is_limit and prior.lr < papers_lr: return prior.lr,f'lowered from {papers_lr:.1e} to the limit for {prior.kind}'
    return None,''

def _beside(lr, body_lr):
    """Return η_L limited to the paper's ratio above and below `body_lr`, with its origin, if it was found on frozen features; else {}.
    Above that ratio, the logits move faster than the features of a training body can follow. With few labels and many epochs, the
    η_L found is so low that the body would have to fit the labels alone"""
    if not isinstance(lr, HeadLR): return {}
    lowest,highest = body_lr/FACTOR,body_lr*FACTOR
    if lowest <= lr.lr <= highest: return {}
    bound,what = (highest, f'at most {FACTOR}') if lr.lr > highest else (lowest, f'at least 1/{FACTOR}')
    return dict(lr=bound, lr_from=f'head_lr_find, {lr.how}: {lr.lr:.1e}, but {what} times the rate below it')
