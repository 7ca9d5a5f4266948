"Two other packages that patch methods of fastai's, as fastcore's `@patch` does or by plain assignment"
import tempfile
from collections import Counter
from pathlib import Path

from fastai.basics import Learner, Recorder, patch_to
from fastai.callback.all import ProgressCallback

from .fits import Counted
from .learner import make, state

TARGETS = [(Learner, 'fit'), (Learner, 'fine_tune'), (Learner, 'freeze_to'), (Recorder, 'after_batch'), (Learner, '_do_fit'),
           (Learner, 'one_batch'), (Learner, '_step')]

# How often each package's patch of each method ran
ran = Counter()

def apply(package, how):
    "Patch all targets"
    for cls,name in TARGETS: (_patch if how == 'patch' else _assign)(package, cls, name)

def _patch(package, cls, name):
    def f(self, *args, **kwargs):
        ran[package, name] += 1
        return getattr(self, f'_orig_{name}')(*args, **kwargs)
    f.__name__ = name
    patch_to(cls)(f)

def _assign(package, cls, name):
    old = getattr(cls, name)
    def f(self, *args, **kwargs):
        ran[package, name] += 1
        return old(self, *args, **kwargs)
    setattr(cls, name, f)

def counted(function, *args):
    "Call a function of `ours`, and return what it gives and which patches ran how often"
    from . import ours
    ran.clear()
    return getattr(ours, function)(*args),dict(ran)

def plain_fits():
    "Fit as in stock fastai"
    with tempfile.TemporaryDirectory() as path:
        learn = make(Path(path))
        learn.remove_cb(ProgressCallback)
        ran.clear()
        learn.fit(2)
        learn.fine_tune(1, cbs=Counted)
        learn.freeze()
        learn.fit_one_cycle(1, slice(1e-3, 1e-2))
        return state(learn),Counted.made,dict(ran)
