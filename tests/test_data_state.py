"The order of the batches and their randomness can be saved and restored"
import random

import numpy as np
import pytest
import torch
from conftest import exact, make_clas, make_lm, make_mlp
from fastai.data.core import DataLoaders
from fastai.text.data import SortedDL
from fastai.torch_core import set_seed
from run.resumed import check, strange
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import RandomSampler

from fastai_discrim.data_state import data_state, loader_state, random_states, set_data_state, set_loader, set_random, whole_loader
from fastai_discrim.run.plain_data import from_plain, to_plain


def sorted_docs(path):
    "Make a learner whose loader is shuffled by NumPy"
    learn = make_clas(path)
    docs = [(x[:4 + i%9], y) for i,(x,y) in enumerate(learn.dls.train.dataset)]
    def pad(b): return [(torch.cat([x, x.new_ones(12-len(x))]), y) for x,y in b]
    learn.dls = DataLoaders(SortedDL(docs, bs=4, shuffle=True, before_batch=pad, num_workers=0),
                            SortedDL(docs[:16], bs=4, before_batch=pad, num_workers=0), device='cpu')
    return learn

class Noisy(list):
    "Items that differ each time they are drawn"
    def __getitem__(self, i):
        x,y = super().__getitem__(i)
        return x + .1*torch.randn(4) + float(np.random.rand()) + random.random(), y

def noisy(path, workers=0):
    learn = make_mlp(path)
    ds = learn.dls.train.dataset
    learn.dls = DataLoaders.from_dsets(Noisy(ds), ds[:16], bs=8, device='cpu', num_workers=workers)
    return learn

def torch_loaders(path, **kwargs):
    learn = make_mlp(path)
    ds = list(learn.dls.train.dataset)
    if not kwargs: kwargs = dict(shuffle=True, generator=torch.Generator().manual_seed(1))
    learn.dls = DataLoaders(TorchLoader(ds, 8, **kwargs), TorchLoader(ds[:16], 8))
    return learn

def torch_sampler(path):
    ds = list(make_mlp(path).dls.train.dataset)
    return torch_loaders(path, sampler=RandomSampler(ds, generator=torch.Generator().manual_seed(1)))

# Stopped and resumed runs

@pytest.mark.parametrize('every', [None, 2])
def test_sorted_loaders_shuffled_by_numpy(tmp_path, every): check(lambda: sorted_docs(tmp_path), [(1, 5), (3, 2)], every=every)

@pytest.mark.parametrize('stops,workers', [([(1, 5)], 0), ([(0, 3)], 0), ([(0, 2), (0, 5), (1, 3)], 0), ([(0, 2), (1, 3)], 1)], ids=str)
def test_random_items(tmp_path, workers, stops):
    check(lambda: noisy(tmp_path, workers), stops, every=2, plan=lambda l: l.ulmfit_plan(3, 1e-2))

def test_torch_loaders(tmp_path): check(lambda: torch_loaders(tmp_path), [(1, 5), (3, 2)], every=2)

# The state alone

ALL = dict(mlp=make_mlp, clas=make_clas, lm=make_lm, sorted=sorted_docs, noisy=noisy, torch=torch_loaders, sampler=torch_sampler)

def drawn(learn, n_epoch=2):
    "Draw the batches of some epochs"
    return [exact(list(b)) for _ in range(n_epoch) for dl in learn.dls.loaders for b in dl]

def through_a_file(state): return from_plain(to_plain(state))

@pytest.mark.parametrize('make', ALL.values(), ids=ALL)
@pytest.mark.parametrize('n_before', [0, 1])
def test_the_same_batches_follow(tmp_path, make, n_before):
    a,b = make(tmp_path),make(tmp_path)
    set_seed(3)
    drawn(a, n_before)
    state = through_a_file(data_state(a))
    want = drawn(a)
    strange(1)
    drawn(b)
    assert drawn(b) != want
    for learn in (b, make(tmp_path)):
        set_data_state(learn, state)
        assert drawn(learn) == want

@pytest.mark.parametrize('make', ALL.values(), ids=ALL)
def test_a_state_can_be_restored_in_the_middle_of_an_epoch(tmp_path, make):
    learn = make(tmp_path)
    state = data_state(learn)
    want = drawn(learn)
    batches = iter(learn.dls.train)
    next(batches), next(batches)
    set_data_state(learn, state)
    assert drawn(learn) == want

def test_reading_the_state_changes_nothing(tmp_path):
    for make in ALL.values():
        a,b = make(tmp_path),make(tmp_path)
        set_seed(3)
        data_state(a)
        got = drawn(a)
        set_seed(3)
        assert got == drawn(b)

def test_random_states():
    set_seed(3)
    states = through_a_file(random_states())
    def draw(): return random.random(), np.random.rand(), torch.rand(1).item(), torch.randn(3).tolist()
    want = draw()
    assert draw() != want
    set_random(states)
    assert draw() == want

def test_random_states_of_a_machine_with_more_gpus(monkeypatch):
    "torch sets the states of all GPUs that it is given, and raises for one that isn't there"
    given = []
    monkeypatch.setattr(torch.cuda, 'set_rng_state_all', lambda states: given.extend(states))
    monkeypatch.setattr(torch.cuda, 'get_rng_state_all', lambda: [torch.zeros(1), torch.ones(1)])
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    set_random(through_a_file(random_states()))
    assert [o.tolist() for o in given] == [[0.]]

def test_one_loader_alone(tmp_path):
    "The state of a loader has no random states"
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    drawn(a)
    state,before = loader_state(a.dls.train),torch.get_rng_state()
    set_loader(b.dls.train, through_a_file(state))
    assert torch.equal(before, torch.get_rng_state())
    assert [exact(o) for o in a.dls.train] == [exact(o) for o in b.dls.train]

def test_the_old_generator_is_not_changed(mlp):
    "Other code may hold it, as fastai makes a new one for each epoch"
    dl = mlp.dls.train
    state = loader_state(dl)
    drawn(mlp)
    held = dl.rng
    before = held.getstate()
    set_loader(dl, state)
    assert dl.rng is not held and held.getstate() == before != dl.rng.getstate() == state['rng']

def test_the_item_with_which_fastai_counts_inputs_is_drawn_again(tmp_path):
    "fastai draws one item per loader, once, to count the inputs"
    a,b = noisy(tmp_path),noisy(tmp_path)
    set_seed(3)
    assert a.dls.train.n_inp == 1
    state = data_state(a)
    assert state['loaders'][0]['n_inp_known'] and '_n_inp' not in vars(b.dls.train)
    want = drawn(a)
    set_data_state(b, state)
    assert b.dls.train.n_inp == 1 and drawn(b) == want

def test_the_loader_inside_a_distributed_loader(mlp):
    class DistributedDL:
        def __init__(self, dl): self.dl = dl
    assert whole_loader(DistributedDL(mlp.dls.train)) is mlp.dls.train is whole_loader(mlp.dls.train)
    state = data_state(mlp)
    want = drawn(mlp)
    train = mlp.dls.train
    mlp.dls.loaders = [DistributedDL(dl) for dl in mlp.dls.loaders]
    set_data_state(mlp, state)
    mlp.dls.loaders = [dl.dl for dl in mlp.dls.loaders]
    assert mlp.dls.train is train and drawn(mlp) == want
