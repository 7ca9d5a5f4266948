"Plans: data that shows itself, is saved, compared and run; what ran is what was planned"
import json
import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from conftest import MAKERS, in_groups, make_clas, make_mlp, moved, same, snapshot, trains, weights
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.optimizer import SGD, OptimWrapper, ranger
from fastai.torch_core import set_seed

from fastai_discrim.plan.origin import HeadLR
from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.plan.rates import discriminative_lrs
from fastai_discrim.plan.schedules import STLR, CLRBeta, Cos, Flat, OneCycle
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing

LRS = (1e-4, 1e-3, 1e-2)
PLAN = Plan([Phase(1, (2,), LRS), Phase(2, (1, 2), LRS, CLRBeta()), Phase(2, (0, 1, 2), LRS, OneCycle()),
             Phase(1, (0,), LRS, Cos()), Phase(1, (0, 2), LRS, Flat())], 'abc')

def test_equal_by_value():
    a,b = Phase(1, (2,), LRS),Phase(np.int64(1), [2], np.array(LRS), STLR())
    assert a == b and hash(a) == hash(b) and a != Phase(1, (2,), LRS, STLR(.2)) and a != Phase(1, (1,), LRS)
    assert Plan([a, a]) == Plan((b, b), names='xyz') != Plan([a]) and len({Plan([a]), Plan([b])}) == 1
    with pytest.raises(AttributeError): a.epochs = 2
    assert repr(a) == 'Phase(epochs=1, groups=(2,), lrs=(0.0001, 0.001, 0.01), sched=STLR(cut_frac=0.1, ratio=32), moms=None, early_stop=None)'

def test_table():
    t = PLAN.table()
    assert t.columns.tolist() == ['epochs', 'a', 'b', 'c', 'schedule'] and t.epochs.sum() == PLAN.n_epoch == 7
    assert t.loc[2].tolist() == [2, 'frozen', '1.00e-03', '1.00e-02', 'CLRBeta(div=10, pct=10)']
    assert repr(PLAN).splitlines()[0] == 'Plan: 7 epochs, 5 phases, 3 groups; peak rates'
    assert 'frozen  1.00e-03  1.00e-02' in repr(PLAN)
    html = PLAN._repr_html_()
    assert html.count('<tr') == 2+5 and html.count('>frozen<') == 2+1+2+1 and 'OneCycle(div=25, ' in html

def test_json_round_trip():
    plan = Plan([*PLAN.phases, Phase(1, (2,), LRS, STLR(.2, 20), moms=(.8, .7, .8))], 'abc')
    back = Plan.from_json(plan.to_json())
    assert back == plan and back.names == plan.names
    assert json.loads(plan.to_json())['phases'][0]['sched'] == {'name': 'STLR', 'cut_frac': .1, 'ratio': 32}

# As the first version of the format was written: what reads it must not change
VERSION_1 = '''{"fastai_discrim": "Plan", "version": 1, "names": ["a", "b", "c"], "lr_from": "given", "phases": [
 {"epochs": 1, "groups": [2], "lrs": [0.0001, 0.001, 0.01], "sched": {"name": "STLR", "cut_frac": 0.1, "ratio": 32}, "moms": null},
 {"epochs": 2, "groups": [1, 2], "lrs": [0.0001, 0.001, 0.01], "sched": {"name": "CLRBeta", "div": 10, "pct": 10}, "moms": null},
 {"epochs": 2, "groups": [0, 1, 2], "lrs": [0.0001, 0.001, 0.01],
  "sched": {"name": "OneCycle", "div": 25.0, "div_final": 100000.0, "pct_start": 0.25}, "moms": null},
 {"epochs": 1, "groups": [0], "lrs": [0.0001, 0.001, 0.01], "sched": {"name": "Cos"}, "moms": null},
 {"epochs": 1, "groups": [0, 2], "lrs": [0.0001, 0.001, 0.01], "sched": {"name": "Flat"}, "moms": [0.9, 0.8, 0.9]}]}'''

def test_json_of_the_first_version():
    plan = Plan.from_json(VERSION_1)
    assert plan == Plan([*PLAN.phases[:-1], Phase(1, (0, 2), LRS, Flat(), (.9, .8, .9))]) and plan.names == ('a', 'b', 'c')

def test_json_that_a_person_can_read():
    tried = [(1e-3, .5), (1e-2, float('nan')), (1e-1, float('inf'))]
    plan = Plan(PLAN.phases, ['[', '{ ,', '"\\n'], 1e-2, 'head_lr_find', tried, 'paper, §4')
    text = plan.to_json()
    assert '   "lrs": [0.0001, 0.001, 0.01],\n   "sched": {"name": "CLRBeta", "div": 10, "pct": 10},\n' in text
    assert len(text.splitlines()) < 60
    back = Plan.from_json(text)
    assert back == plan and back.names == plan.names and back.source == plan.source and repr(back.tried) == repr(plan.tried)
    json.loads(text, parse_constant=lambda s: pytest.fail(f'{s} is no JSON'))

@pytest.mark.parametrize('kind', ['Plan', 'Run'])
def test_a_version_to_come_is_refused_by_name(kind):
    with pytest.raises(ValueError, match=f'a {kind} of version 2, where this fastai_discrim reads version 1'):
        Plan.from_json(PLAN.to_json().replace('"Plan"', f'"{kind}"').replace('"version": 1', '"version": 2'))

def doctored(**kw):
    d = json.loads(PLAN.to_json())
    d['phases'][0].update(kw)
    return json.dumps(d)

@pytest.mark.parametrize('text', ['', '{', '[]', '{}', 'null', '3', '{"fastai_discrim": "Plan"}', None, b'\xff',
                                  PLAN.to_json().replace('"version": 1', '"version": 2'), PLAN.to_json()[:-5],
                                  doctored(epochs=0), doctored(groups=[7]), doctored(lrs=[1, 2]), doctored(lrs='abc'),
                                  doctored(sched={'name': 'Nope'}), doctored(sched=3), doctored(sched=0),
                                  doctored(sched={}), doctored(sched=None), doctored(extra=1),
                                  doctored(sched={'name': 'STLR', 'cut_frac': 2}), doctored(lrs=[1e-3, 0, 1]), doctored(epochs=True)])
def test_json_that_is_no_plan(text):
    with pytest.raises(ValueError, match='is no plan .*, expected `plan.to_json'): Plan.from_json(text)

@pytest.mark.parametrize('kw,match', [
    (dict(epochs=0), 'epochs=0'),
    (dict(epochs=1.5), 'epochs=1.5'),
    (dict(groups=()), r'groups=\(\)'),
    (dict(groups=(3,)), r'groups=\(3,\)'),
    (dict(groups=(1, 1)), 'groups'),
    (dict(groups=(-1,)), r'groups=\(-1,\)'),
    (dict(lrs=(1e-3, -1, 1)), 'lrs=-1'),
    (dict(lrs=(1e-3, float('nan'), 1)), 'lrs=nan'),
    (dict(lrs=()), 'groups'),
    (dict(sched='stlr'), "sched='stlr'"),
    (dict(sched=0), 'sched=0'),
    (dict(sched=STLR), 'sched=')])
def test_bad_phases(kw, match):
    with pytest.raises((ValueError, TypeError), match=f'{match}.*: expected'): Phase(**{**dict(epochs=1, groups=(2,), lrs=LRS), **kw})

@pytest.mark.parametrize('kw,match', [
    (dict(lrs=1e-3), 'lrs=0.001: expected a rate for each layer group'), (dict(lrs='abc'), 'lrs='),
    (dict(groups=2), 'groups=2: expected'), (dict(groups=None), 'groups=None: expected'), (dict(groups=[0, 'a']), 'groups='),
    (dict(moms=(.9, .8)), 'moms has 2 values, expected 3'), (dict(moms='abc'), "moms='abc': expected 3 numbers"),
    (dict(moms=(.9, float('nan'), .9)), 'moms=nan'), (dict(moms=(.9, 1, .9)), 'moms=1')])
def test_phases_of_the_wrong_kind(kw, match):
    with pytest.raises((ValueError, TypeError), match=match): Phase(**{**dict(epochs=1, groups=(2,), lrs=LRS), **kw})

def test_numpy_in_a_schedule_is_written():
    plan = Plan([Phase(1, (2,), LRS, STLR(ratio=np.int64(20)))])
    assert Plan.from_json(plan.to_json()) == plan

def test_names_are_escaped(): assert '<script>' not in Plan([Phase(1, (0,), (1.,))], ['<script>'])._repr_html_()
def test_monitors_are_escaped(): assert '<script>' not in Plan([Phase(1, (0,), (1.,), early_stop=EarlyStop(1, '<script>'))])._repr_html_()

def test_momentum_is_in_the_table(): assert 'moms=(0.9, 0.8, 0.9)' in repr(Plan([Phase(1, (0,), (1.,), moms=(.9, .8, .9))]))

def test_bad_plans():
    for phases in (5, None, Phase(1, (2,), LRS)):
        with pytest.raises(TypeError, match='expected at least one Phase'): Plan(phases)
    for phases in ([], [1], ['a']):
        with pytest.raises(TypeError, match='expected at least one Phase'): Plan(phases)
    with pytest.raises(ValueError, match='expected the same number'): Plan([Phase(1, (0,), (1, 1)), Phase(1, (0,), LRS)])
    with pytest.raises(ValueError, match='expected the same number'): Plan([Phase(1, (0,), LRS)], 'ab')

def test_lrs_shape_and_zeros():
    lrs = PLAN.lrs(10)
    trained = [[0, 0, 1], [0, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 0, 1]]
    assert lrs.shape == (70, 3) and ((lrs > 0) == np.repeat(trained, 10, axis=0)).all()
    np.testing.assert_allclose(lrs[:10,2], [STLR().scheds(1e-2, (0,)*3)['lr'](i/10) for i in range(10)])

def test_plot():
    rates,spans = PLAN.plot()
    assert spans.get_xlim() == (0, 7) and spans.get_xlabel() == 'epoch' and len(rates.get_lines()) == 3
    assert PLAN.plot(n_iter=8)[1].get_xlabel() == 'iteration'
    np.testing.assert_array_equal(np.nan_to_num(PLAN.plot(n_iter=8)[0].get_lines()[0].get_ydata()), PLAN.lrs(8)[:,0])

class Watch(Callback):
    "What moved in which epoch"
    order = 100
    def before_fit(self): self.moved = []
    def before_train(self): self.before = weights(self.learn)
    def after_train(self): self.moved.append(moved(self.learn, self.before))

OPTS = dict(adam={}, sgd=dict(opt_func=partial(SGD, mom=.9)), ranger=dict(opt_func=ranger),
            torch=dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)))

@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
def test_what_ran_is_what_was_planned(tmp_path, opt):
    learn = make_mlp(tmp_path, wd=.1, **opt)
    with learn.no_bar(): learn.lr_find(show_plot=False, num_it=10)
    watch = Watch()
    with learn.no_bar(): learn.fit_plan(PLAN, cbs=watch)
    np.testing.assert_array_equal(learn.recorder.group_lrs, PLAN.lrs(8))
    assert watch.moved == [in_groups(learn, p.groups) for p in PLAN.phases for _ in range(p.epochs)]

@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize('kw', [{}, dict(epochs=2), dict(factor=1.5, cut_frac=.3, ratio=7),
                                dict(gradual=True), dict(gradual=False), dict(down_to=1)], ids=str)
def test_ulmfit_plans_run_as_planned(tmp_path, make, kw):
    learn = make(tmp_path)
    plan = learn.ulmfit_plan(10, 1e-2, **kw)
    with learn.no_bar(): learn.fit_plan(plan)
    np.testing.assert_array_equal(learn.recorder.group_lrs, plan.lrs(len(learn.dls.train)))
    assert learn.phase is None and len(learn.recorder.values) == 10

def test_ulmfit_plan_of_a_classifier(clas):
    plan = clas.ulmfit_plan(7, 1e-2)
    lrs = tuple(discriminative_lrs(1e-2, 5))
    assert plan == Plan([Phase(1, tuple(range(i, 5)), lrs) for i in (4, 3, 2, 1)] + [Phase(3, tuple(range(5)), lrs)])
    assert plan.names == ('encoder', 'rnns.0', 'rnns.1', 'rnns.2', 'head') and clas.ulmfit_plan(7).phases[0].lrs[-1] == clas.lr

def test_ulmfit_plan_of_a_language_model_opens_everything(lm):
    assert lm.ulmfit_plan(3, 4e-3) == Plan([Phase(3, (0, 1, 2, 3), discriminative_lrs(4e-3, 4))])

@pytest.mark.parametrize('epochs', [2, [1], (1, 1), np.array([1, 2])], ids=str)
def test_epochs_without_phases_to_spread_them_over(mlp, epochs):
    with pytest.warns(UserWarning, match='epochs=.* is ignored') as w: plan = mlp.ulmfit_plan(3, 1e-2, gradual=False, epochs=epochs)
    assert plan == mlp.ulmfit_plan(3, 1e-2, gradual=False) and len(w) == 1
    with pytest.raises(ValueError, match='epochs=0'): mlp.ulmfit_plan(3, 1e-2, gradual=False, epochs=[0])

def test_planning_changes_nothing(clas):
    before = snapshot(clas)
    clas.ulmfit_plan(7, 1e-2).plot()
    assert same(before, snapshot(clas)) and clas.opt is None

def test_one_open_phase_is_fit_stlr_bit_for_bit(tmp_path):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    lrs = discriminative_lrs(1e-2, 3)
    with a.no_bar(): a.fit_plan(Plan([Phase(1, (0, 1, 2), lrs)]))
    with b.no_bar(): b.fit_stlr(1, lrs)
    for k,v in weights(a).items(): torch.testing.assert_close(v, weights(b)[k], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(a.recorder.hps['mom'], b.recorder.hps['mom'])

def test_a_plan_trains_as_the_fits_by_hand_do(tmp_path):
    a,b = make_clas(tmp_path),make_clas(tmp_path)
    plan = a.ulmfit_plan(6, 1e-2)
    set_seed(1)
    with a.no_bar(): a.fit_plan(plan)
    b.create_opt()
    set_seed(1)
    with b.no_bar():
        for p in plan.phases:
            b.opt.freeze_to(p.groups[0])
            b.fit(p.epochs, list(p.lrs), cbs=ParamScheduler(p.sched.scheds(np.array(p.lrs), b.moms)))
    for k,v in weights(a).items(): torch.testing.assert_close(v, weights(b)[k], rtol=1e-4, atol=1e-6)

def test_momentum(mlp):
    plan = Plan([Phase(1, (2,), LRS, moms=(.9, .5, .9)), Phase(1, (2,), LRS)])
    with mlp.no_bar(): mlp.fit_plan(plan)
    moms = mlp.recorder.hps['mom']
    assert moms[0] == .9 and min(moms[:8]) < .6 and moms[8] == mlp.moms[0] and len(moms) == 16

def test_phase_tells_where_it_is(mlp):
    seen = []
    class See(Callback):
        def before_batch(self): seen.append((self.epoch, self.learn.phase))
    assert mlp.phase is None
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=See)
    assert all(PLAN.at(e)[1] is p for e,p in seen) and {p for _,p in seen} == set(PLAN.phases) and mlp.phase is None

@pytest.mark.parametrize('cbs', [SaveModelCallback, [CSVLogger()], EarlyStoppingCallback(patience=9),
                                 GradientClip(.5), GradientAccumulation(20)], ids=str)
def test_one_fit_with_any_callback(mlp, cbs):
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=cbs, wd=.2)
    assert mlp.opt.hypers[0]['wd'] == .2 and len(mlp.recorder.values) == 7 and len(mlp.cbs) == 4
    np.testing.assert_array_equal(mlp.recorder.group_lrs, PLAN.lrs(8))
    if isinstance(cbs, list): assert len((mlp.path/'history.csv').read_text().splitlines()) == 8

@pytest.mark.filterwarnings('ignore')
def test_in_mixed_precision(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=MixedPrecision())
    np.testing.assert_array_equal(mlp.recorder.group_lrs, PLAN.lrs(8))

def test_early_stopping_ends_the_plan(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=EarlyStoppingCallback(min_delta=100., patience=1))
    assert len(mlp.recorder.values) == 2 and trains(mlp) == [False, True, True]
    np.testing.assert_array_equal(mlp.recorder.group_lrs, PLAN.lrs(8)[:16])

def test_start_epoch(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN, start_epoch=4)
    np.testing.assert_array_equal(mlp.recorder.group_lrs, PLAN.lrs(8)[32:])

def test_validation_inside_a_plan(mlp):
    class Check(Callback):
        def after_train(self): self.learn.get_preds(inner=True, dl=self.dls.valid) if self.epoch == 1 else None
    with mlp.no_bar(): mlp.validate(); mlp.fit_plan(PLAN); mlp.validate()
    np.testing.assert_array_equal(mlp.recorder.group_lrs, PLAN.lrs(8))

def test_ctrl_c_leaves_what_the_phase_set(mlp):
    class Stop(Callback):
        order = 1000
        def before_step(self):
            if self.epoch == 1: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), mlp.no_bar(): mlp.fit_plan(PLAN, cbs=Stop)
    assert trains(mlp) == [False, True, True] and mlp.phase is None and all(p.grad is None for p in mlp.model.parameters())
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    np.testing.assert_array_equal(mlp.recorder.group_lrs, PLAN.lrs(8))

REFUSED = {
    'groups': (lambda l: l.fit_plan(Plan([Phase(1, (0,), (1e-3, 1e-3))], ['body', 'head'])),
               r'the plan is for 2 layer groups \(body, head\), the learner has 3 \(0, 2, head\)'),
    'no plan': (lambda l: l.fit_plan([1]), 'expected a Plan'),
    'discriminative': (lambda l: l.fit_plan(PLAN, cbs=DiscriminativeLR), 'DiscriminativeLR together with a plan'),
    'unfreezing': (lambda l: l.fit_plan(PLAN, cbs=[ChainThaw()]), 'ChainThaw together with a plan'),
    'scheduler': (lambda l: l.fit_plan(PLAN, cbs=ParamScheduler({'lr': None})), 'ParamScheduler together with a plan'),
    'few epochs': (lambda l: l.ulmfit_plan(2, 1e-2), 'n_epoch=2: expected at least 3'),
    'few in a fit': (lambda l: l.fit_ulmfit(2), 'n_epoch=2: expected at least 3'),
    'no epochs': (lambda l: l.fit_ulmfit(0, 1e-2), 'n_epoch=0'),
    'half an epoch': (lambda l: l.ulmfit_plan(3.5, 1e-2), 'n_epoch=3.5'),
    **{f'lr {lr}': (lambda l, lr=lr: l.fit_ulmfit(3, lr), 'lr=')
       for lr in (-1, 0, float('nan'), float('inf'), True, '1e-3', slice(1e-3), [1e-3]*3)},
    **{f'factor {f}': (lambda l, f=f: l.fit_ulmfit(3, factor=f), 'factor=') for f in (0, -1, float('nan'))},
    'cut_frac': (lambda l: l.fit_ulmfit(3, cut_frac=1), 'cut_frac=1'),
    'ratio': (lambda l: l.fit_ulmfit(3, ratio=.5), 'ratio=0.5'),
    'epochs': (lambda l: l.fit_ulmfit(9, epochs=[1]), 'epochs='),
    'down_to': (lambda l: l.fit_ulmfit(9, down_to=3), 'down_to=3'),
}

@pytest.mark.parametrize('call,match', REFUSED.values(), ids=REFUSED)
def test_refused_before_anything_changes(mlp, call, match):
    mlp.create_opt()
    before,state = snapshot(mlp),torch.get_rng_state()
    with pytest.raises((ValueError, TypeError), match=match): call(mlp)
    assert same(before, snapshot(mlp)) and torch.equal(state, torch.get_rng_state())

def test_an_attached_callback_is_refused_too(mlp):
    mlp.add_cb(GradualUnfreezing())
    with pytest.raises(ValueError, match='GradualUnfreezing together with a plan'): mlp.fit_plan(PLAN)

@pytest.mark.parametrize('n,sched,whole,said', [
    (8, None, False, 'phases 1, 2: .* 3 % of'), (16, None, False, None), (64, None, False, None), (8, Flat(), False, None),
    (8, OneCycle(), False, 'phases 1, 2: .* 4 % of'), (8, OneCycle(), True, None)])
def test_a_phase_that_never_comes_near_its_rate_is_said(tmp_path, n, sched, whole, said):
    "A triangle of one step is all corner"
    learn = make_mlp(tmp_path, n=n, bs=8)
    plan = learn.ulmfit_plan(8, 1e-2)
    if sched: plan = plan.under(sched, whole=whole)
    with warnings.catch_warnings(record=True) as got, learn.no_bar():
        warnings.simplefilter('always')
        learn.fit_plan(plan)
    text = [str(w.message) for w in got if issubclass(w.category, UserWarning)]
    assert len(text) == bool(said) and all(re.search(said, t) for t in text)

def test_an_empty_training_set_is_refused(mlp):
    mlp.dls.train.dataset, mlp.dls.train.n = [], 0
    before = snapshot(mlp)
    for call in (lambda: mlp.fit_plan(PLAN), lambda: mlp.fit_ulmfit(3), mlp.head_lr_find):
        with pytest.raises(ValueError, match='0 items and makes 0 batches: expected at least 1 batch'): call()
    assert same(before, snapshot(mlp))

def test_where_the_heads_rate_came_from_is_kept_with_the_plan(clas):
    plan = clas.ulmfit_plan(6, HeadLR(1e-2, [1e-2], [.5], 'as <told>'))
    assert plan.lr_from == 'head_lr_find, as <told>' and plan == clas.ulmfit_plan(6, 1e-2)
    assert 'η_L = 0.01, head_lr_find, as <told>' in repr(plan) and 'as &lt;told&gt;' in plan._repr_html_()
    assert Plan.from_json(plan.to_json()).lr_from == plan.lr_from
    assert clas.ulmfit_plan(6).lr_from == 'learn.lr' and clas.ulmfit_plan(6, 1e-2).lr_from == 'given'
    assert 'lr = 0.02, given' in repr(Plan(plan.phases, lr=.02, lr_from='given'))
    old = json.loads(plan.to_json())
    del old['lr_from']
    assert Plan.from_json(json.dumps(old)) == plan and 'η_L' not in repr(Plan(plan.phases))

def test_the_recorder_has_the_plan_of_the_last_fit(mlp):
    assert mlp.recorder.plan is None
    with mlp.no_bar():
        mlp.fit_plan(PLAN)
        assert mlp.recorder.plan == PLAN
        mlp.validate()
        assert mlp.recorder.plan == PLAN
        mlp.fit(1)
    assert mlp.recorder.plan is None

def test_compiled_in_place(tmp_path):
    "`requires_grad` is among what a graph is compiled for, so every opening is seen"
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    b.model.compile(backend='aot_eager')
    plan = a.ulmfit_plan(5, 1e-2)
    for learn in (a, b):
        set_seed(1)
        with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan)
    np.testing.assert_array_equal(b.recorder.group_lrs, plan.lrs(8))
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)

@pytest.mark.filterwarnings('ignore')
def test_accumulation_over_the_switch_of_a_phase_moves_nothing_frozen(tmp_path):
    "5 batches a step and 8 an epoch: some gradients are from before a group was shut, and some groups open in the middle of a step"
    learn = make_mlp(tmp_path)
    watch = Watch()
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(PLAN, cbs=[GradientAccumulation(40), GradientClip(.5), watch])
    assert watch.moved == [in_groups(learn, p.groups) for p in PLAN.phases for _ in range(p.epochs)]
