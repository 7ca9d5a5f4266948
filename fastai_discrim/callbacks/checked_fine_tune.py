"""Wrap `Learner.fine_tune`, so that an unfreezing strategy leaves the first of its two fits, in which the body is frozen, to the head.

If none of our callbacks takes part, the wrapper only calls the original method."""
__all__ = []

from functools import wraps

from fastai.learner import Learner
from fastcore.foundation import L

from .base import FitArgs, group_callbacks, instantiate_ours, is_nested
from .nested_fit import nested_fit


def checked_fine_tune(fine_tune):
    "Wrap `fine_tune`, so that our callbacks check the fit before the frozen epochs, and know that they are in `fine_tune`"
    @wraps(fine_tune)
    def _fine_tune(self, *args, **kwargs):
        if is_nested(self):
            with nested_fit(self): return _fine_tune(self, *args, **kwargs)
        cbs = instantiate_ours(kwargs.get('cbs'))
        every = [*self.cbs, *cbs]
        ours = group_callbacks(every)
        if not ours or not (args or 'epochs' in kwargs): return fine_tune(self, *args, **kwargs)
        epochs = args[0] if args else kwargs['epochs']
        fit_args = FitArgs(self, epochs, slice(self.lr), every, kwargs.get('reset_opt', False))
        # Before `fine_tuning` is set: these are the epochs of the second fit, in which all groups may train
        for cb in ours: cb.check_fit(fit_args)
        try:
            for cb in ours: cb.fine_tuning = True
            return fine_tune(self, *args, **{**kwargs, 'cbs': cbs or L(kwargs.get('cbs'))})
        finally:
            for cb in ours: cb.fine_tuning = False
    return _fine_tune

def wrap_fine_tune():
    "Wrap `Learner.fine_tune` once; it exists only after the user has imported fastai.callback.schedule"
    if hasattr(Learner, 'fine_tune') and not hasattr(Learner.fine_tune, 'knows_groups'):
        Learner.fine_tune = checked_fine_tune(Learner.fine_tune)
        Learner.fine_tune.knows_groups = True
