"Training inside `restored` leaves nothing behind, whatever happens"
from collections import defaultdict, deque
from functools import partial

import fastai.callback.schedule  # noqa: F401
import numpy as np
import pytest
import torch
from conftest import StopAt, everything, make_mlp
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.optimizer import OptimWrapper
from fastcore.foundation import L
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import RandomSampler

from fastai_discrim.callbacks.freezing import freeze_all_but
from fastai_discrim.search.restored import restored


def test_a_language_models_order(lm):
    order = list(lm.dls.train.items.idxs)
    with restored(lm):
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
    with restored(mlp),mlp.no_bar(): mlp.fit(1, 1e-2)
    assert mlp.model.count == 0 and torch.equal(mlp.dls.train.generator.get_state(), state)

def test_a_whole_fit(learn):
    with learn.no_bar(): learn.fit(1, 1e-2)
    before = everything(learn)
    with restored(learn),learn.no_bar():
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
    with restored(learn),learn.no_bar():
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
    with restored(mlp),mlp.no_bar(): mlp.fit(1, 1e-2)
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
        with restored(mlp): mlp.fit(2, 1e-2)
        assert (seen, names, look.own, log, look.all) == ([1], {'begun': 0, 1: 1}, {1}, {'fits': [1]}, [1])
        # Whoever else holds them goes on seeing what is gathered
        mlp.fit(3, 1e-2)
    assert seen == [1, 3] and look.seen is seen

def test_the_generator_of_a_sampler(mlp):
    ds,gen = mlp.dls.train.dataset,torch.Generator().manual_seed(1)
    mlp.dls = DataLoaders(*[TorchLoader(ds, 8, sampler=RandomSampler(ds, generator=gen)) for _ in range(2)])
    state = gen.get_state()
    with restored(mlp),mlp.no_bar():
        mlp.fit(1, 1e-2)
        assert not torch.equal(gen.get_state(), state)
    assert torch.equal(gen.get_state(), state)

class Break(Callback):
    "Holds things, which the fit changes, and of which one can't be put back"
    def __init__(self): self.first,self.unlike,self.last = [1],torch.zeros(2),[3]
    def before_fit(self):
        self.first.append(0)
        self.last.append(0)
        self.unlike.resize_(3)

def check_all_but(before, after, *keys):
    for k in before:
        if k not in keys: assert before[k] == after[k], k

def test_a_part_that_can_not_be_put_back_does_not_stop_the_others(learn):
    with learn.no_bar(): learn.fit(1, 1e-2)
    cb = Break()
    learn.add_cb(cb)
    before = everything(learn)
    with pytest.raises(RuntimeError, match='size'):
        with restored(learn),learn.no_bar(): learn.fit(2, 1e-2)
    assert cb.first == [1] and cb.last == [3] and len(cb.unlike) == 3
    cb.unlike = torch.zeros(2)
    check_all_but(before, everything(learn))

PARTS = dict(opt='fastai.optimizer.Optimizer.load_state_dict', loaders='fastai_discrim.search.restored.set_loader',
             random='fastai_discrim.search.restored.set_random', tensors='fastai_discrim.search.restored._set_tensors',
             grads='fastai_discrim.search.restored._set_grads', modes='fastai_discrim.search.restored._set_modes',
             attrs='fastai_discrim.search.restored._set_attrs', cbs='fastai_discrim.search.restored._set_cbs')
# What then stays as the fit left it
LEFT = dict(opt=('opt', 'hypers', 'slow'), loaders=('rng', 'order'), random=('py', 'np', 'torch'), tensors=('params', 'buffers'),
            grads=('rg', 'grad'), modes=('modes',), attrs=('rec', 'attrs', 'cbs', 'bar', 'frozen_idx'), cbs=('cbs', 'bar'))

@pytest.mark.parametrize('part', PARTS)
def test_whichever_part_fails_the_others_are_put_back(mlp, monkeypatch, part):
    def fail(*args): raise ZeroDivisionError(part)
    with mlp.no_bar(): mlp.fit(1, 1e-2)
    before = everything(mlp)
    monkeypatch.setattr(PARTS[part], fail)
    with pytest.raises(ZeroDivisionError, match=part):
        with restored(mlp),mlp.no_bar():
            mlp.freeze()
            mlp.fit_one_cycle(1, 1e-2)
            mlp.model.train()
    after = everything(mlp)
    check_all_but(before, after, *LEFT[part])
    # It can tell
    if part not in ('cbs', 'random', 'loaders'): assert any(before[k] != after[k] for k in LEFT[part])

@pytest.mark.parametrize('ex', [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_inside_goes_on(learn, ex):
    with learn.no_bar(): learn.fit(1, 1e-2)
    before = everything(learn)
    with pytest.raises(ex):
        with restored(learn):
            learn.freeze()
            with learn.no_bar(): learn.fit(1, 1e-2)
            raise ex
    check_all_but(before, everything(learn))

def test_what_was_frozen_by_hand_is_still_known(tmp_path):
    for opt in ({}, dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW))):
        learn = make_mlp(tmp_path, **opt)
        learn.create_opt()
        learn.model[0].bias.requires_grad_(False)
        freeze_all_but(learn, [2])
        with restored(learn),learn.no_bar():
            learn.fit(1, 1e-2)
            learn.unfreeze()
            freeze_all_but(learn, [0, 1, 2])
        freeze_all_but(learn, [0, 1, 2])
        assert [n for n,p in learn.model.named_parameters() if not p.requires_grad] == ['0.bias']

def test_buffers_that_appear_inside_may_stay(mlp):
    "As rotary position embeddings do, which are computed when first needed"
    def cache(m, *args): m.register_buffer('cache', torch.ones(1), persistent=False)
    mlp.model.register_forward_hook(cache)
    before = everything(mlp)
    with restored(mlp),mlp.no_bar(): mlp.fit(1, 1e-2)
    check_all_but(before, everything(mlp), 'buffers')

def test_a_language_model_that_is_broken_off_forgets_the_text(lm):
    def remembers(): return any(bool(t.any()) for hs in lm.model[0].hidden for t in hs)
    with pytest.raises(KeyboardInterrupt):
        with restored(lm),lm.no_bar():
            lm.add_cb(StopAt(0, 2))
            try: lm.fit(1, 1e-2)
            finally: assert remembers()
    assert not remembers()

def test_a_loss_that_counts(mlp):
    class Counting:
        def __init__(self, f): self.f,self.n,self.seen = f,0,[]
        def __call__(self, *args):
            self.n += 1
            self.seen.append(self.n)
            return self.f(*args)
    mlp.loss_func = Counting(mlp.loss_func)
    with restored(mlp),mlp.no_bar():
        mlp.fit(1, 1e-2)
        assert mlp.loss_func.n > 0
    assert mlp.loss_func.n == 0 and not mlp.loss_func.seen
    with mlp.no_bar(): mlp.head_lr_find(show_plot=False)
    assert mlp.loss_func.n == 0 and not mlp.loss_func.seen
