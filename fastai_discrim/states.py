"What a run's course depends on, as plain data that can be kept and put back: random states, loaders, optimiser, callbacks"
__all__ = []

import random
from inspect import signature

import numpy as np
import torch
from fastai.callback.progress import ProgressCallback
from fastai.callback.rnn import RNNCallback
from fastai.learner import Metric
from fastai.torch_core import get_model, get_random_states, set_random_states, to_device
from fastcore.foundation import L
from torch import Generator, Tensor

# Attributes of the learner that count the batches of a fit
COUNTS = 'train_iter','pct_train','smooth_loss'

class NotPlain(TypeError):
    "Something that is more than numbers, text and tensors"

def _packed(v):
    "A long list of numbers, or of tensors with one number each, as one tensor: thousands of small things are slow to write"
    if len(v) < 50: return None
    if all(isinstance(o, Tensor) and o.dim() == 0 for o in v): return {'scalars': torch.stack([o.detach().as_subclass(Tensor) for o in v])}
    rows = v if isinstance(v[0], (list, L)) else [v]
    if len({len(r) if isinstance(r, (list, L)) else 0 for r in rows}) > 1: return None
    for kind,dtype in ((float, torch.float64), (int, torch.int64)):
        if all(isinstance(o, kind) and not isinstance(o, bool) for r in rows for o in r): return {'numbers': torch.tensor(v, dtype=dtype)}

def plain(v) -> object: # Of types that `torch.load` reads without executing anything
    "`v` as numbers, text, tensors, lists, tuples and dictionaries, which `unpacked` reads; `NotPlain` if it is more than that"
    if v is None or type(v) in (bool, int, float, str): return v
    if isinstance(v, np.generic): return v.item()
    if isinstance(v, Tensor) and not v.requires_grad: return v.detach().as_subclass(Tensor)
    if isinstance(v, Metric): return plain_attrs(v)
    if isinstance(v, dict): return {plain(k): plain(o) for k,o in v.items()}
    if isinstance(v, (list, L)): return _packed(v) or [plain(o) for o in v]
    if type(v) is tuple: return tuple(plain(o) for o in v)
    raise NotPlain(f'a {type(v).__name__} in what a checkpoint has to keep: expected numbers, text and tensors')

def unpacked(v) -> object:
    "What `plain` was given, but for its classes"
    if isinstance(v, dict):
        if set(v) == {'scalars'}: return list(v['scalars'])
        if set(v) == {'numbers'}: return v['numbers'].tolist()
        return {k: unpacked(o) for k,o in v.items()}
    return type(v)(unpacked(o) for o in v) if type(v) in (list, tuple) else v

def plain_attrs(o) -> dict: # By name
    "The attributes of `o` that are plain, but for those that its constructor was given"
    given,res = signature(type(o).__init__).parameters,{}
    for k,v in vars(o).items():
        if k in given or k == 'learn': continue
        try: res[k] = plain(v)
        except NotPlain:
            # A GradScaler, or the weights that an average of weights keeps
            if hasattr(v, 'state_dict') and hasattr(v, 'load_state_dict'): res[k] = {'state_dict': plain(v.state_dict())}
    return res

def set_attrs(o, attrs:dict):
    "Put back what `plain_attrs` gave"
    for k,v in attrs.items():
        old = vars(o).get(k)
        if isinstance(old, Metric): set_attrs(old, v)
        elif isinstance(old, L) and old and all(isinstance(m, Metric) for m in old):
            for m,attr in zip(old, v): set_attrs(m, attr)
        elif isinstance(old, L): setattr(o, k, L(v))
        elif hasattr(old, 'load_state_dict'): old.load_state_dict(v['state_dict'])
        else: setattr(o, k, v)

def random_states() -> dict:
    "The random states of python, numpy, torch and CUDA"
    states = get_random_states()
    name,keys,*rest = states['numpy_state']
    return {**states, 'numpy_state': (name, keys.tolist(), *rest)}

def set_random(states:dict):
    "Put back what `random_states` gave"
    set_random_states(**states)

def _generators(dl):
    "The generators that a torch loader and its samplers draw from"
    holders = dl,getattr(dl, 'sampler', None),getattr(getattr(dl, 'batch_sampler', None), 'sampler', None)
    return [g for o in holders if isinstance(g := getattr(o, 'generator', None), Generator)]

def loader_state(dl) -> dict:
    "What sets the order of a loader's batches: fastai's `rng` or torch's generators, and a language model's items, shuffled in place"
    rng = getattr(dl, 'rng', None)
    return dict(rng=rng and rng.getstate(), generators=[g.get_state() for g in _generators(dl)], looked='_n_inp' in vars(dl),
                idxs=list(map(int, dl.items.idxs)) if hasattr(dl, 'make_chunks') else None)

def set_loader(dl, state:dict):
    "Put back what `loader_state` gave; random states are to be put back after it"
    if state['rng']:
        # Not the old one: `randomize` makes a new one each time, and someone may hold the old one
        dl.rng = random.Random()
        dl.rng.setstate(state['rng'])
    for g,s in zip(_generators(dl), state['generators']): g.set_state(s)
    # fastai draws an item, once, to see what it is made of: not when it is the turn of others
    if state['looked'] and '_n_inp' not in vars(dl): dl._one_pass()
    if state['idxs'] is not None:
        dl.items.idxs[:] = state['idxs']
        dl.make_chunks()

def _stateful(model): return {n:m for n,m in model.named_modules() if hasattr(m, 'reset')}
# torch's own attributes are in the model's state
def _memory(m): return {k:v for k,v in plain_attrs(m).items() if k != 'training' and not k.startswith('_')}
def _grad(p): return p.grad if p.grad is None or p.grad.any() else 0

def learner_state(learn) -> dict:
    "Weights, what trains, gradients, optimiser, callbacks, metrics, random states, and what a recurrent model remembers"
    model,params = get_model(learn.model),list(get_model(learn.model).parameters())
    return dict(
        model=plain(dict(model.state_dict())), opt=plain(learn.opt.state_dict()), random=plain(random_states()),
        trains=[p.requires_grad for p in params], grads=[_grad(p) for p in params], by_hand=sorted(getattr(learn, '_by_hand', ())),
        memory={n: _memory(m) for n,m in _stateful(model).items()},
        scaler=plain(learn.scaler.state_dict()) if getattr(learn, 'scaler', None) else None,
        callbacks={cb.name: plain_attrs(cb) for cb in learn.cbs
                   if not isinstance(cb, (ProgressCallback, RNNCallback)) and cb.name != 'checkpointing'},
        metrics=[plain_attrs(m) for m in learn.metrics], **{k: plain(getattr(learn, k, None)) for k in COUNTS})

def set_learner(learn, state:dict):
    "Put back what `learner_state` gave"
    model = get_model(learn.model)
    device = next(model.parameters()).device
    model.load_state_dict(state['model'])
    for p,trains,grad in zip(model.parameters(), state['trains'], state['grads']):
        p.requires_grad_(trains)
        p.grad = grad if grad is None else p.new_zeros(p.shape) if isinstance(grad, int) else grad.to(p)
    if state['by_hand']: learn._by_hand = set(state['by_hand'])
    learn.opt.load_state_dict(to_device(state['opt'], device))
    for n,m in _stateful(model).items(): set_attrs(m, to_device(state['memory'].get(n, {}), device))
    for cb in learn.cbs: set_attrs(cb, state['callbacks'].get(cb.name, {}))
    if state['scaler'] and getattr(learn, 'scaler', None): learn.scaler.load_state_dict(state['scaler'])
    for m,attrs in zip(learn.metrics, state['metrics']): set_attrs(m, attrs)
    for k in COUNTS: setattr(learn, k, state[k])
    set_random(state['random'])
