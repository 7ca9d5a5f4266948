"What our callbacks have in common: they know a fit from a validation in the middle of it, and check the fit before it changes anything"
__all__ = []

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastai.callback.core import Callback
from fastai.imports import noop
from fastai.learner import Learner
from fastcore.foundation import L

from ..checks import check_count, check_data
from ..groups.layer_groups import check_groups
from ..optional import if_loaded


@contextmanager
def overridden(
    o, # Any object
    **attrs, # Attributes, methods too, that `o` has inside, as its own
):
    "Override attributes of one object, and leave none behind; fastai's `replacing_yield` would leave a method of the class as its own"
    before = {k: vars(o)[k] for k in attrs if k in vars(o)}
    vars(o).update(attrs)
    try: yield
    finally:
        for k in attrs: vars(o).pop(k, None)
        vars(o).update(before)

def is_kind(
    cb, # A callback or a callback class
    kind, # A class, or several
) -> bool:
    "Tell whether `cb` is, or will be, an instance of `kind`"
    return issubclass(cb, kind) if isinstance(cb, type) else isinstance(cb, kind)

def in_validation(
    learn:Learner, # The learner
) -> bool:
    "Tell whether `learn` validates or predicts: fastai locks it for that, and fires the events of a fit"
    return learn.lock.locked()

@dataclass
class FitArgs:
    "What a fit is going to do"
    learn: Learner # The learner; the callbacks of the fit may not be on it yet
    n_epoch: int # Epochs
    lr: object # What `fit` is given
    cbs: list # All callbacks of the fit, the learner's too; some may be classes
    reset_opt: bool = False # Will the optimiser be created again?

    def lr_max(self):
        "Return the rate that the fit is given, one number, an array or a slice: its scheduler's, or `lr`, or `learn.lr`"
        scheduler = if_loaded('fastai.callback.schedule', 'ParamScheduler')
        scheds = [cb for cb in self.cbs if isinstance(cb, scheduler) and 'lr' in cb.scheds]
        if not scheds: return self.learn.lr if self.lr is None else self.lr
        # Of two schedulers of one hyper-parameter the later wins; ours makes its schedule when the fit begins
        last = scheds[-1]
        return last.lr_max if isinstance(last, GroupCallback) else last.scheds['lr'](0.)

class FitCallback(Callback):
    "Base of callbacks for which validation and prediction in the middle of a fit are no fits of their own"
    def __call__(self, event_name):
        # fastai's own look-up, for every event of every batch, costs more than what these callbacks do
        if hasattr(type(self), event_name) and not in_validation(self.learn): super().__call__(event_name)

class GroupCallback(FitCallback):
    "Base of the callbacks that work on layer groups: `fit` checks them before it changes anything, and undoes what they override"
    run_valid = False
    # Fewest layer groups that the callback can work on
    min_groups = 2
    # Has the fit been checked? Is it one of the two fits of `fine_tune`?
    checked = fine_tuning = False

    def check_fit(self, fit:FitArgs) -> L: # Layer groups of the learner
        "Raise if the callback can't do this fit; called before the fit changes anything"
        # `fine_tune` may have no frozen epochs
        if not (self.fine_tuning and fit.n_epoch == 0): check_count(fit.n_epoch)
        check_data(fit.learn)
        return check_groups(fit.learn, fit.reset_opt, at_least=self.min_groups)

    def before_train(self):
        "Check the fit here where another package has patched `fit` so that ours is not called"
        if self.checked: return
        self.check_fit(FitArgs(self.learn, self.n_epoch, None, list(self.learn.cbs)))
        self.checked = True

    def undo(self, learn:Learner):
        "Undo what the callback overrides on `learn`; called after the fit in whatever way it ends"
        self.checked = False

    def after_fit(self):
        self.checked = False
        # A scheduler that is one of these, too, has its own
        getattr(super(), 'after_fit', noop)()

def check_only_one(
    kind, # A class of callbacks
    cbs, # Callbacks
):
    "Raise if `cbs` has two of a `kind` that decides the same thing"
    both = [o for o in cbs if isinstance(o, kind)]
    if len(both) > 1:
        raise ValueError(f'{both[0]!r} and {both[1]!r} in one fit: expected one of them; leave one out, or `learn.remove_cb` it')

def instantiate_ours(
    cbs, # One callback, many, or classes
) -> L:
    "Make instances of our own callback classes, so that they can be checked; other classes, and iterators, are left to fastai"
    # An iterator can be read once only
    if isinstance(cbs, Iterator): return L()
    return L(cbs).map(lambda cb: cb() if isinstance(cb, type) and issubclass(cb, GroupCallback) else cb)

def group_callbacks(
    cbs, # Callbacks, and classes of callbacks
) -> list: # Callbacks
    "Return those of `cbs` that work on layer groups"
    return [cb for cb in cbs if isinstance(cb, GroupCallback)]
