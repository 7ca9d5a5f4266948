"""Wrap `Learner.fine_tune`: a strategy has to know which of its two fits it is in, since groups that it may open are frozen in the first.

Where none of our callbacks takes part, the wrapper hands straight on to the method that it found."""
__all__ = []

from functools import wraps

from fastai.learner import Learner
from fastcore.foundation import L

from .base import FitArgs, group_callbacks, instantiate_ours


def checked_fine_tune(fine_tune):
    "Wrap `fine_tune`: what can't be done is said before its frozen epochs, which an `Unfreezing` leaves to the head"
    @wraps(fine_tune)
    def _fine_tune(self, *args, **kwargs):
        cbs = instantiate_ours(kwargs.get('cbs'))
        every = [*self.cbs, *cbs]
        ours = group_callbacks(every)
        if not ours or not (args or 'epochs' in kwargs): return fine_tune(self, *args, **kwargs)
        epochs = args[0] if args else kwargs['epochs']
        try:
            for cb in ours: cb.fine_tuning = True
            fit_args = FitArgs(self, epochs, slice(self.lr), every, kwargs.get('reset_opt', False))
            for cb in ours: cb.check_fit(fit_args)
            return fine_tune(self, *args, **{**kwargs, 'cbs': cbs or L(kwargs.get('cbs'))})
        finally:
            for cb in ours: cb.fine_tuning = False
    return _fine_tune

def wrap_fine_tune():
    "Wrap `Learner.fine_tune`, once; there is none before fastai.callback.schedule is imported, which is left to the user"
    if hasattr(Learner, 'fine_tune') and not hasattr(Learner.fine_tune, 'knows_groups'):
        Learner.fine_tune = checked_fine_tune(Learner.fine_tune)
        Learner.fine_tune.knows_groups = True
