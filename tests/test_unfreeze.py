"What trains when: frozen is frozen, bit for bit, and the learner is left as a reader expects it"
from functools import partial

import numpy as np
import pytest
import torch
from conftest import MAKERS, in_groups, make_clas, make_lm, make_mlp, moved, trains, weights
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException
from fastai.callback.fp16 import MixedPrecision, NonNativeMixedPrecision
from fastai.callback.progress import CSVLogger, ShowGraphCallback
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import BnFreeze, GradientAccumulation, GradientClip
from fastai.learner import load_learner
from fastai.optimizer import SGD, Adam, OptimWrapper, ranger

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing
from fastai_discrim.callbacks.freezing import freeze_all_but

OPTS = dict(adam=Adam, sgd=partial(SGD, mom=0.9), ranger=ranger, torch=partial(OptimWrapper, opt=torch.optim.AdamW))
CBS = dict(gradual=GradualUnfreezing, chain=ChainThaw)

class Watch(Callback):
    "Which groups may train, and which weights moved, in each epoch"
    order = 100
    def before_fit(self): self.opened,self.moved = [],[]
    def before_train(self): self.before = weights(self.learn); self.opened.append(tuple(i for i,t in enumerate(trains(self.learn)) if t))
    def after_train(self): self.moved.append(moved(self.learn, self.before))

def watched(learn, cb, n_epoch=None, fit=None, cbs=(), **kw):
    watch = Watch()
    n_epoch = n_epoch or len(learn.splitter(learn.model)) + 2
    with learn.no_bar(): (fit or learn.fit_one_cycle)(n_epoch, cbs=[cb, watch, *cbs], **kw)
    return watch

def stages(cb, n_groups, n_epoch): return [g for n,g in cb.fill(n_groups, n_epoch) for _ in range(n)]

def test_gradual_stages():
    assert stages(GradualUnfreezing(), 3, 5) == [(2,), (1, 2), (0, 1, 2), (0, 1, 2), (0, 1, 2)]
    assert stages(GradualUnfreezing(2), 3, 5) == [(2,), (2,), (1, 2), (1, 2), (0, 1, 2)]
    assert stages(GradualUnfreezing([1, 3]), 3, 6) == [(2,), (1, 2), (1, 2), (1, 2), (0, 1, 2), (0, 1, 2)]
    assert stages(GradualUnfreezing(down_to=1), 3, 3) == [(2,), (1, 2), (1, 2)]
    assert stages(GradualUnfreezing(down_to=2), 3, 2) == stages(GradualUnfreezing([], down_to=2), 3, 2) == [(2,), (2,)]

def test_chain_stages():
    assert stages(ChainThaw(), 3, 5) == [(2,), (0,), (1,), (0, 1, 2), (0, 1, 2)]
    assert stages(ChainThaw(2), 2, 5) == [(1,), (1,), (0,), (0,), (0, 1)]

@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
@pytest.mark.parametrize('cb', CBS.values(), ids=CBS)
def test_exactly_the_open_groups_move(tmp_path, make, opt, cb):
    learn = make(tmp_path, opt_func=opt, wd=0.1, train_bn=False) # so that frozen norm layers are frozen too
    # unfrozen: gradients of zeros, momentum and slow weights stay behind
    with learn.no_bar(): learn.fit(1, 1e-2); learn.lr_find(show_plot=False, num_it=10)
    watch = watched(learn, cb(), lr_max=1e-2)
    n = len(learn.opt.param_lists)
    expected = stages(cb(), n, n+2)
    assert watch.opened == expected
    for epoch,(groups,names) in enumerate(zip(expected, watch.moved)): assert names == in_groups(learn, groups), f'epoch {epoch}'

@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
def test_accumulation_that_ended_mid_window_moves_nothing_frozen(tmp_path, opt):
    learn = make_mlp(tmp_path, opt_func=opt, wd=0.1)
    with learn.no_bar(): learn.fit(1, 1e-2, cbs=[GradientAccumulation(40), GradualUnfreezing(down_to=2)]) # 8 batches of 8: 24 items wait
    assert all(p.grad is None for p in learn.model.parameters())
    stock = make_mlp(tmp_path, opt_func=opt, wd=0.1)
    with stock.no_bar(): stock.fit(1, 1e-2, cbs=GradientAccumulation(40))
    assert any(p.grad.abs().sum() > 0 for p in stock.model.parameters()), 'stock fastai no longer leaves gradients: drop this trap'
    watch = watched(stock, GradualUnfreezing(), lr_max=1e-2, cbs=[GradientAccumulation(16)])
    assert watch.moved == [in_groups(stock, g) for g in stages(GradualUnfreezing(), 3, 5)]

def test_stock_freezing_does_move_frozen_weights(mlp):
    "The trap itself: if this fails, fastai has mended it"
    with mlp.no_bar(): mlp.fit(1, 1e-2)
    mlp.freeze()
    before = weights(mlp)
    with mlp.no_bar(): mlp.fit(1, 1e-2, wd=.1)
    assert moved(mlp, before) - in_groups(mlp, [2])

def test_clip_does_not_count_what_is_frozen(tmp_path):
    learn,norms = make_mlp(tmp_path),[]
    with learn.no_bar(): learn.fit(1, 1e-2)
    for p in learn.model.parameters(): p.grad = torch.full_like(p, 1e6)
    class Norm(Callback):
        order = GradientClip.order-1
        def before_step(self): norms.append(max(p.grad.abs().max().item() for p in self.model.parameters() if p.grad is not None))
    watched(learn, GradualUnfreezing(), lr_max=1e-2, cbs=[GradientClip(1e-3), Norm()])
    assert max(norms[len(learn.dls.train)//2:]) < 1e3

def test_the_optimisers_state_counts_on(clas):
    steps = []
    class Steps(Callback):
        def after_train(self): steps.append([self.opt.state[g[0]].get('step', 0) for g in self.opt.param_lists])
    n = len(clas.dls.train)
    watched(clas, GradualUnfreezing(), 6, cbs=[Steps()])
    assert [s[-1] for s in steps] == [n*(i+1) for i in range(6)] and [s[0] for s in steps] == [0]*4 + [n, 2*n]

def test_unfreezing_alone_trains_as_a_hand_written_loop_does(tmp_path):
    "Against the same fits by hand with `opt.freeze_to`, which keeps the optimiser's state"
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    watched(a, GradualUnfreezing(), 5, fit=a.fit, lr=1e-2)
    b.create_opt()
    with b.no_bar():
        for i,n in [(2, 1), (1, 1), (0, 3)]:
            b.opt.freeze_to(i)
            b.fit(n, 1e-2)
    assert not moved(a, weights(b))

FITS = {
    'fit': lambda l, **kw: l.fit(5, 1e-2, **kw),
    'fit_one_cycle': lambda l, **kw: l.fit_one_cycle(5, 1e-2, **kw),
    'fit_flat_cos': lambda l, **kw: l.fit_flat_cos(5, 1e-2, **kw),
    'fit_sgdr': lambda l, **kw: l.fit_sgdr(3, 1, 1e-2, **kw),
    'fit_stlr': lambda l, **kw: l.fit_stlr(5, 1e-2, **kw),
    'fit_clr_beta': lambda l, **kw: l.fit_clr_beta(5, 1e-2, **kw),
}

@pytest.mark.parametrize('added', [False, True], ids=['cbs', 'add_cb'])
@pytest.mark.parametrize('fit', FITS.values(), ids=FITS)
@pytest.mark.parametrize('cbs', [[GradualUnfreezing], [ChainThaw], [GradualUnfreezing, DiscriminativeLR], [ChainThaw, DiscriminativeLR]],
                         ids=lambda cbs: '+'.join(c.__name__ for c in cbs))
def test_drops_into_every_fit(mlp, cbs, fit, added):
    watch = Watch()
    if added: mlp.add_cbs(cbs)
    with mlp.no_bar(): fit(mlp, cbs=watch if added else [*cbs, watch])
    expected = stages(cbs[0](), 3, mlp.n_epoch)
    assert watch.opened == expected and watch.moved == [in_groups(mlp, g) for g in expected]
    assert len(mlp.cbs) == 4 + len(cbs)*added
    if DiscriminativeLR in cbs:
        last = mlp.recorder.group_lrs[-1]
        torch.testing.assert_close(last[1:]/last[:-1], torch.tensor([2.6, 2.6]).double().numpy())

class Opened(Callback):
    "Which groups may train in each epoch, over several fits"
    order = 101
    def __init__(self): self.seen = []
    def before_train(self): self.seen.append(tuple(i for i,t in enumerate(trains(self.learn)) if t))

@pytest.mark.parametrize('cb', [GradualUnfreezing, GradualUnfreezing()], ids=['class', 'instance'])
@pytest.mark.parametrize('freeze_epochs', [1, 2, 4])
@pytest.mark.parametrize('added', [False, True])
def test_fine_tune(mlp, cb, freeze_epochs, added):
    opened = Opened()
    if added: mlp.add_cb(cb)
    with mlp.no_bar(): mlp.fine_tune(4, 1e-2, freeze_epochs=freeze_epochs, cbs=[opened] if added else [cb, opened])
    assert opened.seen == [(2,)]*freeze_epochs + [(2,), (1, 2), (0, 1, 2), (0, 1, 2)]

def test_fine_tune_without_frozen_epochs(mlp):
    opened = Opened()
    with mlp.no_bar(): mlp.fine_tune(4, 1e-2, freeze_epochs=0, cbs=[GradualUnfreezing, opened])
    assert opened.seen == [(2,), (1, 2), (0, 1, 2), (0, 1, 2)]

def test_fine_tune_says_what_it_can_not_do_before_it_begins(mlp):
    mlp.create_opt()
    before,now = weights(mlp),trains(mlp)
    for cb,match in [(GradualUnfreezing(), 'n_epoch=2: expected at least 3'), (DiscriminativeLR, 'one rate per layer group already')]:
        with pytest.raises(ValueError, match=match), mlp.no_bar(): mlp.fine_tune(2, cbs=cb)
        assert not moved(mlp, before) and trains(mlp) == now and len(mlp.cbs) == 4

def test_after_fine_tune_a_frozen_learner_is_nothing_special(mlp):
    with mlp.no_bar(): mlp.fine_tune(1)
    mlp.freeze()
    with pytest.raises(ValueError, match='n_epoch=1: expected at least 3'), mlp.no_bar(): mlp.fit(1, cbs=GradualUnfreezing())

def test_start_epoch_is_where_the_fit_would_have_been(mlp):
    watch = watched(mlp, GradualUnfreezing(), 5, start_epoch=3)
    assert watch.opened == [(0, 1, 2)]*2

@pytest.mark.parametrize('extra', [lambda: SaveModelCallback(), lambda: CSVLogger(), lambda: EarlyStoppingCallback(patience=20),
                                   lambda: GradientClip(), lambda: GradientAccumulation(12)],
                         ids=['save', 'csv', 'early', 'clip', 'accumulate'])
def test_beside_other_callbacks(clas, extra):
    watch = watched(clas, GradualUnfreezing(), 6, cbs=[DiscriminativeLR(), extra()])
    assert watch.opened == stages(GradualUnfreezing(), 5, 6) and all(m <= in_groups(clas, g) for m,g in zip(watch.moved, watch.opened))
    assert all(watch.moved)

def test_beside_the_graph(clas, monkeypatch):
    watch = Watch()
    clas.fit_one_cycle(5, 1e-2, cbs=[GradualUnfreezing(), watch, ShowGraphCallback()])
    assert watch.opened == stages(GradualUnfreezing(), 5, 5)

@pytest.mark.filterwarnings('ignore')
def test_in_mixed_precision(clas):
    clas.add_cb(MixedPrecision())
    assert watched(clas, GradualUnfreezing(), 6).opened == stages(GradualUnfreezing(), 5, 6)

def test_early_stopping_leaves_what_the_last_epoch_set(mlp):
    watch = watched(mlp, GradualUnfreezing(), 6, cbs=[EarlyStoppingCallback(min_delta=100., patience=1)])
    assert len(watch.opened) == 2 and trains(mlp) == [False, True, True]

def test_bn_freeze_sees_what_trains(tmp_path):
    learn = make_mlp(tmp_path, norm=True, train_bn=False)
    seen = []
    class Mode(Callback):
        order = 50
        def before_train(self): seen.append(self.model[3].training)
    watched(learn, GradualUnfreezing(), 4, cbs=[BnFreeze(), Mode()])
    assert seen == [False, True, True, True]

def test_train_bn_keeps_fastais_meaning(tmp_path):
    learn = make_mlp(tmp_path, norm=True)
    watch = watched(learn, GradualUnfreezing(), 5)
    assert watch.moved[0] == in_groups(learn, [2]) | {'3.weight', '3.bias'}
    learn = make_mlp(tmp_path, norm=True, train_bn=False)
    assert watched(learn, GradualUnfreezing(), 5).moved[0] == in_groups(learn, [2])

class TestByHand:
    "A parameter frozen by hand inside a group that otherwise trains stays frozen"
    def learner(self, tmp_path):
        learn = make_mlp(tmp_path)
        learn.create_opt()
        learn.model[2].bias.requires_grad_(False)
        return learn

    @pytest.mark.parametrize('cb', CBS.values(), ids=CBS)
    def test_in_a_fit_and_the_next(self, tmp_path, cb):
        learn = self.learner(tmp_path)
        bias = learn.model[2].bias.clone()
        for _ in range(2):
            watch = watched(learn, cb(), 6)
            assert watch.moved == [in_groups(learn, g)-{'2.bias'} for g in stages(cb(), 3, 6)]
        assert torch.equal(bias, learn.model[2].bias) and not learn.model[2].bias.requires_grad

    def test_after_a_fit_that_was_broken_off_while_its_group_was_shut(self, tmp_path):
        learn = self.learner(tmp_path)
        class Stop(Callback):
            def after_batch(self): raise KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt): watched(learn, GradualUnfreezing(), 5, cbs=[Stop()])
        assert trains(learn) == [False, False, True]
        assert watched(learn, GradualUnfreezing(), 5).moved[-1] == in_groups(learn, range(3))-{'2.bias'}

    def test_down_to_and_then_all(self, tmp_path):
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(down_to=2), 2)
        assert watched(learn, GradualUnfreezing(), 5).moved[-1] == in_groups(learn, range(3))-{'2.bias'}

    def test_a_second_one_does_not_hide_the_first(self, tmp_path):
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(down_to=2), 2)
        learn.model[4].bias.requires_grad_(False)
        assert watched(learn, GradualUnfreezing(), 5).moved[-1] == in_groups(learn, range(3))-{'2.bias', '4.bias'}

    def test_it_is_said_once(self, tmp_path):
        learn = self.learner(tmp_path)
        with pytest.warns(UserWarning, match=r'1 parameters are frozen in a layer group .* stay so \(2.bias\)') as said:
            watched(learn, GradualUnfreezing(), 5)
            watched(learn, GradualUnfreezing(), 5)
        assert len([w for w in said if 'stay so' in str(w.message)]) == 1

    def test_groups_that_fastai_froze_but_for_norm_layers_are_no_such_case(self, tmp_path):
        learn = make_mlp(tmp_path, norm=True)
        learn.freeze()
        learn.train_bn = False
        assert watched(learn, GradualUnfreezing(), 5, reset_opt=True).moved[-1] == in_groups(learn, range(3))

    def test_until_it_is_unfrozen(self, tmp_path):
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(down_to=2), 2)
        learn.unfreeze()
        assert watched(learn, GradualUnfreezing(), 5).moved[-1] == in_groups(learn, range(3))

    def test_until_it_is_unfrozen_though_frozen_by_fastai_since(self, tmp_path):
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(), 5)
        learn.unfreeze()
        learn.freeze()
        assert watched(learn, GradualUnfreezing(), 5).moved[-1] == in_groups(learn, range(3))

@pytest.mark.parametrize('make', [make_mlp, make_clas, make_lm])
def test_frozen_by_fastai_is_opened(tmp_path, make):
    learn = make(tmp_path)
    learn.freeze()
    watch = watched(learn, GradualUnfreezing())
    assert watch.moved[-1] == in_groups(learn, range(len(learn.opt.param_lists)))

def test_after_load_encoder(tmp_path):
    lm = make_lm(tmp_path)
    (tmp_path/'models').mkdir()
    lm.save_encoder('enc')
    learn = make_clas(tmp_path).load_encoder('enc')
    assert watched(learn, GradualUnfreezing(down_to=3), 4).moved[-1] == in_groups(learn, [3, 4])

def test_lookahead_leaves_shut_groups_alone_when_they_open_again(tmp_path):
    learn = make_mlp(tmp_path, opt_func=ranger)
    watch = watched(learn, ChainThaw(), 6, lr_max=1e-1)
    assert watch.moved == [in_groups(learn, g) for g in stages(ChainThaw(), 3, 6)]

def test_nothing_but_a_fit_changes_what_trains(clas, tmp_path):
    clas.add_cbs([GradualUnfreezing(), DiscriminativeLR()])
    clas.freeze_to(-2)
    now = trains(clas)
    with clas.no_bar():
        clas.validate(); clas.get_preds(); clas.get_preds(dl=clas.dls.valid); assert trains(clas) == now
        before = weights(clas)
        clas.lr_find(show_plot=False, num_it=10)
    assert trains(clas) == now and not moved(clas, before)

def test_predict_and_get_preds_in_the_middle_of_a_fit(mlp):
    class Peek(Callback):
        def after_epoch(self):
            if getattr(self, 'peeking', False): return
            self.peeking = True
            with self.learn.removed_cbs([self.learn.recorder]): self.learn.get_preds(inner=True)
            self.peeking = False
    assert watched(mlp, GradualUnfreezing(), 5, cbs=[Peek()]).opened == stages(GradualUnfreezing(), 3, 5)

@pytest.mark.filterwarnings('ignore')
def test_export_and_load(clas, tmp_path):
    clas.add_cbs([GradualUnfreezing(), DiscriminativeLR()])
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
    "Break off at an event of epoch 1"
    order = 1000
    def __init__(self, ex, where): self.ex,self.where = ex,where
    def __call__(self, event):
        if event == self.where and getattr(self.learn, 'training', False) and self.learn.epoch == 1: raise self.ex

EXCEPTIONS = dict(ctrl_c=KeyboardInterrupt, cancel_fit=CancelFitException, error=ZeroDivisionError)

@pytest.mark.parametrize('where', ['before_batch', 'after_backward', 'before_step', 'after_step', 'after_batch'])
@pytest.mark.parametrize('ex', EXCEPTIONS.values(), ids=EXCEPTIONS)
@pytest.mark.parametrize('make', [make_mlp, make_clas], ids=['mlp', 'clas'])
def test_a_fit_that_is_broken_off_leaves_the_learner_whole(tmp_path, make, ex, where):
    learn = make(tmp_path)
    n = len(learn.splitter(learn.model))
    cbs = list(learn.cbs)
    try: watched(learn, GradualUnfreezing(), cbs=[DiscriminativeLR(), Break(ex('x'), where)], lr_max=1e-2)
    except ex: pass
    assert set(learn.cbs) <= set(cbs) | {learn.progress} and not learn._grab_cbs((GradualUnfreezing, DiscriminativeLR))
    assert len({h['lr'] for h in learn.opt.hypers}) == 1
    assert all(p.grad is None for p in learn.model.parameters())
    assert trains(learn) == [False]*(n-2) + [True]*2 == (learn.layer_groups().training > 0).tolist()
    assert watched(learn, GradualUnfreezing()).moved[0] == in_groups(learn, [n-1])

@pytest.mark.parametrize('ex', [CancelEpochException, CancelTrainException])
def test_a_cancelled_epoch_changes_nothing_for_the_others(mlp, ex):
    watch = watched(mlp, GradualUnfreezing(), 5, cbs=[Break(ex(), 'before_batch')])
    assert watch.opened == stages(GradualUnfreezing(), 3, 5)

@pytest.mark.parametrize('event', ['before_fit', 'before_epoch', 'after_epoch'])
def test_validation_in_between_does_not_begin_it_anew(mlp, event):
    def look(cb):
        if not cb.learn.lock.locked(): cb.learn.validate()
    mlp.add_cb(type('Look', (Callback,), {event: look})())
    opened = []
    mlp.add_cb(type('Opened', (Callback,), dict(order=99, before_train=lambda self: opened.append(sum(trains(mlp)))))())
    with mlp.no_bar(): mlp.fit_one_cycle(4, 1e-2, cbs=GradualUnfreezing())
    assert opened == [1, 2, 3, 3]

@pytest.mark.parametrize('epochs', [(1, 2), np.array([1, 2]), map(int, '12')], ids=['tuple', 'array', 'map'])
def test_epochs_in_other_clothes(epochs):
    assert repr(cb := GradualUnfreezing(epochs)) == 'GradualUnfreezing(epochs=[1, 2], down_to=0)'
    assert [n for n,_ in cb.schedule(3)] == [n for n,_ in cb.schedule(3)] == [1, 2, 1]

BAD = [(GradualUnfreezing, dict(epochs=0), 'epochs=0'),
       (GradualUnfreezing, dict(epochs=-1), 'epochs=-1'),
       (GradualUnfreezing, dict(epochs=1.5), 'epochs=1.5'),
       (GradualUnfreezing, dict(epochs=[1, 0]), 'epochs=0'),
       (GradualUnfreezing, dict(epochs=True), 'epochs=True'),
       (GradualUnfreezing, dict(epochs='2'), "epochs='2'"),
       (GradualUnfreezing, dict(down_to=-1), 'down_to=-1'),
       (GradualUnfreezing, dict(down_to=.5), 'down_to=0.5'),
       (ChainThaw, dict(epochs=0), 'epochs=0'),
       (ChainThaw, dict(epochs=1.), 'epochs=1.0')]

@pytest.mark.parametrize('cls,kw,match', BAD)
def test_bad_arguments(cls, kw, match):
    with pytest.raises((ValueError, TypeError), match=f'{match}: expected'): cls(**kw)

BAD_FITS = [(GradualUnfreezing(), 2, r'n_epoch=2: expected at least 3, as GradualUnfreezing\(epochs=1, down_to=0\) takes 2 epochs'),
            (GradualUnfreezing(2), 4, 'expected at least 5'),
            (ChainThaw(), 3, 'expected at least 4'),
            (GradualUnfreezing([1]), 9, r'epochs=\[1\] has 1 values, expected 2'),
            (GradualUnfreezing([1]*3), 9, 'has 3 values, expected 2'),
            (GradualUnfreezing(down_to=3), 9, 'down_to=3: expected at most 2'),
            (GradualUnfreezing(), 0, 'n_epoch=0: expected'),
            (GradualUnfreezing(), -1, 'n_epoch=-1: expected'),
            (GradualUnfreezing(), 3.5, 'n_epoch=3.5: expected a whole number')]

@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('cb,n,match', BAD_FITS)
def test_bad_fits_change_nothing(mlp, cb, n, match, frozen):
    mlp.create_opt()
    if frozen: mlp.freeze()
    before,now = weights(mlp),trains(mlp)
    with pytest.raises((ValueError, TypeError), match=match): watched(mlp, cb, fit=mlp.fit, **{'n_epoch': n}) if n else mlp.fit(n, cbs=cb)
    assert not moved(mlp, before) and trains(mlp) == now and not mlp._grab_cbs(type(cb))

def test_an_optimiser_of_copies_is_refused(mlp):
    copies,refused = NonNativeMixedPrecision(),partial(pytest.raises, ValueError, match='NonNativeMixedPrecision .*to_fp16')
    with refused(): mlp.fit(3, cbs=[GradualUnfreezing, copies])
    with refused(): mlp.fit_plan(mlp.ulmfit_plan(3), cbs=copies)

def test_train_only_by_hand(clas):
    clas.create_opt()
    freeze_all_but(clas, [1, 4])
    assert trains(clas) == [False, True, False, False, True]

def test_a_refused_fit_changes_no_file(mlp):
    with mlp.no_bar(): mlp.fit(2, cbs=CSVLogger())
    before = (mlp.path/'history.csv').read_text()
    with pytest.raises(ValueError, match='n_epoch=1'), mlp.no_bar(): mlp.fit(1, cbs=[CSVLogger(), GradualUnfreezing()])
    assert (mlp.path/'history.csv').read_text() == before

@pytest.mark.parametrize('cbs', [[GradualUnfreezing(), ChainThaw()], [GradualUnfreezing, GradualUnfreezing],
                                 [DiscriminativeLR(), DiscriminativeLR(10)]], ids=str)
def test_two_that_decide_the_same_are_refused(mlp, cbs):
    with pytest.raises(ValueError, match='in one fit: expected one of them'), mlp.no_bar(): mlp.fit(5, cbs=cbs)
    mlp.add_cb(cbs[0])
    with pytest.raises(ValueError, match='in one fit: expected one of them'), mlp.no_bar(): mlp.fit(5, cbs=cbs[1])
