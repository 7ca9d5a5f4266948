"`ulmfit_plan` and `fit_ulmfit`: the paper's sequence, with any schedule and any strategy"
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import MAKERS, in_turn, make_mlp, same, snapshot
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import set_seed
from plan.falls import ODD_FALLS
from plan.restated import assert_ran
from torch import nn

from fastai_discrim.callbacks.batch_norms import DebiasBatchNorm
from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing, Unfreezing
from fastai_discrim.groups.split import layerwise_split
from fastai_discrim.plan.origin import HeadLR
from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.rates import discriminative_lrs
from fastai_discrim.plan.schedules import STLR, CLRBeta, Cos, Flat, OneCycle, Schedule

PLAN_ARGS = [{}, dict(epochs=2), dict(factor=1.5, cut_frac=.3, ratio=7), dict(gradual=True), dict(gradual=False), dict(down_to=1),
             dict(epochs=.25), dict(epochs=1), dict(epochs=1.5)]

# Slower models run only arguments that change the kind of plan
@pytest.mark.parametrize('name,kw', [*(('mlp', kw) for kw in PLAN_ARGS), *(('clas', kw) for kw in PLAN_ARGS[::3]),
                                     *(('lm', kw) for kw in ({}, dict(gradual=True), dict(gradual=True, epochs=.25)))], ids=str)
def test_ulmfit_plans_run_as_planned(tmp_path, name, kw):
    learn = MAKERS[name](tmp_path, n=24)
    plan = learn.ulmfit_plan(10, 1e-2, **kw)
    with learn.no_bar(): learn.fit_plan(plan)
    assert_ran(learn, plan)
    assert not hasattr(learn, 'phase') and len(learn.recorder.values) == 10

def test_ulmfit_plan_of_a_classifier(clas):
    plan = clas.ulmfit_plan(7, 1e-2, epochs=1)
    lrs = tuple(discriminative_lrs(1e-2, 5))
    assert plan == Plan([Phase(1, tuple(range(i, 5)), lrs) for i in (4, 3, 2, 1)] + [Phase(3, tuple(range(5)), lrs)])
    assert plan.names == ('encoder', 'rnns.0', 'rnns.1', 'rnns.2', 'head') and clas.ulmfit_plan(7).phases[0].lrs[-1] == clas.lr

def test_ulmfit_plan_of_a_language_model_opens_everything(lm):
    assert lm.ulmfit_plan(3, 4e-3) == Plan([Phase(3, (0, 1, 2, 3), discriminative_lrs(4e-3, 4))])

def test_the_papers_share_of_a_fit(clas, monkeypatch):
    "4 of 50 epochs for the four groups below the head: at 50 epochs exactly one each"
    def lengths(plan): return [(p.epochs, p.groups) for p in plan.phases]
    monkeypatch.setattr(type(clas.dls.train), '__len__', lambda dl: 10)
    assert lengths(clas.ulmfit_plan(50, 1e-2)) == lengths(clas.ulmfit_plan(50, 1e-2, epochs=1))
    short = clas.ulmfit_plan(5, 1e-2)
    assert [p.epochs for p in short.phases] == pytest.approx([.1]*4 + [4.6], rel=1e-12) and short.n_epoch == 5
    assert [p.groups for p in short.phases] == [p.groups for p in clas.ulmfit_plan(5, 1e-2, epochs=1).phases]

@pytest.mark.parametrize('n_epoch', [5, 50])
def test_layers_open_within_the_rise_of_one_cycle(clas, n_epoch):
    plan = clas.ulmfit_plan(n_epoch, 1e-2)
    assert [p.sched for p in plan.phases] == [STLR(), *[None]*(len(plan.phases)-1)]
    assert plan == clas.ulmfit_plan(n_epoch, 1e-2).under(STLR(), whole=True)
    lrs = plan.lrs(100)[:,-1]
    assert lrs.argmax() == n_epoch*10 and plan.lrs(100)[lrs.argmax()].all()
    moms = .8, .7, .8
    assert clas.ulmfit_plan(n_epoch, 1e-2, moms=moms).phases[0].moms == moms

@pytest.mark.parametrize('n_epoch', [1, 2, 3, 7])
@pytest.mark.parametrize('n_groups', [2, 3, 13])
def test_any_number_of_epochs_for_any_number_of_groups(tmp_path, n_epoch, n_groups):
    "Each phase has a step, the head the first one, and apart from that step the opening is no longer than the paper's"
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(n_groups)])
    learn = Learner(make_mlp(tmp_path).dls, model, splitter=layerwise_split, loss_func=CrossEntropyLossFlat())
    plan,n_iter = learn.ulmfit_plan(n_epoch, 1e-2),len(learn.dls.train)
    lrs = plan.lrs(n_iter)
    assert plan.phases[0].groups == (n_groups-1,) and plan.phases[-1].groups == tuple(range(n_groups))
    assert (lrs == 0).any(1).sum() == max(1, round(4/50*n_epoch*n_iter))
    with learn.no_bar(): learn.fit_plan(plan)
    assert_ran(learn, plan)

def test_a_fit_of_one_step(tmp_path):
    learn = make_mlp(tmp_path, n=8)
    learn.dls.train.n = learn.dls.train.bs
    assert len(learn.dls.train) == 1
    assert [p.groups for p in learn.ulmfit_plan(1, 1e-2).phases] == [(0, 1, 2)]
    assert [p.groups for p in learn.ulmfit_plan(2, 1e-2).phases] == [(2,), (0, 1, 2)]

def test_early_stop_of_a_cycle_over_the_whole_fit(mlp):
    stop = EarlyStop(2)
    assert [p.early_stop for p in mlp.ulmfit_plan(6, 1e-2, early_stop=stop).phases][-1] == stop
    assert [p.early_stop for p in mlp.ulmfit_plan(50, 1e-2, early_stop=stop).phases] == [None, None, stop]

@pytest.mark.parametrize('epochs', [1, 2, .5, [1], (1, 1), np.array([1, 2])], ids=str)
def test_epochs_without_phases_to_spread_them_over(mlp, epochs):
    for call in (mlp.ulmfit_plan, mlp.fit_ulmfit):
        with pytest.raises(ValueError, match='epochs=.* with gradual=False'): call(3, gradual=False, epochs=epochs)
    with pytest.raises(ValueError, match='epochs=0'): mlp.ulmfit_plan(3, 1e-2, gradual=False, epochs=[0])

@pytest.mark.parametrize('call', ['ulmfit_plan', 'fit_ulmfit', 'body_lr_find'])
def test_a_training_set_without_a_length_is_refused(mlp, monkeypatch, call):
    monkeypatch.delattr(DataLoader, '__len__')
    with pytest.raises(TypeError, match="the training set doesn't say how many batches it has"): getattr(mlp, call)(3, 1e-2)

def test_groups_that_would_train_are_frozen_by_hand(mlp):
    for p in mlp.model[-1].parameters(): p.requires_grad_(False)
    for kw in ({}, dict(gradual=False)):
        with pytest.raises(ValueError, match=r'all groups that would train, \[2\], are frozen by hand'):
            mlp.ulmfit_plan(3, 1e-2, down_to=2, **kw)

def test_planning_changes_nothing(clas):
    before = snapshot(clas)
    clas.ulmfit_plan(7, 1e-2).plot()
    assert same(before, snapshot(clas)) and clas.opt is None

def test_where_the_heads_rate_came_from_is_kept_with_the_plan(clas):
    found = HeadLR(1e-2, [1e-2], [.5], 'as <told>')
    plan = clas.ulmfit_plan(6, found, body_lr=1e-2/2.6)
    assert plan.lr_from == 'head_lr_find, as <told>'
    assert clas.ulmfit_plan(6, found, body_lr=1e-2/2.6, factor=2.6, cut_frac=.1) == clas.ulmfit_plan(6, 1e-2)
    assert 'η_L = 0.01, head_lr_find, as <told>' in repr(plan) and 'as &lt;told&gt;' in plan._repr_html_()
    assert Plan.from_json(plan.to_json()).lr_from == plan.lr_from
    assert clas.ulmfit_plan(6).lr_from == 'learn.lr' and clas.ulmfit_plan(6, 1e-2).lr_from == 'given'
    assert 'lr = 0.02, given' in repr(Plan(plan.phases, lr=.02, lr_from='given'))
    old = json.loads(plan.to_json())
    del old['lr_from']
    assert Plan.from_json(json.dumps(old)) == plan and 'η_L' not in repr(Plan(plan.phases))

def test_phases_that_end_within_an_epoch_do_not_end_early(mlp):
    stop = EarlyStop(2)
    plan = mlp.ulmfit_plan(6, 1e-2, epochs=[.5, 1.5], early_stop=stop)
    assert [p.early_stop for p in plan.phases] == [None, stop, stop]

def test_a_rate_of_the_body(mlp):
    plan = mlp.ulmfit_plan(3, 1e-2, body_lr=1e-3, factor=10)
    assert plan.phases[0].lrs == (1e-4, 1e-3, 1e-2) and plan.body_lr == 1e-3 and plan.body_lr_from == 'given'
    assert '; body 0.001, given' in repr(plan) and 'body' not in repr(mlp.ulmfit_plan(3, 1e-2))
    with mlp.no_bar(): mlp.fit_ulmfit(3, 1e-2, body_lr=1e-3, factor=10)
    assert_ran(mlp, plan)
    for body_lr in (0, -1, '1e-3', True):
        for lr in (1e-2, HeadLR(1e-2, [], [], '')):
            with pytest.raises((ValueError, TypeError), match='^body_lr=.*: expected'): mlp.ulmfit_plan(3, lr, body_lr=body_lr)

@dataclass(frozen=True)
class Stairs(Schedule):
    "A schedule of a user: half of the peak rate, then a quarter"
    def scheds(self, lrs, moms): return {'lr': lambda pos: lrs*(.5 if pos < .5 else .25), 'mom': lambda pos: moms[1]}

class Backwards(Unfreezing):
    "A strategy of a user: from the input to the head"
    def schedule(self, n_groups, n_epoch): return [(.5, (i,)) for i in range(n_groups-1)] + [(0, (n_groups-1,))]

SCHEDS = [STLR(), STLR(.3, 7), CLRBeta(), OneCycle(), Cos(), Cos(.05), Flat(), Stairs()]
STRATEGIES = {
    'gradual': (GradualUnfreezing(1), lambda n, e: [(1, (2,)), (1, (1, 2)), (e-2, (0, 1, 2))]),
    'down to': (GradualUnfreezing(2, down_to=1), lambda n, e: [(2, (2,)), (e-2, (1, 2))]),
    'quarters': (GradualUnfreezing(.25), lambda n, e: [(.25, (2,)), (.25, (1, 2)), (e-.5, (0, 1, 2))]),
    'chain': (ChainThaw(), lambda n, e: [(1, (2,)), (1, (0,)), (1, (1,)), (e-3, (0, 1, 2))]),
    'chain of halves': (ChainThaw(.5), lambda n, e: [(.5, (2,)), (.5, (0,)), (.5, (1,)), (e-1.5, (0, 1, 2))]),
    'own': (Backwards(), lambda n, e: [(.5, (0,)), (.5, (1,)), (e-1, (2,))])}

# `fit_ulmfit` runs what `ulmfit_plan` gives
HOW = dict(plan='plan', fit='fit')

@pytest.mark.parametrize('sched,how', in_turn({str(s): s for s in SCHEDS}, HOW))
def test_any_schedule(mlp, sched, how):
    want = Plan([Phase(n, g, discriminative_lrs(1e-2, 3), sched) for n,g in STRATEGIES['gradual'][1](3, 4)])
    with mlp.no_bar():
        if how == 'fit': mlp.fit_ulmfit(4, 1e-2, sched=sched, epochs=1)
        else: mlp.fit_plan(mlp.ulmfit_plan(4, 1e-2, sched=sched, epochs=1))
    assert mlp.recorder.plan == want
    if type(sched) is not Stairs: return assert_ran(mlp, want)
    np.testing.assert_allclose(mlp.recorder.group_lrs[:,2], np.repeat([.5, .25, .5, .25, .5, .25], [4, 4, 4, 4, 8, 8])*1e-2, rtol=1e-12)

@pytest.mark.parametrize('strategy,how', in_turn(STRATEGIES, HOW))
def test_any_strategy(mlp, strategy, how):
    strategy,phases = strategy
    want = Plan([Phase(n, g, discriminative_lrs(1e-2, 3)) for n,g in phases(3, 4)])
    with mlp.no_bar():
        if how == 'fit': mlp.fit_ulmfit(4, 1e-2, unfreezing=strategy)
        else: mlp.fit_plan(mlp.ulmfit_plan(4, 1e-2, unfreezing=strategy))
    assert mlp.recorder.plan == want and Plan.from_json(want.to_json()) == want
    assert_ran(mlp, want)

def test_a_strategy_unfreezes_a_language_model_gradually(lm):
    assert len(lm.ulmfit_plan(5, 1e-2).phases) == 1 and len(lm.ulmfit_plan(5, 1e-2, unfreezing=GradualUnfreezing(1)).phases) == 4
    for epochs in (None, .5, 1):
        assert lm.ulmfit_plan(5, 1e-2, unfreezing=GradualUnfreezing(epochs)) == lm.ulmfit_plan(5, 1e-2, epochs=epochs, gradual=True)

def test_a_record_of_any_schedule_and_strategy(mlp):
    "The plan from the record of a run runs again with the same result"
    with mlp.no_bar(): mlp.fit_ulmfit(4, 1e-2, sched=CLRBeta(8, 20), unfreezing=ChainThaw(.5), min_scale=.1)
    before = mlp.recorder.group_lrs
    d = json.loads(mlp.recorder.save_run().read_text())
    assert d['plan']['version'] == 2 and [p['epochs'] for p in d['plan']['phases']] == [.5, .5, .5, 2.5]
    assert d['plan']['phases'][0]['sched'] == {'name': 'CLRBeta', 'div': 8, 'pct': 20} and d['finished']
    plan = Plan.from_json((mlp.path/'run.json').read_text())
    assert plan == mlp.recorder.plan
    with mlp.no_bar(): mlp.fit_plan(plan)
    np.testing.assert_array_equal(mlp.recorder.group_lrs, before)

@pytest.mark.parametrize('kw', [dict(sched=Cos()), dict(unfreezing=ChainThaw(.5)), dict(epochs=.25),
                                dict(sched=Flat(), unfreezing=ChainThaw())], ids=str)
def test_the_rate_is_searched_for_under_any_schedule_and_strategy(mlp, kw):
    with mlp.no_bar(), mlp.no_logging(): mlp.fit_ulmfit(4, **kw)
    plan = mlp.recorder.plan
    assert plan.lr_from.startswith('head_lr_find') and plan.body_lr_from.startswith('body_lr_find')
    assert plan == mlp.ulmfit_plan(4, plan.lr, plan.body_lr, **kw)
    assert_ran(mlp, plan)

CONFLICTS = {
    'cut_frac': (dict(sched=STLR(), cut_frac=.2),
                 r'^cut_frac=0.2 with sched=STLR\(.*\): expected one of the two ways; leave them out, or set the shape in `sched`'),
    'ratio': (dict(sched=OneCycle(), ratio=20), r'^ratio=20 with sched=OneCycle'),
    'epochs': (dict(unfreezing=ChainThaw(), epochs=2),
               r'^epochs=2 with unfreezing=ChainThaw\(epochs=1\): expected one of the two ways; give them to the strategy'),
    'a fraction': (dict(unfreezing=ChainThaw(), epochs=.5), r'^epochs=0.5 with'),
    'list': (dict(unfreezing=ChainThaw(), epochs=[1, 1]), r'^epochs=\[1, 1\] with'),
    'array': (dict(unfreezing=ChainThaw(), epochs=np.array([1, 1])), r'^epochs=.* with'),
    'down_to': (dict(unfreezing=GradualUnfreezing(), down_to=1), r'^down_to=1 with unfreezing=GradualUnfreezing'),
    'both': (dict(unfreezing=ChainThaw(), epochs=2, down_to=1), r'^epochs=2 and down_to=1 with'),
    'not gradual': (dict(unfreezing=GradualUnfreezing(), gradual=False),
                    r'^unfreezing=GradualUnfreezing.* with gradual=False.*: expected one of the two'),
    'factor and decay': (dict(factor=2.6, decay=.9), 'factor=2.6 and decay=0.9: expected one of them'),
    'factor and span': (dict(factor=2.6, span=9), 'factor=2.6 and span=9: expected one of them'),
    'no schedule': (dict(sched='cos'), r"sched='cos': expected a Schedule, such as STLR\(\) or OneCycle\(\)"),
    'a class of schedules': (dict(sched=OneCycle), r'sched=.*: expected a Schedule'),
    'no strategy': (dict(unfreezing=2), r'unfreezing=2: expected a strategy, such as GradualUnfreezing\(\) or ChainThaw\(\)'),
    'a class of strategies': (dict(unfreezing=ChainThaw), r'unfreezing=.*: expected a strategy'),
    'another callback': (dict(unfreezing=DiscriminativeLR()), r'unfreezing=.*: expected a strategy'),
    'few epochs': (dict(unfreezing=ChainThaw(2)), r'n_epoch=4: expected at least 7, as ChainThaw\(epochs=2\) takes 6 epochs')}

@pytest.mark.parametrize('call', ['ulmfit_plan', 'fit_ulmfit'])
@pytest.mark.parametrize('lr', [1e-2, None])
@pytest.mark.parametrize('kw,match', CONFLICTS.values(), ids=CONFLICTS)
def test_contradicting_arguments_are_refused(mlp, call, lr, kw, match):
    mlp.create_opt()
    before,state = snapshot(mlp),torch.get_rng_state()
    with pytest.raises((ValueError, TypeError), match=match): getattr(mlp, call)(4, lr, **kw)
    assert same(before, snapshot(mlp)) and torch.equal(state, torch.get_rng_state())

REFUSED = {
    'few epochs': (lambda l: l.ulmfit_plan(2, 1e-2, epochs=1), 'n_epoch=2: expected at least 3'),
    'a plan': (lambda l: l.fit_ulmfit(l.ulmfit_plan(3, 1e-2)), 'n_epoch is a Plan: .*`learn.fit_plan\\(plan\\)` runs a plan'),
    "the body's rate": (lambda l: l.ulmfit_plan(3, l.body_lr_find(3, 1e-2, show_plot=False)), 'lr=BodyLR.*: expected the rate of the head'),
    'epochs for rates': (lambda l: l.head_lr_find(4), 'lrs=4: expected rates to try, .*give epochs as `n_epoch=4`'),
    'few in a fit': (lambda l: l.fit_ulmfit(2, epochs=1), 'n_epoch=2: expected at least 3'),
    'no epochs': (lambda l: l.fit_ulmfit(0, 1e-2), 'n_epoch=0'),
    'half an epoch': (lambda l: l.ulmfit_plan(3.5, 1e-2), 'n_epoch=3.5'),
    'too long a fraction': (lambda l: l.ulmfit_plan(3, 1e-2, epochs=1.5), 'n_epoch=3: expected more than 3'),
    **{f'epochs {n}': (lambda l, n=n: l.fit_ulmfit(9, epochs=n), 'epochs=') for n in (0, -1, float('nan'), True, '1', [1, 0])},
    **{f'lr {lr}': (lambda l, lr=lr: l.fit_ulmfit(3, lr), 'lr=')
       for lr in (-1, 0, float('nan'), float('inf'), True, '1e-3', slice(1e-3), [1e-3]*3)},
    **{f'factor {f}': (lambda l, f=f: l.fit_ulmfit(3, factor=f), 'factor=') for f in (0, -1, float('nan'))},
    'cut_frac': (lambda l: l.fit_ulmfit(3, cut_frac=1), 'cut_frac=1'),
    'ratio': (lambda l: l.fit_ulmfit(3, ratio=.5), 'ratio=0.5'),
    'epochs': (lambda l: l.fit_ulmfit(9, epochs=[1]), 'epochs='),
    'down_to': (lambda l: l.fit_ulmfit(9, down_to=3), 'down_to=3: expected at most 2 for 3 layer groups'),
    'down_to of all': (lambda l: l.fit_ulmfit(9, down_to=3, gradual=False), 'down_to=3: expected at most 2 for 3 layer groups'),
}

@pytest.mark.parametrize('call,match', REFUSED.values(), ids=REFUSED)
def test_refused_before_anything_changes(mlp, call, match):
    mlp.create_opt()
    before,state = snapshot(mlp),torch.get_rng_state()
    with pytest.raises((ValueError, TypeError), match=match): call(mlp)
    assert same(before, snapshot(mlp)) and torch.equal(state, torch.get_rng_state())

PLANS = {'plan': lambda learn, **kw: learn.ulmfit_plan(3, 1e-2, **kw), 'fit_ulmfit': lambda learn, **kw: learn.fit_ulmfit(3, 1e-2, **kw)}

@pytest.mark.parametrize('call', PLANS.values(), ids=PLANS)
@pytest.mark.parametrize('kw,match', ODD_FALLS.values(), ids=ODD_FALLS)
def test_bad_falls_are_refused(mlp, call, kw, match):
    with pytest.raises((ValueError, TypeError), match=match): call(mlp, **kw)

@pytest.mark.parametrize('kw', [dict(span=100), dict(decay=.8), dict(min_scale=.2), dict(factor=4, min_scale=.1)])
def test_rates_of_callback_and_plan_are_those_of_discriminative_lrs(tmp_path, kw):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    set_seed(5)
    with a.no_bar(),a.no_logging(): a.fit_stlr(2, 1e-2, cbs=DiscriminativeLR(**kw))
    set_seed(5)
    with b.no_bar(),b.no_logging(): b.fit_ulmfit(2, 1e-2, gradual=False, **kw)
    assert np.allclose(a.recorder.group_lrs, b.recorder.group_lrs, rtol=1e-12)
    assert np.allclose(b.recorder.group_lrs.max(0)/b.recorder.group_lrs.max(), discriminative_lrs(1., 3, **kw), rtol=1e-12)
    assert b.recorder.plan.phases[0].lrs == tuple(discriminative_lrs(1e-2, 3, **kw))

def test_a_plan_says_how_low_the_lowest_rate_is(tmp_path):
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(13)])
    learn = Learner(make_mlp(tmp_path).dls, model, splitter=layerwise_split, loss_func=CrossEntropyLossFlat())
    plan = learn.ulmfit_plan(13, 1e-2, factor=2.6)
    assert f'; the lowest is 1/{2.6**12:,.0f} of the highest: `min_scale`, `span` or `decay` raise it' in repr(plan)
    for kw in (dict(min_scale=.01), dict(span=100), dict(decay=.8), dict(factor=2.6, down_to=9), {}):
        assert 'lowest' not in repr(learn.ulmfit_plan(13, 1e-2, **kw))

def test_a_recurrent_body_has_one_rate_if_it_is_found(clas):
    found,body_lr = HeadLR(5e-3, np.array([5e-3]), np.array([.5]), 'as told'),8**.5/1000
    plan = clas.ulmfit_plan(6, found)
    assert plan.phases[0].lrs == pytest.approx([*[body_lr]*4, 5e-3])
    assert (plan.body_lr, plan.body_lr_from) == (body_lr, 'what is usual for recurrent networks in batches of 8')
    # A lower bound of the rates only raises them
    assert clas.ulmfit_plan(6, found, min_scale=1e-4) == plan
    # The user decides how they fall
    assert clas.ulmfit_plan(6, found, factor=2.6).phases[0].lrs == pytest.approx([*(body_lr/2.6**i for i in (3, 2, 1, 0)), 5e-3])
    assert clas.ulmfit_plan(6, found, span=8).phases[0].lrs[0] == pytest.approx(body_lr/8)

def test_a_recurrent_body_has_the_papers_rates_if_the_user_chooses_that_of_the_head(clas):
    papers = [1e-2/2.6**i for i in (4, 3, 2, 1, 0)]
    found = clas.body_lr_find(6, 1e-2, show_plot=False)
    for body_lr in (None, found, found.lr):
        phase = clas.ulmfit_plan(6, 1e-2, body_lr).phases[0]
        assert phase.lrs == pytest.approx(papers) and phase.sched == STLR()

def test_the_rates_of_a_recurrent_body_rise_for_longer_if_they_are_found(clas, lm, mlp):
    found = HeadLR(5e-3, np.array([5e-3]), np.array([.5]), 'as told')
    def _sched(learn, *args, **kw): return learn.ulmfit_plan(6, *args, **kw).phases[0].sched
    assert all(_sched(clas, found, **kw) == STLR(.5) for kw in ({}, dict(epochs=1), dict(gradual=False), dict(body_lr=4e-3)))
    assert _sched(clas, found, ratio=8) == STLR(.5, 8)
    assert _sched(clas, 1e-2) == _sched(lm, found) == _sched(mlp, found) == STLR()
    # The user decides
    assert _sched(clas, found, cut_frac=.1) == STLR() and _sched(clas, found, sched=OneCycle()) == OneCycle()

@pytest.mark.parametrize('n_groups,factor', [(3, 2.6), (5, 2.6), (6, 1/.9), (13, 1/.9)])
def test_rates_of_deep_models_fall_slowly(tmp_path, n_groups, factor):
    "The paper's ratio is that of the head to the group below it, for any number of groups"
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(n_groups)])
    learn = Learner(make_mlp(tmp_path).dls, model, splitter=layerwise_split, loss_func=CrossEntropyLossFlat())
    plan = learn.ulmfit_plan(3, 1e-2)
    assert plan.phases[0].lrs == tuple(discriminative_lrs(1e-2, n_groups, factor, body_lr=1e-2/2.6))
    assert plan.phases[0].lrs[-2] == 1e-2/2.6 and plan.body_lr_from == ("1/2.6 of the head's" if n_groups > 5 else '')
    for kw in (dict(factor=3), dict(factor=2.6, min_scale=.1), dict(span=100), dict(decay=.8)):
        assert learn.ulmfit_plan(3, 1e-2, **kw).phases[0].lrs == tuple(discriminative_lrs(1e-2, n_groups, **kw))
    # A lower bound only raises rates
    assert learn.ulmfit_plan(3, 1e-2, min_scale=1e-4).phases[0].lrs == plan.phases[0].lrs
    lowest = .3*(plan.body_lr or 1e-2)
    assert learn.ulmfit_plan(3, 1e-2, min_scale=.3).phases[0].lrs == pytest.approx(np.maximum(plan.phases[0].lrs, lowest))

def test_a_slow_fall_is_only_the_default(tmp_path):
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(8)])
    learn = Learner(make_mlp(tmp_path).dls, model, splitter=layerwise_split, loss_func=CrossEntropyLossFlat())
    found = HeadLR(1e-2, [1e-2], [1.], 'as told')
    assert learn.ulmfit_plan(3, found).phases[0].lrs == tuple(discriminative_lrs(1e-2, 8, 1/.9, body_lr=1e-2/2.6))
    assert learn.ulmfit_plan(3, found, 5e-3).phases[0].lrs == tuple(discriminative_lrs(1e-2, 8, 1/.9, body_lr=5e-3))

def test_a_result_of_lr_find(mlp):
    with mlp.no_bar(): res = mlp.lr_find(num_it=30, show_plot=False)
    plan = mlp.ulmfit_plan(3, res, body_lr=res)
    assert plan.lr == res.valley == plan.body_lr and plan.lr_from == 'lr_find, valley'
    with mlp.no_bar(): mlp.fit_ulmfit(3, res)
    assert mlp.recorder.plan.lr == res.valley
    with mlp.no_bar():
        mlp.fit_stlr(1, res)
    assert res.valley/2 < mlp.recorder.group_lrs.max() <= res.valley

def test_tensors_without_dimensions(mlp):
    t = torch.tensor
    plan = mlp.ulmfit_plan(t(4), t(1e-2), body_lr=t(1e-3), factor=t(3.), cut_frac=t(.2), ratio=t(16.), epochs=t(.5))
    assert Plan.from_json(plan.to_json()) == plan
    assert plan == mlp.ulmfit_plan(4, float(t(1e-2)), body_lr=float(t(1e-3)), factor=3., cut_frac=float(t(.2)), ratio=16., epochs=.5)
    with mlp.no_bar():
        mlp.fit_ulmfit(t(3), t(1e-2))
        mlp.fit_stlr(1, t(1e-2), cbs=[GradualUnfreezing(t(.25)), DiscriminativeLR(t(2.))])
    assert repr(ChainThaw(t(.5))) == 'ChainThaw(epochs=0.5)'

@pytest.mark.parametrize('call', ['ulmfit_plan', 'fit_ulmfit'])
@pytest.mark.parametrize('lr', [slice(1e-5, 1e-3), [1e-3]*3])
def test_several_rates(mlp, call, lr):
    with pytest.raises(TypeError, match=r'lr=.*: expected one number, .*`span=`.*`factor='): getattr(mlp, call)(3, lr)

@pytest.mark.parametrize('call', ['ulmfit_plan', 'fit_ulmfit'])
def test_unknown_arguments(mlp, call):
    for name,near in dict(lr_max='lr', facto='factor', pct_start='cut_frac', div='ratio').items():
        match = rf'^{call}\(\) has no argument {name!r}: did you mean `{near}`'
        with pytest.raises(TypeError, match=match): getattr(mlp, call)(3, **{name: 1})
    # Ours of similar spelling, `epochs` and `n_epoch`, are something else
    resume = 'give `checkpoint=` a name' if call == 'fit_ulmfit' else 'expected n_epoch, lr, '
    for name,advice in dict(freeze_epochs='`epochs=` says how long', start_epoch=resume).items():
        with pytest.raises(TypeError, match=rf"^{call}\(\) has no argument {name!r}: {advice}"): getattr(mlp, call)(3, **{name: 1})
    with pytest.raises(TypeError, match=rf"^{call}\(\) has no argument 'color': expected n_epoch, lr, "): getattr(mlp, call)(3, color=1)
    assert mlp.opt is None

@pytest.mark.parametrize('gradual', ['no', 0, 1, 'False', []])
@pytest.mark.parametrize('call', ['ulmfit_plan', 'fit_ulmfit'])
def test_gradual_is_a_flag(mlp, call, gradual):
    with pytest.raises(TypeError, match='gradual=.*: expected True, False, or None to open a language model whole'):
        getattr(mlp, call)(3, 1e-2, gradual=gradual)

def test_norms_without_weights_count_for_train_bn(tmp_path):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False), nn.ReLU(), nn.Linear(8, 2))
    learn = Learner(make_mlp(tmp_path).dls, model, splitter=layerwise_split, loss_func=CrossEntropyLossFlat())
    assert learn.ulmfit_plan(2, 1e-2, train_bn=False).train_bn is False
    assert learn.ulmfit_plan(2, 1e-2, train_bn=False, gradual=False).train_bn is None

@pytest.mark.all_rates
def test_the_heads_rate_is_printed_if_it_is_not_the_one_that_was_found(tmp_path, capsys):
    learn = make_mlp(tmp_path, norm=True)
    for body_lr,limited in ((1e-3, True), (None, True), (.2, False)):
        found = HeadLR(.1, np.array([.1]), np.array([.5]), 'as told')
        with learn.no_bar():
            learn.logger = print
            learn.fit_ulmfit(2, found, body_lr=body_lr)
        out,plan = capsys.readouterr().out,learn.recorder.plan
        assert (f'the head trains at {plan.lr:.2e}, as the plan keeps it close to the rate below it, {plan.body_lr:.2e}' in out) == limited
        assert (plan.lr < .1) == limited

def test_nothing_is_printed_without_a_bar(mlp, capsys):
    with mlp.no_bar(),mlp.no_logging():
        mlp.head_lr_find(show_plot=False)
        mlp.fit_ulmfit(3)
    out = capsys.readouterr()
    assert out.out == out.err == ''

@pytest.mark.parametrize('momentum,n_epoch,corrected', [(.01, 3, True), (.1, 3, True), (.1, 6, False)])
def test_batch_norms_forget_in_a_short_fit(tmp_path, capsys, monkeypatch, momentum, n_epoch, corrected):
    "44 steps are enough at a momentum of 0.1"
    def _run(fit):
        learn = make_mlp(tmp_path, norm=True)
        bn = learn.model[3]
        bn.momentum = momentum
        bn.running_mean += 1000
        set_seed(0)
        with learn.no_bar(): fit(learn)
        return bn.running_mean.clone(),[p.detach().clone() for p in learn.model.parameters()]
    def _fit_plan(learn, **kwargs): learn.fit_plan(learn.ulmfit_plan(n_epoch, 1e-2), **kwargs)
    mean,params = _run(lambda learn: learn.fit_ulmfit(n_epoch, 1e-2))
    assert mean.abs().max() < 15 and ('too short for 1 batch norm to' in capsys.readouterr().out) == corrected
    # Its plan does the same, and one that the user gives does not correct once more
    for kwargs in ({}, {'cbs': DebiasBatchNorm}): assert torch.equal(_run(lambda learn, kwargs=kwargs: _fit_plan(learn, **kwargs))[0], mean)
    monkeypatch.setattr('fastai_discrim.run.fit_plan.biased_norms', lambda *args: {})
    plain_mean,plain_params = _run(_fit_plan)
    assert torch.equal(mean, plain_mean) != corrected and all(map(torch.equal, params, plain_params))
