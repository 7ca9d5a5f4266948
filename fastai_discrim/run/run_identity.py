"What must be the same for a run to go on from a checkpoint: plan, model, data, optimiser"
__all__ = []

from hashlib import sha1
from pathlib import Path

import numpy as np
from fastai.learner import Learner
from fastai.torch_core import get_model

from ..checks import count_items
from ..data_state import whole_loader
from ..distributed import n_processes
from ..groups.layer_groups import check_groups
from ..plan.plan import Plan


def _digest(text):
    "Return a short digest of `text`"
    return sha1(text.encode()).hexdigest()[:8]

def func_name(
    f, # A function, a class, or a `partial` of one
) -> str:
    "Return what `f` is called where it is defined, with the torch optimiser that it wraps"
    inner = getattr(f, 'keywords', {}).get('opt')
    f = getattr(f, 'func', f)
    return getattr(f, '__name__', type(f).__name__) + (f'({func_name(inner)})' if inner else '')

def _tensors_text(tensors):
    "Describe named tensors: how many numbers they have, and a digest of names and shapes"
    shapes = ', '.join(f'{n} {tuple(t.shape)}' for n,t in tensors.items())
    return f'{sum(t.numel() for t in tensors.values())} in {len(tensors)} tensors, {_digest(shapes)}'

def _loss_name(learn):
    "Return the name of the loss; after Ctrl-C a callback such as `MixUp` leaves its own"
    return func_name(getattr(getattr(learn.loss_func, '__self__', None), 'old_lf', learn.loss_func))

def run_identity(
    learn:Learner, # The learner that runs
    plan:Plan, # The plan that it runs
    wd:float|None=None, # Weight decay, as `fit` is given it
    reset_opt:bool=False, # Will the optimiser be created again?
) -> dict: # By name, values that can be compared and shown
    "Return what must be the same for a run to go on"
    model,dls,wd = get_model(learn.model),learn.dls,learn.wd if wd is None else wd
    train,*valid = [whole_loader(dl) for dl in dls.loaders]
    return {
        'plan': plan.to_json(),
        'parameters': _tensors_text(dict(model.named_parameters())),
        'buffers': _tensors_text(dict(model.named_buffers())),
        'layer groups': [len(g) for g in check_groups(learn, reset_opt)],
        'vocabulary': f'{len(dls.vocab)} entries, {_digest(repr(dls.vocab))}' if hasattr(dls, 'vocab') else None,
        'training items': count_items(train),
        'validation items': count_items(valid[0]) if valid else 0,
        'batch size': getattr(train, 'bs', None) or getattr(train, 'batch_size', None),
        'batches an epoch': len(train),
        'optimiser': func_name(learn.opt_func),
        'weight decay': [wd.start, wd.stop] if isinstance(wd, slice) else np.asarray(wd).tolist(),
        'momentum': list(learn.moms),
        'loss function': _loss_name(learn),
        'metrics': list(learn.metrics.attrgot('name')),
        'processes': n_processes()}

def check_same_run(
    file:Path, # The checkpoint, for the message
    old:dict, # `run_identity` that it was written under
    new:dict, # `run_identity` of the run that is to go on from it
):
    "Raise if the two are of different runs"
    old_plan,new_plan = Plan.from_json(old['plan']),Plan.from_json(new['plan'])
    diffs = [] if old_plan == new_plan else [f'its plan is\n{old_plan}\nand this one\n{new_plan}\n']
    diffs += [f'{k}: {old[k]} there, {new[k]} here' for k in new if k != 'plan' and k in old and old[k] != new[k]]
    if diffs: raise ValueError(f'{file} is of another run: {"; ".join(diffs)}: expected the same; give this run another name for its '
                               'checkpoint, or delete that file')
