"""Wrap `Learner.fit`. The only other method of fastai's that this package wraps is `fine_tune`.

If none of our callbacks takes part, the wrapper only calls the original method. The original is kept in a closure, because fastcore's
`@patch` keeps a single `_orig_fit` and would drop the patches of other packages."""
__all__ = []

from contextlib import ExitStack, contextmanager
from functools import wraps

from fastai.learner import Learner
from fastcore.foundation import L

from ..autocast_state import autocast_closed
from ..groups.by_hand import renew_opt
from .base import FitArgs, group_callbacks, instantiate_ours, is_nested
from .checked_fine_tune import wrap_fine_tune
from .ddp import distributed_fit
from .group_lrs import GroupLRRecorder
from .nested_fit import nested_fit
from .unfreezing import Unfreezing

# Positional parameters of `Learner.fit`
FIT_ARGS = 'n_epoch', 'lr', 'wd', 'cbs', 'reset_opt', 'start_epoch'

def _clean_up(learn, ours):
    "Undo what our callbacks override, and delete gradients: after Ctrl-C fastai keeps them, and the next fit would step by them"
    for cb in ours:
        cb.checked = False
        cb.undo(learn)
    for p in learn.model.parameters(): p.grad = None

@contextmanager
def _loss_kept(learn):
    "After an error or Ctrl-C, restore the loss function: fastai calls no callback then, so `MixUp` leaves its own"
    loss_func = learn.loss_func
    try: yield
    except BaseException:
        learn.loss_func = loss_func
        raise

def checked(fit):
    "Wrap `fit`, so that our callbacks check the fit before it changes anything, and are undone however it ends"
    @wraps(fit)
    def _fit(self, *args, **kwargs):
        if is_nested(self):
            with nested_fit(self): return _fit(self, *args, **kwargs)
        given = {**dict(zip(FIT_ARGS, args)), **kwargs}
        cbs = instantiate_ours(given.get('cbs'))
        every = [*self.cbs, *cbs]
        ours = group_callbacks(every)
        if not ours or 'n_epoch' not in given: return fit(self, *args, **kwargs)
        fit_args = FitArgs(self, given['n_epoch'], given.get('lr'), every, given.get('reset_opt', False))
        for cb in ours: cb.check_fit(fit_args)
        opens_groups = any(isinstance(cb, Unfreezing) and not cb.idle for cb in ours)
        with autocast_closed(),_loss_kept(self),ExitStack() as stack:
            if opens_groups and (fit_args.reset_opt or self.opt is None):
                renew_opt(self)
                given['reset_opt'] = False
            stack.callback(_clean_up, self, ours)
            for cb in ours: cb.checked = True
            stack.enter_context(distributed_fit(self, opens_groups))
            cbs = (cbs or L(given.get('cbs'))) + GroupLRRecorder()
            return fit(self, *args[len(FIT_ARGS):], **{**given, 'cbs': cbs})
    return _fit

Learner.fit = checked(Learner.fit)
wrap_fine_tune()
