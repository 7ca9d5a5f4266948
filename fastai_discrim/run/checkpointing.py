"A run that goes on where it was stopped, and ends with the weights that it would have had"
__all__ = []

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
from .checkpoint_file import checkpoint_file, read, write
from .learner_state import learner_state, set_learner_state
from .plain_data import to_plain
from .plan_loop import PlanLoop
from .run_identity import check_same_run, run_identity

# Fields of a checkpoint that `write` adds
WRITTEN = 'fastai_discrim', 'version'

class Checkpointing(FitCallback):
    "Write a checkpoint before the first epoch, after each and after every `every` steps; go on from `state` if there is one"
    # After all others: what they did belongs to the state
    order,_only_train_loop,_stateattrs,in_checkpoint = 1000,True,('state', 'epoch_start', 'rows'),False

    def __init__(self,
        file:Path, # The checkpoint
        identity:dict, # What must be the same for a run to go on from it
        every:int|None=None, # Steps between two checkpoints within an epoch
        state:dict|None=None, # What `read` gave
        loop:PlanLoop|None=None, # The loop of the fit
    ):
        self.file,self.identity,self.every,self.state,self.loop = file,identity,every,state,loop
        # Rows of the table of losses; `data_state` as the epoch began; names of what can't be written
        self.rows,self.epoch_start,self.lost = [],None,set()
        # Where the fit begins: an epoch, and the batches of it that were trained before
        self.begin = (state['epoch'], state['batches']) if state else (0, 0)

    def before_fit(self):
        self.args,self.cancelled = [init_args(cb) for cb in self.learn.cbs],False
        if self.state: self._resume()
        else: self._write(0, 0)

    def _resume(self):
        "Restore what the checkpoint holds, and have the loop begin there"
        state,loop = self.state,self.loop
        (loop.first_epoch,loop.batches_done),loop.after_skipped = self.begin,self._after_skipped
        self._check_callbacks()
        restore(self.learn, state)
        self._show_rows()
        self.epoch_start = of_this_process(state)['start']
        # Here, too, no space or no right to write is to be known now
        on_rank0(lambda: write(self.file, {k:v for k,v in state.items() if k not in WRITTEN}))
        if not state['batches']: self.state = None
        if state['epoch'] == self.n_epoch: self.learn.model.eval()

    def _check_callbacks(self):
        "Warn where the run has other callbacks than before"
        before = sorted(name for name,_ in learner_part(self.state)['callbacks'])
        now = sorted(cb.name for cb in self.learn.cbs if in_checkpoint(cb))
        if now != before:
            warn_user(f'the run had the callbacks {", ".join(before)}, and now has {", ".join(now)}: expected the same, or it may end '
                      'elsewhere; give the fit those that it had')

    def _show_rows(self):
        "Put the losses so far into the table of the progress bar, and into what `CSVLogger` began again"
        # A bar that doesn't begin at 0 has no time to begin with
        if bar := getattr(getattr(self.learn, 'progress', None), 'mbar', None): bar.update(0)
        appending = [cb for cb in self.learn.cbs if isinstance(cb, CSVLogger) and cb.append]
        log = appending[0].old_logger if appending else self.learn.logger
        self.rows = list(self.state['rows'])
        for row in self.rows: log(row)

    def before_train(self):
        if not self.state: self.epoch_start = data_state(self.learn)
        else:
            # The batches are drawn as they were, from where the epoch began
            self.epoch_start = of_this_process(self.state)['start']
            set_data_state(self.learn, self.epoch_start)

    def _after_skipped(self):
        "Restore all as it was when the last of the skipped batches had been trained"
        set_learner_state(self.learn, learner_part(self.state))
        self.state = None

    def after_batch(self):
        if self.training and self.every and self.train_iter % self.every == 0: self._try_write(self.epoch, self.iter+1)

    def after_epoch(self):
        if hasattr(self, 'recorder'): self.rows.append([o if isinstance(o, (bool, int, float, str)) else str(o) for o in self.recorder.log])
        self.epoch_start = None
        self._try_write(max(self.epoch+1, self.loop.next_epoch), 0)

    def after_cancel_fit(self): self.cancelled = True

    def after_fit(self):
        early = any(isinstance(cb, EarlyStoppingCallback) and cb.wait >= cb.patience for cb in self.learn.cbs)
        # What was cancelled by something else than early stopping can go on
        if not self.cancelled or early: self._try_write(self.n_epoch, 0, finished=True)

    def _write(self, epoch, batches, finished=False):
        "Write a checkpoint before batch number `batches` of epoch number `epoch`"
        known,learner = set(self.lost),learner_state(self.learn, self.args, self.lost)
        if new := self.lost - known:
            warn_user(f'{", ".join(sorted(new))}: no numbers, text, arrays or tensors, and so not in the checkpoint; what depends on them '
                      'may end elsewhere')
        # The weights are the same in all processes; what each of them draws and measures is not
        common = {k: learner.pop(k) for k in ('model', 'opt')}
        start = self.epoch_start if batches else data_state(self.learn)
        ranks = all_gather(to_plain(dict(learner=learner, start=start)))
        on_rank0(lambda: write(self.file, dict(identity=self.identity, epoch=epoch, batches=batches, finished=finished, rows=self.rows,
                                               learner=common, ranks=ranks)))

    def _try_write(self, *args, **kwargs):
        "Write a checkpoint, or warn: after the first epoch has begun it is better to train on than to stop"
        try: self._write(*args, **kwargs)
        except (OSError, TypeError, ValueError, RuntimeError) as e: warn_user(f'{e}; training goes on without')

def of_this_process(
    state:dict, # What a checkpoint holds
) -> dict:
    "Return what a checkpoint holds of this process"
    return state['ranks'][rank_distrib() if n_processes() > 1 else 0]

def learner_part(
    state:dict, # What a checkpoint holds
) -> dict:
    "Return what `learner_state` gave when a checkpoint was written"
    return {**state['learner'], **of_this_process(state)['learner']}

def restore(
    learn:Learner, # The learner that is to run
    state:dict, # What a checkpoint holds
):
    "Restore what a checkpoint holds"
    set_data_state(learn, of_this_process(state)['start'])
    set_learner_state(learn, learner_part(state))

def read_checkpoint(
    learn:Learner, # The learner that is to run
    name:str, # What the checkpoint is called
) -> dict|None: # What `read` gives, in all processes
    "Read the checkpoint of that name; None where there is none"
    return on_rank0(lambda: read(checkpoint_file(learn, name)))

def checkpoint_plan(
    learn:Learner, # The learner that is to run
    name:str, # What the checkpoint is called
) -> Plan|None:
    "Read the plan of the checkpoint of that name; None where there is none"
    state = read_checkpoint(learn, name)
    return state and Plan.from_json(state['identity']['plan'])

def check_run(
    learn:Learner, # The learner that is to run
    plan:Plan, # What it is to run
    name:str, # What the checkpoint is called
    wd:float|None=None, # Weight decay, as `fit` is given it
    reset_opt:bool=False, # Will the optimiser be created again?
) -> tuple: # What `run_identity` and `read_checkpoint` give
    "Raise if the checkpoint is of another run"
    identity,state = run_identity(learn, plan, wd, reset_opt),read_checkpoint(learn, name)
    if state: check_same_run(checkpoint_file(learn, name), state['identity'], identity)
    return identity,state

def checkpointing(
    learn:Learner, # The learner that is to run
    plan:Plan, # What it is to run
    name:str, # What the checkpoint is called
    every:int|None=None, # Steps between two checkpoints within an epoch
    wd:float|None=None, # Weight decay, as `fit` is given it
    reset_opt:bool=False, # Will the optimiser be created again?
) -> tuple: # The plan, as it was first run, and a `Checkpointing`, or None if the run is finished
    "Return what lets a run go on from where it was stopped; raise `ValueError` if the checkpoint is of another run"
    file,(identity,state) = checkpoint_file(learn, name),check_run(learn, plan, name, wd, reset_opt)
    if not state: return plan,Checkpointing(file, identity, every)
    plan = Plan.from_json(state['identity']['plan'])
    if not state['finished']:
        log_rank0(learn, f'going on from {file}: epoch {state["epoch"]}, batch {state["batches"]}')
        return plan,Checkpointing(file, state['identity'], every, state)
    _load_finished(learn, plan, state, reset_opt)
    n = len(learn.recorder.ran['epochs']) if hasattr(learn, 'recorder') else plan.n_epoch
    log_rank0(learn, f'{file} is of a finished run of {n} epochs: its result is loaded, and nothing is left to train')
    return plan,None

def _load_finished(learn, plan, state, reset_opt):
    "Leave `learn` as the finished run did"
    # As `fit` would
    learn.model.to(getattr(learn.dls, 'device', default_device()))
    if learn.opt is None or reset_opt: renew_opt(learn)
    restore(learn, state)
    # As `fit` leaves them
    for p in learn.model.parameters(): p.grad = None
    learn.model.eval()
    if hasattr(learn, 'recorder'): record_on(learn.recorder, plan=plan)
