"Run a fit that a callback starts within a fit with our callbacks: the inner fit has none of them, and the outer fit continues as it was"
__all__ = []

from contextlib import contextmanager

from fastai.learner import Learner, Recorder
from fastcore.foundation import L

from ..groups.by_hand import frozen_marks, mark_frozen
from ..optional import if_loaded
from .base import FitCallback

# Attributes of the learner in which fastai keeps the position of a fit and the scaler of its loss, and the step of `DiscriminativeLR`
POSITION = ('n_epoch', 'epoch', 'n_iter', 'iter', 'train_iter', 'pct_train', 'training', 'dl', 'xb', 'yb', 'pred', 'loss', 'loss_grad',
            'logger', 'scaler', '_step')
# The recorder keeps the history of the nested fit, which `lr_find` and users read afterwards
HISTORY = 'lrs','iters','losses','values'

def _record(cb):
    "Return the attributes of a callback, without the recorder's history"
    return {k:v for k,v in vars(cb).items() if k not in HISTORY}

@contextmanager
def nested_fit(learn:Learner):
    "Remove the callbacks of this package inside the context; then restore them, the position, the records, modes and hyper-parameters"
    cbs,position = learn.cbs,{k: vars(learn)[k] for k in POSITION if k in vars(learn)}
    # Callbacks of fastai that begin again in the inner fit
    begin_again = Recorder,if_loaded('fastai.callback.progress', 'ProgressCallback'),if_loaded('fastai.callback.fp16', 'MixedPrecision')
    records = [(cb, _record(cb)) for cb in cbs if isinstance(cb, begin_again)]
    modes,hypers = [(m, m.training) for m in learn.model.modules()],[dict(h) for h in learn.opt.hypers]
    opt,marks = learn.opt,frozen_marks(learn)
    # Also those that the user gave: they belong to the outer fit
    learn.cbs = L(cb for cb in cbs if not isinstance(cb, FitCallback))
    try: yield
    finally:
        now = learn.cbs
        # Keep the order; callbacks that the nested fit removed stay removed, and those that it added stay
        learn.cbs = L(cb for cb in cbs if isinstance(cb, FitCallback) or cb in now) + L(cb for cb in now if cb not in cbs)
        vars(learn).update(position, **{cb.name: cb for cb in learn.cbs})
        for cb,record in records: vars(cb).update(record)
        for m,mode in modes: m.training = mode
        for k in hypers[0]: learn.opt.set_hyper(k, [h[k] for h in hypers])
        # A new optimiser doesn't know which parameters are frozen with their group
        if learn.opt is not opt: mark_frozen(learn, marks)
