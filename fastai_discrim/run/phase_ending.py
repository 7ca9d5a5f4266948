"Phases that end early, when what they watch has stopped improving"
__all__ = []

import numpy as np
from fastai.callback.tracker import TrackerCallback
from fastai.torch_core import get_model

from ..callbacks.base import FitCallback
from ..callbacks.freezing import sync_lookahead
from ..distributed import log_rank0, on_rank0
from ..plan.plan import Plan
from .plan_loop import PlanLoop


def _measured(recorder):
    "Return the names of what the recorder measured in the last epoch, in its order: fastai leaves out what was cut short"
    names,n_train = [n for n in recorder.metric_names[1:] if n != 'time'],1
    if recorder.train_metrics: n_train += len(recorder.metrics)
    train = [] if recorder.cancel_train else names[:n_train]
    valid = [] if recorder.cancel_valid else names[n_train:]
    return (train+valid)[:len(recorder.values[-1])]

class PhaseEnding(FitCallback, TrackerCallback):
    "End a phase when what it watches has stopped improving, and go on with the next; each phase counts for itself"
    order,_stateattrs = TrackerCallback.order+3,('best_weights',)

    def __init__(self, plan:Plan, loop:PlanLoop):
        self.plan,self.loop = plan,loop
        self._begin(None)

    def _begin(self, index):
        "Count from the beginning, for phase number `index`"
        self.index,self.early_stop,self.wait,self.best,self.best_weights = index,None,0,None,None

    def before_fit(self): self._begin(None)

    def before_train(self):
        "Look up what the phase watches that the epoch ends in"
        n_iter = len(self.dls.train)
        timeline = self.plan.timeline(n_iter)
        index = timeline.phase((self.epoch+1)*n_iter - 1)
        if index != self.index: self._begin(index)
        # A phase that ends early ends with an epoch
        self.phase_end = timeline.ends[index]//n_iter
        early_stop = self.plan.phases[index].early_stop
        if early_stop is not self.early_stop: self._watch(early_stop)

    def _watch(self, early_stop):
        "Watch as `early_stop` says"
        self.early_stop,wait,best = early_stop,self.wait,self.best
        comp = {None: None, True: np.less, False: np.greater}[early_stop.lower]
        TrackerCallback.__init__(self, early_stop.monitor, comp, early_stop.min_delta)
        TrackerCallback.before_fit(self)
        # After a checkpoint it has counted already
        if best is not None: self.wait,self.best = wait,best

    def after_epoch(self):
        if self.early_stop is None: return
        measured = self._compare()
        # A metric that is not gathered may differ, and the processes have to stay together
        self.new_best = on_rank0(lambda: bool(self.new_best))
        if measured: self.wait = 0 if self.new_best else self.wait+1
        if self.wait >= self.early_stop.patience and self.epoch+1 < self.phase_end:
            self.loop.next_epoch = self.phase_end
            log_rank0(self.learn, f'{self.monitor} has not improved since epoch {self.epoch-self.wait}: the phase ends')
        if self.early_stop.best: self._keep_or_load_best()

    def _compare(self):
        "Compare what the epoch measured with the best so far; return False where it was cut short, which is neither better nor worse"
        names = _measured(self.recorder)
        if self.monitor not in names:
            self.new_best = False
            return False
        self.idx = names.index(self.monitor)
        TrackerCallback.after_epoch(self)
        return True

    def _keep_or_load_best(self):
        "Keep the weights of the phase's best epoch, and load them at its end"
        model = get_model(self.learn.model)
        if self.new_best: self.best_weights = {k: v.clone() for k,v in model.state_dict().items()}
        ended = max(self.loop.next_epoch, self.epoch+1) == self.phase_end
        if not ended or not self.best_weights: return
        model.load_state_dict(self.best_weights)
        sync_lookahead(self.opt)
