"Groups are unfrozen at the right step, in every kind of fit and beside other callbacks, and the learner is left as expected"
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from callbacks.watch import Steps, Watch, chain, gradual, names, watched
from conftest import GroupAnEpoch, in_groups, lr_find, make_clas, make_mlp, moved, pairs, trains, weights
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException
from fastai.callback.fp16 import MixedPrecision, NonNativeMixedPrecision
from fastai.callback.progress import CSVLogger, ShowGraphCallback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import BnFreeze, GradientAccumulation, GradientClip
from fastai.learner import load_learner
from hypothesis import given
from hypothesis import strategies as st
from plan.restated import phase_ends
from plan.strategies import fractions, quick

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing, Unfreezing


def by_epoch(cb, n_groups, n_epoch): return [g for n,g in cb.fill(n_groups, n_epoch) for _ in range(n)]

def test_strategies_by_epoch():
    for n_groups,n_epoch in ((2, 2), (3, 5), (5, 9)): assert by_epoch(GradualUnfreezing(1), n_groups, n_epoch) == gradual(n_groups, n_epoch)
    for n_groups,n_epoch in ((2, 3), (3, 5), (5, 9)): assert by_epoch(ChainThaw(), n_groups, n_epoch) == chain(n_groups, n_epoch)
    assert by_epoch(GradualUnfreezing(2), 3, 5) == [(2,), (2,), (1, 2), (1, 2), (0, 1, 2)]
    assert by_epoch(GradualUnfreezing([1, 3]), 3, 6) == [(2,), (1, 2), (1, 2), (1, 2), (0, 1, 2), (0, 1, 2)]
    assert by_epoch(GradualUnfreezing(1, down_to=1), 3, 3) == [(2,), (1, 2), (1, 2)]
    assert by_epoch(GradualUnfreezing(1, down_to=2), 3, 2) == by_epoch(GradualUnfreezing([], down_to=2), 3, 2) == [(2,), (2,)]
    assert by_epoch(ChainThaw(2), 2, 5) == [(1,), (1,), (0,), (0,), (0, 1)]

def test_the_papers_share():
    assert GradualUnfreezing().fill(5, 50) == GradualUnfreezing(1).fill(5, 50)
    assert [n for n,_ in GradualUnfreezing(None).fill(5, 5)] == pytest.approx([.1]*4 + [4.6], rel=1e-12)
    assert repr(GradualUnfreezing()) == 'GradualUnfreezing(epochs=None, down_to=0)'

@quick
@given(fractions, st.integers(2, 6), st.integers(1, 3))
def test_any_fraction_is_filled_to_the_fit(epochs, n_groups, more):
    n_epoch = math.ceil(n_groups*epochs) + more
    for cb in (GradualUnfreezing(float(epochs)), ChainThaw(float(epochs))):
        *first,(left,groups) = cb.fill(n_groups, n_epoch)
        assert [n for n,_ in first] == [float(epochs)]*len(first) and groups == tuple(range(n_groups))
        assert len(first) == n_groups - isinstance(cb, GradualUnfreezing) and left == pytest.approx(float(n_epoch - len(first)*epochs))

FITS = {
    'fit': lambda l, **kw: l.fit(5, 1e-2, **kw),
    'fit_one_cycle': lambda l, **kw: l.fit_one_cycle(5, 1e-2, **kw),
    'fit_flat_cos': lambda l, **kw: l.fit_flat_cos(5, 1e-2, **kw),
    'fit_sgdr': lambda l, **kw: l.fit_sgdr(3, 1, 1e-2, **kw),
    'fit_stlr': lambda l, **kw: l.fit_stlr(5, 1e-2, **kw),
    'fit_clr_beta': lambda l, **kw: l.fit_clr_beta(5, 1e-2, **kw),
}

CALLBACKS = {'+'.join(c.__name__ for c in cbs): cbs for cbs in ([GroupAnEpoch], [ChainThaw], [GroupAnEpoch, DiscriminativeLR],
                                                               [ChainThaw, DiscriminativeLR])}

@pytest.mark.parametrize('cbs,fit,added', pairs(CALLBACKS, FITS, {'cbs': False, 'add_cb': True}))
def test_drops_into_every_fit(mlp, cbs, fit, added):
    watch = Watch()
    if added: mlp.add_cbs(cbs)
    with mlp.no_bar(): fit(mlp, cbs=watch if added else [*cbs, watch])
    expected = by_epoch(cbs[0](), 3, mlp.n_epoch)
    assert watch.opened == expected and watch.moved == [in_groups(mlp, g) for g in expected]
    assert len(mlp.cbs) == 4 + len(cbs)*added
    if DiscriminativeLR in cbs:
        last = mlp.recorder.group_lrs[-1]
        torch.testing.assert_close(last[1:]/last[:-1], torch.tensor([2.6, 2.6]).double().numpy())

# Strategies with the epochs of their phases, of 8 steps each, and the groups that train in them
FRACTIONS = {
    'gradual': (GradualUnfreezing(.25), 1, [.25, .25, .5], [(2,), (1, 2), (0, 1, 2)]),
    'of two epochs': (GradualUnfreezing([.8, .7]), 2, [.8, .7, .5], [(2,), (1, 2), (0, 1, 2)]),
    'down to': (GradualUnfreezing(.3, down_to=1), 1, [.3, .7], [(2,), (1, 2)]),
    'paper': (GradualUnfreezing(None), 5, [.2, .2, 4.6], [(2,), (1, 2), (0, 1, 2)]),
    # Each phase has at least one step
    'short': (GradualUnfreezing(.01), 1, [.01, .01, .98], [(2,), (1, 2), (0, 1, 2)]),
    'chain': (ChainThaw(.3), 2, [.3, .3, .3, 1.1], [(2,), (0,), (1,), (0, 1, 2)]),
    'chain of halves': (ChainThaw(.5), 2, [.5, .5, .5, .5], [(2,), (0,), (1,), (0, 1, 2)])}

def by_step(epochs, groups):
    ends = phase_ends(epochs, 8)
    return [g for start,end,g in zip([0, *ends], ends, groups) for _ in range(start, end)]

@pytest.mark.parametrize('cb,n_epoch,epochs,groups', FRACTIONS.values(), ids=FRACTIONS)
def test_groups_open_in_the_middle_of_an_epoch(mlp, cb, n_epoch, epochs, groups):
    steps = Steps()
    with mlp.no_bar(): mlp.fit(n_epoch, 1e-2, cbs=[cb, steps])
    want = by_step(epochs, groups)
    assert len(want) == n_epoch*8 and steps.opened == want and steps.moved == names(mlp, want)

def test_a_fit_has_a_step_for_each_phase(mlp):
    with pytest.raises(ValueError, match='3 phases in 2 steps'), mlp.no_bar():
        mlp.dls.train.bs = 32
        mlp.fit(1, 1e-2, cbs=GradualUnfreezing(.1))
    assert mlp.opt is None

@pytest.mark.parametrize('start', [1, 2, 3])
def test_start_epoch_in_the_middle_of_fractional_phases(mlp, start):
    steps = Steps()
    with mlp.no_bar(): mlp.fit_one_cycle(4, 1e-2, start_epoch=start, cbs=[GradualUnfreezing(1.25), steps])
    want = by_step([1.25, 1.25, 1.5], [(2,), (1, 2), (0, 1, 2)])[8*start:]
    assert steps.opened == want and steps.moved == names(mlp, want)

def test_start_epoch_is_where_the_fit_would_have_been(mlp):
    watch = watched(mlp, GradualUnfreezing(1), 5, start_epoch=3)
    assert watch.opened == [(0, 1, 2)]*2

@pytest.mark.parametrize('extra', [lambda: SaveModelCallback(), lambda: CSVLogger(), lambda: EarlyStoppingCallback(patience=20),
                                   lambda: GradientClip(), lambda: GradientAccumulation(12)],
                         ids=['save', 'csv', 'early', 'clip', 'accumulate'])
def test_beside_other_callbacks(clas, extra):
    watch = watched(clas, GradualUnfreezing(1), 6, cbs=[DiscriminativeLR(), extra()])
    assert watch.opened == by_epoch(GradualUnfreezing(1), 5, 6) and all(m <= in_groups(clas, g) for m,g in zip(watch.moved, watch.opened))
    assert all(watch.moved)

def test_beside_the_graph(clas, monkeypatch):
    watch = Watch()
    clas.fit_one_cycle(5, 1e-2, cbs=[GradualUnfreezing(1), watch, ShowGraphCallback()])
    assert watch.opened == by_epoch(GradualUnfreezing(1), 5, 5)

@pytest.mark.filterwarnings('ignore')
def test_in_mixed_precision(clas):
    clas.add_cb(MixedPrecision())
    assert watched(clas, GradualUnfreezing(1), 6).opened == by_epoch(GradualUnfreezing(1), 5, 6)

def test_early_stopping_leaves_the_groups_of_the_last_epoch(mlp):
    watch = watched(mlp, GradualUnfreezing(1), 6, cbs=[EarlyStoppingCallback(min_delta=100., patience=1)])
    assert len(watch.opened) == 2 and trains(mlp) == [False, True, True]

def test_bn_freeze_sees_the_frozen_groups(tmp_path):
    learn = make_mlp(tmp_path, norm=True, train_bn=False)
    seen = []
    class Mode(Callback):
        order = 50
        def before_train(self): seen.append(self.model[3].training)
    watched(learn, GradualUnfreezing(1), 4, cbs=[BnFreeze(), Mode()])
    assert seen == [False, True, True, True]

def test_the_optimisers_state_counts_on(clas):
    steps = []
    class Counts(Callback):
        def after_train(self): steps.append([self.opt.state[g[0]].get('step', 0) for g in self.opt.param_lists])
    n = len(clas.dls.train)
    watched(clas, GradualUnfreezing(1), 6, cbs=[Counts()])
    assert [s[-1] for s in steps] == [n*(i+1) for i in range(6)] and [s[0] for s in steps] == [0]*4 + [n, 2*n]

def test_unfreezing_alone_trains_as_a_hand_written_loop_does(tmp_path):
    "Against the same fits by hand with `opt.freeze_to`, which keeps the optimiser's state"
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    watched(a, GradualUnfreezing(1), 5, fit=a.fit, lr=1e-2)
    b.create_opt()
    with b.no_bar():
        for i,n in [(2, 1), (1, 1), (0, 3)]:
            b.opt.freeze_to(i)
            b.fit(n, 1e-2)
    assert not moved(a, weights(b))

def test_fractions_train_as_a_loop_over_batches_does(tmp_path):
    "Compare with plain torch, where each batch decides which weights get a gradient and a step"
    class Order(Callback):
        run_valid = False
        def __init__(self): self.batches = []
        def before_batch(self): self.batches.append((self.x.clone(), self.y.clone()))
    a,b,order = make_mlp(tmp_path, wd=0.),make_mlp(tmp_path),Order()
    with a.no_bar(): a.fit(1, 1e-2, cbs=[GradualUnfreezing(.25), order])
    model,groups = b.model,b.splitter(b.model)
    opt = b.opt_func(groups, lr=1e-2)
    for i,(x,y) in enumerate(order.batches):
        low = 2 if i < 2 else 1 if i < 4 else 0
        loss = torch.nn.functional.cross_entropy(model(x), y)
        ps = [p for g in groups[low:] for p in g]
        for p,grad in zip(ps, torch.autograd.grad(loss, ps)): p.grad = grad.clone()
        opt.set_hypers(lr=1e-2, wd=0.)
        opt.step()
        opt.zero_grad()
    assert i == 7
    for n,p in weights(a).items(): torch.testing.assert_close(p, dict(model.named_parameters())[n], rtol=1e-6, atol=1e-8)

def test_nothing_but_a_fit_changes_what_trains(clas, tmp_path):
    clas.add_cbs([GradualUnfreezing(1), DiscriminativeLR()])
    clas.freeze_to(-2)
    now = trains(clas)
    with clas.no_bar():
        clas.validate(); clas.get_preds(); clas.get_preds(dl=clas.dls.valid); assert trains(clas) == now
        before = weights(clas)
    lr_find(clas, num_it=10)
    assert trains(clas) == now and not moved(clas, before)

def test_predict_and_get_preds_in_the_middle_of_a_fit(mlp):
    class Peek(Callback):
        def after_epoch(self):
            if getattr(self, 'peeking', False): return
            self.peeking = True
            with self.learn.removed_cbs([self.learn.recorder]): self.learn.get_preds(inner=True)
            self.peeking = False
    assert watched(mlp, GradualUnfreezing(1), 5, cbs=[Peek()]).opened == by_epoch(GradualUnfreezing(1), 3, 5)

@pytest.mark.filterwarnings('ignore')
def test_export_and_load(clas, tmp_path):
    clas.add_cbs([GradualUnfreezing(1), DiscriminativeLR()])
    with clas.no_bar(): clas.fit_one_cycle(5, 1e-2)
    clas.dls.new_empty = lambda: clas.dls # these loaders hold plain lists, which fastai can't empty
    clas.export('a.pkl')
    plain = clas.remove_cbs([GradualUnfreezing, DiscriminativeLR])
    plain.export('b.pkl')
    a,b = (tmp_path/o for o in ('a.pkl', 'b.pkl'))
    assert abs(a.stat().st_size - b.stat().st_size) < 2000, 'a callback holds tensors'
    loaded = load_learner(a)
    assert len(loaded._grab_cbs(GradualUnfreezing)) == 1 and not moved(loaded, weights(clas))
    x,_ = clas.dls.valid.one_batch()
    clas.model.eval(); loaded.model.eval()
    torch.testing.assert_close(loaded.model(x)[0], clas.model(x)[0])

class Break(Callback):
    "Interrupt epoch 1 at an event"
    order = 1000
    def __init__(self, ex, where): self.ex,self.where = ex,where
    def __call__(self, event):
        if event == self.where and getattr(self.learn, 'training', False) and self.learn.epoch == 1: raise self.ex

EXCEPTIONS = dict(ctrl_c=KeyboardInterrupt, cancel_fit=CancelFitException, error=ZeroDivisionError)

EVENTS = 'before_batch', 'after_backward', 'before_step', 'after_step', 'after_batch'

@pytest.mark.parametrize('ex,where,make', pairs(EXCEPTIONS, dict(zip(EVENTS, EVENTS)), dict(mlp=make_mlp, clas=make_clas)))
def test_an_interrupted_fit_leaves_the_learner_intact(tmp_path, make, ex, where):
    learn = make(tmp_path)
    n = len(learn.splitter(learn.model))
    cbs = list(learn.cbs)
    try: watched(learn, GradualUnfreezing(1), cbs=[DiscriminativeLR(), Break(ex('x'), where)], lr_max=1e-2)
    except ex: pass
    assert set(learn.cbs) <= set(cbs) | {learn.progress} and not learn._grab_cbs((GradualUnfreezing, DiscriminativeLR))
    assert len({h['lr'] for h in learn.opt.hypers}) == 1
    assert all(p.grad is None for p in learn.model.parameters())
    assert trains(learn) == [False]*(n-2) + [True]*2 == (learn.layer_groups().training > 0).tolist()
    assert watched(learn, GradualUnfreezing(1)).moved[0] == in_groups(learn, [n-1])

@pytest.mark.parametrize('ex', [CancelEpochException, CancelTrainException])
def test_a_cancelled_epoch_changes_nothing_for_the_others(mlp, ex):
    watch = watched(mlp, GradualUnfreezing(1), 5, cbs=[Break(ex(), 'before_batch')])
    assert watch.opened == by_epoch(GradualUnfreezing(1), 3, 5)

@pytest.mark.parametrize('event', ['before_fit', 'before_epoch', 'after_epoch'])
def test_validation_in_a_fit_does_not_restart_the_schedule(mlp, event):
    def look(cb):
        if not cb.learn.lock.locked(): cb.learn.validate()
    mlp.add_cb(type('Look', (Callback,), {event: look})())
    opened = []
    mlp.add_cb(type('Opened', (Callback,), dict(order=99, before_train=lambda self: opened.append(sum(trains(mlp)))))())
    with mlp.no_bar(): mlp.fit_one_cycle(4, 1e-2, cbs=GradualUnfreezing(1))
    assert opened == [1, 2, 3, 3]

@pytest.mark.parametrize('event', ['before_epoch', 'after_batch', 'after_train', 'after_epoch'])
def test_validation_in_a_fit_does_not_restart_fractional_phases(mlp, event):
    "fastai counts epochs from 0 for it, and leaves it so"
    def look(cb):
        if cb.learn.lock.locked() or not getattr(cb.learn, 'training', True) and 'batch' in event: return
        cb.learn.validate()
        cb.learn.model.train()
        cb.learn.training = True
    steps = Steps()
    mlp.add_cb(type('Look', (Callback,), {event: look, 'order': -20 if event == 'after_batch' else 0, 'run_valid': False})())
    with mlp.no_bar(): mlp.fit(3, 1e-2, cbs=[GradualUnfreezing(1.25), steps])
    want = by_step([1.25, 1.25, .5], [(2,), (1, 2), (0, 1, 2)])
    assert steps.opened == want and steps.moved == names(mlp, want)

@pytest.mark.parametrize('epochs', [(1, 2), np.array([1, 2]), map(int, '12')], ids=['tuple', 'array', 'map'])
def test_epochs_as_a_tuple_an_array_or_an_iterator(epochs):
    assert repr(cb := GradualUnfreezing(epochs)) == 'GradualUnfreezing(epochs=[1, 2], down_to=0)'
    assert [n for n,_ in cb.schedule(3, 9)] == [n for n,_ in cb.schedule(3, 9)] == [1, 2, 1]

def test_epochs_of_any_type_are_plain_numbers():
    assert repr(GradualUnfreezing(np.array([.5, 2]))) == 'GradualUnfreezing(epochs=[0.5, 2], down_to=0)'
    assert repr(GradualUnfreezing(np.float32(2))) == repr(GradualUnfreezing(2.)) == repr(GradualUnfreezing(2))
    assert repr(ChainThaw(np.int64(2))) == repr(ChainThaw(2.)) == repr(ChainThaw(2)) and repr(ChainThaw(.5)) == 'ChainThaw(epochs=0.5)'

NAN = float('nan')
BAD = [*((GradualUnfreezing, dict(epochs=e), f'epochs={e!r}') for e in (0, -1, -.5, NAN, float('inf'), True, '2', '1')),
       *((GradualUnfreezing, dict(epochs=[1, e]), f'epochs={e!r}') for e in (0, -1, NAN, True, '1', None)),
       (GradualUnfreezing, dict(down_to=-1), 'down_to=-1'),
       (GradualUnfreezing, dict(down_to=.5), 'down_to=0.5'),
       (GradualUnfreezing, dict(down_to=True), 'down_to=True'),
       *((ChainThaw, dict(epochs=e), f'epochs={e!r}') for e in (0, -1, NAN, '1', True, None, [1, 1]))]

@pytest.mark.parametrize('cls,kw,match', BAD)
def test_bad_arguments(cls, kw, match):
    with pytest.raises((ValueError, TypeError), match=f'{re.escape(match)}: expected'): cls(**kw)

BAD_FITS = [(GradualUnfreezing(1), 2, r'n_epoch=2: expected at least 3, as GradualUnfreezing\(epochs=1, down_to=0\) takes 2 epochs'),
            (GradualUnfreezing(2), 4, 'expected at least 5'),
            (ChainThaw(), 3, 'expected at least 4'),
            (GradualUnfreezing([1]), 9, r'epochs=\[1\] has 1 values, expected 2'),
            (GradualUnfreezing([1]*3), 9, 'has 3 values, expected 2'),
            (GradualUnfreezing(1, down_to=3), 9, 'down_to=3: expected at most 2'),
            (GradualUnfreezing(1), 0, 'n_epoch=0: expected'),
            (GradualUnfreezing(1), -1, 'n_epoch=-1: expected'),
            (GradualUnfreezing(1), 3.5, 'n_epoch=3.5: expected a whole number'),
            (GradualUnfreezing(1.5), 3, 'n_epoch=3: expected more than 3'),
            (ChainThaw(.4), 1, r'n_epoch=1: expected more than 1.2, as ChainThaw\(epochs=0.4\) takes 1.2 epochs')]

@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('cb,n,match', BAD_FITS)
def test_bad_fits_change_nothing(mlp, cb, n, match, frozen):
    mlp.create_opt()
    if frozen: mlp.freeze()
    before,now = weights(mlp),trains(mlp)
    with pytest.raises((ValueError, TypeError), match=match): watched(mlp, cb, fit=mlp.fit, **{'n_epoch': n}) if n else mlp.fit(n, cbs=cb)
    assert not moved(mlp, before) and trains(mlp) == now and not mlp._grab_cbs(type(cb))

def test_non_native_mixed_precision_is_refused(mlp):
    copies,refused = NonNativeMixedPrecision(),partial(pytest.raises, ValueError, match='NonNativeMixedPrecision .*to_fp16')
    with refused(): mlp.fit(3, cbs=[GradualUnfreezing, copies])
    with refused(): mlp.fit_plan(mlp.ulmfit_plan(3), cbs=copies)

def test_a_refused_fit_changes_no_file(mlp):
    with mlp.no_bar(): mlp.fit(2, cbs=CSVLogger())
    before = (mlp.path/'history.csv').read_text()
    with pytest.raises(ValueError, match='n_epoch=1'), mlp.no_bar(): mlp.fit(1, cbs=[CSVLogger(), GradualUnfreezing(1)])
    assert (mlp.path/'history.csv').read_text() == before

@pytest.mark.parametrize('cbs', [[GradualUnfreezing(1), ChainThaw()], [GradualUnfreezing, GradualUnfreezing],
                                 [DiscriminativeLR(), DiscriminativeLR(10)]], ids=str)
def test_two_strategies_are_refused(mlp, cbs):
    with pytest.raises(ValueError, match='in one fit: expected one of them'), mlp.no_bar(): mlp.fit(5, cbs=cbs)
    mlp.add_cb(cbs[0])
    with pytest.raises(ValueError, match='in one fit: expected one of them'), mlp.no_bar(): mlp.fit(5, cbs=cbs[1])

class Alternate(Unfreezing):
    "A strategy of a user: the head and the input in turn"
    def __init__(self, every=.25): self.every = every
    def schedule(self, n_groups, n_epoch):
        turns = int(n_epoch/self.every) - 1
        return [*((self.every, ((n_groups-1, 0)[i%2],)) for i in range(turns)), (0, (1,))]

def test_a_strategy_of_a_user(mlp):
    steps = Steps()
    with mlp.no_bar(): mlp.fit(2, 1e-2, cbs=[Alternate(), DiscriminativeLR(), steps])
    want = [((2,), (0,))[i//2 % 2] for i in range(14)] + [(1,)]*2
    assert steps.opened == want and steps.moved == names(mlp, want)

def test_a_strategy_without_a_schedule_says_so(mlp):
    with pytest.raises(NotImplementedError, match='Unfreezing has no `schedule`'): mlp.fit(1, cbs=Unfreezing())

def test_lr_find_leaves_frozen_groups_as_they_are(mlp):
    "With any strategy, even one that needs more epochs than `lr_find` runs"
    mlp.add_cb(GradualUnfreezing(1))
    mlp.create_opt()
    mlp.opt.freeze_to(1)
    with mlp.no_bar(): mlp.lr_find(show_plot=False, num_it=5)
    assert trains(mlp) == [False, True, True]

def test_scheduled_by_hand(mlp):
    "A plain `ParamScheduler` counts as one of fastai's schedules"
    steps = Steps()
    with mlp.no_bar(): mlp.fit(1, 1e-2, cbs=[GradualUnfreezing(.25), ParamScheduler({'lr': lambda pos: 1e-2}), steps])
    assert steps.moved == names(mlp, by_step([.25, .25, .5], [(2,), (1, 2), (0, 1, 2)]))
