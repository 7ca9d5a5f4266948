"Weights, what trains, optimiser and gradients are as they were"
import io
import warnings
from functools import partial

import pytest
import torch
from conftest import StopAt, everything, make_clas, make_lm, make_mlp
from fastai.callback.training import GradientAccumulation
from fastai.optimizer import SGD, OptimWrapper, ranger
from fastai.torch_core import set_seed
from run.resumed import assert_equal, check, outcome, ranger_outcome, run, torch_opt_outcome

from fastai_discrim.run.callback_state import init_args
from fastai_discrim.run.checkpoint_file import checkpoint_file, read
from fastai_discrim.run.learner_state import learner_state, set_learner_state
from fastai_discrim.run.plain_data import from_plain, to_plain


@pytest.mark.parametrize('stop', [(0, 3), (2, 3)])
def test_norm_layers(tmp_path, stop):
    "What tells them from others is of this process alone"
    check(lambda: make_mlp(tmp_path, norm=True), [stop], every=None if stop[0] == 0 else 2)
    file = checkpoint_file(make_mlp(tmp_path), 'r')
    assert not any('_norms' in attrs for _,attrs in read(file)['ranks'][0]['learner']['callbacks'])

OPTS = dict(sgd=(partial(SGD, mom=.9), outcome), ranger=(ranger, ranger_outcome),
            adamw=(partial(OptimWrapper, opt=torch.optim.AdamW), torch_opt_outcome))

@pytest.mark.parametrize('opt,compare', OPTS.values(), ids=OPTS)
@pytest.mark.parametrize('make', [make_mlp, make_clas])
def test_optimisers(tmp_path, make, opt, compare):
    check(lambda: make(tmp_path, opt_func=opt), [(2, 3), (4, 1)], every=2, compare=compare)

def test_gradients_that_have_not_been_stepped_with(tmp_path):
    class StopBackward(StopAt):
        # `GradientAccumulation` calls off the steps in between
        def after_backward(self): super().before_step()
        def before_step(self): pass
    def make(): return make_mlp(tmp_path)
    def _run(seed=0, cbs=(), **kwargs): return run(make, seed=seed, cbs=[GradientAccumulation(24), *cbs], **kwargs)[0]
    want = outcome(_run())
    _run(cbs=[StopBackward(2, 4)], checkpoint='r', checkpoint_every=1)
    state = read(checkpoint_file(make(), 'r'))
    assert state['batches'] == 4 and any(torch.is_tensor(g) for g in state['ranks'][0]['learner']['grads'])
    assert_equal(want, outcome(_run(1, checkpoint='r', checkpoint_every=1)))

def test_parameters_frozen_by_hand(tmp_path):
    def make():
        learn = make_clas(tmp_path)
        learn.model[1].layers[-1][0].weight.requires_grad_(False)
        return learn
    with pytest.warns(UserWarning, match='1 parameters are frozen by hand, and stay so'): check(make, [(2, 3)], every=2)

def test_in_half_precision(tmp_path):
    def make():
        learn = make_mlp(tmp_path)
        return learn.to_bf16()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        check(make, [(2, 3)], every=2)

def state_of(learn):
    "Return the learner's state as a file gives it back"
    buf = io.BytesIO()
    torch.save(to_plain(learner_state(learn, {id(cb): init_args(cb) for cb in learn.cbs}, set())), buf)
    buf.seek(0)
    return from_plain(torch.load(buf, weights_only=True))

@pytest.mark.parametrize('make', [partial(make_mlp, norm=True), make_clas, make_lm])
def test_it_comes_back_in_another_learner(tmp_path, make):
    a,b = make(tmp_path),make(tmp_path)
    for learn,n_epoch in ((a, 2), (b, 1)):
        with learn.no_bar(): learn.fit(n_epoch, 1e-2)
    next(iter(a.model.children())).eval()
    list(a.model.parameters())[0].requires_grad_(False)
    set_seed(5)
    state = state_of(a)
    want = everything(a)
    set_seed(6)
    set_learner_state(b, state)
    got = everything(b)
    for k in ('params', 'buffers', 'rg', 'modes', 'opt', 'hypers', 'py', 'np', 'torch'): assert want[k] == got[k], k
    assert (a.train_iter, a.pct_train) == (b.train_iter, b.pct_train)

def test_it_can_be_restored_twice(tmp_path):
    "As it is where batches are skipped; the optimiser changes its tensors in place"
    learn = make_mlp(tmp_path, opt_func=ranger)
    with learn.no_bar(): learn.fit(1, 1e-2)
    state = state_of(learn)
    def now():
        e = everything(learn)
        return dict(params=e['params'], opt=e['opt'], slow=[[p.tolist() for p in g] for g in learn.opt.slow_weights], count=learn.opt.count)
    want = now()
    for _ in range(2):
        with learn.no_bar(): learn.fit(1, 1e-2)
        assert [now()[k] != want[k] for k in want] == [True]*4
        set_learner_state(learn, state)
        assert_equal(want, now())

def test_modes_of_modules(tmp_path):
    "A checkpoint keeps them: within an epoch fastai sets none"
    learn = make_mlp(tmp_path, norm=True)
    learn.create_opt()
    learn.model.train()
    learn.model[3].eval()
    state = state_of(learn)
    assert state['modes'] == [True, True, True, True, False, True, True]
    learn.model.train()
    set_learner_state(learn, state)
    assert [m.training for m in learn.model.modules()] == state['modes']

def test_what_a_model_remembers_from_batch_to_batch(lm):
    lm.create_opt()
    lm.model(lm.dls.train.one_batch()[0])
    hidden = [h.clone() for pair in lm.model[0].hidden for h in pair]
    assert any(h.any() for h in hidden)
    state = state_of(lm)
    lm.model.reset()
    set_learner_state(lm, state)
    assert all(map(torch.equal, hidden, [h for pair in lm.model[0].hidden for h in pair]))
