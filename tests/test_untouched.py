"Training inside `untouched` leaves nothing behind"
from collections import defaultdict, deque

import numpy as np
import torch
from conftest import everything
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastcore.foundation import L
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import RandomSampler

from fastai_discrim.untouched import untouched


def test_a_language_models_order(lm):
    order = list(lm.dls.train.items.idxs)
    with untouched(lm):
        for _ in range(3): list(lm.dls.train)
        assert list(lm.dls.train.items.idxs) != order
    assert list(lm.dls.train.items.idxs) == order

def test_torch_loaders_and_unsaved_buffers(mlp):
    ds = mlp.dls.train.dataset
    def loader(seed): return TorchLoader(ds, 8, shuffle=True, generator=torch.Generator().manual_seed(seed))
    mlp.dls = DataLoaders(loader(0), loader(1))
    mlp.model.register_buffer('count', torch.zeros(1), persistent=False)
    def count(m, *args): m.count += 1
    mlp.model.register_forward_hook(count)
    state = mlp.dls.train.generator.get_state()
    with untouched(mlp),mlp.no_bar(): mlp.fit(1, 1e-2)
    assert mlp.model.count == 0 and torch.equal(mlp.dls.train.generator.get_state(), state)

def test_a_whole_fit(learn):
    with learn.no_bar(): learn.fit(1, 1e-2)
    before = everything(learn)
    with untouched(learn),learn.no_bar():
        learn.freeze()
        learn.fit_one_cycle(2, 1e-2)
    after = everything(learn)
    for k in before: assert before[k] == after[k], k

def test_what_callbacks_count_in_place(learn):
    class Count(Callback):
        def __init__(self): self.tensor,self.array,self.last,self.several = torch.zeros(2),np.zeros(2),deque(maxlen=3),[torch.zeros(1)]
        def after_batch(self):
            for o in (self.tensor, self.array, *self.several): o += 1
            self.last.append(self.iter)
    count = Count()
    learn.add_cb(count)
    tensor = count.tensor
    with untouched(learn),learn.no_bar():
        learn.fit(1, 1e-2)
        assert tensor.sum() > 0
    assert count.tensor is tensor and not tensor.any() and not count.array.any() and not count.last and not count.several[0].any()

def test_what_can_not_be_changed_is_left_alone(mlp):
    class Hold(Callback):
        def __init__(self):
            self.fixed,self.shared = np.frombuffer(bytes(8)),np.broadcast_to(np.zeros(1), 3)
            self.spread,self.sparse,self.one = torch.ones(1).expand(3),torch.eye(2).to_sparse(),torch.ones(1).expand(1)
    mlp.add_cb(Hold())
    before = everything(mlp)
    with untouched(mlp),mlp.no_bar(): mlp.fit(1, 1e-2)
    assert everything(mlp)['torch'] == before['torch']

def test_what_callbacks_gather(mlp):
    seen,names,log = [],{'begun': 0},defaultdict(list)
    class Look(Callback):
        def __init__(self): self.seen,self.names,self.own,self.log,self.all = seen,names,set(),log,L()
        def before_fit(self):
            self.seen.append(self.n_epoch)
            self.names[self.n_epoch] = 1
            self.own.add(self.n_epoch)
            self.log['fits'].append(self.n_epoch)
            self.all.append(self.n_epoch)
    look = Look()
    mlp.add_cb(look)
    with mlp.no_bar():
        mlp.fit(1, 1e-2)
        with untouched(mlp): mlp.fit(2, 1e-2)
        assert (seen, names, look.own, log, look.all) == ([1], {'begun': 0, 1: 1}, {1}, {'fits': [1]}, [1])
        # Whoever else holds them goes on seeing what is gathered
        mlp.fit(3, 1e-2)
    assert seen == [1, 3] and look.seen is seen

def test_the_generator_of_a_sampler(mlp):
    ds,gen = mlp.dls.train.dataset,torch.Generator().manual_seed(1)
    mlp.dls = DataLoaders(*[TorchLoader(ds, 8, sampler=RandomSampler(ds, generator=gen)) for _ in range(2)])
    state = gen.get_state()
    with untouched(mlp),mlp.no_bar():
        mlp.fit(1, 1e-2)
        assert not torch.equal(gen.get_state(), state)
    assert torch.equal(gen.get_state(), state)
