"A fit in miniature is the plan of the whole fit in a few steps"
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_clas, make_lm, make_mlp, moved, weights
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException, CancelValidException
from fastai.callback.training import ShortEpochCallback
from fastai.data.core import DataLoaders
from fastai.optimizer import SGD
from fastai.torch_core import set_seed
from hypothesis import assume, given
from hypothesis import strategies as st
from plan.strategies import plans, quick
from torch import nn
from torch.utils.data import DataLoader as TorchLoader

from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import Cos, Flat, OneCycle
from fastai_discrim.search.miniature import FirstBatches, miniature, miniature_losses

LRS = (1e-4, 1e-3, 1e-2)
# 16 % of the steps open the groups, under one cycle
SHARES = Plan([Phase(.8, (2,), LRS, OneCycle(), (.9, .8, .9)), Phase(.8, (1, 2), LRS, None), Phase(8.4, (0, 1, 2), LRS, None)], 'abc',
              lr=1e-2)

def losses_of(learn, plan, n_steps=4, n_items=100, **kwargs):
    with learn.no_bar(),learn.no_logging(): return miniature_losses(learn, plan, n_steps, n_items, **kwargs)

# The plan

def test_the_plan_in_one_epoch():
    plan = miniature(SHARES, 50)
    assert plan.n_epoch == 1 and plan.timeline(50).ends == [4, 8, 50] and plan.names == SHARES.names and plan.lr == 1e-2
    for small,whole in zip(plan.phases, SHARES.phases): assert small == replace(whole, epochs=small.epochs)

def test_the_rates_are_those_of_the_whole_plan():
    "Of as many steps, it is the plan; of a tenth, every tenth step, but for the ends of phases"
    assert miniature(SHARES, 500).lrs(500) == pytest.approx(SHARES.lrs(50), rel=1e-12)
    small,whole = miniature(SHARES, 50).lrs(50),SHARES.lrs(50)[::10]
    assert small == pytest.approx(whole, rel=1e-12)

def test_groups_open_together_where_there_are_too_few_steps():
    assert [p.groups for p in miniature(SHARES, 5).phases] == [(2,), (0, 1, 2)]
    assert miniature(SHARES, 5).timeline(5).ends == [1, 5]
    plan = miniature(SHARES, 1)
    assert [(p.groups, p.sched, p.moms) for p in plan.phases] == [((0, 1, 2), OneCycle(), (.9, .8, .9))]

def test_a_cycle_goes_on_though_the_phase_that_begins_it_has_no_step():
    plan = Plan([Phase(.5, (2,), LRS, Cos()), Phase(.01, (1, 2), LRS, OneCycle(), (.9, .8, .9)), Phase(.49, (0, 1, 2), LRS, None)])
    small = miniature(plan, 10)
    assert [(p.groups, p.sched, p.moms) for p in small.phases] == [((2,), Cos(), None), ((0, 1, 2), OneCycle(), (.9, .8, .9))]

def test_nothing_ends_early():
    plan = Plan([Phase(1, (2,), LRS, early_stop=EarlyStop()), Phase(3, (0, 1, 2), LRS, early_stop=EarlyStop(monitor='f1', best=True))])
    small = miniature(plan, 8)
    assert [p.early_stop for p in small.phases] == [None, None] and small.timeline(8).ends == [2, 8]

@quick
@given(plans(), st.integers(1, 60))
def test_it_is_the_plan_with_each_phase_at_its_share(plan, n_steps):
    small = miniature(plan, n_steps)
    timeline,done = small.timeline(n_steps),np.cumsum([float(p.epochs) for p in plan.phases])/plan.n_epoch
    assert small.n_epoch == 1 and timeline.ends[-1] == n_steps and small.lrs(n_steps).shape == (n_steps, plan.n_groups)
    # What trains first and last has a step of its own
    if n_steps > 1: assert small.phases[0].groups == plan.phases[0].groups
    assert small.phases[-1].groups == plan.phases[-1].groups
    # Half a step is rounded to the even one
    assume((abs(done*n_steps % 1 - .5) > 1e-5).all())
    for step in range(1, n_steps-1):
        # What trains in the middle of the step, in the whole plan
        i = int(np.searchsorted(done, (step+.5)/n_steps))
        phase,begun = small.phases[timeline.phase(step)],max(j for j in range(i+1) if plan.phases[j].sched)
        assert (phase.groups, phase.lrs) == (plan.phases[i].groups, plan.phases[i].lrs)
        assert small.phases[timeline.cycle(step)[0]].sched == plan.phases[begun].sched

# The loader

def test_the_first_batches():
    dl = [1, 2, 3]
    assert list(FirstBatches(dl, 2)) == [1, 2] and list(FirstBatches(dl, 3)) == dl and list(FirstBatches(dl, 8)) == [1, 2, 3, 1, 2, 3, 1, 2]
    assert len(FirstBatches(dl, 8)) == 8

def test_no_batch_more_is_drawn():
    drawn = []
    class Loader:
        def __iter__(self):
            for i in range(9):
                drawn.append(i)
                yield i
    assert list(FirstBatches(Loader(), 2)) == drawn == [0, 1]

@pytest.mark.parametrize('make', [make_mlp, make_lm])
def test_they_are_those_of_the_loader_and_it_is_still_there(tmp_path, make):
    dl = make(tmp_path).dls.train
    some = FirstBatches(dl, 3)
    set_seed(3)
    want = [b for b,_ in zip(dl, range(3))]
    dl = make(tmp_path).dls.train
    some = FirstBatches(dl, 3)
    set_seed(3)
    got = list(some)
    assert all(torch.equal(a, b) for o,p in zip(want, got) for a,b in zip(o, p)) and len(got) == 3
    assert some.dataset is dl.dataset and some.bs == dl.bs and some.device == dl.device

def test_a_loader_without_batches():
    with pytest.raises(ValueError, match='no batch: expected at least one'): list(FirstBatches([], 3))

# Batch norms

@pytest.mark.parametrize('n_steps', [1, 5, 11])
def test_it_validates_with_statistics_of_its_own_steps(tmp_path, n_steps):
    learn = make_mlp(tmp_path, norm=True)
    bn = learn.model[3]
    bn.momentum = 1e-3
    bn.running_mean += 50
    losses_of(learn, learn.ulmfit_plan(5, 1e-2), n_steps)
    assert bn.running_mean.abs().max() < 5 and bn.momentum == 1e-3

class Stop(Callback):
    "Raise `ex` at step `at` of each epoch"
    def __init__(self, ex, at): self.ex,self.at,self.n_steps = ex,at,0
    def after_step(self): self.n_steps += 1
    def before_step(self):
        if self.iter == self.at: raise self.ex('stop')

@pytest.mark.parametrize('ex', [KeyboardInterrupt, ZeroDivisionError, CancelFitException])
@pytest.mark.parametrize('at', [0, 3])
def test_a_fit_that_is_called_off_raises(tmp_path, ex, at):
    learn = make_mlp(tmp_path, cbs=Stop(ex, at))
    with pytest.raises(ex): losses_of(learn, learn.ulmfit_plan(5, 1e-2))

def test_a_fit_that_ends_after_its_last_step_is_a_whole_miniature(tmp_path):
    "As by a callback that ends the fit when the loss is low enough"
    class Enough(Callback):
        def after_epoch(self):
            # `validate` has this event, too
            if self.train_iter: raise CancelFitException
    def _losses(**kwargs):
        learn = make_mlp(tmp_path, **kwargs)
        return losses_of(learn, learn.ulmfit_plan(5, 1e-2)).mean
    assert np.array_equal(_losses(), _losses(cbs=Enough()))

@pytest.mark.parametrize('ex', [CancelEpochException, CancelTrainException])
def test_an_epoch_that_is_cut_short_is_a_shorter_miniature(tmp_path, ex):
    plain,cut = make_mlp(tmp_path),make_mlp(tmp_path, cbs=Stop(ex, 3))
    plan = plain.ulmfit_plan(5, 1e-2)
    start = weights(plain)
    losses = losses_of(cut, plan).mean
    assert np.isfinite(losses).all() and moved(cut, start) and cut.stop.n_steps == 3
    with pytest.raises(CancelFitException): losses_of(make_mlp(tmp_path, cbs=Stop(ex, 0)), plan)

def test_a_short_epoch_is_no_reason_to_fail(tmp_path):
    learn = make_mlp(tmp_path, cbs=ShortEpochCallback(pct=.5))
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(3)
    assert learn.recorder.plan.body_lr_from.startswith('body_lr_find')

# The losses

def ordered(learn, bs=8):
    "Have `learn` draw its batches in order"
    learn.dls = DataLoaders.from_dsets(learn.dls.train_ds, learn.dls.valid_ds, bs=bs, shuffle=False, device='cpu', num_workers=0)
    return learn

@pytest.mark.parametrize('n_steps', [1, 3, 8, 11])
def test_it_is_a_fit_of_the_first_batches(tmp_path, n_steps):
    "As `fit_plan` is on a data set of these"
    a,b = ordered(make_mlp(tmp_path, wd=.3)),ordered(make_mlp(tmp_path, wd=.3))
    plan = a.ulmfit_plan(5, 1e-1, body_lr=1e-1)
    items = [b.dls.train_ds[i%64] for i in range(8*n_steps)]
    b.dls = DataLoaders.from_dsets(items, b.dls.valid_ds, bs=8, shuffle=False, device='cpu', num_workers=0)
    before = weights(b)
    with b.no_bar(),b.no_logging(),warnings.catch_warnings():
        warnings.simplefilter('ignore')
        b.fit_plan(miniature(plan, n_steps))
    losses = losses_of(a, plan, n_steps)
    assert not moved(a, weights(b)) and moved(b, before)
    with b.no_bar(): want = b.validate()[0]
    assert losses.parts.shape == (1, 16) and losses.sizes.tolist() == [1]*16 and losses.mean[0] == pytest.approx(want, rel=1e-5)

def test_it_is_a_loop_by_hand(tmp_path):
    "Stochastic gradient descent under a flat rate, the head alone for two steps"
    learn = ordered(make_mlp(tmp_path, opt_func=SGD, wd=0.))
    plan = Plan([Phase(1, (2,), [.1, .2, .3], Flat()), Phase(2, (0, 1, 2), [.1, .2, .3], Flat())])
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    net.load_state_dict(learn.model.state_dict())
    groups = [net[0], net[2], net[4]]
    for step,(x,y) in zip(range(6), learn.dls.train):
        net.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        with torch.no_grad():
            for m,lr in list(zip(groups, (.1, .2, .3)))[2 if step < 2 else 0:]:
                for p in m.parameters(): p -= lr*p.grad
    losses = losses_of(learn, plan, 6)
    for p,q in zip(learn.model.parameters(), net.parameters()): torch.testing.assert_close(p, q)
    x,y = (torch.stack(o) for o in zip(*learn.dls.valid_ds))
    with torch.no_grad(): want = nn.functional.cross_entropy(net(x), y, reduction='none')
    np.testing.assert_allclose(losses.parts[0], want, rtol=1e-4)

def test_it_begins_with_a_new_optimiser(tmp_path):
    a,b = ordered(make_mlp(tmp_path)),ordered(make_mlp(tmp_path))
    with a.no_bar(): a.fit(2, 1e-2)
    b.model.load_state_dict(a.model.state_dict())
    plan = a.ulmfit_plan(5, 1e-2)
    assert losses_of(a, plan).mean == losses_of(b, plan).mean and not moved(a, weights(b))

def test_weight_decay_matters(tmp_path):
    losses = []
    for wd in (None, .5):
        learn = ordered(make_mlp(tmp_path))
        losses.append(losses_of(learn, learn.ulmfit_plan(5, 1e-1), wd=wd).mean[0])
    assert losses[0] != losses[1]

@pytest.mark.parametrize('n_items,n', [(1, 8), (8, 8), (9, 16), (100, 16)])
def test_so_many_items_validate_in_whole_batches(tmp_path, n_items, n):
    learn = make_mlp(tmp_path)
    learn.dls = DataLoaders(learn.dls.train, TorchLoader(learn.dls.valid_ds, 8))
    assert losses_of(learn, learn.ulmfit_plan(5, 1e-2), n_items=n_items).sizes.sum() == n

def test_without_a_validation_set_the_training_set_validates(mlp):
    mlp.dls = DataLoaders(mlp.dls.train, device='cpu')
    assert losses_of(mlp, mlp.ulmfit_plan(5, 1e-2)).sizes.sum() == 56 + 8

def test_nothing_validates_in_the_fit(mlp):
    class See(Callback):
        fits = 0
        def before_train(self): self.fits += 1
        def before_validate(self): assert not self.fits
    losses_of(mlp, mlp.ulmfit_plan(5, 1e-2))

def test_a_language_model(lm):
    "Its batches are in the order of the text, and it learns in one phase"
    plan = lm.ulmfit_plan(2, 1e-1)
    assert len(plan.phases) == 1
    before = losses_of(make_lm(lm.path), plan.under(Flat()), 1).mean[0]
    losses = losses_of(lm, plan, 20)
    assert losses.mean[0] < before < 3.6 and losses.sizes.sum() == 4*len(lm.dls.valid)

def test_a_plan_that_may_end_early(mlp):
    assert np.isfinite(losses_of(mlp, mlp.ulmfit_plan(5, 1e-2, epochs=1, early_stop=EarlyStop(monitor='accuracy'))).mean).all()

def test_a_loss_that_is_not_finite_is_told_and_no_error(tmp_path):
    learn = make_mlp(tmp_path)
    stock = learn.loss_func
    learn.loss_func = lambda p,y: stock(p, y) if p.abs().max() < 50 else (p*float('nan')).sum()
    assert np.isnan(losses_of(learn, learn.ulmfit_plan(5, 1e3, body_lr=1e3), 20).mean).all()

@pytest.mark.parametrize('cut', [dict(lr=1e3, body_lr=1e3), dict(lr=1e-2, epochs=.05)])
def test_it_warns_of_nothing_as_the_whole_fit_does(tmp_path, cut):
    "That the loss explodes is what is looked for; that phases have one step is due to the miniature"
    learn = make_clas(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        losses_of(learn, learn.ulmfit_plan(10, **cut), 20)

@pytest.mark.parametrize('ex', [CancelFitException, CancelEpochException, CancelTrainException, CancelValidException])
@pytest.mark.parametrize('train', [True, False])
def test_a_callback_that_calls_it_off_is_no_result(mlp, ex, train):
    if train == (ex is CancelValidException): return
    class CallOff(Callback):
        def after_pred(self):
            if self.training == train: raise ex()
    mlp.add_cb(CallOff())
    with pytest.raises((CancelFitException, CancelEpochException, CancelTrainException, CancelValidException)):
        losses_of(mlp, mlp.ulmfit_plan(5, 1e-2))
