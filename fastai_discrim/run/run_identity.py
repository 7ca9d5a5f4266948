"Compare a run with its checkpoint: to resume, plan, model, data and optimiser must be the same"
__all__ = []

from hashlib import sha1
from pathlib import Path

import numpy as np
from fastai.learner import Learner
from fastai.torch_core import get_model

from ..checks import batch_size, count_items
from ..data_state import whole_loader
from ..distributed import n_processes
from ..groups.layer_groups import check_groups
from ..plan.plan import Plan
from .checkpoint_file import checkpoint_file, read_checkpoint


def _digest(text):
    "Return a short digest of `text`"
    return sha1(text.encode()).hexdigest()[:8]

def func_name(f) -> str:
    "Return the name of `f`, a function, a class or a `partial`, followed by the name of the torch optimiser that it wraps, if any"
    inner = getattr(f, 'keywords', {}).get('opt')
    f = getattr(f, 'func', f)
    return getattr(f, '__name__', type(f).__name__) + (f'({func_name(inner)})' if inner else '')

def _tensors_text(tensors):
    "Describe named tensors by their size and a digest of their names and shapes"
    shapes = ', '.join(f'{n} {tuple(t.shape)}' for n,t in tensors.items())
    return f'{sum(t.numel() for t in tensors.values())} in {len(tensors)} tensors, {_digest(shapes)}'

def _loss_name(learn):
    "Return the name of the loss function; after Ctrl-C a callback such as `MixUp` leaves its own in place"
    return func_name(getattr(getattr(learn.loss_func, '__self__', None), 'old_lf', learn.loss_func))

def run_identity(learn:Learner, plan:Plan, wd:float|None=None, reset_opt:bool=False) -> dict:
    "Return what must be the same to resume a run, by name, to compare and to show"
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
        'batch size': batch_size(train),
        'batches per epoch': len(train),
        'optimiser': func_name(learn.opt_func),
        'weight decay': [wd.start, wd.stop] if isinstance(wd, slice) else np.asarray(wd).tolist(),
        'momentum': np.asarray(learn.moms).tolist(),
        'loss function': _loss_name(learn),
        'metrics': list(learn.metrics.attrgot('name')),
        'processes': n_processes()}

def check_same_run(file:Path, old:dict, new:dict):
    "Raise `ValueError` if the `old` `run_identity`, which is in the checkpoint `file`, differs from the `new` one"
    old_plan,new_plan = Plan.from_json(old['plan']),Plan.from_json(new['plan'])
    diffs = [] if old_plan == new_plan else [f'its plan is\n{old_plan}\nand this one\n{new_plan}\n']
    diffs += [f'{k}: {old[k]} there, {new[k]} here' for k in new if k != 'plan' and k in old and old[k] != new[k]]
    if diffs:
        raise ValueError(f'{file} belongs to another run: {"; ".join(diffs)}: expected the same; give this run another name for its '
                         'checkpoint, or delete that file')

def check_run(learn:Learner, plan:Plan, name:str, wd:float|None, reset_opt:bool, state:dict|None=None) -> tuple:
    """Return the `run_identity` of a run and the content of its checkpoint `name`, None if there is none; read it unless it is given as
    `state`. Raise `ValueError` if the checkpoint belongs to another run"""
    identity,state = run_identity(learn, plan, wd, reset_opt),state or read_checkpoint(learn, name)
    if state: check_same_run(checkpoint_file(learn, name), state['identity'], identity)
    return identity,state

def checkpoint_plan(state:dict) -> Plan:
    "Return the plan of the run that wrote a checkpoint"
    return Plan.from_json(state['identity']['plan'])
