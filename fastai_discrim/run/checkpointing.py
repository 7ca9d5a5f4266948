"Resume a run where it was stopped, and end with the weights of an uninterrupted run"
__all__ = []

from collections import Counter
from pathlib import Path

from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.learner import Learner
from fastai.torch_core import default_device, rank_distrib

from ..callbacks.base import FitCallback
from ..callbacks.group_lrs import record_on
from ..data_state import data_state, set_data_state
from ..distributed import all_gather, log_rank0, n_processes, on_rank0
from ..groups.by_hand import renew_opt
from ..plan.plan import Plan
from ..user_warning import warn_user
from .callback_state import in_checkpoint, init_args
from .checkpoint_file import checkpoint_file, write
from .learner_state import learner_state, set_learner_state
from .plain_data import to_plain
from .run_identity import check_run, checkpoint_plan

# Fields of a checkpoint that `write` adds
WRITTEN = 'fastai_discrim', 'version'

class Checkpointing(FitCallback):
    """Write a checkpoint with the `run_identity` before the first epoch, after each epoch and after `every` steps within it; resume from
    `state`, the content of a checkpoint, if there is one"""
    # After all other callbacks, as the state includes what they did
    order,saves_state = 1000,False
    _stateattrs = 'state','epoch_data','rows'

    def __init__(self, file:Path, identity:dict, every:int|None=None, state:dict|None=None):
        # `fit_plan` sets the loop
        self.file,self.identity,self.every,self.state,self.loop = file,identity,every,state,None
        # Rows of the table of losses; `data_state` as the epoch began; names of what can't be written
        self.rows,self.epoch_data,self.lost = [],None,set()
        # Where the fit begins: the epoch, and the number of its batches that were trained before
        self.begin = (state['epoch'], state['batches']) if state else (0, 0)

    def before_fit(self):
        # By `id`, as other callbacks may reorder `learn.cbs`; not those of this callback, as the `repr` of a whole checkpoint is slow
        self.args,self.cancelled = {id(cb): init_args(cb) for cb in self.learn.cbs if in_checkpoint(cb)},False
        if self.state: self._resume()
        else: self._write(0, 0)

    def _resume(self):
        "Restore the state of the checkpoint, and let the loop begin there"
        state,loop = self.state,self.loop
        loop.first_epoch,loop.batches_done = self.begin
        loop.after_skipped = self._after_skipped
        self._check_callbacks()
        restore(self.learn, state)
        self._show_rows()
        # Write the state back at once, so that a full disk or a missing permission shows before training
        on_rank0(lambda: write(self.file, {k:v for k,v in state.items() if k not in WRITTEN}))
        if not state['batches']: self.state = None
        if state['epoch'] == self.n_epoch: self.learn.model.eval()

    def callbacks_before(self) -> Counter:
        "Count the callbacks that the resumed run had, by name"
        return Counter(name for name,_ in learner_part(self.state)['callbacks'])

    def _check_callbacks(self):
        "Warn if the callbacks are not those that the run had before"
        before = self.callbacks_before()
        now = Counter(cb.name for cb in self.learn.cbs if in_checkpoint(cb))
        if now != before:
            gone,new = before-now,now-before
            changes = [f'lacks {", ".join(gone)}'] * bool(gone) + [f'also has {", ".join(new)}'] * bool(new)
            warn_user(f'the run {" and ".join(changes)}: expected the callbacks that it had before, as others may change the result; give '
                      'the fit the same')

    def _show_rows(self):
        "Log the earlier epochs again, to the table of the progress bar and to the file that `CSVLogger` overwrites"
        # A bar sets its start time in an update with 0
        bar = getattr(getattr(self.learn, 'progress', None), 'mbar', None)
        if bar: bar.update(0)
        appending = [cb for cb in self.learn.cbs if isinstance(cb, CSVLogger) and cb.append]
        log = appending[0].old_logger if appending else self.learn.logger
        self.rows = list(self.state['rows'])
        for row in self.rows: log(row)

    def before_train(self):
        # Draw the batches of a resumed epoch again, from its beginning
        if self.state: set_data_state(self.learn, of_this_process(self.state)['data'])
        self.epoch_data = data_state(self.learn)

    def _after_skipped(self):
        "Restore the state after the last of the skipped batches"
        set_learner_state(self.learn, learner_part(self.state))
        self.state = None

    def after_batch(self):
        if self.training and self.every and self.train_iter % self.every == 0: self._try_write(self.epoch, self.iter+1)

    def after_epoch(self):
        if hasattr(self, 'recorder'):
            self.rows.append([o if isinstance(o, (bool, int, float, str)) else str(o) for o in self.recorder.log])
        self.epoch_data = None
        self._try_write(max(self.epoch+1, self.loop.next_epoch), 0)

    def after_cancel_fit(self): self.cancelled = True

    def after_fit(self):
        stopped_early = any(isinstance(cb, EarlyStoppingCallback) and cb.wait >= cb.patience for cb in self.learn.cbs)
        # A fit that anything but early stopping cancelled can be resumed
        if not self.cancelled or stopped_early: self._try_write(self.n_epoch, 0, finished=True)

    def _write(self, epoch, batches, finished=False):
        "Write a checkpoint before batch number `batches` of epoch number `epoch`"
        known,learner = set(self.lost),learner_state(self.learn, self.args, self.lost)
        new = self.lost - known
        if new:
            warn_user(f'{", ".join(sorted(new))}: expected numbers, text, arrays or tensors; the checkpoint leaves out other values, so '
                      'that a resumed run may have another result')
        # Weights and optimiser are the same in all processes, random states and measurements are not
        common = {k: learner.pop(k) for k in ('model', 'opt')}
        data = self.epoch_data if batches else data_state(self.learn)
        ranks = all_gather(to_plain(dict(learner=learner, data=data)))
        on_rank0(lambda: write(self.file, dict(identity=self.identity, epoch=epoch, batches=batches, finished=finished, rows=self.rows,
                                               learner=common, ranks=ranks)))

    def _try_write(self, *args, **kwargs):
        "Write a checkpoint, or warn: once training has begun, a failed write does not stop it"
        try: self._write(*args, **kwargs)
        except (OSError, TypeError, ValueError, RuntimeError) as e: warn_user(f'{e}; training goes on without this checkpoint')

def of_this_process(state:dict) -> dict:
    "Return the part of a checkpoint that belongs to this process"
    return state['ranks'][rank_distrib() if n_processes() > 1 else 0]

def learner_part(state:dict) -> dict:
    "Return the `learner_state` in a checkpoint"
    return {**state['learner'], **of_this_process(state)['learner']}

def restore(learn:Learner, state:dict):
    "Restore the learner and the order of its batches from the content of a checkpoint"
    set_data_state(learn, of_this_process(state)['data'])
    set_learner_state(learn, learner_part(state))

def checkpointing(learn:Learner, plan:Plan, name:str, every:int|None, wd:float|None, reset_opt:bool, state:dict|None=None) -> tuple:
    """Begin a run, resume it, or load its result, by its checkpoint `name`, whose content is `state` if it was read before. Return the
    plan as it was first run, and a `Checkpointing`, or None if the run is finished. Raise `ValueError` if the checkpoint belongs to
    another run"""
    file = checkpoint_file(learn, name)
    identity,state = check_run(learn, plan, name, wd, reset_opt, state)
    if not state: return plan,Checkpointing(file, identity, every)
    plan = checkpoint_plan(state)
    if not state['finished']:
        log_rank0(learn, f'resuming from {file}: epoch {state["epoch"]}, batch {state["batches"]}')
        return plan,Checkpointing(file, state['identity'], every, state)
    _load_finished(learn, plan, state, reset_opt)
    n = len(learn.recorder.ran['epochs']) if hasattr(learn, 'recorder') else plan.n_epoch
    log_rank0(learn, f'{file} belongs to a finished run of {n} epochs: its result is loaded, and nothing is left to train')
    return plan,None

def _load_finished(learn, plan, state, reset_opt):
    "Load the result of a finished run into `learn`"
    # `fit` would move the model and create the optimiser
    learn.model.to(getattr(learn.dls, 'device', default_device()))
    if learn.opt is None or reset_opt: renew_opt(learn)
    restore(learn, state)
    # The learner is left as `fit` leaves it
    for p in learn.model.parameters(): p.grad = None
    learn.model.eval()
    if hasattr(learn, 'recorder'): record_on(learn.recorder, plan=plan)
