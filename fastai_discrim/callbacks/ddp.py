"Layer groups that freeze and open under fastai's `DistributedTrainer`, overridden for one learner and one fit"
__all__ = []

import os
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import torch.distributed as dist
from fastai.callback.core import Callback
from fastai.learner import Learner

from .base import overridden


def distributed_trainer(
    learn:Learner, # The learner
) -> Callback|None:
    "Return the learner's `DistributedTrainer`, or None"
    # By its name, as its module needs accelerate
    trainers = [cb for cb in learn.cbs if type(cb).__name__ == 'DistributedTrainer']
    return trainers[0] if trainers else None

@contextmanager
def single_process(
    learn:Learner, # Its callbacks are changed, and not put back
):
    "Train inside as if this were the only process"
    if (cb := distributed_trainer(learn)) is not None: learn.remove_cb(cb)
    # fastai asks it whether there are others to gather from, and to wait for
    world = os.environ.pop('WORLD_SIZE', None)
    try: yield
    finally:
        if world: os.environ['WORLD_SIZE'] = world

@contextmanager
def distributed_fit(
    learn:Learner, # The learner that fits inside
    opens_groups:bool, # May parameters that are frozen when the model is wrapped train later?
):
    "Fit inside as fastai does in several processes; on the CPU, too, and where groups open during the fit"
    trainer = distributed_trainer(learn)
    if trainer is None:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(overridden(trainer, _wrap_dl=partial(_wrap_dl, trainer._wrap_dl)))
        if opens_groups:
            # `DistributedDataParallel` looks at what trains only once. Without this the processes drift apart, or wait for gradients
            stack.enter_context(overridden(trainer, before_fit=partial(_wrap_all_trainable, learn, trainer.before_fit)))
            stack.enter_context(_finding_unused(trainer.accelerator))
        yield

def _wrap_all_trainable(learn, before_fit):
    "Have all parameters train while the model is wrapped, and only then"
    trained = [(p, p.requires_grad) for p in learn.model.parameters()]
    for p,_ in trained: p.requires_grad_(True)
    try: before_fit()
    finally:
        for p,trains in trained: p.requires_grad_(trains)

@contextmanager
def _finding_unused(accelerator):
    "Let gradients be missing inside, as those of frozen groups are"
    from accelerate import DistributedDataParallelKwargs
    handler = accelerator.ddp_handler or DistributedDataParallelKwargs()
    with overridden(accelerator, ddp_handler=handler), overridden(handler, find_unused_parameters=True): yield

def _wrap_dl(wrap_dl, dl):
    "Wrap a loader as fastai does; where the processes talk by gloo it is to work without a GPU"
    dl = wrap_dl(dl)
    if dist.get_backend() == 'gloo': dl._broadcast = _broadcast_cpu
    return dl

def _broadcast_cpu(t, rank):
    "Send the list `t` of process `rank` to all"
    t = torch.tensor(t, dtype=torch.long)
    dist.broadcast(t, rank)
    return t.tolist()
