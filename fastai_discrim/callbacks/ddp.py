"Override fastai's `DistributedTrainer` for one fit, so that layer groups can be frozen and unfrozen during it"
__all__ = []

import os
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import torch.distributed as dist
from fastai.callback.core import Callback
from fastai.learner import Learner

from .base import overridden


def distributed_trainer(learn:Learner) -> Callback|None:
    "Return the learner's `DistributedTrainer`, or None"
    # `isinstance` would need its module, which imports accelerate
    trainers = [cb for cb in learn.cbs if type(cb).__name__ == 'DistributedTrainer']
    return trainers[0] if trainers else None

@contextmanager
def single_process(learn:Learner):
    "Train inside as if this were the only process; the caller restores the `DistributedTrainer` of `learn`, which this removes"
    if (trainer := distributed_trainer(learn)) is not None: learn.remove_cb(trainer)
    # fastai gathers from other processes, and waits for them, if this variable is set
    world = os.environ.pop('WORLD_SIZE', None)
    try: yield
    finally:
        if world: os.environ['WORLD_SIZE'] = world

@contextmanager
def distributed_fit(learn:Learner, opens_groups:bool):
    """Make `DistributedTrainer` work inside with the gloo backend on the CPU, and if the fit `opens_groups`, with layer groups that are
    unfrozen during it"""
    trainer = distributed_trainer(learn)
    with ExitStack() as stack:
        if trainer: stack.enter_context(overridden(trainer, _wrap_dl=partial(_wrap_dl, trainer._wrap_dl)))
        if trainer and opens_groups:
            # `DistributedDataParallel` reads `requires_grad` only when it wraps the model: without this the processes would silently
            # drift apart, or wait for gradients that never come
            stack.enter_context(overridden(trainer, before_fit=partial(_wrap_all_trainable, learn, trainer.before_fit)))
            stack.enter_context(_finding_unused(trainer.accelerator))
        yield

def _wrap_all_trainable(learn, before_fit):
    "Wrap the model while all of its parameters require gradients, then restore `requires_grad`"
    trained = [(p, p.requires_grad) for p in learn.model.parameters()]
    for p,_ in trained: p.requires_grad_(True)
    try: before_fit()
    finally:
        for p,trains in trained: p.requires_grad_(trains)

@contextmanager
def _finding_unused(accelerator):
    "Let `DistributedDataParallel` accept missing gradients inside, as frozen groups have none"
    from accelerate import DistributedDataParallelKwargs
    handler = accelerator.ddp_handler or DistributedDataParallelKwargs()
    with overridden(accelerator, ddp_handler=handler), overridden(handler, find_unused_parameters=True): yield

def _wrap_dl(wrap_dl, dl):
    "Wrap a loader as fastai does, and make it work without a GPU where the backend is gloo"
    dl = wrap_dl(dl)
    if dist.get_backend() == 'gloo': dl._broadcast = _broadcast_cpu
    return dl

def _broadcast_cpu(t, rank):
    "Return the list `t` of process `rank` in all processes; fastai's own method needs a GPU"
    t = torch.tensor(t, dtype=torch.long)
    dist.broadcast(t, rank)
    return t.tolist()
