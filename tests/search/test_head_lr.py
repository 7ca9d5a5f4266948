"The head's rate η_L is found, and nothing is left of the search"
import re
import warnings
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import MAKERS, everything, make_clas, make_lm, make_mlp, moved, pairs, weights
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException, CancelValidException
from fastai.callback.mixup import MixUp
from fastai.callback.progress import CSVLogger
from fastai.callback.rnn import RNNCallback, RNNRegularizer
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.optimizer import SGD, OptimWrapper
from fastai.torch_core import set_seed
from fastcore.foundation import L
from search.no_trace import OPTS, Stop, check_no_trace, check_training_that_follows
from torch import nn
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import IterableDataset, SubsetRandomSampler

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import GradualUnfreezing
from fastai_discrim.groups.split import layerwise_split
from fastai_discrim.plan.origin import HeadLR
from fastai_discrim.plan.schedules import CLRBeta, Flat
from fastai_discrim.search.frozen_head import items_in
from fastai_discrim.search.losses import Losses
from fastai_discrim.search.split_head import HeadNotSeparable


def find(learn, **kw):
    with learn.no_bar(),learn.no_logging(): return learn.head_lr_find(**{'show_plot': False, **kw})

# Two rates, for tests that don't depend on their number
FEW = [1e-2, 1e-1]

@pytest.fixture(autouse=True)
def fewer_range_tests(request):
    "Run one range test instead of three, which would take a third of this file's time, unless a test is marked"
    if request.node.get_closest_marker('all_range_tests') is None: request.getfixturevalue('one_range_test')

# Nothing is left of it

@pytest.mark.all_range_tests
@pytest.mark.parametrize('state', ['new', 'trained', 'frozen'])
@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
def test_it_leaves_no_trace(tmp_path, make, state):
    learn = make(tmp_path)
    if state != 'new':
        with learn.no_bar(): learn.fit(2, 1e-2)
    if state == 'frozen': learn.freeze()
    before,hooks = everything(learn),sum(len(m._forward_pre_hooks) for m in learn.model.modules())
    find(learn)
    check_no_trace(before, everything(learn))
    assert hooks == sum(len(m._forward_pre_hooks) for m in learn.model.modules())

@pytest.mark.parametrize('make,opt,trained', pairs(MAKERS, OPTS, dict(new=False, trained=True)))
def test_the_training_that_follows_is_what_it_would_have_been(tmp_path, make, opt, trained):
    check_training_that_follows(partial(make, tmp_path, **opt), find, trained)

@pytest.mark.parametrize('n', [1, 3, 6])
@pytest.mark.parametrize('ex', [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize('make', [make_clas, make_lm])
def test_also_when_it_is_broken_off(tmp_path, make, ex, n):
    learn = make(tmp_path)
    with learn.no_bar(): learn.fit(1, 1e-2)
    learn.add_cb(Stop(ex, n))
    before,hooks = everything(learn),sum(len(m._forward_pre_hooks) for m in learn.model.modules())
    with pytest.raises(ex): find(learn)
    after = everything(learn)
    # Left behind by fastai's `no_logging`, as after any fit
    before['attrs'].pop('logger'), after['attrs'].pop('logger')
    check_no_trace(before, after)
    assert hooks == sum(len(m._forward_pre_hooks) for m in learn.model.modules())

def test_also_when_the_heads_are_broken_off(clas, monkeypatch):
    def interrupt(*args): raise KeyboardInterrupt
    monkeypatch.setattr('fastai_discrim.search.head_trials.SumLoss.__call__', interrupt)
    before = everything(clas)
    with pytest.raises(KeyboardInterrupt): find(clas)
    assert before == everything(clas)

@pytest.mark.parametrize('make', [make_clas, make_lm])
def test_loggers_are_paused(tmp_path, make):
    learn = make(tmp_path, cbs=CSVLogger())
    with learn.no_bar(): learn.fit(1, 1e-2)
    log = (learn.path/'history.csv').read_text()
    find(learn, lrs=FEW)
    assert (learn.path/'history.csv').read_text() == log

@pytest.mark.parametrize('make', [make_clas, make_lm])
def test_what_callbacks_hold_is_as_it_was(tmp_path, make):
    class Hold(Callback):
        def before_fit(self): self.seen = []
        def after_batch(self): self.seen = [*self.seen, self.iter]
    learn = make(tmp_path, cbs=Hold())
    with learn.no_bar(): learn.fit(1, 1e-2)
    seen = list(learn.hold.seen)
    find(learn, lrs=FEW)
    assert learn.hold.seen == seen and learn.hold.learn is learn

def test_metrics_that_need_more_than_a_few_items(clas):
    def all_classes(pred, y):
        assert len(set(y.tolist())) == 2, 'one class only'
        return 1.
    clas.metrics = all_classes
    assert find(clas, lrs=FEW).how.startswith('validation loss') and len(clas.metrics) == 1

@pytest.mark.parametrize('cbs', [GradientAccumulation(16), GradientClip(.1), MixUp(), EarlyStoppingCallback(), SaveModelCallback()])
def test_with_fastais_callbacks_attached(clas, cbs):
    clas.add_cb(cbs)
    before = everything(clas)
    assert find(clas, lrs=FEW).how.startswith('validation loss')
    check_no_trace(before, everything(clas))

def test_with_our_callbacks_attached(clas):
    clas.add_cbs([GradualUnfreezing(1), DiscriminativeLR()])
    before = everything(clas)
    find(clas, lrs=FEW)
    assert before == everything(clas)

def test_the_progress_bar_is_the_one_it_was(clas):
    cbs,logger = list(clas.cbs),clas.logger
    clas.head_lr_find(show_plot=False)
    assert [id(cb) for cb in clas.cbs] == [id(cb) for cb in cbs] and clas.progress in clas.cbs and clas.logger is logger
    assert all(cb.learn is clas for cb in clas.cbs)
    with clas.no_bar(): assert not any(type(cb).__name__ == 'ProgressCallback' for cb in clas.cbs)

@pytest.mark.parametrize('make', [make_clas, make_lm])
def test_nothing_is_printed_without_bar_and_logging(tmp_path, capsys, make):
    find(make(tmp_path))
    assert not capsys.readouterr().out.strip()

@pytest.mark.all_rates
def test_a_progress_bar_where_the_learner_has_one(clas, capsys):
    clas.head_lr_find([1e-3, 1e-2], show_plot=False)
    assert '100.00% [5/5' in capsys.readouterr().out

# What it finds

@pytest.mark.all_rates
def test_what_it_returns(clas):
    res = find(clas)
    assert res._fields[:4] == ('lr', 'lrs', 'losses', 'how') and isinstance(res.lr, float)
    assert repr(res) == f'HeadLR(lr={res.lr:.2e}, by {res.how})' and res.lr == min(res.accepted) and np.isfinite(res.untrained)
    assert len(res.lrs) == len(res.losses) >= 12 and (np.diff(res.lrs) > 0).all() and np.isfinite(res.losses[:5]).all()

@pytest.mark.all_rates
def test_rates_to_try_are_sorted_and_taken_once(mlp):
    res = find(mlp, lrs=[1e-1, 1e-3, 1e-2, 1e-1])
    np.testing.assert_array_equal(res.lrs, [1e-3, 1e-2, 1e-1])
    assert res.how == 'validation loss of the head, 1 epoch at each of 3 rates, 5-fold cross-validation'
    assert find(mlp, lrs=[1e-3, 1e-2], n_epoch=2).how.startswith('validation loss of the head, 2 epochs at each of 2 rates')

def test_the_same_seed_gives_the_same_rate(clas):
    set_seed(3); a = find(clas)
    set_seed(3); b = find(clas)
    assert a.lr == b.lr and np.array_equal(a.losses, b.losses)

def test_the_best_rate_is_found(tmp_path):
    # Full batches of a linear problem: the higher the rate the better, up to where it diverges
    learn = make_mlp(tmp_path, n=64, bs=64, opt_func=partial(SGD, mom=0.))
    res = find(learn, lrs=[1e4, 1e-4, 1e-2, 1], n_epoch=100)
    assert res.lr == res.lrs[res.losses.argmin()] == 1

@pytest.mark.all_rates
@pytest.mark.parametrize('seed', range(4))
def test_few_random_labels_give_a_rate_of_the_usual_size(tmp_path, seed):
    # Labels are random: no rate gains anything, and rates of 1e-7 and of 10 were the best
    learn,g = make_clas(tmp_path),torch.Generator().manual_seed(seed)
    docs = [(torch.randint(3, 30, (12,), generator=g), torch.randint(2, (), generator=g)) for _ in range(100)]
    learn.dls = DataLoaders.from_dsets(docs[20:], docs[:20], bs=8, device='cpu', num_workers=0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert 1e-3 <= find(learn, n_epoch=2).lr < .5

def test_runs_are_averaged(clas, monkeypatch):
    runs = iter([[3., 1., 9.], [1., 2., 9.], [2., 0., 9.]])
    monkeypatch.setattr('fastai_discrim.search.folds.FEW_ITEMS', 0)
    def losses(*args, **kwargs): return Losses(np.array(next(runs))[:,None], np.ones(1))
    monkeypatch.setattr('fastai_discrim.search.head_trials.trial_losses', losses)
    assert find(clas, lrs=[1e-3, 1e-2], runs=3).losses.tolist() == [2., 1.]

@pytest.mark.all_rates
def test_few_items_are_cross_validated(clas, monkeypatch):
    "Each of the five folds validates once: all items count, each fold as much as it has of them"
    seen = []
    def losses(learn, head, train, valid, lrs, **kwargs):
        seen.append((items_in(train), items_in(valid)))
        return Losses(np.array([[len(seen)], [1.], [9.]]), np.array([items_in(valid)]))
    monkeypatch.setattr('fastai_discrim.search.head_trials.trial_losses', losses)
    res = find(clas, lrs=[1e-3, 1e-2], runs=3)
    n = seen[0][0] + seen[0][1]
    assert len(seen) == 5 and sum(v for _,v in seen) == n and all(t+v == n for t,v in seen) and 'cross-validation' in res.how
    assert res.losses[0] == pytest.approx(sum(i*v for i,(_,v) in enumerate(seen, 1))/n)

@pytest.mark.parametrize('n_epoch,steps', [(2, 2), (50, 10)])
def test_a_head_trains_for_a_bounded_number_of_steps(clas, monkeypatch, n_epoch, steps):
    monkeypatch.setattr('fastai_discrim.search.folds.FEW_ITEMS', 0)
    monkeypatch.setattr('fastai_discrim.search.head_cost.MAX_STEPS', 10*len(clas.dls.train)+1)
    assert f', {steps} epochs at each' in find(clas, lrs=[1e-3, 1e-2], n_epoch=n_epoch).how

def test_a_large_head_trains_for_fewer_steps(clas, monkeypatch):
    monkeypatch.setattr('fastai_discrim.search.folds.FEW_ITEMS', 0)
    monkeypatch.setattr('fastai_discrim.search.head_cost.LARGE_HEAD', 1)
    head,rest = (sum(p.numel() for p in g) for g in (clas.splitter(clas.model)[-1], L(clas.splitter(clas.model)[:-1]).concat()))
    want = max(1, min(350, 100*(head+rest)//(13*head))//len(clas.dls.train))
    assert f', {want} epoch' in find(clas, lrs=[1e-3, 1e-2], n_epoch=100).how

def test_every_run_is_in_another_order(clas, monkeypatch):
    monkeypatch.setattr('fastai_discrim.search.folds.FEW_ITEMS', 0)
    order = []
    class See(Callback):
        def before_fit(self): order.append([])
        def after_batch(self): order[-1].append(float(self.yb[0].sum()) + float(self.xb[0][0][0].sum()))
    stock = Learner.fit
    def fit(self, *args, cbs=None, **kwargs): stock(self, *args, cbs=[*L(cbs), See()], **kwargs)
    Learner.fit = fit
    try: find(clas, lrs=[1e-3, 1e-2])
    finally: Learner.fit = stock
    a,b = (o[:6] for o in order)
    assert a != b and sorted(a) == sorted(b)

def test_momentum_as_the_schedules_take_it(clas):
    assert np.isfinite(find(clas, lrs=FEW, sched=CLRBeta(), moms=(.95, .85)).lr)
    assert np.isfinite(find(clas, lrs=FEW, moms=np.array([.9, .8, .9])).lr)

def test_schedule_epochs_and_weight_decay_matter(clas):
    losses = []
    for kw in ({}, dict(sched=Flat()), dict(n_epoch=2), dict(wd=1.), dict(moms=(.5, .5, .5))):
        set_seed(1)
        losses.append(tuple(find(clas, lrs=[1e-2, 1e-1], **kw).losses))
    assert len(set(losses)) == len(losses)

@pytest.mark.all_rates
def test_rates_at_which_the_loss_is_not_finite_are_out(mlp):
    stock = mlp.loss_func
    mlp.loss_func = lambda p,y: stock(p, y) if p.abs().max() < 5 else (p*float('nan')).sum()
    res = find(mlp)
    assert np.isnan(res.losses[-1]) and np.isfinite(res.losses[:8]).all() and np.isfinite(res.lr)

def test_an_optimiser_that_is_there_already_gets_a_range_test(tmp_path):
    learn = make_mlp(tmp_path)
    groups = [{'params': list(g)} for g in learn.splitter(learn.model)]
    learn.opt_func = OptimWrapper(opt=torch.optim.SGD(groups, lr=.1))
    assert 'the optimiser' in find(learn).how

# Learners of other kinds

def test_a_weight_decay_for_each_group(tmp_path):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    kw = dict(lrs=[1e-3, 1e-1], n_epoch=4)
    set_seed(1); one = find(a, wd=.5, **kw)
    set_seed(1); several = find(b, wd=[0., .1, .5], **kw)
    set_seed(1); other = find(b, wd=[.5, .1, 0.], **kw)
    assert np.array_equal(one.losses, several.losses) and not np.array_equal(one.losses, other.losses)
    b.wd = [0., .1, .5]
    set_seed(1)
    assert np.array_equal(find(b, **kw).losses, one.losses)

def test_a_compiled_model(tmp_path):
    plain,learn = make_mlp(tmp_path),make_mlp(tmp_path)
    compiled = learn.model = torch.compile(learn.model, backend='eager')
    set_seed(1); want = find(plain, lrs=FEW)
    set_seed(1); got = find(learn, lrs=FEW)
    assert np.array_equal(want.losses, got.losses) and got.how.startswith('validation loss') and learn.model is compiled
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(2)

class SequenceFirst(nn.Module):
    "Takes batches of shape [sequence, items], as torch's own recurrent layers do"
    def __init__(self):
        super().__init__()
        self.emb,self.rnn,self.head = nn.Embedding(20, 8),nn.GRU(8, 8),nn.Linear(8, 2)
    def forward(self, x): return self.head(self.rnn(self.emb(x))[0][-1])

class Bags(nn.Module):
    "Takes the tokens of all items in one row, and where each item begins"
    def __init__(self):
        super().__init__()
        self.emb,self.mid,self.head = nn.EmbeddingBag(20, 8),nn.Linear(8, 8),nn.Linear(8, 2)
    def forward(self, x, offsets): return self.head(self.mid(self.emb(x, offsets)).relu())

def _sequence_first(items):
    xs,ys = zip(*items)
    return torch.stack(xs, 1),torch.stack(ys)

def _bags(items):
    xs,ys = zip(*items)
    return torch.cat(xs),6*torch.arange(len(xs)),torch.stack(ys)

@pytest.mark.parametrize('model,collate', [(SequenceFirst, _sequence_first), (Bags, _bags)])
def test_items_that_are_not_the_first_dimension_get_a_range_test(model, collate):
    set_seed(0)
    x = torch.randint(0, 20, (64, 6))
    ds = list(zip(x, (x.float().mean(1) > 9.5).long()))
    dls = DataLoaders(TorchLoader(ds, 8, shuffle=True, collate_fn=collate), TorchLoader(ds[:16], 8, collate_fn=collate), device='cpu')
    learn = Learner(dls, model(), loss_func=CrossEntropyLossFlat(), splitter=lambda m: [list(c.parameters()) for c in m.children()])
    assert 'the model or a callback fails on two items of a batch' in find(learn).how
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(2)

def test_what_the_whole_batch_raises_is_raised(mlp):
    def forward(x): raise ZeroDivisionError
    mlp.model[0].forward = forward
    with pytest.raises(ZeroDivisionError): find(mlp)

@pytest.mark.all_rates
def test_targets_on_another_scale(tmp_path):
    "The search goes on for as long as losses fall, however little, and says what to do"
    set_seed(0)
    x = torch.randn(600, 4)
    ds = list(zip(x, 80_000 + 10_000*x.sum(1, keepdim=True)))
    def make(): return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    learn = Learner(DataLoaders.from_dsets(ds[:500], ds[500:], bs=50, device='cpu', num_workers=0), make(), loss_func=MSELossFlat(),
                    splitter=layerwise_split)
    mean = torch.stack([y for _,y in ds[:500]]).mean()
    with pytest.warns(UserWarning, match=re.escape(f'the targets have a mean of {mean:.3g} and')): res = find(learn)
    assert res.lr > 10 and np.nanmin(res.losses) < .99*res.untrained

class Average(Callback):
    "Averages the weights, from where the learner is made"
    def __init__(self, model): self.average = torch.optim.swa_utils.AveragedModel(model)
    def after_step(self): self.average.update_parameters(self.model)

def test_an_average_of_weights_in_a_callback_is_as_it_was(mlp, monkeypatch):
    def not_alone(*args): raise HeadNotSeparable('as told')
    monkeypatch.setattr('fastai_discrim.search.head_lr.split_head', not_alone)
    mlp.add_cb(cb := Average(mlp.model))
    before = {k: v.clone() for k,v in cb.average.state_dict().items()}
    assert find(mlp).how == 'range test of the head, as as told'
    assert all(torch.equal(v, before[k]) for k,v in cb.average.state_dict().items())

def test_a_loss_that_learns_is_as_it_was(lm):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.BatchNorm1d(1))
            self.seen = []
        def forward(self, p, y):
            self.seen.append(1)
            loss = CrossEntropyLossFlat()(p, y)
            self.inner(loss.detach().reshape(1, 1).expand(2, 1) + torch.tensor([[0.], [1.]]))
            return loss
    lm.loss_func = Scaled()
    before = {k: v.clone() for k,v in lm.loss_func.state_dict().items()}
    find(lm)
    assert all(torch.equal(v, before[k]) for k,v in lm.loss_func.state_dict().items()) and lm.loss_func.seen == []

# The plot

def test_plot(clas):
    with clas.no_bar(): res = clas.head_lr_find()
    ax = plt.gca()
    assert ax.get_xscale() == 'log' and ax.get_xlabel() == 'learning rate of the head' and ax.get_ylabel() == 'validation loss'
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), res.lrs)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), res.losses)
    assert f'chosen: {res.lr:.2e}' in [t.get_text() for t in ax.get_legend().get_texts()]
    plt.close('all')
    find(clas)
    assert not plt.get_fignums()

def test_a_plot_of_two_rates_shows_both(clas):
    with clas.no_bar(): res = clas.head_lr_find(lrs=[1e-2, 100.])
    low,high = plt.gca().get_ylim()
    assert res.lr == 1e-2 and low < min(res.losses) and max(res.losses) < high

# The data

def test_without_a_validation_set_a_part_is_held_out(tmp_path, capsys):
    learn = make_clas(tmp_path, n=80)
    learn.dls = DataLoaders(learn.dls.train, device='cpu')
    with learn.no_bar(): res = learn.head_lr_find(show_plot=False)
    assert 'no validation set, so 2 of 10 training batches are held out' in capsys.readouterr().out
    assert np.isfinite(res.losses[:5]).all()

@pytest.mark.all_rates
def test_an_empty_validation_set_is_none(tmp_path):
    learn = make_mlp(tmp_path)
    learn.dls = DataLoaders.from_dsets(learn.dls.train_ds, [], bs=8, device='cpu', num_workers=0)
    assert len(find(learn).lrs) >= 13

def test_one_batch_and_no_validation_set(tmp_path):
    learn = make_mlp(tmp_path, n=8)
    learn.dls = DataLoaders(learn.dls.train, device='cpu')
    with pytest.raises(ValueError, match='no validation set, and 1 training batch: expected at least 2'): find(learn)

def test_no_more_batches_run_than_asked_for(tmp_path):
    seen = {True: 0, False: 0}
    class Count(Callback):
        def after_batch(self): seen[self.dl is self.dls.train] += len(self.yb[0])
    learn = make_mlp(tmp_path, n=320, cbs=Count())
    learn.dls = DataLoaders.from_dsets(learn.dls.train_ds, learn.dls.train_ds, bs=8, device='cpu', num_workers=0)
    find(learn, lrs=FEW, n_batch=16)
    # Of the training set that is 128 items, so 32 to validate on, and twice the two items that tell where the head begins
    assert seen == {True: 128, False: 32+2+2}

def test_a_share_of_the_validation_set_is_drawn_from_all_of_it(tmp_path):
    seen = []
    class See(Callback):
        def after_batch(self):
            if self.dl is not self.dls.train and len(self.yb[0]) > 2: seen.extend(self.yb[0].tolist())
    learn = make_mlp(tmp_path)
    ds = sorted(learn.dls.train_ds, key=lambda o: int(o[1]))
    learn.dls = DataLoaders.from_dsets(learn.dls.train_ds, ds, bs=8, device='cpu', num_workers=0)
    learn.add_cb(See())
    find(learn, lrs=FEW)
    assert len(seen) == 16 and set(seen) == {0, 1}

def test_torch_loaders_are_drawn_from_at_random(tmp_path):
    learn = make_mlp(tmp_path)
    ds = sorted(learn.dls.train_ds, key=lambda o: int(o[1]))
    learn.dls = DataLoaders(TorchLoader(learn.dls.train_ds, 8, shuffle=True), TorchLoader(ds, 8))
    seen = []
    class See(Callback):
        def after_batch(self):
            if self.dl is not self.dls.train and len(self.yb[0]) > 2: seen.extend(self.yb[0].tolist())
    learn.add_cb(See())
    find(learn, lrs=FEW)
    assert len(seen) == 16 and set(seen) == {0, 1}

def test_data_without_an_order_of_its_own(tmp_path):
    learn = make_mlp(tmp_path)
    class Stream(IterableDataset):
        def __init__(self, items): self.items = items
        def __iter__(self): return iter(self.items)
    learn.dls = DataLoaders(*[DataLoader(Stream(list(learn.dls.train_ds)), bs=8, n=64, device='cpu') for _ in range(2)])
    assert find(learn, lrs=FEW).how.startswith('validation loss')

class Batches:
    "Gives batches, and says how many"
    __slots__ = 'batches',
    def __init__(self, items): self.batches = [tuple(map(torch.stack, zip(*items[i:i+8]))) for i in range(0, len(items), 8)]
    def __len__(self): return len(self.batches)
    def __iter__(self): return (b for b in self.batches)

class Unsized(Batches):
    "Doesn't say how many"
    def __len__(self): raise TypeError('no length')

class Wrapped:
    "Wraps a loader, as a prefetcher does"
    def __init__(self, items): self.dl = TorchLoader(items, 8)
    def __len__(self): return len(self.dl)
    def __iter__(self): return iter(self.dl)
    @property
    def dataset(self): return self.dl.dataset

def as_list(items): return list(Batches(items))

@pytest.mark.parametrize('make', [Batches, Wrapped, as_list])
def test_loaders_that_do_little_more_than_iterate(tmp_path, make):
    learn = make_mlp(tmp_path)
    items = list(learn.dls.train.dataset)
    learn.dls = DataLoaders(make(items), make(items*3))
    before = everything(learn)
    assert find(learn, lrs=FEW).how.startswith('validation loss')
    with learn.no_bar(),learn.no_logging(): learn.body_lr_find(4, 1e-2, show_plot=False)
    check_no_trace(before, everything(learn))
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(2)

@pytest.mark.parametrize('valid', [Unsized, lambda items: None])
def test_what_can_not_validate_is_no_validation_set(tmp_path, valid):
    learn = make_mlp(tmp_path)
    items = list(learn.dls.train.dataset)
    learn.dls = DataLoaders(Batches(items), valid(items))
    assert find(learn, lrs=FEW).how.startswith('validation loss')
    with learn.no_bar(),learn.no_logging(): assert np.isfinite(learn.body_lr_find(4, 1e-2, show_plot=False).losses).all()

def test_what_a_sampler_leaves_out_does_not_validate(tmp_path):
    "One data set for both, as where items are divided by samplers"
    learn = make_mlp(tmp_path)
    items,seen = list(learn.dls.train.dataset),[]
    class See(Callback):
        def after_batch(self):
            if self.dl is not self.dls.train: seen.extend(self.xb[0][:,0].tolist())
    def part(idxs): return TorchLoader(items, 8, sampler=SubsetRandomSampler(idxs))
    learn.dls = DataLoaders(part(range(40)), part(range(40, 64)))
    learn.add_cb(See())
    find(learn, lrs=FEW)
    # Two items of the training set tell where the head begins
    held_out = {items[i][0][0].item() for i in range(40, 64)}
    assert len(set(seen) - held_out) <= 4 and len(held_out.intersection(seen)) >= 8

class Exact(nn.Module):
    "Has a mask of just the shape of the batch, which goes into what it gives beside the prediction"
    def __init__(self, both):
        super().__init__()
        self.emb,self.mid,self.head,self.both = nn.Embedding(20, 8),nn.Linear(8, 8),nn.Linear(8, 2),both
        self.register_buffer('mask', torch.zeros(0, 0))
    def forward(self, x):
        if self.mask.shape != x.shape: self.mask = torch.ones(x.shape)
        h = self.mid(self.emb(x)*self.mask[...,None]).relu()
        pred = self.head(h.mean(1))
        return (pred, h) if self.both else pred

@pytest.mark.parametrize('trained', [False, True])
@pytest.mark.parametrize('both', [False, True], ids=['alone', 'range test'])
def test_buffers_that_a_run_makes_or_enlarges(both, trained):
    "Where stock `lr_find` can do it only if the buffer has its last size already"
    set_seed(0)
    x = torch.randint(0, 20, (64, 5))
    ds,stock = list(zip(x, (x.float().mean(1) > 9.5).long())),CrossEntropyLossFlat()
    learn = Learner(DataLoaders.from_dsets(ds, ds[:16], bs=8, device='cpu', num_workers=0), Exact(both),
                    loss_func=lambda p,y: stock(p[0] if both else p, y), splitter=lambda m: [list(c.parameters()) for c in m.children()])
    if trained:
        with learn.no_bar(),learn.no_logging(): learn.fit(1)
    before = everything(learn)
    assert find(learn, lrs=FEW).how.startswith('range test' if both else 'validation loss')
    check_no_trace(before, everything(learn))
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(2)

# What `fit_ulmfit` makes of it

def test_fit_ulmfit_uses_what_it_finds(tmp_path, capsys):
    a,b = make_clas(tmp_path, n=24),make_clas(tmp_path, n=24)
    for learn in (a, b): set_seed(2); learn.create_opt()
    set_seed(2)
    with b.no_bar():
        found = b.head_lr_find(n_epoch=3, show_plot=False)
        body = b.body_lr_find(3, found, show_plot=False)
    set_seed(2)
    with a.no_bar(): a.fit_ulmfit(3)
    assert f'η_L = {found.lr:.2e}' in capsys.readouterr().out
    plan = b.ulmfit_plan(3, found, body)
    np.testing.assert_array_equal(a.recorder.group_lrs, plan.lrs(len(a.dls.train)))
    assert a.recorder.plan == plan and a.recorder.plan.lr_from == plan.lr_from and found.how in plan.lr_from
    assert a.recorder.plan.body_lr_from == f'body_lr_find, {body.how}'
    set_seed(2)
    with b.no_bar(): b.fit_ulmfit(3, found, body_lr=body)
    assert not moved(a, weights(b))

@pytest.mark.parametrize('cb', [True, False])
def test_fit_ulmfit_searches_with_its_callbacks(clas, cb):
    class Logits(Callback):
        def after_pred(self): self.learn.pred = self.pred['logits']
    stock = clas.model[1].forward
    clas.model[1].forward = lambda inp: {'logits': (o := stock(inp))[0], 'raw': o[1]}
    clas.remove_cbs(list(clas._grab_cbs((RNNCallback, RNNRegularizer))))
    with clas.no_bar(): clas.fit_ulmfit(2, cbs=Logits() if cb else Logits)
    assert 'head_lr_find' in clas.recorder.plan.lr_from and 'range test' not in clas.recorder.plan.lr_from and not hasattr(clas, 'logits')

@pytest.mark.parametrize('kw,want', [({}, 10), (dict(epochs=2), 10), (dict(gradual=False), 10)])
def test_fit_ulmfit_searches_for_as_long_as_the_head_trains(clas, monkeypatch, kw, want):
    seen = {}
    def found(self, **kwargs):
        seen.update(kwargs)
        return HeadLR(1e-2, [1e-2], [1.], 'as told')
    monkeypatch.setattr(type(clas), 'head_lr_find', found)
    with clas.no_bar(): clas.fit_ulmfit(10, cut_frac=.3, moms=(.7, .6, .7), wd=.2, **kw)
    assert seen['n_epoch'] == want and seen['sched'].cut_frac == .3 and seen['moms'] == (.7, .6, .7) and seen['wd'] == .2

# What is refused, and what is warned of

@pytest.mark.parametrize('kw', [dict(lrs=[]), dict(lrs=[1e-2]), dict(lrs=[1e-2, 1e-2]), dict(lrs=1e-2), dict(lrs='1e-2'),
                                dict(lrs=['1e-2', 1]), dict(lrs=slice(1e-3, 1e-2)), dict(lrs=[1e-2, 0]), dict(lrs=[1e-2, -1]),
                                dict(lrs=[1e-2, float('nan')]), dict(lrs=[1e-2, float('inf')]),
                                dict(lrs=[True, 2]), dict(n_epoch=0), dict(n_epoch=1.5), dict(n_batch=0), dict(runs=0), dict(runs=1.5),
                                dict(sched='STLR'), dict(moms=(1, 2, 3)), dict(moms=.9)])
def test_bad_input(clas, kw):
    before = everything(clas)
    with pytest.raises((ValueError, TypeError), match='expected'): find(clas, **kw)
    assert before == everything(clas)

def test_one_group_and_no_batch(tmp_path):
    with pytest.raises(ValueError, match='1 layer group'): find(make_mlp(tmp_path, splitter=lambda m: [list(m.parameters())]))
    learn = make_clas(tmp_path, n=6)
    with pytest.raises(ValueError, match='0 batches'): find(learn)

@pytest.mark.all_rates
@pytest.mark.parametrize('make', [make_clas, make_lm])
def test_a_loss_that_is_never_finite_is_said(tmp_path, make):
    learn = make(tmp_path)
    learn.loss_func = lambda p,y: p.sum()*float('nan')
    before = everything(learn)
    with pytest.raises(ValueError, match='finite'): find(learn)
    assert before == everything(learn)

@pytest.mark.parametrize('ex', [CancelFitException, CancelEpochException, CancelTrainException, CancelValidException])
def test_a_callback_that_calls_it_off_is_said(mlp, ex):
    class CallOff(Callback):
        def after_pred(self): raise ex()
    before = everything(mlp)
    with pytest.raises(ValueError, match='one of the callbacks CallOff cancelled the search for η_L'), mlp.no_bar():
        mlp.fit_ulmfit(3, cbs=CallOff)
    assert everything(mlp) == before

def test_only_the_users_callbacks_are_blamed(mlp):
    class CallOff(Callback):
        def after_pred(self): raise CancelFitException
    mlp.add_cb(CallOff())
    with pytest.raises(ValueError) as e: mlp.head_lr_find(show_plot=False)
    said = re.search('one of the callbacks (.*) cancelled', str(e.value)).group(1).split(', ')
    assert said == ['CallOff']

@pytest.mark.all_rates
@pytest.mark.parametrize('make', [make_clas, make_lm])
def test_no_gain_is_said_of_the_line_that_asked(tmp_path, make):
    # Random documents, and steps too small to tell
    learn = make(tmp_path)
    text = 'no rate clearly lowers the validation loss' if make is make_clas else 'no rate of the range test lowers the loss'
    with pytest.warns(UserWarning, match=text) as got: find(learn, lrs=[1e-9, 1e-8])
    assert [w.filename for w in got if re.match(text, str(w.message))] == [__file__]
