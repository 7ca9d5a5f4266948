"Run a search on rank 0, with trackers paused and without a trace on the learner"
__all__ = []

from collections.abc import Callable

from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException, CancelValidException
from fastai.learner import Learner, Metric
from fastcore.basics import defaults

from ..callbacks.ddp import single_process
from ..distributed import on_rank0
from .restored import restored


class PauseTrackers(Callback):
    "Pause loggers and trackers: they skip a fit with a callback of this name, as in `get_preds`"
    name = 'gather_preds'

class Unmeasured(Metric):
    "Stand in for the metric called `name`, and measure nothing"
    # In `Metric` these are properties, which can't be set
    name,value = None,float('nan')
    def __init__(self, name:str): self.name = name
    def reset(self): pass
    def accumulate(self, learn): pass

def measure_nothing(learn:Learner):
    "Replace the metrics of `learn`, as they cost time and some fail on a few items. Callbacks still find as many, with the same names"
    learn.metrics = learn.metrics.attrgot('name').map(Unmeasured)

def _suspects(learn):
    "Name the callbacks that are not among fastai's default ones; all of them if there are no others"
    added = [cb for cb in learn.cbs if type(cb) not in defaults.callbacks]
    return ', '.join(type(cb).__name__ for cb in added or learn.cbs)

def run_search(learn:Learner, search:Callable, what:str):
    """Run `search`, which trains `learn`, on rank 0, restore all that it changes, and return its result in all processes. Raise
    `ValueError` if a callback cancels the search for `what`"""
    def _search():
        with restored(learn),single_process(learn):
            try:
                with learn.added_cbs(PauseTrackers()): return search()
            except (CancelFitException, CancelEpochException, CancelTrainException, CancelValidException) as e:
                raise ValueError(f'one of the callbacks {_suspects(learn)} cancelled the search for {what}: expected it to run to its end; '
                                 'give a rate, or fit without that callback') from e
    return on_rank0(_search)
