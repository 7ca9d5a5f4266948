"A run that goes on where it was stopped, and ends with the weights that it would have had"
__all__ = []

from pathlib import Path
from warnings import warn

from fastai.callback.core import Callback, CancelEpochException
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.learner import Learner
from fastai.torch_core import default_device, rank_distrib
from fastcore.basics import patch

from .checkpoint import check_same, checkpoint_file, facts, read, write
from .checks import check_count
from .plan import Plan
from .several import by_first, gathered, n_processes, say, whole_loader
from .states import given, kept, learner_state, loader_state, plain, random_states, set_learner, set_loader, set_random

# Where a fit begins, if not at its beginning: its first epoch, and the batches of it that were trained before; and where it goes on
# when a phase has ended before its last epoch
Learner._first_epoch = Learner._done_batches = Learner._next_epoch = 0
# The epoch that is being fitted, whatever is validated in the middle of it
Learner._fit_epoch = 0

@patch
def _do_fit(self:Learner):
    "As in fastai, from the epoch on that a checkpoint is in, and without those that a phase which has ended leaves out"
    def _epoch():
        # A callback may have validated before it, for which fastai counts anew
        self.epoch = self._fit_epoch
        self._do_epoch()
    epoch = self._first_epoch
    while epoch < self.n_epoch:
        self.epoch = self._fit_epoch = epoch
        self._with_events(_epoch, 'epoch', CancelEpochException)
        epoch = max(epoch+1, self._next_epoch)

@patch
def one_batch(self:Learner, i, b):
    "As in fastai; batches that were trained before a checkpoint are drawn, for the order of the others, and left alone"
    if not self.training or i >= self._done_batches: return self._orig_one_batch(i, b)
    self.iter = i
    if i == self._done_batches-1: self.checkpointing.resume_batches()

class OfTheFit(Callback):
    "Base of the callbacks for which validation and predictions in the middle of a fit are no fits of their own"
    def __call__(self, event_name):
        # fastai locks the learner for them, and begins to count epochs anew
        if self.learn.lock.locked(): self.learn.epoch = self._fit_epoch
        else: super().__call__(event_name)

class Checkpointing(OfTheFit):
    "Write a checkpoint before the first epoch, after each and after every `every` steps; go on from `state` if there is one"
    # After all others: what they did belongs to the state
    order,_only_train_loop,_stateattrs = 1000,True,('state', 'start', 'rows')

    def __init__(self,
        file:Path, # The checkpoint
        facts:dict, # What must be the same for a run to go on from it
        every:int=None, # Steps between two checkpoints within an epoch
        state:dict=None, # What `read` gave
    ): self.file,self.facts,self.every,self.state,self.rows,self.start,self.lost = file,facts,every,state,[],None,set()

    def before_fit(self):
        self.made,self.called_off = [given(cb) for cb in self.learn.cbs],False
        if not self.state: return self._write(0, 0)
        epoch,batches = self.learn._first_epoch,self.learn._done_batches = self.state['epoch'],self.state['batches']
        names,now = sorted(name for name,_ in learner_of(self.state)['callbacks']),sorted(cb.name for cb in self.learn.cbs if kept(cb))
        if now != names:
            warn(f'the run had the callbacks {", ".join(names)}, and now has {", ".join(now)}: expected the same, or it may end elsewhere',
                 stacklevel=2)
        put_back(self.learn, self.state)
        # A bar that doesn't begin at 0 has no time to begin with
        if bar := getattr(getattr(self.learn, 'progress', None), 'mbar', None): bar.update(0)
        # Into the table of the progress bar, and into what `CSVLogger` began anew
        csv = next((cb for cb in self.learn.cbs if isinstance(cb, CSVLogger) and cb.append), None)
        for row in self.state['rows']: (csv.old_logger if csv else self.learn.logger)(row)
        self.rows,self.start = list(self.state['rows']),mine(self.state)['start']
        # Here, too, no space or no right to write is to be known now
        by_first(lambda: write(self.file, {k:v for k,v in self.state.items() if k not in ('fastai_discrim', 'version')}))
        if not batches: self.state = None
        if epoch == self.n_epoch: self.learn.model.eval()

    def before_train(self):
        if not self.state: self.start = order(self.learn)
        else:
            # The batches are drawn as they were, from where the epoch began
            self.start = mine(self.state)['start']
            set_order(self.learn, self.start)

    def resume_batches(self):
        "What has been trained before is done: all is as it was then"
        set_learner(self.learn, learner_of(self.state))
        self.state,self.learn._done_batches = None,0

    def after_batch(self):
        if self.training and self.every and self.train_iter % self.every == 0: self._try_write(self.epoch, self.iter+1)

    def after_epoch(self):
        if hasattr(self, 'recorder'): self.rows.append([o if isinstance(o, (bool, int, float, str)) else str(o) for o in self.recorder.log])
        self.start = None
        self._try_write(max(self.epoch+1, self._next_epoch), 0)

    def after_cancel_fit(self): self.called_off = True

    def after_fit(self):
        stopped = any(isinstance(cb, EarlyStoppingCallback) and cb.wait >= cb.patience for cb in self.learn.cbs)
        # What was called off by something else than early stopping can go on
        if not self.called_off or stopped: self._try_write(self.n_epoch, 0, finished=True)

    def _write(self, epoch, batches, finished=False):
        known,learner = set(self.lost),learner_state(self.learn, self.made, self.lost)
        if new := self.lost - known:
            warn(f'{", ".join(sorted(new))}: no numbers, text, arrays or tensors, and so not in the checkpoint; what depends on them may '
                 'end elsewhere', stacklevel=2)
        # The weights are the same in all processes; what each of them draws and measures is not
        common = {k: learner.pop(k) for k in ('model', 'opt')}
        ranks = gathered(plain(dict(learner=learner, start=self.start if batches else order(self.learn))))
        by_first(lambda: write(self.file, dict(facts=self.facts, epoch=epoch, batches=batches, finished=finished, rows=self.rows,
                                               learner=common, ranks=ranks)))

    def _try_write(self, *args, **kwargs):
        # Later than before the first epoch it is better to train on than to stop
        try: self._write(*args, **kwargs)
        except (OSError, TypeError, ValueError, RuntimeError) as e: warn(f'{e}; training goes on without', stacklevel=2)

def order(learn:Learner) -> dict:
    "What the order of the batches and all that is random in them will be"
    return dict(loaders=[loader_state(whole_loader(dl)) for dl in learn.dls.loaders], random=random_states())

def set_order(learn:Learner, state:dict):
    "Put back what `order` gave"
    for dl,s in zip(learn.dls.loaders, state['loaders']): set_loader(whole_loader(dl), s)
    set_random(state['random'])

def mine(state:dict) -> dict:
    "What a checkpoint holds of this process"
    return state['ranks'][rank_distrib() if n_processes() > 1 else 0]

def learner_of(state:dict) -> dict:
    "What `learner_state` gave when a checkpoint was written"
    return {**state['learner'], **mine(state)['learner']}

def put_back(learn:Learner, state:dict):
    "Put back what a checkpoint holds"
    set_order(learn, mine(state)['start'])
    set_learner(learn, learner_of(state))

def find(
    learn:Learner, # The learner that is to run
    name:str, # What the checkpoint is called
) -> dict|None: # What `read` gives, in all processes
    "The checkpoint of that name"
    return by_first(lambda: read(checkpoint_file(learn, name)))

def check_checkpoint(
    name:str, # What the checkpoint is called; None for none
    every:int=None, # Steps between two checkpoints within an epoch
    start_epoch:int=0, # What `fit` is given
):
    "Raise unless a run can have such a checkpoint"
    if name is not None and (not isinstance(name, str) or not name.strip() or '\0' in name):
        raise TypeError(f'checkpoint={name!r}: expected a name for it, such as \'run1\'')
    if every is not None: check_count(every, 'checkpoint_every')
    if every and name is None: raise ValueError(f'checkpoint_every={every} without `checkpoint`: expected a name for it')
    if start_epoch and name: raise ValueError(f'start_epoch={start_epoch} with checkpoint={name!r}: expected one of the two')

def check_run(
    learn:Learner, # The learner that is to run
    plan:Plan, # What it is to run
    name:str, # What the checkpoint is called
    wd:float=None, # Weight decay, as `fit` is given it
    reset_opt:bool=False, # Will the optimiser be created anew?
) -> tuple: # What `facts` and `find` give
    "Raise if the checkpoint is of another run"
    now,state = facts(learn, plan, wd, reset_opt),find(learn, name)
    if state: check_same(checkpoint_file(learn, name), state['facts'], now)
    return now,state

def checkpointing(
    learn:Learner, # The learner that is to run
    plan:Plan, # What it is to run
    name:str, # What the checkpoint is called
    every:int=None, # Steps between two checkpoints within an epoch
    wd:float=None, # Weight decay, as `fit` is given it
    reset_opt:bool=False, # Will the optimiser be created anew?
) -> tuple: # The plan, as it was first run, and a `Checkpointing`, or None if the run is finished
    "What lets a run go on from where it was stopped; `ValueError` if the checkpoint is of another run"
    file,(now,state) = checkpoint_file(learn, name),check_run(learn, plan, name, wd, reset_opt)
    if not state: return plan,Checkpointing(file, now, every)
    plan = Plan.from_json(state['facts']['plan'])
    if not state['finished']:
        say(learn, f'going on from {file}: epoch {state["epoch"]}, batch {state["batches"]}')
        return plan,Checkpointing(file, state['facts'], every, state)
    # As `fit` would
    learn.model.to(getattr(learn.dls, 'device', default_device()))
    if learn.opt is None or reset_opt: learn.create_opt()
    put_back(learn, state)
    # As `fit` leaves them
    for p in learn.model.parameters(): p.grad = None
    learn.model.eval()
    if hasattr(learn, 'recorder'): learn.recorder.plan = plan
    n = len(learn.recorder.ran['epochs']) if hasattr(learn, 'recorder') else plan.n_epoch
    say(learn, f'{file} is of a finished run of {n} epochs: its result is loaded, and nothing is left to train')
    return plan,None
