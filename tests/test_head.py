"η_L is found, and nothing is left of the search"
import random
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import MAKERS, make_clas, moved, trains, weights
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.optimizer import SGD, OptimWrapper, ranger
from fastai.torch_core import set_seed

from fastai_discrim.head import untouched
from fastai_discrim.rates import DiscriminativeLR
from fastai_discrim.unfreeze import GradualUnfreezing

OPTS = dict(adam={}, sgd=dict(opt_func=partial(SGD, mom=.9)), ranger=dict(opt_func=ranger),
            torch=dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)))

def find(learn, **kw):
    with learn.no_bar(): return learn.head_lr_find(**{'num_it': 20, 'runs': 2, 'show_plot': False, **kw})

def everything(learn):
    "All that a reader, or the next fit, could tell a difference by"
    opt = learn.opt and [{k: v.tolist() if torch.is_tensor(v) else v for k,v in learn.opt.state[p].items()}
                         for g in learn.opt.param_lists for p in g if p in learn.opt.state]
    return dict(buffers=[b.tolist() for b in learn.model.buffers()],
                opt=opt, hypers=learn.opt and [dict(h) for h in learn.opt.hypers],
                rg=[p.requires_grad for p in learn.model.parameters()],
                grad=[p.grad if p.grad is None else p.grad.tolist() for p in learn.model.parameters()],
                modes=[m.training for m in learn.model.modules()],
                # A set that was copied may come in another order
                rec={k: str(sorted(v) if isinstance(v, set) else v) for k,v in vars(learn.recorder).items()
                     if k not in ('learn', 'loss', 'smooth_loss')},
                smooth=str(vars(learn.recorder.smooth_loss)),
                attrs={k: str(v) for k,v in vars(learn).items() if k not in ('lock', 'opt', 'model', 'dls', 'progress', 'cbs')},
                cbs={type(c) for c in learn.cbs},
                rng=[dl.rng.getstate() for dl in learn.dls.loaders],
                py=random.getstate(), np=str(np.random.get_state()), torch=torch.get_rng_state().tolist())

@pytest.mark.parametrize('state', ['new', 'trained', 'frozen'])
@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
def test_it_leaves_no_trace(tmp_path, make, state):
    learn = make(tmp_path)
    if state != 'new':
        with learn.no_bar(): learn.fit(2, 1e-2)
    if state == 'frozen': learn.freeze()
    before,w = everything(learn),weights(learn)
    find(learn)
    after = everything(learn)
    for k in before: assert before[k] == after[k], k
    assert not moved(learn, w)

@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize('trained', [False, True])
def test_the_training_that_follows_is_what_it_would_have_been(tmp_path, make, opt, trained):
    a,b = make(tmp_path, **opt),make(tmp_path, **opt)
    for learn in (a, b):
        set_seed(5)
        with learn.no_bar():
            if trained: learn.fit(1, 1e-2)
            if learn is a: find(learn)
            learn.fit_one_cycle(2, 1e-2)
    assert not moved(a, weights(b)) and a.recorder.losses == b.recorder.losses

@pytest.mark.parametrize('ex', [KeyboardInterrupt, ZeroDivisionError])
def test_also_when_it_is_broken_off(clas, ex):
    class Stop(Callback):
        def after_step(self):
            if self.train_iter == 5: raise ex('stop')
    with clas.no_bar(): clas.fit(1, 1e-2)
    stop = Stop()
    clas.add_cb(stop)
    before,w = everything(clas),weights(clas)
    with pytest.raises(ex): find(clas)
    after = everything(clas)
    before['attrs'].pop('logger'), after['attrs'].pop('logger')
    for k in before: assert before[k] == after[k], k
    assert not moved(clas, w)

def test_only_the_head_is_trained(clas):
    seen = []
    class See(Callback):
        def before_train(self):
            seen.append(trains(self.learn))
            self.body = {k:v for k,v in weights(self.learn).items() if k.startswith('0')}
        def after_batch(self): assert not moved(self.learn, {**weights(self.learn), **self.body}), 'the body moved'
    clas.add_cb(See())
    find(clas, runs=3)
    assert seen and all(s == [False]*4 + [True] for s in seen)

def test_what_it_returns(mlp):
    res = find(mlp, runs=2, num_it=40)
    assert res._fields == ('lr', 'lrs', 'losses')
    assert res.lr == res.lrs[res.losses.argmin()]/10 and res.lrs.shape == res.losses.shape and isinstance(res.lr, float)
    assert (np.diff(res.lrs) > 0).all() and np.isfinite(res.losses).all()

def test_runs_are_averaged(mlp):
    set_seed(1); one = find(mlp, runs=1)
    set_seed(1); two = find(mlp, runs=2)
    k = min(len(one.lrs), len(two.lrs))
    np.testing.assert_array_equal(one.lrs[:k], two.lrs[:k])
    assert not np.array_equal(one.losses[:k], two.losses[:k])

def test_range(mlp):
    res = find(mlp, start_lr=1e-4, end_lr=1e-1, num_it=30)
    assert res.lrs[0] >= 1e-4 and res.lrs[-1] <= 1e-1

def test_plot(mlp):
    with mlp.no_bar(): res = mlp.head_lr_find(num_it=30)
    ax = plt.gca()
    assert ax.get_xscale() == 'log' and ax.get_xlabel() == 'learning rate of the head'
    assert f'{res.lr:.2e}' in ax.get_legend().get_texts()[0].get_text()
    plt.close('all')
    find(mlp)
    assert not plt.get_fignums()

def test_with_our_callbacks_attached(clas):
    clas.add_cbs([GradualUnfreezing(), DiscriminativeLR()])
    w = weights(clas)
    find(clas)
    assert not moved(clas, w)

def test_fit_ulmfit_uses_what_it_finds(tmp_path, capsys):
    a,b = make_clas(tmp_path),make_clas(tmp_path)
    for learn in (a, b): set_seed(2); learn.create_opt()
    set_seed(2)
    with b.no_bar(): lr = b.head_lr_find(show_plot=False).lr
    set_seed(2)
    with a.no_bar(): a.fit_ulmfit(6)
    assert f'η_L = {lr:.2e}' in capsys.readouterr().out
    np.testing.assert_array_equal(a.recorder.group_lrs, b.ulmfit_plan(6, lr).lrs(len(a.dls.train)))
    set_seed(2)
    with b.no_bar(): b.fit_ulmfit(6, lr)
    assert not moved(a, weights(b))

@pytest.mark.parametrize('kw', [dict(runs=0), dict(runs=1.5), dict(num_it=0), dict(num_it=19), dict(start_lr=0),
                                dict(start_lr=1, end_lr=.5)])
def test_bad_numbers(mlp, kw):
    with pytest.raises((ValueError, TypeError), match='expected'): find(mlp, **kw)

def test_a_loss_that_is_not_finite_is_said(mlp):
    w = weights(mlp)
    mlp.loss_func = lambda *a: torch.tensor(float('nan'), requires_grad=True)
    with pytest.raises(ValueError, match='the loss was finite at 0 rates'): find(mlp)
    assert not moved(mlp, w)

def test_a_loss_that_is_not_finite_at_high_rates_is_cut_off(mlp):
    stock = mlp.loss_func
    mlp.loss_func = lambda p,y: stock(p, y) if p.abs().max() < 1.2 else (p*float('nan')).sum()
    res = find(mlp, num_it=60)
    assert np.isfinite(res.losses).all() and 2 <= len(res.lrs) < 60-6-5

def test_torch_loaders_and_unsaved_buffers(mlp):
    ds = mlp.dls.train.dataset
    def loader(seed): return torch.utils.data.DataLoader(ds, 8, shuffle=True, generator=torch.Generator().manual_seed(seed))
    mlp.dls = DataLoaders(loader(0), loader(1))
    mlp.model.register_buffer('count', torch.zeros(1), persistent=False)
    def count(m, *args): m.count += 1
    mlp.model.register_forward_hook(count)
    state = mlp.dls.train.generator.get_state()
    find(mlp)
    assert mlp.model.count == 0 and torch.equal(mlp.dls.train.generator.get_state(), state)

def test_untouched_restores_a_language_models_order(lm):
    order = list(lm.dls.train.items.idxs)
    with untouched(lm):
        for _ in range(3): list(lm.dls.train)
        assert list(lm.dls.train.items.idxs) != order
    assert list(lm.dls.train.items.idxs) == order
