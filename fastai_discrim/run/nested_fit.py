"A fit that a callback begins in the middle of a plan: it is none of the plan's, which goes on as it was"
__all__ = []

from contextlib import contextmanager

from fastai.learner import Learner, Recorder
from fastcore.foundation import L

from ..callbacks.base import FitCallback
from ..optional import if_loaded

# Where a fit is, as fastai keeps it on the learner
POSITION = ('n_epoch', 'epoch', 'n_iter', 'iter', 'train_iter', 'pct_train', 'training', 'dl', 'xb', 'yb', 'pred', 'loss', 'loss_grad',
            'logger')
# The recorder's history is that of the last fit, which `lr_find` and users read after it
HISTORY = 'lrs','iters','losses','values'

def _record(cb):
    "Return what a callback has noted of the fit it is in"
    return {k:v for k,v in vars(cb).items() if k not in HISTORY}

@contextmanager
def nested_fit(
    learn:Learner, # The learner that runs a plan, and fits inside
):
    "Fit inside without the callbacks that run the plan; restore where the plan was, what it had recorded, and all hyper-parameters"
    cbs,position = learn.cbs,{k: vars(learn)[k] for k in POSITION if k in vars(learn)}
    recording = Recorder,if_loaded('fastai.callback.progress', 'ProgressCallback')
    records = [(cb, _record(cb)) for cb in cbs if isinstance(cb, recording)]
    modes,hypers = [(m, m.training) for m in learn.model.modules()],[dict(h) for h in learn.opt.hypers]
    # While a plan runs these are its own
    learn.cbs = L(cb for cb in cbs if not isinstance(cb, FitCallback))
    try: yield
    finally:
        now = learn.cbs
        # In their order: what the fit has removed is gone, and what it has added stays
        learn.cbs = L(cb for cb in cbs if isinstance(cb, FitCallback) or cb in now) + L(cb for cb in now if cb not in cbs)
        vars(learn).update(position)
        for cb,record in records: vars(cb).update(record)
        for m,mode in modes: m.training = mode
        for k in hypers[0]: learn.opt.set_hyper(k, [h[k] for h in hypers])
