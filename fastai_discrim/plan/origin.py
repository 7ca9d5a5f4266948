"Learning rates that were found, and where the head's rate η_L came from"
__all__ = ['HeadLR', 'BodyLR']

from typing import NamedTuple

import numpy as np


class FoundLR(NamedTuple):
    "What a search for a rate found"
    lr: float # The chosen rate
    lrs: np.ndarray # The rates tried, ascending
    losses: np.ndarray # The loss at each
    how: str # How they were found, in words
    untrained: float = float('nan') # The loss of an untrained head; nan where it isn't known
    accepted: tuple = () # The rates that are about as good as the best, ascending; of these the lowest is chosen

    def __repr__(self): return f'{type(self).__name__}(lr={self.lr:.2e}, by {self.how})'

class HeadLR(FoundLR):
    "What `head_lr_find` found: the head's rate, η_L"

class BodyLR(FoundLR):
    "What `body_lr_find` found: the rate of the group below the head"

def lr_and_origin(
    lr:float|HeadLR, # The head's rate, η_L, or what `head_lr_find` gave
) -> tuple: # The rate, and the fields of a `Plan` that tell its origin
    "Return η_L as a number, and where it came from"
    if not isinstance(lr, HeadLR): return lr,dict(lr=lr, lr_from='given')
    return lr.lr,dict(lr=lr.lr, lr_from=f'head_lr_find, {lr.how}', tried=zip(lr.lrs, lr.losses))
