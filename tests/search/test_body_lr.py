"The body's rate is found by fits in miniature, and nothing is left of the search"
import warnings
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import MAKERS, everything, make_clas, make_lm, make_mlp
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException, CancelValidException
from fastai.callback.mixup import MixUp
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.torch_core import set_seed
from search.no_trace import OPTS, Stop, check_no_trace, check_training_that_follows
from torch import nn

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import GradualUnfreezing
from fastai_discrim.groups.split import layerwise_split
from fastai_discrim.plan.origin import BodyLR, HeadLR
from fastai_discrim.search.body_lr import destroyed_from, lower_lr, n_steps
from fastai_discrim.search.body_prior import BATCH_NORM_LR
from fastai_discrim.search.losses import Losses

# The way down

def steps_down(values, sizes=(16,), **kw):
    "Return what `lower_lr` gives for the losses at 1, 1/3, 1/9 and so on, and the rates that it asks for"
    asked = []
    def losses_at(lr):
        asked.append(lr)
        value = values[len(asked)-1]
        return value if isinstance(value, Losses) else Losses(np.full((1, len(sizes)), float(value)), np.array(sizes, dtype=float))
    return (*lower_lr(losses_at, 1., **kw), asked)

NAN,INF = float('nan'),float('inf')

@pytest.mark.parametrize('values,n,down', [
    # It stays, where it is as good or better
    ([1, 1], 2, 0), ([1, 2], 2, 0), ([1, NAN], 2, 0),
    ([2, 1, 1], 3, 1), ([2, 1, 9], 3, 1), ([3, 2, 1, 1], 4, 2), ([4, 3, 2, 1, 1], 5, 3), ([5, 4, 3, 2, 1], 5, 4), ([5, 4, 3, 2, 2], 5, 3),
    # Where it isn't finite it goes down anyway
    ([NAN, 1, 1], 3, 1), ([INF, 1, 1], 3, 1), ([NAN, NAN, 2, 1, 1], 5, 3), ([NAN, INF, NAN, 2, 2], 5, 3), ([NAN, NAN, NAN, NAN, 9], 5, 4),
    ([NAN]*5, 5, 4), ([3, NAN], 2, 0), ([-1, -2, -2], 3, 1)])
@pytest.mark.parametrize('sizes', [(16,), (3, 5)], ids=['one part', 'parts'])
def test_down_for_as_long_as_the_loss_gets_lower(values, n, down, sizes):
    lrs,losses,chosen,asked = steps_down(values, sizes)
    np.testing.assert_allclose(asked, [3.**-i for i in range(n)])
    np.testing.assert_array_equal(lrs, asked[::-1])
    assert chosen == asked[down]
    np.testing.assert_array_equal(losses.mean, [v if np.isfinite(v) else NAN for v in values[:n]][::-1])

# Losses of at least 5 are those of a destroyed network
@pytest.mark.parametrize('values,n,down', [
    # One good rate is all it takes
    ([1, 2], 2, 0), ([4, 3, 3], 3, 1), ([1, 6], 2, 0),
    # On a plateau of destroyed networks it goes on, over humps, too, and one rate further, unless that is bad
    ([6, 1, 2], 3, 2), ([6, 1, 6], 3, 1), ([6, 1, NAN], 3, 1), ([6, 6, 1, 1], 4, 3), ([6, 7, 1, 2], 4, 3), ([6, 5.5, 6, 1, 2], 5, 4),
    ([NAN, 6, 6, 1, 1], 5, 4), ([6, 6, 6, 6, 1], 5, 4), ([5, 5, 4, 4], 4, 3), ([6, 3, 1, 1], 4, 2),
    # Where the rate above isn't finite, it stays, as ever
    ([6, NAN, 1, 1], 4, 2),
    # If all are bad, it is the best of them
    ([7, 6, 7, 7, 7], 5, 1), ([7, 8, 6, 7, 7], 5, 2), ([6, NAN, NAN, NAN, NAN], 5, 0), ([9, 8, 7, 6, 5], 5, 4),
    ([NAN, 7, 6, 7, NAN], 5, 2)])
def test_down_for_as_long_as_the_network_is_destroyed(values, n, down):
    lrs,losses,chosen,asked = steps_down(values, destroyed=5)
    assert len(asked) == len(lrs) == n and chosen == asked[down]

def test_when_a_network_is_destroyed():
    "It learns less than the head does alone, at a rate that is not usual"
    def found(lr, *losses, accepted=(1.,)): return HeadLR(lr, np.ones(len(losses)), np.array(losses), 'as told', 9., accepted)
    assert destroyed_from(found(11., 7., 4., NAN)) == 4 and destroyed_from(found(11., -8.)) == -8
    # A usual rate, one of a range test, and one that somebody chose
    for lr in (found(10., 7., 4.), found(11., 7., 4., accepted=()), 11.): assert destroyed_from(lr) == INF

def parts(*values, size=4.): return Losses(np.array([values], dtype=float), np.full(len(values), size))

@pytest.mark.parametrize('lower,down', [((0, .9), 1), ((-.2, 1.1), 0)])
def test_only_what_is_clearly_lower_is_followed(lower, down):
    "Both are lower by .55; the differences of 1 and .1 have a standard error of .45, those of 1.2 and -.1 one of .65"
    _,_,chosen,asked = steps_down([parts(1, 1), parts(*lower), parts(9, 9)])
    assert chosen == asked[down]

@pytest.mark.parametrize('size,down', [(2, 0), (3, 1)])
def test_few_items_only_tell_what_destroys_the_network(size, down):
    "At most four items: no rate is lowered because another has a lower loss, but a loss that is not finite still counts"
    _,_,chosen,asked = steps_down([parts(1, 1, size=size), parts(.5, .5, size=size), parts(9, 9, size=size)])
    assert chosen == asked[down]
    _,_,chosen,asked = steps_down([parts(NAN, NAN, size=size), parts(1, 1, size=size), parts(9, 9, size=size)])
    assert chosen == asked[1]

def test_the_parts_need_not_be_the_same():
    "A weighted loss, which is that of whole batches, but in parts where it is not finite"
    lrs,losses,chosen,asked = steps_down([parts(NAN, NAN, NAN, NAN), Losses(np.array([[2.]]), np.array([16.])), parts(1, 1, 2, 2),
                                          parts(1, 1, 2, 2)])
    assert chosen == asked[2] and losses.sizes.tolist() == [16] and len(lrs) == 4

@pytest.mark.parametrize('n_fit,want', [(1, 1), (2, 1), (3, 1), (30, 15), (79, 39), (80, 40), (200, 40), (201, 15), (500, 20), (1000, 40),
                                        (10**6, 40)])
def test_how_many_steps_a_miniature_has(n_fit, want): assert n_steps(n_fit) == want

@pytest.mark.parametrize('n_fit', range(201, 2000, 100))
def test_two_miniatures_of_a_long_fit_take_less_than_a_sixth_of_it(n_fit): assert 2*n_steps(n_fit) <= n_fit/6

# Nothing is left of it

def find(learn, n_epoch=4, lr=1e-2, **kw):
    with learn.no_bar(),learn.no_logging(): return learn.body_lr_find(n_epoch, lr, **{'show_plot': False, **kw})

MAKE = {**MAKERS, 'norm': partial(make_mlp, norm=True)}

@pytest.mark.parametrize('state', ['new', 'trained', 'frozen'])
@pytest.mark.parametrize('make', MAKE.values(), ids=MAKE)
def test_it_leaves_no_trace(tmp_path, make, state):
    learn = make(tmp_path)
    if state != 'new':
        with learn.no_bar(): learn.fit(2, 1e-2)
    if state == 'frozen': learn.freeze()
    before,dls,momenta = everything(learn),learn.dls,[getattr(m, 'momentum', None) for m in learn.model.modules()]
    loaders = list(dls.loaders)
    find(learn)
    check_no_trace(before, everything(learn))
    assert learn.dls is dls and all(a is b for a,b in zip(dls.loaders, loaders)) and not hasattr(learn, 'phase')
    assert [getattr(m, 'momentum', None) for m in learn.model.modules()] == momenta

@pytest.mark.parametrize('make,opt,trained', [(make, opt, trained) for make in ('norm', 'lm') for opt in OPTS for trained in (False, True)
                                              if make == 'norm' or (opt, trained) == ('adam', True)])
def test_the_training_that_follows_is_what_it_would_have_been(tmp_path, make, opt, trained):
    check_training_that_follows(partial(MAKE[make], tmp_path, **OPTS[opt]), find, trained)

# In the first half of the steps, in the second one and in the validation
@pytest.mark.parametrize('n', [1, 12, 17])
@pytest.mark.parametrize('ex', [KeyboardInterrupt, ZeroDivisionError])
def test_also_when_it_is_broken_off(tmp_path, ex, n):
    learn = make_mlp(tmp_path, norm=True)
    with learn.no_bar(): learn.fit(1, 1e-2)
    learn.add_cb(Stop(ex, n))
    before = everything(learn)
    with pytest.raises(ex): find(learn)
    after = everything(learn)
    # Left behind by fastai's `no_logging`, as after any fit
    before['attrs'].pop('logger'), after['attrs'].pop('logger')
    check_no_trace(before, after)
    assert learn.model[3].momentum == .1

@pytest.mark.parametrize('cb', [GradientAccumulation(16), GradientClip(.1), MixUp(), EarlyStoppingCallback(), SaveModelCallback()])
def test_with_fastais_callbacks_attached(tmp_path, cb):
    learn = make_mlp(tmp_path, cbs=cb)
    before,files = everything(learn),sorted(tmp_path.rglob('*'))
    assert np.isfinite(find(learn).losses).all()
    check_no_trace(before, everything(learn))
    assert sorted(tmp_path.rglob('*')) == files

def test_loggers_are_paused(tmp_path):
    learn = make_mlp(tmp_path, cbs=CSVLogger())
    with learn.no_bar(): learn.fit(1, 1e-2)
    log = (learn.path/'history.csv').read_text()
    find(learn)
    assert (learn.path/'history.csv').read_text() == log

@pytest.mark.parametrize('cb', [GradualUnfreezing(), DiscriminativeLR()])
def test_what_a_plan_refuses_it_refuses(mlp, cb):
    mlp.add_cb(cb)
    before = everything(mlp)
    with pytest.raises(ValueError, match='together with a plan'): find(mlp)
    before['attrs'].pop('logger'), (after := everything(mlp))['attrs'].pop('logger')
    check_no_trace(before, after)

def test_nothing_is_printed_or_warned_of_without_bar_and_logging(tmp_path, capsys):
    learn = make_mlp(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        find(learn, lr=1e3, n_epoch=10, epochs=.05)
    assert not capsys.readouterr().out.strip()

def test_metrics_that_cost_time_are_left_out(mlp):
    def never(pred, y): raise AssertionError('called')
    mlp.metrics = never
    find(mlp)
    assert len(mlp.metrics) == 1

def test_callbacks_find_their_metrics(tmp_path):
    "fastai fits, validates and predicts with such a callback"
    seen = []
    class Reads(Callback):
        def after_validate(self): seen.append((self.recorder.metrics[-1].name, self.recorder.metrics[-1].value))
    learn = make_mlp(tmp_path, norm=True, cbs=Reads())
    find(learn)
    assert seen and all(name == 'accuracy' and np.isnan(value) for name,value in seen)
    with learn.no_bar(): learn.head_lr_find(show_plot=False)

def test_a_metric_without_a_name(tmp_path):
    class Metric:
        def __call__(self, pred, y): return 1.
    learn = make_mlp(tmp_path, norm=True)
    learn.metrics = Metric()
    find(learn)
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(2)

# What it finds

def pretrained(path, **kwargs):
    "A network that has learnt what makes the classes, under a new head"
    learn = make_mlp(path, n=256, **kwargs)
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(20, 1e-2)
    set_seed(1)
    learn.model[-1].reset_parameters()
    learn.opt = None
    return learn

def test_it_goes_down_from_what_destroys_the_network(tmp_path):
    learn = pretrained(tmp_path)
    res = find(learn, lr=1.)
    assert res.lr <= res.lrs[-1]/3 and res.lrs[-1] == pytest.approx(1/2.6) and (np.diff(res.lrs) > 0).all()
    assert len(res.lrs) == len(res.losses) >= 3 and res.losses[-1] > 10*res.losses[list(res.lrs).index(res.lr)]
    # It is what `lower_lr` makes of the losses
    assert res.lr in res.lrs[:2]

def test_it_stays_where_nothing_is_lower(tmp_path):
    res = find(pretrained(tmp_path), lr=1e-3)
    assert res.lr == res.lrs[-1] == pytest.approx(1e-3/2.6) and len(res.lrs) == 2

def test_what_it_returns(mlp):
    res = find(mlp)
    assert isinstance(res, BodyLR) and isinstance(res.lr, float) and isinstance(res.lrs, np.ndarray) and isinstance(res.losses, np.ndarray)
    assert np.isnan(res.untrained) and res.accepted == ()
    # Of 4 epochs of 8 steps half
    assert res.how == f'validation loss after 16 steps of the plan in miniature, at {len(res.lrs)} rates'
    assert repr(res) == f'BodyLR(lr={res.lr:.2e}, by {res.how})'

def test_without_a_finite_loss_it_finds_nothing(tmp_path):
    learn = make_mlp(tmp_path, norm=True)
    learn.loss_func = lambda p,y: p.sum()*NAN
    before = everything(learn)
    with pytest.raises(ValueError, match='the validation loss is not finite at any of 5 rates of the body: expected one'): find(learn)
    before['attrs'].pop('logger'), (after := everything(learn))['attrs'].pop('logger')
    check_no_trace(before, after)

def test_the_rate_that_it_finds_is_not_given(mlp):
    with pytest.raises(TypeError, match=r"body_lr_find\(\) has no argument 'body_lr'"): mlp.body_lr_find(3, 1e-2, body_lr=1e-3)

def test_the_same_twice(tmp_path):
    for make in ('norm', 'clas'):
        learn = MAKE[make](tmp_path)
        a,b = find(learn),find(learn)
        assert a.lr == b.lr and np.array_equal(a.losses, b.losses) and np.array_equal(a.lrs, b.lrs)

def test_where_the_heads_rate_was_found_it_begins_at_what_is_usual(tmp_path):
    learn = make_mlp(tmp_path, norm=True)
    found = HeadLR(1e-2, np.array([1e-2]), np.array([.5]), 'as told')
    n_steps = 4*len(learn.dls.train)
    assert find(learn, lr=found).lrs[-1] == pytest.approx(BATCH_NORM_LR*min((200/n_steps)**.5, 3))
    assert f'usual in {n_steps} steps for networks with batch or group norms' in learn.ulmfit_plan(4, found).body_lr_from
    # A rate that somebody chose has its own
    assert find(learn, lr=1e-2).lrs[-1] == pytest.approx(1e-2/2.6)
    assert find(learn, lr=1e-2, factor=5).lrs[-1] == pytest.approx(1e-2/5)

@pytest.mark.all_rates
def test_targets_on_another_scale(tmp_path, monkeypatch):
    "Rates that suit the head destroy the body: the search goes on until the network learns, with the head's rate lowered, too"
    # Two folds instead of five, to save time
    monkeypatch.setattr('fastai_discrim.search.folds.N_FOLDS', 2)
    set_seed(0)
    x = torch.randn(360, 4)
    ds = list(zip(x, 80_000 + 10_000*x.sum(1, keepdim=True)))
    net = nn.Sequential(nn.Linear(4, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 1))
    learn = Learner(DataLoaders.from_dsets(ds[:300], ds[300:], bs=16, device='cpu', num_workers=0), net, loss_func=MSELossFlat(),
                    splitter=layerwise_split)
    with learn.no_bar(),learn.no_logging(),warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.fit_ulmfit(8)
    # The standard deviation of the targets is 20,000
    assert learn.recorder.values[-1][1]**.5 < 10_000 and learn.recorder.plan.lr > learn.recorder.plan.body_lr

@pytest.fixture
def seen(monkeypatch):
    "The plans, steps and weight decay of the miniatures, each a third better than the one before"
    seen = []
    def losses(learn, plan, n_steps, n_items, wd=None):
        seen.append((plan, n_steps, n_items, wd))
        return Losses(np.full((1, 1), 3.**-len(seen)), np.array([8.]))
    monkeypatch.setattr('fastai_discrim.search.miniature.miniature_losses', losses)
    return seen

@pytest.mark.parametrize('lr', [1e-2, HeadLR(.3, np.array([.3]), np.array([.5]), 'as told')], ids=['number', 'found'])
def test_the_miniatures_are_of_the_plans_that_would_run(tmp_path, seen, lr):
    learn = make_mlp(tmp_path, norm=True)
    kwargs = dict(cut_frac=.3, moms=(.7, .6, .7), decay=.5, epochs=2, train_bn=False)
    res = find(learn, 10, lr, wd=.2, **kwargs)
    assert len(seen) == 5 and res.lr == res.lrs[0]
    for (plan,steps,n_items,wd),body in zip(seen, res.lrs[::-1]):
        want = learn.ulmfit_plan(10, lr, body, **kwargs)
        assert plan == want and plan.phases[0].lrs[-2] == body and (steps, n_items, wd) == (40, 500, .2)
        # A found rate of the head is lowered with the body's: `decay` is a ratio of 2
        assert plan.phases[0].lrs[-1] == (1e-2 if lr == 1e-2 else 2*body)

def test_weight_decay_and_schedule_matter(tmp_path):
    learn = make_mlp(tmp_path)
    losses = [tuple(find(learn, lr=3e-2, **kw).losses) for kw in ({}, dict(wd=.5), dict(cut_frac=.9), dict(gradual=False))]
    assert len(set(losses)) == 4

def test_a_loss_that_is_finite_at_low_rates_only(tmp_path):
    learn = make_mlp(tmp_path)
    stock = learn.loss_func
    learn.loss_func = lambda p,y: stock(p, y) if p.abs().max() < 20 else (p*NAN).sum()
    res = find(learn, lr=.3, factor=.1, unfreezing=None)
    assert np.isnan(res.losses[-1]) and np.isfinite(res.losses[list(res.lrs).index(res.lr)])

def test_a_weighted_loss(tmp_path):
    learn = make_mlp(tmp_path)
    learn.loss_func = CrossEntropyLossFlat(weight=torch.tensor([1., 5.]))
    stock = learn.loss_func
    res = find(learn, lr=1.)
    assert np.isfinite(res.losses).all()
    # Not finite at first: then it is in parts
    learn.loss_func = lambda p,y: stock(p, y) if p.abs().max() < 20 else (p*NAN).sum()
    assert np.isnan(find(learn, lr=1., factor=.1).losses[-1])

# The data

def test_the_first_batches_are_those_that_a_fit_would_see(tmp_path):
    "Of a loader that is in order: the first ones, and again from the start"
    xs = []
    class See(Callback):
        def before_batch(self):
            if self.training: xs.append(self.x[0].tolist())
    learn = make_mlp(tmp_path, n=24, cbs=See())
    learn.dls = DataLoaders.from_dsets(learn.dls.train_ds, learn.dls.valid_ds, bs=8, shuffle=False, device='cpu', num_workers=0)
    res = find(learn, 4)
    batches = [x[0].tolist() for x,_ in learn.dls.train]
    assert xs == (batches*2)*len(res.lrs)

def test_without_a_validation_set_the_training_set_validates(mlp):
    mlp.dls = DataLoaders(mlp.dls.train, device='cpu')
    assert np.isfinite(find(mlp).losses).all()

@pytest.mark.parametrize('n_epoch', [1, 2])
def test_fits_of_few_steps(tmp_path, n_epoch):
    learn = make_mlp(tmp_path, n=8)
    assert f'after {n_epoch//2 or 1} steps' in find(learn, n_epoch).how

# Recurrent networks

def _found(lr): return HeadLR(lr, np.array([lr]), np.ones(1), 'as told', 1., (lr,))

def test_of_a_recurrent_classifier_nothing_is_searched(tmp_path):
    learn = make_clas(tmp_path)
    before = everything(learn)
    res = find(learn, 4, _found(.01))
    assert (res.lr, res.how) == (8**.5/1000, 'what is usual for recurrent networks in batches of 8')
    assert len(res.lrs) == len(res.losses) == 0
    # The user's own rate of the head gets the paper's ratio
    res = find(learn, 4, .02)
    assert (res.lr, res.how) == (.02/2.6, "1/2.6 of the head's")
    assert everything(learn) == before

def test_of_a_language_model_the_papers_ratio_holds(tmp_path):
    res = find(make_lm(tmp_path), 4, _found(.004))
    assert (res.lr, res.how) == (.004/2.6, "1/2.6 of the head's")

# What is refused

@pytest.mark.parametrize('args,kw', [((0, 1e-2), {}), ((1.5, 1e-2), {}), ((4, 0), {}), ((4, -1), {}), ((4, 'a'), {}),
                                     ((4, 1e-2), dict(decay=2)), ((4, 1e-2), dict(epochs=9)), ((4, 1e-2), dict(sched='STLR'))])
def test_bad_input(mlp, args, kw):
    before = everything(mlp)
    with pytest.raises((ValueError, TypeError), match='expected'): mlp.body_lr_find(*args, show_plot=False, **kw)
    assert before == everything(mlp)

def test_one_group_and_no_batch(tmp_path):
    with pytest.raises(ValueError, match='1 layer group'): find(make_mlp(tmp_path, splitter=lambda m: [list(m.parameters())]))
    with pytest.raises(ValueError, match='batch'): find(make_clas(tmp_path, n=6))

@pytest.mark.parametrize('train', [True, False], ids=['train', 'valid'])
@pytest.mark.parametrize('ex', [CancelFitException, CancelEpochException, CancelTrainException, CancelValidException])
def test_a_callback_that_calls_it_off_is_said(mlp, ex, train):
    class CallOff(Callback):
        def after_pred(self):
            if self.training == train: raise ex()
    mlp.add_cb(CallOff())
    before = everything(mlp)
    with pytest.raises(ValueError, match="one of the callbacks .*CallOff.* cancelled the search for the body's rate"),mlp.no_bar():
        mlp.body_lr_find(4, 1e-2, show_plot=False)
    check_no_trace(before, everything(mlp))

# The plot

def test_plot(mlp):
    with mlp.no_bar(): res = mlp.body_lr_find(4, 1e-2)
    ax = plt.gca()
    assert ax.get_xlabel() == 'learning rate of the group below the head' and ax.get_ylabel() == 'validation loss'
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), res.lrs)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), res.losses)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ['validation loss', f'chosen: {res.lr:.2e}']
    plt.close('all')
    find(mlp)
    assert not plt.get_fignums()

def test_a_progress_bar_is_the_one_it_was(mlp):
    cbs = list(mlp.cbs)
    mlp.body_lr_find(2, 1e-2, show_plot=False)
    assert [id(cb) for cb in mlp.cbs] == [id(cb) for cb in cbs] and all(cb.learn is mlp for cb in mlp.cbs)

def test_norm_layers_in_the_head_do_not_matter(tmp_path):
    "What goes into the search is the whole network"
    learn = make_mlp(tmp_path)
    learn.model[4] = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 2))
    learn.splitter = lambda m: [list(m[0].parameters()), list(m[2].parameters()), list(m[4].parameters())]
    assert find(learn, lr=HeadLR(1e-2, np.array([1e-2]), np.array([.5]), 'as told')).lrs[-1] == pytest.approx(1e-2/2.6)
