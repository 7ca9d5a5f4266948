"Several processes: what one of them does for all, and groups that freeze under `DistributedDataParallel`"
__all__ = []

import os
import pickle
from contextlib import contextmanager

import torch
import torch.distributed as dist
from fastai.imports import noop
from fastai.learner import Learner
from fastai.torch_core import rank_distrib


def n_processes() -> int:
    "Processes that train together"
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1

def gathered(
    o, # What this process has; anything that can be pickled
) -> list: # By rank
    "What each process has, in all of them"
    if n_processes() == 1: return [o]
    res = [None]*n_processes()
    dist.all_gather_object(res, o)
    return res

def by_first(
    f, # A function without arguments
):
    "What `f` gives in the first process, in all of them; so too the error that it raises, lest the others wait for ever"
    if n_processes() == 1: return f()
    res = [None, None]
    if rank_distrib() == 0:
        try: res[0] = f()
        except Exception as e: res[1] = _sendable(e)
    dist.broadcast_object_list(res, src=0)
    if res[1] is not None: raise res[1]
    return res[0]

def _sendable(e):
    try: pickle.loads(pickle.dumps(e))
    except Exception: return RuntimeError(f'{type(e).__name__}: {e}')
    return e

def trainer(learn:Learner):
    "The learner's `DistributedTrainer`, or None; its module needs accelerate, and so is not imported here"
    return next((cb for cb in learn.cbs if type(cb).__name__ == 'DistributedTrainer'), None)

def say(
    learn:Learner, # The learner that something is said about
    text:str, # What there is to say
):
    "Print `text` in the first process, unless in `learn.no_logging()`"
    if learn.logger is not noop and rank_distrib() == 0: print(text)

@contextmanager
def alone(
    learn:Learner, # Its callbacks are changed, and not put back
):
    "Inside, the learner trains as if this were the only process"
    if (cb := trainer(learn)) is not None: learn.remove_cb(cb)
    # fastai asks it whether there are others to gather from, and to wait for
    world = os.environ.pop('WORLD_SIZE', None)
    try: yield
    finally:
        if world: os.environ['WORLD_SIZE'] = world

def _before_fit(self):
    "As in fastai; where groups freeze or open, all parameters train while the model is wrapped, and only then"
    if not self.wraps_whole: return self._orig_before_fit()
    trained = [(p, p.requires_grad) for p in self.learn.model.parameters()]
    for p,_ in trained: p.requires_grad_(True)
    try: self._orig_before_fit()
    finally:
        for p,rg in trained: p.requires_grad_(rg)

def _broadcast(self, t, rank):
    "As in fastai, on the CPU where the processes talk by gloo"
    if dist.get_backend() != 'gloo': return self._orig__broadcast(t, rank)
    t = torch.tensor(t, dtype=torch.long)
    dist.broadcast(t, rank)
    return t.tolist()

def mend_trainer(learn:Learner):
    "Let fastai's `DistributedTrainer`, if the learner has one, run on the CPU too, and wrap the whole model where it is asked to"
    if (cb := trainer(learn)) is None or hasattr(type(cb), 'wraps_whole'): return
    from fastai.distributed import DistributedDL, DistributedTrainer
    # Not at import: accelerate need not be there
    DistributedTrainer._orig_before_fit,DistributedTrainer.before_fit = DistributedTrainer.before_fit,_before_fit
    DistributedDL._orig__broadcast,DistributedDL._broadcast = DistributedDL._broadcast,_broadcast
    DistributedTrainer.wraps_whole = False

def wrap_whole(learn:Learner):
    "Have `DistributedDataParallel` know all parameters, those too that are frozen when the model is wrapped and train later"
    # It looks at what trains only once. Without this the processes drift apart, or wait for gradients that don't come
    if (cb := trainer(learn)) is None: return
    from accelerate import DistributedDataParallelKwargs
    mend_trainer(learn)
    if cb.accelerator.ddp_handler is None: cb.accelerator.ddp_handler = DistributedDataParallelKwargs()
    cb.accelerator.ddp_handler.find_unused_parameters = cb.wraps_whole = True

def whole_loader(dl):
    "The loader that a `DistributedDL` takes its share from, or `dl` itself"
    return dl.dl if type(dl).__name__ == 'DistributedDL' else dl
