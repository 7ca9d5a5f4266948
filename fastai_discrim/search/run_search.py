"Run a search on one process, with trackers paused, and without a trace on the learner"
__all__ = []

from collections.abc import Callable

from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException, CancelValidException
from fastai.learner import Learner

from ..callbacks.ddp import single_process
from ..distributed import on_rank0
from .restored import restored


class PauseTrackers(Callback):
    "Pause loggers and trackers, which look for a callback of this name, as in `get_preds`"
    name = 'gather_preds'

def run_search(
    learn:Learner, # The learner, which is put back at the end
    search:Callable, # Function of no arguments that trains it
    what:str, # What is searched for, for the error message
): # What `search` returns, in all processes
    "Run `search` on rank 0, and put back all that it changes; raise `ValueError` where a callback calls it off"
    def _search():
        with restored(learn),single_process(learn):
            try:
                with learn.added_cbs(PauseTrackers()): return search()
            except (CancelFitException, CancelEpochException, CancelTrainException, CancelValidException) as e:
                names = ', '.join(type(cb).__name__ for cb in learn.cbs)
                raise ValueError(f'a callback called the pass over the data off, one of {names}: expected a whole one, from which {what} '
                                 'is found; give a rate, or fit without that callback') from e
    return on_rank0(_search)
