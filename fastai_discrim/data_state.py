"Save and restore what decides the coming batches: random states, and the order of the loaders"
__all__ = []

import random

import torch
from fastai.learner import Learner
from fastai.torch_core import get_random_states, set_random_states
from fastcore.basics import first
from torch import Generator


def random_states() -> dict:
    "Return the random states of Python, NumPy, torch and CUDA as plain data"
    states = get_random_states()
    name,keys,*rest = states['numpy_state']
    return {**states, 'numpy_state': (name, keys.tolist(), *rest)}

def set_random(states:dict):
    "Restore the result of `random_states`; the run may resume on a machine with fewer GPUs"
    set_random_states(**{**states, 'torch_cuda_state': states['torch_cuda_state'][:torch.cuda.device_count()]})

def whole_loader(dl):
    "Return the loader inside a `DistributedDL`, or `dl` itself"
    # `isinstance` would need its module, which imports accelerate
    return dl.dl if type(dl).__name__ == 'DistributedDL' else dl

def first_batch(dl):
    "Draw the first batch of a loader, or of any iterable of batches; without worker processes if the loader is fastai's"
    return dl.one_batch() if hasattr(dl, 'one_batch') else first(dl)

def own_attrs(dl) -> dict:
    "Return the attribute dictionary of `dl` itself, not a copy; a list of batches has no attributes"
    return getattr(dl, '__dict__', {})

def _generators(dl):
    "Return the random generators of a torch loader and of its samplers"
    holders = dl,getattr(dl, 'sampler', None),getattr(getattr(dl, 'batch_sampler', None), 'sampler', None)
    generators = [getattr(o, 'generator', None) for o in holders]
    return [g for g in generators if isinstance(g, Generator)]

def loader_state(dl) -> dict:
    "Return what sets the order of a loader's batches: fastai's `rng`, torch's generators, the shuffled items of a language model"
    rng = getattr(dl, 'rng', None)
    return dict(rng=rng.getstate() if hasattr(rng, 'getstate') else None, generators=[g.get_state() for g in _generators(dl)],
                n_inp_known='_n_inp' in own_attrs(dl), idxs=list(map(int, dl.items.idxs)) if hasattr(dl, 'make_chunks') else None)

def set_loader(dl, state:dict):
    "Restore the `loader_state` of `dl`; call this before `set_random`, as it may draw an item"
    if state['rng']:
        # Leave the old `rng` unchanged: `randomize` replaces it each epoch, so other code may hold it
        dl.rng = random.Random()
        dl.rng.setstate(state['rng'])
    for g,s in zip(_generators(dl), state['generators']): g.set_state(s)
    # fastai draws one item of each loader, once, to count the inputs. Draw it now: later that would change the random states
    if state['n_inp_known'] and '_n_inp' not in own_attrs(dl): dl._one_pass()
    if state['idxs'] is not None:
        # Change the list in place, as another loader of the same items may hold it; an `L` of older fastcore accepts no slices
        idxs = getattr(dl.items.idxs, 'items', dl.items.idxs)
        idxs[:] = state['idxs']
        dl.make_chunks()

def data_state(learn:Learner) -> dict:
    "Return what decides the coming batches: the state of each loader, and the random states"
    return dict(loaders=[loader_state(whole_loader(dl)) for dl in learn.dls.loaders], random=random_states())

def set_data_state(learn:Learner, state:dict):
    "Restore the result of `data_state`: the order of the batches, then the random states"
    for dl,s in zip(learn.dls.loaders, state['loaders']): set_loader(whole_loader(dl), s)
    set_random(state['random'])
