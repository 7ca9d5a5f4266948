"The order of the batches, and all that is random in them, goes on where it was"
import random

import numpy as np
import pytest
import torch
from conftest import make_clas, make_mlp
from fastai.data.core import DataLoaders
from fastai.text.data import SortedDL
from run.resumed import check
from torch.utils.data import DataLoader as TorchLoader


@pytest.mark.parametrize('every', [None, 2])
def test_sorted_loaders_shuffled_by_numpy(tmp_path, every):
    def make():
        learn = make_clas(tmp_path)
        docs = [(x[:4 + i%9], y) for i,(x,y) in enumerate(learn.dls.train.dataset)]
        def pad(b): return [(torch.cat([x, x.new_ones(12-len(x))]), y) for x,y in b]
        learn.dls = DataLoaders(SortedDL(docs, bs=4, shuffle=True, before_batch=pad, num_workers=0),
                                SortedDL(docs[:16], bs=4, before_batch=pad, num_workers=0), device='cpu')
        return learn
    check(make, [(1, 5), (3, 2)], every=every)

class Noisy(list):
    "Items that are other ones each time they are drawn"
    def __getitem__(self, i):
        x,y = super().__getitem__(i)
        return x + .1*torch.randn(4) + float(np.random.rand()) + random.random(), y

@pytest.mark.parametrize('workers', [0, 1])
def test_random_items(tmp_path, workers):
    def make():
        learn = make_mlp(tmp_path)
        ds = learn.dls.train.dataset
        learn.dls = DataLoaders.from_dsets(Noisy(ds), ds[:16], bs=8, device='cpu', num_workers=workers)
        return learn
    check(make, [(1, 5)], every=2, plan=lambda l: l.ulmfit_plan(3, 1e-2))

def test_torch_loaders(tmp_path):
    def make():
        learn = make_mlp(tmp_path)
        ds = list(learn.dls.train.dataset)
        learn.dls = DataLoaders(TorchLoader(ds, 8, shuffle=True, generator=torch.Generator().manual_seed(1)), TorchLoader(ds[:16], 8))
        return learn
    check(make, [(1, 5), (3, 2)], every=2)
