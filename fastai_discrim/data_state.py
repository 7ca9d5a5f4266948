"What decides which batches come next and all that is random in them: random states and the order of the loaders"
__all__ = []

import random

from fastai.learner import Learner
from fastai.torch_core import get_random_states, set_random_states
from torch import Generator


def random_states() -> dict:
    "Return the random states of python, numpy, torch and CUDA as plain data"
    states = get_random_states()
    name,keys,*rest = states['numpy_state']
    return {**states, 'numpy_state': (name, keys.tolist(), *rest)}

def set_random(
    states:dict, # What `random_states` gave
):
    "Restore random states"
    set_random_states(**states)

def whole_loader(
    dl, # A loader
):
    "Return the loader that a `DistributedDL` takes its share from, or `dl` itself"
    # By its name, as its module needs accelerate
    return dl.dl if type(dl).__name__ == 'DistributedDL' else dl

def own_attrs(
    dl, # A loader, or whatever stands for one, such as a list of batches
) -> dict: # By name
    "Return the attributes of a loader, to read or to change"
    return getattr(dl, '__dict__', {})

def _generators(dl):
    "Return the generators that a torch loader and its samplers draw from"
    holders = dl,getattr(dl, 'sampler', None),getattr(getattr(dl, 'batch_sampler', None), 'sampler', None)
    generators = [getattr(o, 'generator', None) for o in holders]
    return [g for g in generators if isinstance(g, Generator)]

def loader_state(
    dl, # A loader, of fastai or torch
) -> dict:
    "Return what sets the order of a loader's batches: fastai's `rng`, torch's generators, and a language model's items, shuffled in place"
    rng = getattr(dl, 'rng', None)
    return dict(rng=rng.getstate() if hasattr(rng, 'getstate') else None, generators=[g.get_state() for g in _generators(dl)],
                looked='_n_inp' in own_attrs(dl),
                idxs=list(map(int, dl.items.idxs)) if hasattr(dl, 'make_chunks') else None)

def set_loader(
    dl, # A loader, of fastai or torch
    state:dict, # What `loader_state` gave
):
    "Restore the order of a loader's batches; random states are to be restored after it"
    if state['rng']:
        # Not the old one: `randomize` makes a new one each time, and someone may hold the old one
        dl.rng = random.Random()
        dl.rng.setstate(state['rng'])
    for g,s in zip(_generators(dl), state['generators']): g.set_state(s)
    # fastai draws an item, once, to see what it is made of: not when it is the turn of others
    if state['looked'] and '_n_inp' not in own_attrs(dl): dl._one_pass()
    if state['idxs'] is not None:
        # In place, as a loader of the same items holds them too; in older fastcore an `L` takes no slices
        idxs = getattr(dl.items.idxs, 'items', dl.items.idxs)
        idxs[:] = state['idxs']
        dl.make_chunks()

def data_state(
    learn:Learner, # Its loaders are read
) -> dict:
    "Return what the order of all batches to come, and all that is random in them, depends on"
    return dict(loaders=[loader_state(whole_loader(dl)) for dl in learn.dls.loaders], random=random_states())

def set_data_state(
    learn:Learner, # Its loaders are changed
    state:dict, # What `data_state` gave
):
    "Restore the order of the batches and random states"
    for dl,s in zip(learn.dls.loaders, state['loaders']): set_loader(whole_loader(dl), s)
    set_random(state['random'])
