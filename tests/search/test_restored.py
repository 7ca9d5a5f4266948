"Training inside `restored` leaves nothing behind, whatever happens"
import random
from collections import defaultdict, deque
from functools import partial

import fastai.callback.schedule  # noqa: F401
import numpy as np
import pytest
import torch
from conftest import StopAt, everything, exact, make_mlp
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import OptimWrapper
from fastai.torch_core import trainable_params
from fastcore.foundation import L
from torch import nn
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
    def __init__(self): self.first,self.unlike,self.last = [1],np.zeros(2),[3]
    def before_fit(self):
        self.first.append(0)
        self.last.append(0)
        self.unlike.resize(3, refcheck=False)

def check_all_but(before, after, *keys):
    for k in before:
        if k not in keys: assert before[k] == after[k], k

def test_a_part_that_can_not_be_put_back_does_not_stop_the_others(learn):
    with learn.no_bar(): learn.fit(1, 1e-2)
    cb = Break()
    learn.add_cb(cb)
    before = everything(learn)
    with pytest.raises(ValueError, match='broadcast'):
        with restored(learn),learn.no_bar(): learn.fit(2, 1e-2)
    assert cb.first == [1] and cb.last == [3] and len(cb.unlike) == 3
    cb.unlike = np.zeros(2)
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
    if part not in ('cbs', 'random', 'loaders', 'modes'): assert any(before[k] != after[k] for k in LEFT[part])

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

@pytest.mark.parametrize('persistent', [True, False])
def test_buffers_that_a_run_makes_and_enlarges(mlp, persistent):
    "As rotary position embeddings do, which are computed when first needed, with what the model notes of them"
    class Positions(nn.Module):
        n = 0
        def __init__(self):
            super().__init__()
            self.register_buffer('replaced', torch.zeros(0, 4), persistent)
            self.register_buffer('resized', torch.zeros(0), persistent)
            self.register_buffer('nothing', None, persistent)
            self.sizes = []
        def forward(self, x):
            if not hasattr(self, 'new'): self.register_buffer('new', torch.ones(4), persistent)
            if len(x) > self.n:
                self.n,self.replaced,self.nothing = len(x),torch.ones(len(x), 4),torch.ones(1)
                self.resized.resize_(len(x)).fill_(1.)
                self.sizes.append(len(x))
            return x + self.replaced[:len(x)]*self.resized[:len(x),None] + self.new + self.nothing
    mlp.model.insert(0, positions := Positions())
    buffers,before = dict(positions._buffers),everything(mlp)
    with restored(mlp),mlp.no_bar():
        mlp.fit(1, 1e-2)
        assert positions.n == 8 and positions.sizes == [8] and set(positions._buffers) == {*buffers, 'new'}
    check_all_but(before, everything(mlp))
    assert positions.n == 0 and not positions.sizes and all(positions._buffers[k] is b for k,b in buffers.items())
    with mlp.no_bar(): mlp.fit(1, 1e-2)

def test_hooks_that_are_left(mlp):
    before = everything(mlp)
    with restored(mlp),mlp.no_bar():
        mlp.model[0].register_forward_hook(lambda *args: None)
        mlp.model[2].register_full_backward_hook(lambda *args: None)
        mlp.fit(1, 1e-2)
    check_all_but(before, everything(mlp))

def test_a_scripted_model(mlp):
    mlp.model = torch.jit.trace(mlp.model.eval(), torch.ones(2, 4))
    mlp.splitter = trainable_params
    before = everything(mlp)
    with restored(mlp),mlp.no_bar():
        mlp.fit(1, 1e-2)
        mlp.model.train()
        assert everything(mlp)['params'] != before['params']
    check_all_but(before, everything(mlp))

class Shadow:
    "An average of weights as other libraries have it, which is no module"
    def __init__(self, params): self.params,self.shadow,self.n = list(params),[p.detach().clone() for p in params],0
    def update(self):
        self.n += 1
        for s,p in zip(self.shadow, self.params): s.lerp_(p.detach(), .1)

def test_an_average_of_weights_that_is_no_module(mlp):
    class Average(Callback):
        def __init__(self, params): self.average = {'all': (Shadow(params),)}
        def after_step(self): self.average['all'][0].update()
    mlp.add_cb(Average(list(mlp.model.parameters())))
    shadow,before = mlp.average.average['all'][0],[s.clone() for s in mlp.average.average['all'][0].shadow]
    with restored(mlp),mlp.no_bar():
        mlp.fit(1, 1e-2)
        assert shadow.n == 8
    assert shadow.n == 0 and all(map(torch.equal, shadow.shadow, before))

def test_an_optimiser_of_a_callback(mlp):
    "Which trains centres of classes that the loss has in a closure"
    centres,inner = nn.Linear(2, 2),CrossEntropyLossFlat()
    def loss(p, y): return inner(p, y) + (p-centres.weight[y]).square().mean()
    class Own(Callback):
        def __init__(self): self.sgd = torch.optim.SGD(centres.parameters(), lr=.1, momentum=.9)
        def after_step(self):
            self.sgd.step()
            self.sgd.param_groups[0]['lr'] *= .9
    mlp.loss_func = loss
    mlp.add_cb(Own())
    with mlp.no_bar(): mlp.fit(1, 1e-2)
    def state(): return exact([centres.state_dict(), mlp.own.sgd.state_dict()])
    before = state()
    with restored(mlp),mlp.no_bar():
        mlp.fit(1, 1e-2)
        assert state() != before
    assert state() == before

@pytest.mark.parametrize('how', [lambda m: m.loss, lambda m: partial(m.loss), lambda m: lambda *args: m.loss(*args)])
def test_a_loss_that_is_a_method_a_partial_or_a_closure(mlp, how):
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))
            self.register_buffer('n', torch.zeros(1))
        def loss(self, p, y):
            self.n += 1
            return CrossEntropyLossFlat()(p, y)
    m = Weighted()
    mlp.loss_func = how(m)
    with restored(mlp),mlp.no_bar():
        mlp.fit(1, 1e-2)
        assert m.n > 0
    assert m.n == 0

RANDOM = dict(python=lambda: random.Random(1), legacy=lambda: np.random.RandomState(1), numpy=lambda: np.random.default_rng(1),
              torch=lambda: torch.Generator().manual_seed(1))
@pytest.mark.parametrize('make', RANDOM.values(), ids=RANDOM)
def test_random_numbers_of_a_callback_and_a_loader_of_their_own(mlp, make):
    def draw(g): return torch.rand(1, generator=g).item() if isinstance(g, torch.Generator) else g.random()
    class Drawn(Callback):
        def __init__(self): self.random = make()
        def before_batch(self): draw(self.random)
    class Loader:
        "Shuffles its own list, in place, and counts"
        def __init__(self, ds):
            self.batches,self.random,self.n = [tuple(map(torch.stack, zip(*ds[i:i+8]))) for i in range(0, 64, 8)],make(),0
        def __len__(self): return len(self.batches)
        def __iter__(self):
            self.n += 1
            self.batches.sort(key=lambda b: draw(self.random))
            return iter(self.batches)
    loaders = [Loader(list(mlp.dls.train.dataset)) for _ in range(2)]
    mlp.dls = DataLoaders(*loaders)
    mlp.add_cb(Drawn())
    order = [list(dl.batches) for dl in loaders]
    with restored(mlp),mlp.no_bar(): mlp.fit(2, 1e-2)
    assert all(a is b for dl,bs in zip(loaders, order) for a,b in zip(dl.batches, bs)) and [dl.n for dl in loaders] == [0, 0]
    want = draw(make())
    assert [draw(o.random) for o in (mlp.drawn, *loaders)] == [want]*3

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
