"The rates of a plan: the head's beside that of a body which trains, and how they fall"
import numpy as np
import pytest
from conftest import make_lm, make_mlp
from fastai.callback.training import GradientAccumulation
from torch import nn

from fastai_discrim.all import *
from fastai_discrim.search.body_prior import BATCH_NORM_LR


def found(lr): return HeadLR(lr, np.array([lr]), np.array([.5]), 'as told')

@pytest.fixture
def normed(tmp_path): return make_mlp(tmp_path, norm=True)

@pytest.fixture
def layer_normed(normed):
    normed.model[3] = nn.LayerNorm(8)
    return normed

def test_the_heads_rate_stays_near_that_of_a_body_that_trains(layer_normed):
    for lr,want in ((.5, 6e-4*2.6), (1e-3, 1e-3), (1e-5, 6e-4/2.6)):
        plan = layer_normed.ulmfit_plan(3, found(lr))
        assert plan.lr == pytest.approx(want) and plan.phases[0].lrs[1] == plan.body_lr == pytest.approx(6e-4)

def test_the_head_of_a_convolutional_network_trains_no_faster_than_its_body(normed):
    body_lr = BATCH_NORM_LR*(200/24)**.5
    for lr,want in ((.5, body_lr), (body_lr, body_lr), (2e-3, 2e-3), (1e-5, body_lr/2.6)):
        plan = normed.ulmfit_plan(3, found(lr))
        assert plan.lr == pytest.approx(want) and plan.phases[0].lrs[1] == plan.body_lr == pytest.approx(body_lr)
    assert normed.ulmfit_plan(3, found(.5)).lr_from == 'head_lr_find, as told: 5.0e-01, but at most the rate below it'
    assert normed.ulmfit_plan(3, found(1e-5)).lr_from == 'head_lr_find, as told: 1.0e-05, but at least 1/2.6 of the rate below it'

def test_a_transformers_rate_is_doubled_in_a_short_fit_only_if_that_of_the_head_was_found(layer_normed):
    "24 steps, in which the rates rise for 10; below a rate of the user's, the paper's tenth would be too short for twice the rate"
    ours,users = layer_normed.ulmfit_plan(3, found(1e-2)),layer_normed.ulmfit_plan(3, 1e-2)
    assert ours.body_lr == pytest.approx(6e-4) and ours.phases[0].sched.cut_frac == pytest.approx(10/24)
    assert users.body_lr == pytest.approx(3e-4) and users.phases[0].sched.cut_frac == .1

def test_each_cycle_of_a_short_fit_rises_for_as_many_steps(layer_normed):
    plan = layer_normed.ulmfit_plan(6, found(1e-2), epochs=[1, 2])
    assert [p.sched.cut_frac for p in plan.phases] == pytest.approx([.5, .5, 10/24])
    assert len({p.sched.cut_frac for p in layer_normed.ulmfit_plan(8, found(1e-2), epochs=[1, 2]).phases}) == 1

@pytest.mark.parametrize('lr', [.5, 1e-5])
def test_the_head_alone_keeps_the_rate_that_was_found(normed, lr):
    plans = [normed.ulmfit_plan(3, found(lr), **kw) for kw in (dict(down_to=2), dict(down_to=2, gradual=False))]
    for p in normed.model[:-1].parameters(): p.requires_grad_(False)
    plans.append(normed.ulmfit_plan(3, found(lr)))
    for plan in plans: assert plan.lr == plan.phases[0].lrs[-1] == lr and plan.lr_from == 'head_lr_find, as told'

def test_no_rate_is_searched_for_a_body_that_does_not_train(normed):
    plan = normed.ulmfit_plan(3, found(.5), down_to=2)
    with normed.no_bar(): res = normed.body_lr_find(3, found(.5), down_to=2)
    assert res.lr == plan.body_lr and res.lrs.size == 0 and res.how == plan.body_lr_from

FALLS = [({}, 2.6), (dict(factor=4), 4), (dict(factor=2), 2.6), (dict(decay=.2), 5), (dict(span=100), 100**.5)]

@pytest.mark.parametrize('kw,ratio', FALLS)
def test_a_larger_ratio_of_the_user_is_the_limit(layer_normed, kw, ratio):
    plan = layer_normed.ulmfit_plan(3, found(.9), **kw)
    assert plan.lr == pytest.approx(plan.body_lr*ratio) and f': 9.0e-01, but at most {ratio:.3g} times the rate below' in plan.lr_from

@pytest.mark.parametrize('kw,ratio', [({}, 1), (dict(factor=1), 1), (dict(factor=2), 2), (dict(decay=.2), 5)])
def test_the_same_holds_for_a_convolutional_network(normed, kw, ratio):
    plan = normed.ulmfit_plan(3, found(.9), **kw)
    assert plan.lr == pytest.approx(plan.body_lr*ratio)

@pytest.mark.parametrize('kw,ratio', [({}, '2.6'), (dict(factor=4), '4'), (dict(decay=.8), '1.25')])
def test_what_body_lr_find_returns_without_a_search_changes_no_rate(tmp_path, kw, ratio):
    lm = make_lm(tmp_path)
    # Of these, x/2.6*2.6 is below x for some
    for lr in np.geomspace(1e-4, 1, 30):
        res = lm.body_lr_find(2, found(float(lr)), show_plot=False, **kw)
        assert res.how == f"1/{ratio} of the head's"
        plan = lm.ulmfit_plan(2, found(float(lr)), res, **kw)
        assert plan.lr == lr and plan.lr_from == 'head_lr_find, as told'
        np.testing.assert_allclose(plan.phases[0].lrs, lm.ulmfit_plan(2, found(float(lr)), **kw).phases[0].lrs, rtol=1e-12)

def test_steps_are_counted_not_batches(tmp_path):
    "Four batches of 8 in each step"
    learn,same = make_mlp(tmp_path, n=256, norm=True, cbs=GradientAccumulation(32)),make_mlp(tmp_path, n=64, norm=True)
    assert learn.ulmfit_plan(3, found(1e-2)).body_lr == same.ulmfit_plan(3, found(1e-2)).body_lr
