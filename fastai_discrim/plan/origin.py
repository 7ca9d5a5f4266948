"Results of the searches for learning rates, and the origin of the head's rate η_L"
__all__ = ['HeadLR', 'BodyLR']

from typing import NamedTuple

import numpy as np

from ..checks import FALL, as_rate, check_number


class FoundLR(NamedTuple):
    "Result of a search for a learning rate"
    lr: float # The chosen rate
    lrs: np.ndarray # The rates tried, ascending
    losses: np.ndarray # The loss at each rate
    how: str # A description of the search
    untrained: float = float('nan') # Loss of an untrained head; nan where it isn't known, or for a trained one
    accepted: tuple = () # Rates that are about as good as the best, ascending; the search chooses the lowest of them

    def __repr__(self): return f'{type(self).__name__}(lr={self.lr:.2e}, by {self.how})'

class HeadLR(FoundLR):
    "Result of `head_lr_find`: the head's rate, η_L"

class BodyLR(FoundLR):
    "Result of `body_lr_find`: the rate of the group below the head"

def lr_origin(lr, advice:str=FALL) -> dict:
    """Return η_L and its origin as fields of a `Plan`. `lr` is a number, or the result of `head_lr_find` or `learn.lr_find`; for several
    rates, raise `TypeError` with the `advice`"""
    if isinstance(lr, HeadLR): return dict(lr=lr.lr, lr_from=f'head_lr_find, {lr.how}', tried=zip(lr.lrs, lr.losses))
    if isinstance(lr, BodyLR): raise TypeError(f'lr={lr!r}: expected the rate of the head; give this one as `body_lr`')
    fields = getattr(lr, '_fields', ())
    origin = f'lr_find, {"valley" if "valley" in fields else fields[0]}' if fields else 'given'
    return dict(lr=check_number(as_rate(lr, advice=advice), 'lr'), lr_from=origin)
