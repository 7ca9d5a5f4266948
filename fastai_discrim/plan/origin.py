"Results of the searches for learning rates, and the origin of the head's rate η_L"
__all__ = ['HeadLR', 'BodyLR']

from typing import NamedTuple

import numpy as np


class FoundLR(NamedTuple):
    "Result of a search for a learning rate"
    lr: float # The chosen rate
    lrs: np.ndarray # The rates tried, ascending
    losses: np.ndarray # The loss at each rate
    how: str # A description of the search
    untrained: float = float('nan') # Loss of an untrained head; nan where it isn't known
    accepted: tuple = () # Rates that are about as good as the best, ascending; the search chooses the lowest of them

    def __repr__(self): return f'{type(self).__name__}(lr={self.lr:.2e}, by {self.how})'

class HeadLR(FoundLR):
    "Result of `head_lr_find`: the head's rate, η_L"

class BodyLR(FoundLR):
    "Result of `body_lr_find`: the rate of the group below the head"

def lr_and_origin(lr:float|HeadLR) -> tuple:
    "Return η_L as a number, and the fields of a `Plan` that record its origin"
    if not isinstance(lr, HeadLR): return lr,dict(lr=lr, lr_from='given')
    return lr.lr,dict(lr=lr.lr, lr_from=f'head_lr_find, {lr.how}', tried=zip(lr.lrs, lr.losses))
