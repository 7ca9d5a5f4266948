"End phases early when the value that they monitor stops improving"
__all__ = []

import numpy as np
from fastai.callback.tracker import TrackerCallback
from fastai.torch_core import get_model

from ..callbacks.base import FitCallback
from ..callbacks.freezing import sync_lookahead
from ..distributed import log_rank0, on_rank0
from ..plan.plan import Plan
from .plan_loop import PlanLoop


def _names_of_epoch(recorder):
    "Return the names of the values that the recorder has for the last epoch: fastai leaves out a training or validation that was cancelled"
    names,n_train = [n for n in recorder.metric_names[1:] if n != 'time'],1
    if recorder.train_metrics: n_train += len(recorder.metrics)
    train = [] if recorder.cancel_train else names[:n_train]
    valid = [] if recorder.cancel_valid else names[n_train:]
    return (train+valid)[:len(recorder.values[-1])]

class PhaseEnding(FitCallback, TrackerCallback):
    "End a phase when its monitored value stops improving, and continue with the next phase; each phase counts its own epochs"
    order,_stateattrs = TrackerCallback.order+3,('best_weights',)

    def __init__(self, plan:Plan, loop:PlanLoop):
        self.plan,self.loop,self.reset_on_fit = plan,loop,True
        self._begin(None)

    def _begin(self, index):
        "Start to count for phase number `index`"
        self.index,self.early_stop,self.wait,self.best = index,None,0,None
        self.best_epoch,self.best_weights = None,None

    def before_fit(self): self._begin(None)

    def before_train(self):
        "Set the monitored value to that of the phase in which this epoch ends"
        n_iter = len(self.dls.train)
        timeline = self.plan.timeline(n_iter)
        index = timeline.phase((self.epoch+1)*n_iter - 1)
        if index != self.index: self._begin(index)
        # A phase with `early_stop` ends with an epoch
        self.phase_end = timeline.ends[index]//n_iter
        early_stop = self.plan.phases[index].early_stop
        if early_stop is not self.early_stop: self._watch(early_stop)

    def _watch(self, early_stop):
        "Monitor the value of `early_stop`"
        self.early_stop,wait,best = early_stop,self.wait,self.best
        comp = {None: None, True: np.less, False: np.greater}[early_stop.lower]
        tracker = TrackerCallback(early_stop.monitor, comp, early_stop.min_delta)
        self.monitor,self.comp,self.min_delta = tracker.monitor,tracker.comp,tracker.min_delta
        TrackerCallback.before_fit(self)
        # A resumed run keeps its counts
        if best is not None: self.wait,self.best = wait,best

    def after_epoch(self):
        if self.early_stop is None: return
        measured = self._compare()
        # Processes must end a phase together, but a metric that is not gathered may differ between them
        self.new_best = on_rank0(lambda: bool(self.new_best))
        if measured: self.wait = 0 if self.new_best else self.wait+1
        if self.new_best: self.best_epoch = self.epoch
        if self.wait >= self.early_stop.patience and self.epoch+1 < self.phase_end:
            self.loop.next_epoch = self.phase_end
            log_rank0(self.learn, f'{self.monitor} has not improved since epoch {self.best_epoch}: the phase ends')
        if self.early_stop.best: self._keep_or_load_best()

    def _compare(self):
        "Compare the monitored value with the best so far; return False if the epoch has none, as its training or validation was cancelled"
        names = _names_of_epoch(self.recorder)
        if self.monitor not in names:
            self.new_best = False
            return False
        self.idx = names.index(self.monitor)
        TrackerCallback.after_epoch(self)
        return True

    def _keep_or_load_best(self):
        "Keep the weights of the best epoch of the phase, and load them when the phase ends"
        model = get_model(self.learn.model)
        if self.new_best: self.best_weights = {k: v.clone() for k,v in model.state_dict().items()}
        ended = max(self.loop.next_epoch, self.epoch+1) == self.phase_end
        if not ended or not self.best_weights: return
        model.load_state_dict(self.best_weights)
        sync_lookahead(self.opt)
