"What a run's course depends on, as plain data that can be kept and put back: random states, loaders, optimiser, callbacks"
__all__ = []

import random
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from fastai.callback.progress import ProgressCallback
from fastai.callback.rnn import RNNCallback
from fastai.callback.tracker import TrackerCallback
from fastai.learner import Metric
from fastai.torch_core import default_device, get_model, get_random_states, set_random_states, to_device
from fastcore.foundation import L
from torch import Generator, Tensor

# Attributes of the learner that count the batches of a fit
COUNTS = 'train_iter','pct_train','smooth_loss'

class NotPlain(TypeError):
    "Something that is more than numbers, text and tensors"

# The key of a dictionary that stands for something else
TAG = '__fastai_discrim__'

def _tagged(kind, v): return {TAG: kind, 'value': v}

def _packed(v):
    "A long list of numbers, or of tensors with one number each, as one tensor: thousands of small things are slow to write"
    if len(v) < 50: return None
    if all(isinstance(o, Tensor) and o.dim() == 0 and o.device.type == 'cpu' for o in v):
        return _tagged('scalars', torch.stack([o.detach().as_subclass(Tensor) for o in v]))
    rows = v if isinstance(v[0], (list, L)) else [v]
    if len({len(r) if isinstance(r, (list, L)) else 0 for r in rows}) > 1: return None
    for kind,dtype in ((float, torch.float64), (int, torch.int64)):
        if all(isinstance(o, kind) and not isinstance(o, bool) and abs(o) < 2**62 for r in rows for o in r):
            return _tagged('numbers', torch.tensor(v, dtype=dtype))

def plain(v) -> object: # Of types that `torch.load` reads without executing anything
    "`v` as numbers, text, tensors, lists, tuples and dictionaries, which `unpacked` reads; `NotPlain` if it is more than that"
    if v is None or type(v) in (bool, int, float, str): return v
    if isinstance(v, np.generic): return v.item()
    if isinstance(v, np.ndarray) and v.dtype.kind in 'biuf': return _tagged('array', torch.tensor(v))
    if isinstance(v, Tensor) and not v.requires_grad:
        v = v.detach().as_subclass(Tensor)
        # A view would be written with all that it is a view of
        if v.untyped_storage().nbytes() > 2*v.nbytes + 1024: v = v.clone()
        return v if v.device.type == 'cpu' else _tagged('on device', v.cpu())
    if isinstance(v, Metric): return plain_attrs(v)
    if isinstance(v, dict): return {plain(k): plain(o) for k,o in v.items()}
    if isinstance(v, (list, L)): return _packed(v) or [plain(o) for o in v]
    if type(v) is tuple: return tuple(plain(o) for o in v)
    if type(v) is set: return _tagged('set', [plain(o) for o in v])
    if isinstance(v, Path): return _tagged('path', str(v))
    raise NotPlain(f'a {type(v).__name__} in what a checkpoint has to keep: expected numbers, text, arrays and tensors')

_READ = {'scalars': list, 'numbers': Tensor.tolist, 'array': Tensor.numpy, 'set': lambda v: set(unpacked(v)), 'path': Path,
         'on device': lambda v: v.to(default_device()), 'state_dict': lambda v: {'state_dict': unpacked(v)}}

def unpacked(v) -> object:
    "What `plain` was given, but for its classes"
    if isinstance(v, dict): return _READ[v[TAG]](v['value']) if TAG in v else {k: unpacked(o) for k,o in v.items()}
    return type(v)(unpacked(o) for o in v) if type(v) in (list, tuple) else v

def given(o) -> dict: # By name
    "How the attributes look that `o` was made with"
    return {k: repr(vars(o)[k]) for k in signature(type(o).__init__).parameters if k in vars(o)}

def plain_attrs(
    o, # A callback, a metric or a module
    made:dict=None, # What `given` gave as a run began: of these, only what has changed since is kept; None for none of them
    lost:set=None, # To which the names of what can't be kept are added
) -> dict: # By name
    "The attributes of `o` that are plain"
    args,res = signature(type(o).__init__).parameters,{}
    for k,v in vars(o).items():
        if k == 'learn' or k in args and (made is None or made.get(k) == repr(v)): continue
        try: res[k] = plain(v)
        except (NotPlain, ValueError, RuntimeError):
            # A GradScaler, or the weights that an average of weights keeps
            try: res[k] = _tagged('state_dict', plain(v.state_dict())) if hasattr(v, 'load_state_dict') else None
            except (NotPlain, AttributeError): res[k] = None
            if res[k] is None:
                del res[k]
                if lost is not None: lost.add(f'{type(o).__name__}.{k}')
    return res

def set_attrs(o, attrs:dict):
    "Put back what `plain_attrs` gave"
    for k,v in attrs.items():
        old = vars(o).get(k)
        if isinstance(old, Metric): set_attrs(old, v)
        elif isinstance(old, L) and old and all(isinstance(m, Metric) for m in old):
            for m,attr in zip(old, v): set_attrs(m, attr)
        elif isinstance(old, L): setattr(o, k, L(v))
        elif isinstance(v, dict) and set(v) == {'state_dict'}:
            if hasattr(old, 'load_state_dict'): old.load_state_dict(v['state_dict'])
        # As it was read: fastai warns where a callback gets an attribute that the learner has too
        else: vars(o)[k] = v

def _watches(cb):
    "What a tracker monitors, in which direction, and where it saves the best; None for others"
    if isinstance(cb, TrackerCallback) and hasattr(cb, 'monitor'): return [cb.monitor, cb.comp.__name__, getattr(cb, 'fname', None)]

def _tracked(cb, attrs):
    "What a tracker goes on with: the best so far if that is by what it watches now; where that stands is not its to know"
    if not (now := _watches(cb)): return attrs
    gone = ('best', 'new_best', 'wait') if attrs.get('watches', now) != now else ()
    return {k:v for k,v in attrs.items() if k not in ('watches', 'idx', *gone)}

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
    return dict(rng=rng.getstate() if hasattr(rng, 'getstate') else None, generators=[g.get_state() for g in _generators(dl)],
                looked='_n_inp' in vars(dl),
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

def kept(cb) -> bool:
    "Is the state of callback `cb` kept? Not where each batch makes it anew"
    return not isinstance(cb, (ProgressCallback, RNNCallback)) and cb.name != 'checkpointing'

def _attrs(cb, made, lost):
    "What is kept of a callback; of fastai's own and ours that is not all, but the history should be"
    gone = set()
    res = plain_attrs(cb, made, gone)
    lost |= gone & {'Recorder.values'} if type(cb).__module__.startswith(('fastai.', 'fastai_discrim.')) else gone
    return {**res, 'watches': watches} if (watches := _watches(cb)) else res

def learner_state(
    learn, # The learner that runs
    made:list, # What `given` gave for each of its callbacks as the run began
    lost:set, # To which the names are added of what can't be kept
) -> dict:
    "Weights, what trains, gradients, optimiser, callbacks, metrics, random states, and what a recurrent model remembers"
    model,params = get_model(learn.model),list(get_model(learn.model).parameters())
    return dict(
        model=plain(dict(model.state_dict())), opt=plain(learn.opt.state_dict()), random=plain(random_states()),
        trains=[p.requires_grad for p in params], grads=[_grad(p) for p in params], by_hand=sorted(getattr(learn, '_by_hand', ())),
        memory={n: _memory(m) for n,m in _stateful(model).items()},
        scaler=plain(learn.scaler.state_dict()) if getattr(learn, 'scaler', None) else None,
        callbacks=[[cb.name, _attrs(cb, m, lost)] for cb,m in zip(learn.cbs, made) if kept(cb)],
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
    # There may be two of one name
    for name in dict.fromkeys(cb.name for cb in learn.cbs):
        attrs = [attrs for n,attrs in state['callbacks'] if n == name]
        for cb,o in zip([cb for cb in learn.cbs if cb.name == name], attrs): set_attrs(cb, _tracked(cb, o))
    if state['scaler'] and getattr(learn, 'scaler', None): learn.scaler.load_state_dict(state['scaler'])
    for m,attrs in zip(learn.metrics, state['metrics']): set_attrs(m, attrs)
    for k in COUNTS: setattr(learn, k, state[k])
    set_random(state['random'])
