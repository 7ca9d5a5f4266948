"What `everything` sees: the tests that say an operation leaves no trace can only be as good"
import random
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from conftest import MAKERS, everything, exact, make_mlp
from fastai.callback.core import Callback
from fastai.optimizer import Lookahead, RAdam
from torch import nn
from torch.utils.data import DataLoader as TorchLoader


class Hold(Callback):
    "A callback with all kinds of attributes"
    def __init__(self):
        self.tensor,self.array,self.number,self.many = torch.zeros(2),np.zeros(2),0.1,{'a': [torch.ones(1), (1., np.float32(2))]}
        self.last,self.generator,self.rng = deque([1., 2.], maxlen=3),torch.Generator(),random.Random(1)
        self.module,self.function,self.names = nn.BatchNorm1d(2),partial(max, 1),{'a', 'b'}
        self.itself = self

@pytest.fixture
def held(tmp_path):
    learn = make_mlp(tmp_path, norm=True, cbs=Hold(), opt_func=lambda ps, **kw: Lookahead(RAdam(ps, **kw)))
    with learn.no_bar(): learn.fit_one_cycle(1, 1e-2)
    return learn

@torch.no_grad()
def add(t, by=1e-7): t.flatten()[0] += by

def first_param(l): return next(l.model.parameters())
def norm(l): return l.model[3]
def an_opt_state(l): return l.opt.state[first_param(l)]

# In a recorder, a model, an optimiser, a callback, the learner, and what is drawn at random
CHANGES = dict(
    a_recorded_loss=lambda l: add(l.recorder.losses[3]),
    a_recorded_value=lambda l: l.recorder.values[-1].__setitem__(1, l.recorder.values[-1][1]+1e-7),
    a_recorded_rate=lambda l: l.recorder.lrs.__setitem__(0, l.recorder.lrs[0]+1e-12),
    a_recorded_hyper_parameter=lambda l: l.recorder.hps['lr'].append(1.),
    a_loss_less=lambda l: l.recorder.losses.pop(),
    the_smooth_loss=lambda l: add(l.recorder.smooth_loss.val),
    the_count_of_the_smooth_loss=lambda l: setattr(l.recorder.smooth_loss, 'count', 1),
    a_weight=lambda l: add(first_param(l)),
    a_buffer=lambda l: add(norm(l).running_mean),
    a_count_of_batches=lambda l: norm(l).num_batches_tracked.add_(1),
    a_gradient=lambda l: add(first_param(l).grad),
    no_gradient=lambda l: setattr(first_param(l), 'grad', None),
    frozen=lambda l: first_param(l).requires_grad_(False),
    the_mode=lambda l: norm(l).train(not norm(l).training),
    a_hook=lambda l: l.model[0].register_forward_hook(print),
    a_moment=lambda l: add(an_opt_state(l)['grad_avg']),
    a_step=lambda l: an_opt_state(l).__setitem__('step', 99),
    a_slow_weight=lambda l: add(l.opt.slow_weights[0][0]),
    a_hyper_parameter=lambda l: l.opt.set_hyper('lr', 2e-3),
    the_frozen_index=lambda l: setattr(l.opt, 'frozen_idx', 1),
    a_tensor_of_a_callback=lambda l: add(l.hold.tensor),
    an_array_of_a_callback=lambda l: l.hold.array.__setitem__(0, 1e-7),
    a_number_of_a_callback=lambda l: setattr(l.hold, 'number', 0.1+1e-16),
    a_nested_tensor=lambda l: add(l.hold.many['a'][0]),
    a_nested_number=lambda l: setattr(l.hold, 'many', {'a': [torch.ones(1), (1., np.float64(2))]}),
    a_queue=lambda l: l.hold.last.append(3.),
    a_set=lambda l: l.hold.names.add('c'),
    arguments_of_a_function=lambda l: setattr(l.hold, 'function', partial(max, 2)),
    a_module_of_a_callback=lambda l: add(l.hold.module.running_mean),
    a_generator_of_a_callback=lambda l: torch.rand(1, generator=l.hold.generator),
    a_random_of_a_callback=lambda l: l.hold.rng.random(),
    a_new_attribute_of_a_callback=lambda l: setattr(l.hold, 'new', None),
    another_callback=lambda l: l.add_cb(Callback()),
    a_callback_less=lambda l: l.remove_cb(Hold),
    the_order_of_callbacks=lambda l: l.cbs.items.reverse(),
    a_new_attribute=lambda l: setattr(l, 'new', 1),
    the_loss_of_the_learner=lambda l: setattr(l, 'smooth_loss', l.smooth_loss+1e-7),
    the_rate=lambda l: setattr(l, 'lr', 2e-3),
    the_splitter=lambda l: setattr(l, 'splitter', lambda m: []),
    the_logger=lambda l: setattr(l, 'logger', None),
    a_metric=lambda l: setattr(l.metrics[0], 'count', 3),
    the_loss_function=lambda l: setattr(l.loss_func, 'axis', 0),
    random=lambda l: random.random(), numpy=lambda l: np.random.rand(), torch=lambda l: torch.rand(1),
    the_order_of_the_data=lambda l: l.dls.train.rng.random())

@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_every_change_is_seen(held, change):
    before = everything(held)
    assert everything(held) == before
    change(held)
    assert everything(held) != before

@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
def test_nothing_is_seen_where_nothing_changed(tmp_path, make):
    learn = make(tmp_path)
    assert everything(learn) == everything(learn)
    with learn.no_bar(): learn.fit_one_cycle(1, 1e-2)
    before = everything(learn)
    # Another progress bar
    with learn.no_bar(): pass
    assert everything(learn) == before
    for p in learn.model.parameters(): p.data = p.data.clone()
    assert everything(learn) == before
    with learn.no_bar(): learn.validate()
    assert everything(learn) != before

def test_the_order_of_a_language_models_texts_is_seen(lm):
    before = everything(lm)
    list(lm.dls.train)
    assert everything(lm)['order'] != before['order']

def test_a_torch_loaders_generator_is_seen(mlp):
    mlp.dls.loaders[0] = TorchLoader(mlp.dls.train_ds, generator=torch.Generator().manual_seed(1))
    before = everything(mlp)
    torch.rand(1, generator=mlp.dls.loaders[0].generator)
    assert everything(mlp)['rng'] != before['rng']

def test_nan_is_equal_to_nan(mlp):
    with mlp.no_bar(): mlp.fit(1)
    mlp.recorder.losses.append(torch.tensor(float('nan')))
    mlp.recorder.values[0][0] = float('nan')
    first_param(mlp).grad[0] = float('nan')
    assert everything(mlp) == everything(mlp)

NAN,INF = float('nan'),float('inf')

@pytest.mark.parametrize('a,b', [
    (0., -0.), (1., 1), (1, True), ('1', 1), (NAN, INF), (None, 'None'), (np.float32(1), 1.), ([1.], (1.,)), (max, min),
    ({'a': 1}, {'b': 1}), ({'a': 1, 'b': 2}, {'b': 2, 'a': 1}), (torch.zeros(1), torch.zeros(1).double()),
    (torch.zeros(2), torch.zeros(1, 2)), (torch.zeros(0, 2), torch.zeros(0, 3)), (np.zeros(1), torch.zeros(1)),
    (torch.tensor(1.), torch.tensor(1.) + 1e-7), (nn.Parameter(torch.ones(1)), torch.ones(1))])
def test_exact_tells_apart(a, b): assert repr(exact(a)) != repr(exact(b)) and exact(a) == exact(a) and exact(b) == exact(b)
