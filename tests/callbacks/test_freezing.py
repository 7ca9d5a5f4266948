"Frozen parameters stay the same bit for bit in every step and under every optimiser; those frozen by hand stay frozen"
from functools import partial

import pytest
import torch
from callbacks.watch import Steps, chain, gradual, names, watched
from conftest import MAKERS, GroupAnEpoch, in_groups, lr_find, make_clas, make_lm, make_mlp, moved, pairs, trains, weights
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.optimizer import SGD, Adam, OptimWrapper, ranger
from plan.restated import phase_ends
from torch import nn

from fastai_discrim.callbacks.freezing import freeze_all_but, frozen_norms, sync_lookahead
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing
from fastai_discrim.data_state import data_state, set_data_state
from fastai_discrim.groups.by_hand import BY_HAND
from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan

OPTS = dict(adam=Adam, sgd=partial(SGD, mom=0.9), ranger=ranger, torch=partial(OptimWrapper, opt=torch.optim.AdamW))

CBS = dict(gradual=GroupAnEpoch, chain=ChainThaw)

def by_epoch(cb, n_groups, n_epoch): return (gradual if cb is GroupAnEpoch else chain)(n_groups, n_epoch)

@pytest.mark.parametrize('make,opt,cb', pairs(MAKERS, OPTS, CBS))
def test_exactly_the_open_groups_move(tmp_path, make, opt, cb):
    learn = make(tmp_path, opt_func=opt, wd=0.1, train_bn=False) # so that frozen norm layers are frozen too
    # unfrozen: gradients of zeros, momentum and slow weights stay behind
    with learn.no_bar(): learn.fit(1, 1e-2)
    lr_find(learn, num_it=10)
    watch = watched(learn, cb(), lr_max=1e-2)
    n = len(learn.opt.param_lists)
    expected = by_epoch(cb, n, n+2)
    assert watch.opened == expected
    for epoch,(want,got) in enumerate(zip(names(learn, expected), watch.moved)): assert got == want, f'epoch {epoch}'

# Phases that begin and end in the middle of an epoch of 8 steps, and the groups that train in them
PHASES = {'gradual': (GradualUnfreezing, .3, [.3, .3, 1.4], [(2,), (1, 2), (0, 1, 2)]),
          'chain': (ChainThaw, .3, [.3, .3, .3, 1.1], [(2,), (0,), (1,), (0, 1, 2)])}

def as_plan(cb): return Plan([Phase(n, g, (1e-2,)*3) for n,g in cb.fill(3, 2)])

STEP_FITS = {
    'fit_one_cycle': lambda learn, cb, cbs: learn.fit_one_cycle(2, 1e-2, cbs=[cb, *cbs]),
    'fit_stlr': lambda learn, cb, cbs: learn.fit_stlr(2, 1e-2, cbs=[cb, *cbs]),
    'fit_plan': lambda learn, cb, cbs: learn.fit_plan(as_plan(cb), cbs=cbs),
    'fine_tune': lambda learn, cb, cbs: learn.fine_tune(2, 1e-2, freeze_epochs=1, cbs=[cb, *cbs])}

def by_step(epochs, groups):
    ends = phase_ends(epochs, 8)
    return [g for start,end,g in zip([0, *ends], ends, groups) for _ in range(start, end)]

def trained(learn):
    "Train unfrozen first, which leaves what moves frozen weights: gradients of zeros, momentum and slow weights"
    with learn.no_bar(),learn.no_logging(): learn.fit(1, 1e-2)
    return learn

@pytest.mark.parametrize('fit,opt,phases', pairs(STEP_FITS, OPTS, PHASES))
def test_exactly_the_open_groups_move_in_each_step(tmp_path, fit, opt, phases):
    cb,part,epochs,groups = phases
    learn,steps = trained(make_mlp(tmp_path, opt_func=opt, wd=.1)),Steps()
    with learn.no_bar(),learn.no_logging(): fit(learn, cb(part), [steps])
    want = [(2,)]*8*(fit is STEP_FITS['fine_tune']) + by_step(epochs, groups)
    assert steps.opened == want and steps.moved == names(learn, want)

@pytest.mark.parametrize('fit,opt,phases', pairs(STEP_FITS, OPTS, PHASES))
def test_accumulation_over_an_opening_moves_exactly_the_open_groups(tmp_path, fit, opt, phases):
    "A step takes three batches, and a group may be frozen or unfrozen between two of them"
    cb,part,epochs,groups = phases
    learn,steps = trained(make_mlp(tmp_path, opt_func=opt, wd=.1)),Steps()
    with learn.no_bar(),learn.no_logging(): fit(learn, cb(part), [GradientAccumulation(24), GradientClip(.5), steps])
    fits = [by_step(epochs, groups)]
    if fit is STEP_FITS['fine_tune']: fits.insert(0, [(2,)]*8)
    opened = [g for steps_of_fit in fits for g in steps_of_fit]
    assert steps.opened == opened
    assert steps.moved == [in_groups(learn, g) if i%3 == 2 else set() for steps_of_fit in fits for i,g in enumerate(steps_of_fit)]

class Grads(Callback):
    "Keep the gradient of one weight after each batch, and the part of it that this batch adds"
    run_valid,order = False,50
    def __init__(self, layer): self.layer,self.kept,self.single = layer,[],[]
    def after_backward(self):
        p = self.model[self.layer].weight
        self.kept.append(None if p.grad is None else p.grad.clone())
        # `GradientAccumulation` divides the loss of each batch by the 3 batches of a step
        loss = self.loss_func(self.model(self.x), self.y)/3
        self.single.append(torch.autograd.grad(loss, p)[0] if p.requires_grad else None)

@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
def test_a_group_that_opens_within_a_step_has_the_gradients_since_then(tmp_path, opt):
    "Steps follow batches 2 and 5, and the middle group opens at batch 4"
    learn,head,middle = make_mlp(tmp_path, opt_func=opt),Grads(4),Grads(2)
    with learn.no_bar(): learn.fit(1, 1e-2, cbs=[GradualUnfreezing(.5, down_to=1), GradientAccumulation(24), head, middle])
    assert [g is None for g in middle.kept] == [True]*4 + [False]*4
    for i in range(8): torch.testing.assert_close(head.kept[i], sum(head.single[i - i%3:i+1]), rtol=1e-4, atol=1e-6)
    for i in range(4, 8): torch.testing.assert_close(middle.kept[i], sum(middle.single[max(i - i%3, 4):i+1]), rtol=1e-4, atol=1e-6)

@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
def test_accumulation_that_ended_mid_window_moves_nothing_frozen(tmp_path, opt):
    learn = make_mlp(tmp_path, opt_func=opt, wd=0.1)
    with learn.no_bar(): learn.fit(1, 1e-2, cbs=[GradientAccumulation(40), GradualUnfreezing(1, down_to=2)]) # 8 batches of 8: 24 items wait
    assert all(p.grad is None for p in learn.model.parameters())
    stock = make_mlp(tmp_path, opt_func=opt, wd=0.1)
    with stock.no_bar(): stock.fit(1, 1e-2, cbs=GradientAccumulation(40))
    assert any(p.grad.abs().sum() > 0 for p in stock.model.parameters()), 'stock fastai no longer leaves gradients: drop this trap'
    watch = watched(stock, GradualUnfreezing(1), lr_max=1e-2, cbs=[GradientAccumulation(16)])
    assert watch.moved == names(stock, gradual(3, 5))

def test_stock_freezing_does_move_frozen_weights(mlp):
    "The problem in fastai itself: if this test fails, fastai has fixed it"
    with mlp.no_bar(): mlp.fit(1, 1e-2)
    mlp.freeze()
    before = weights(mlp)
    with mlp.no_bar(): mlp.fit(1, 1e-2, wd=.1)
    assert moved(mlp, before) - in_groups(mlp, [2])

def test_gradient_clip_ignores_frozen_parameters(tmp_path):
    learn,norms = make_mlp(tmp_path),[]
    with learn.no_bar(): learn.fit(1, 1e-2)
    for p in learn.model.parameters(): p.grad = torch.full_like(p, 1e6)
    class Norm(Callback):
        order = GradientClip.order-1
        def before_step(self): norms.append(max(p.grad.abs().max().item() for p in self.model.parameters() if p.grad is not None))
    watched(learn, GradualUnfreezing(1), lr_max=1e-2, cbs=[GradientClip(1e-3), Norm()])
    assert max(norms[len(learn.dls.train)//2:]) < 1e3

def test_train_bn_keeps_fastais_meaning(tmp_path):
    learn = make_mlp(tmp_path, norm=True)
    watch = watched(learn, GradualUnfreezing(1), 5)
    assert watch.moved[0] == in_groups(learn, [2]) | {'3.weight', '3.bias'}
    learn = make_mlp(tmp_path, norm=True, train_bn=False)
    assert watched(learn, GradualUnfreezing(1), 5).moved[0] == in_groups(learn, [2])

@pytest.mark.parametrize('make', [make_mlp, make_clas, make_lm])
def test_groups_that_fastai_froze_are_unfrozen(tmp_path, make):
    learn = make(tmp_path)
    learn.freeze()
    watch = watched(learn, GradualUnfreezing(1))
    assert watch.moved[-1] == in_groups(learn, range(len(learn.opt.param_lists)))

def test_after_load_encoder(tmp_path):
    lm = make_lm(tmp_path)
    (tmp_path/'models').mkdir()
    lm.save_encoder('enc')
    learn = make_clas(tmp_path).load_encoder('enc')
    assert watched(learn, GradualUnfreezing(1, down_to=3), 4).moved[-1] == in_groups(learn, [3, 4])

def test_lookahead_leaves_frozen_groups_alone_until_they_are_unfrozen(tmp_path):
    learn = make_mlp(tmp_path, opt_func=ranger)
    watch = watched(learn, ChainThaw(), 6, lr_max=1e-1)
    assert watch.moved == names(learn, chain(3, 6))

def test_freeze_all_but_by_hand(clas):
    clas.create_opt()
    freeze_all_but(clas, [1, 4])
    assert trains(clas) == [False, True, False, False, True]

class TestByHand:
    "A parameter frozen by hand inside a group that otherwise trains stays frozen"
    # SGD is left out, as it keeps the mark in the same state as Adam
    @pytest.fixture(autouse=True, params=[k for k in OPTS if k != 'sgd'])
    def opt(self, request): self.opt_func = OPTS[request.param]

    def learner(self, tmp_path):
        learn = make_mlp(tmp_path, opt_func=self.opt_func)
        learn.create_opt()
        learn.model[2].bias.requires_grad_(False)
        return learn

    @pytest.mark.parametrize('cb', CBS.values(), ids=CBS)
    def test_in_a_fit_and_the_next(self, tmp_path, cb):
        learn = self.learner(tmp_path)
        bias = learn.model[2].bias.clone()
        for _ in range(2):
            watch = watched(learn, cb(), 6)
            assert watch.moved == [in_groups(learn, g)-{'2.bias'} for g in by_epoch(cb, 3, 6)]
        assert torch.equal(bias, learn.model[2].bias) and not learn.model[2].bias.requires_grad

    def test_after_a_fit_that_was_interrupted_while_its_group_was_frozen(self, tmp_path):
        learn = self.learner(tmp_path)
        class Stop(Callback):
            def after_batch(self): raise KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt): watched(learn, GradualUnfreezing(1), 5, cbs=[Stop()])
        assert trains(learn) == [False, False, True]
        assert watched(learn, GradualUnfreezing(1), 5).moved[-1] == in_groups(learn, range(3))-{'2.bias'}

    def test_down_to_and_then_all(self, tmp_path):
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(1, down_to=2), 2)
        assert watched(learn, GradualUnfreezing(1), 5).moved[-1] == in_groups(learn, range(3))-{'2.bias'}

    def test_a_second_frozen_parameter_does_not_hide_the_first(self, tmp_path):
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(1, down_to=2), 2)
        learn.model[4].bias.requires_grad_(False)
        assert watched(learn, GradualUnfreezing(1), 5).moved[-1] == in_groups(learn, range(3))-{'2.bias', '4.bias'}

    def test_it_is_warned_of_once(self, tmp_path):
        learn = self.learner(tmp_path)
        with pytest.warns(UserWarning, match=r'1 parameters are frozen by hand, and stay so \(2.bias\)\. `learn.unfreeze') as said:
            watched(learn, GradualUnfreezing(1), 5)
            watched(learn, GradualUnfreezing(1), 5)
        assert len([w for w in said if 'stay so' in str(w.message)]) == 1

    def test_groups_that_fastai_froze_except_norm_layers_are_not_frozen_by_hand(self, tmp_path):
        learn = make_mlp(tmp_path, norm=True, opt_func=self.opt_func, wd_bn_bias=True, wd=.1)
        learn.freeze()
        learn.train_bn = False
        assert watched(learn, GradualUnfreezing(1), 5, reset_opt=True).moved[-1] == in_groups(learn, range(3))

    def test_until_it_is_unfrozen(self, tmp_path):
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(1, down_to=2), 2)
        learn.unfreeze()
        assert watched(learn, GradualUnfreezing(1), 5).moved[-1] == in_groups(learn, range(3))

    def test_until_it_is_unfrozen_though_frozen_by_fastai_since(self, tmp_path):
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(1), 5)
        learn.unfreeze()
        learn.freeze()
        assert watched(learn, GradualUnfreezing(1), 5).moved[-1] == in_groups(learn, range(3))

    @pytest.mark.parametrize('cb', [o[0] for o in PHASES.values()], ids=PHASES)
    def test_in_each_step(self, tmp_path, cb):
        learn,steps = self.learner(tmp_path),Steps()
        with learn.no_bar(): learn.fit(2, 1e-2, cbs=[cb(.3), steps])
        _,_,epochs,groups = next(o for o in PHASES.values() if o[0] is cb)
        assert steps.moved == [in_groups(learn, g)-{'2.bias'} for g in by_step(epochs, groups)]

    def test_freezing_by_fastai_removes_the_mark(self, tmp_path):
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(1), 5)
        assert not learn.model[2].bias.requires_grad and BY_HAND in str(learn.opt.state_dict())
        learn.unfreeze()
        assert BY_HAND not in str(learn.opt.state_dict())
        learn.freeze()
        with learn.no_bar(): learn.fit(1, 1e-2)
        learn.unfreeze()
        before = weights(learn)
        with learn.no_bar(): learn.fit(1, 1e-2)
        assert moved(learn, before) == in_groups(learn, range(3))

    def test_the_optimiser_is_saved_and_loaded_as_in_stock_fastai(self, tmp_path):
        "Load the optimiser, with its mark, in a learner without our callbacks: it continues like the saved one"
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(1), 5)
        learn.save('marked')
        other = make_mlp(tmp_path, opt_func=self.opt_func).load('marked')
        other.model[2].bias.requires_grad_(False)
        state = data_state(learn)
        for o in (learn, other):
            set_data_state(o, state)
            with o.no_bar(): o.fit_one_cycle(2, 1e-2)
        assert all(map(torch.equal, weights(learn).values(), weights(other).values()))
        # The mark is loaded with it
        other.model[2].bias.requires_grad_(True)
        watched(other, GradualUnfreezing(1, down_to=1), 3)
        assert other.model[2].bias.requires_grad
        again = make_mlp(tmp_path, opt_func=self.opt_func)
        again.create_opt()
        again.load('marked')
        again.model[2].bias.requires_grad_(False)
        again.opt.freeze_to(-1)
        assert watched(again, GradualUnfreezing(1), 5).moved[-1] == in_groups(again, range(3))-{'2.bias'}

    def test_a_fit_without_anything_of_ours_after_it(self, tmp_path):
        learn = self.learner(tmp_path)
        watched(learn, GradualUnfreezing(1), 5)
        before = weights(learn)
        with learn.no_bar(): learn.fit(1, 1e-2)
        assert moved(learn, before) == in_groups(learn, range(3))-{'2.bias'}
        learn.unfreeze()
        before = weights(learn)
        with learn.no_bar(): learn.fit(1, 1e-2)
        assert moved(learn, before) == in_groups(learn, range(3))

def test_which_norms_are_frozen():
    m = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(2, track_running_stats=False), nn.LayerNorm(2), nn.Sequential(nn.BatchNorm3d(2)),
                      nn.SyncBatchNorm(2), nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.InstanceNorm1d(2, affine=True))
    assert frozen_norms(m) == set()
    for p in m.parameters(): p.requires_grad_(False)
    # Those with running statistics
    assert frozen_norms(m) == {m[0], m[3][0], m[4], m[5]}

def test_a_norm_without_weights_is_frozen_with_its_module_or_with_the_layer_before_it():
    def _norm(): return nn.BatchNorm1d(2, affine=False)
    flat = nn.Sequential(nn.Linear(2, 2), _norm(), nn.Linear(2, 2), _norm(), nn.ReLU(), nn.Sequential(_norm()), nn.Linear(2, 2))
    flat[:2].requires_grad_(False)
    assert frozen_norms(flat) == {flat[1]}
    flat[2].requires_grad_(False)
    assert frozen_norms(flat) == {flat[1], flat[3], flat[5][0]}
    # The norm comes before the layer of its block
    blocks = nn.Sequential(*[nn.Sequential(nn.Sequential(_norm(), nn.Linear(2, 2))) for _ in range(3)])
    for i in range(2): blocks[i].requires_grad_(False)
    assert frozen_norms(blocks) == {blocks[0][0][0], blocks[1][0][0]}
    # A layer that trains in part counts as training
    flat.requires_grad_(True)
    flat[2].bias.requires_grad_(False)
    assert frozen_norms(flat) == set()
    alone = nn.Sequential(_norm(), nn.Linear(2, 2), nn.Linear(2, 2))
    alone[1].requires_grad_(False)
    assert frozen_norms(alone) == set()

def test_slow_weights_are_set_to_the_weights(tmp_path):
    learn = trained(make_mlp(tmp_path, opt_func=ranger))
    def lags(): return [not torch.equal(s, f) for ss,fs in zip(learn.opt.slow_weights, learn.opt.param_lists) for s,f in zip(ss, fs)]
    learn.model[0].requires_grad_(False)
    for p in learn.model.parameters(): p.data.add_(1)
    sync_lookahead(learn.opt, frozen=True)
    assert lags() == [False]*2 + [True]*4
    sync_lookahead(learn.opt)
    assert not any(lags())
    # Other optimisers have no slow weights
    sync_lookahead(trained(make_mlp(tmp_path)).opt)
