"Base classes of our callbacks, which ignore a validation in the middle of a fit and check a fit before it changes anything"
__all__ = []

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastai.callback.core import Callback
from fastai.learner import Learner
from fastcore.foundation import L

from ..checks import check_count, check_data
from ..groups.layer_groups import check_groups
from ..optional import if_loaded


@contextmanager
def overridden(o, **attrs):
    "Override attributes and methods of one object inside; unlike fastai's `replacing_yield`, delete at the end those that `o` didn't have"
    before = {k: vars(o)[k] for k in attrs if k in vars(o)}
    vars(o).update(attrs)
    try: yield
    finally:
        for k in attrs: vars(o).pop(k, None)
        vars(o).update(before)

def is_kind(cb, kind) -> bool:
    "Tell whether `cb`, a callback or a class, is an instance or a subclass of `kind`, a class or several"
    return issubclass(cb, kind) if isinstance(cb, type) else isinstance(cb, kind)

def in_validation(learn:Learner) -> bool:
    "Tell whether `learn` validates or predicts: fastai locks it meanwhile, and calls events of a fit, such as `before_fit`"
    return learn.lock.locked()

def is_first(cb:Callback) -> bool:
    "Tell whether `cb` is the first of its class on the learner: a fit may have two, one from the user and one that this package adds"
    return next(o for o in cb.learn.cbs if isinstance(o, type(cb))) is cb

@dataclass
class FitArgs:
    "Arguments of a fit that is about to start"
    learn: Learner # The learner, perhaps still without the callbacks of the fit
    n_epoch: int # Number of epochs
    lr: object # The `lr` that `fit` received
    cbs: list # The learner's callbacks and those of the fit; some may still be classes
    reset_opt: bool = False # Will `fit` create a new optimiser?

    def lr_max(self):
        "Return the peak rate of our scheduler, the first rate of another one, or else `lr` or `learn.lr`: a number, an array or a slice"
        scheduler = if_loaded('fastai.callback.schedule', 'ParamScheduler')
        scheds = [cb for cb in self.cbs if isinstance(cb, scheduler) and 'lr' in cb.scheds]
        if not scheds: return self.learn.lr if self.lr is None else self.lr
        # If two schedulers set the rate, the last one wins. Our `CycleScheduler` has no schedule before the fit starts
        last = scheds[-1]
        return last.lr_max if isinstance(last, GroupCallback) else last.scheds['lr'](0.)

class FitCallback(Callback):
    "Base of callbacks that ignore the events of a validation or a prediction, even in the middle of a fit"
    def __call__(self, event_name):
        # Skip events without a method first: fastai's own look-up, at every event of every batch, costs more than these callbacks do
        if hasattr(type(self), event_name) and not in_validation(self.learn): super().__call__(event_name)

class GroupCallback(FitCallback):
    "Base of callbacks that work on layer groups: `fit` calls `check_fit` before it changes anything, and `undo` at its end"
    run_valid = False
    # The callback needs at least this many layer groups
    min_groups = 2
    # Does our wrapper of `fit` run this fit, which it has checked? Is this one of the two fits of `fine_tune`?
    checked = fine_tuning = False
    # Copies and pickles leave these out, as they belong to a running fit
    _stateattrs = 'checked','fine_tuning'

    def check_fit(self, fit:FitArgs) -> L: # Layer groups of the learner
        "Raise if the callback can't work in this fit"
        # The frozen fit of `fine_tune` may have 0 epochs
        if not (self.fine_tuning and fit.n_epoch == 0): check_count(fit.n_epoch)
        check_data(fit.learn)
        return check_groups(fit.learn, fit.reset_opt, at_least=self.min_groups)

    def before_train(self):
        "Check the fit here if another package has replaced `fit`, so that our wrapper wasn't called"
        if not self.checked and self.train_iter == 0: self.check_fit(FitArgs(self.learn, self.n_epoch, None, list(self.learn.cbs)))

    def undo(self, learn:Learner): "Undo what the callback overrides on `learn`; called when the fit ends, also after an error or Ctrl-C"

def check_only_one(kind, cbs):
    "Raise if `cbs` has two callbacks of `kind`, which would contradict each other"
    both = [o for o in cbs if isinstance(o, kind)]
    if len(both) < 2: return
    if both[0] is both[1]: raise ValueError(f'{both[0]!r} is on the learner already: leave it out of `cbs`')
    raise ValueError(f'{both[0]!r} and {both[1]!r} in one fit: expected one of them; leave one out, or remove it with `learn.remove_cb`')

def instantiate_ours(cbs) -> L:
    "List one callback or many, with our own classes instantiated so that they can be checked; return an empty list for an iterator"
    # Leave an iterator to fastai, as it can be read only once
    if isinstance(cbs, Iterator): return L()
    return L(cbs).map(lambda cb: cb() if isinstance(cb, type) and issubclass(cb, GroupCallback) else cb)

def group_callbacks(cbs) -> list:
    "Return those of `cbs` that work on layer groups, without classes"
    return [cb for cb in cbs if isinstance(cb, GroupCallback)]

def is_nested(learn:Learner) -> bool:
    "Tell whether a fit that starts now is one that a callback starts within a fit of ours"
    return any(cb.checked for cb in group_callbacks(learn.cbs))
