"The head's learning rate η_L, and where it came from"
__all__ = ['HeadLR']

from collections import namedtuple

HeadLR = namedtuple('HeadLR', 'lr lrs losses how')
HeadLR.__doc__ = "What `head_lr_find` found: the rate `lr`, the `losses` at the `lrs` that it was chosen from, and in words `how`"

def lr_and_origin(
    lr:float|HeadLR, # The head's rate, η_L, or what `head_lr_find` gave
) -> tuple: # The rate, and the fields of a `Plan` that tell its origin
    "Return η_L as a number, and where it came from"
    if not isinstance(lr, HeadLR): return lr,dict(lr=lr, lr_from='given')
    return lr.lr,dict(lr=lr.lr, lr_from=f'head_lr_find, {lr.how}', tried=zip(lr.lrs, lr.losses))
