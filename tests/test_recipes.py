"The published numbers, written down here once more, and what a run of each recipe does with them"
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_clas, make_lm, make_mlp, same, snapshot, weights
from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD, OptimWrapper
from fastai.text.learner import language_model_learner, text_classifier_learner
from fastai.text.models import AWD_LSTM
from fastai.torch_core import set_seed

from fastai_discrim.head import HeadLR
from fastai_discrim.plan import Plan
from fastai_discrim.recipe import Recipe
from fastai_discrim.recipes import Recipes, recipes
from fastai_discrim.run_record import dumps
from fastai_discrim.schedule import STLR


def clr(div, cut_div):
    "fastai 0.7's `CircularLR`, step by step: a share of the peak rate at iteration `i` of `nb`"
    def share(i, nb):
        cut = nb//cut_div
        up = i/cut if i <= cut else 1 - (i-cut)/(nb-cut)
        return (1 + up*(div-1))/div
    return share

def clr_beta(div, pct):
    "fastai 0.7's `CircularLR_beta`"
    def share(i, nb):
        half = int(nb*(1 - pct/100)/2)
        if i > 2*half: return (1 - 0.99*(i - 2*half)/(nb - 2*half))/div
        return (1 + (i/half if i <= half else 1 - (i-half)/half)*(div-1))/div
    return share

def cos_anneal(i, nb):
    "fastai 0.7's `CosAnneal`"
    return 0.01 if i < nb/20 else (np.cos(np.pi*i/nb) + 1)/2

def paper(i, nb):
    "Equation 3 of the paper, without its floor, with cut_frac=0.1 and ratio=32"
    cut = nb*0.1
    p = i/cut if i < cut else 1 - (i-cut)/(nb-cut)
    return (1 + p*31)/32

def flat(i, nb): return 1.

def half_cos(a, b, pos): return a + (b-a)*(1 - np.cos(np.pi*pos))/2
def one_cycle(i, nb):
    "fastai's `fit_one_cycle` with its defaults"
    pos = i/nb
    return half_cos(1/25, 1, pos/0.25) if pos < 0.25 else half_cos(1, 1e-5, (pos-0.25)/0.75)

E4,E3 = [1e-2/2.6**4, 1e-2/2.6**3, 1e-2/2.6**2, 1e-2/2.6, 1e-2],[1e-3]*5
LM26 = [4e-3/2.6**3, 4e-3/2.6**2, 4e-3/2.6, 4e-3]
SIXTHS = [4e-3/6, 4e-3/3, 4e-3, 2e-3]
THAW = [1e-4, 1e-4, 1e-4, 1e-4, 1e-3]
BOOK = [1e-4, 1e-4, 1e-4, 1e-3, 1e-2]
ALL4,ALL5 = [0, 1, 2, 3],[0, 1, 2, 3, 4]

def gradual(n, lrs, share): return [(1, ALL5[-k:], lrs, share) for k in range(1, 5)] + [(n-4, ALL5, lrs, share)]
def thaw(n, share, last): return [(1, [g], THAW, share) for g in (4, 0, 1, 2, 3)] + [(n, ALL5, THAW, last)]
def top(lrs, *phases): return [(n, ALL5[k:], lrs, share) for n,k,share in phases]

# Every phase: epochs, groups that train, peak rates, the original's schedule
PHASES = dict(
    paper_lm=[(25, ALL4, LM26, paper)],
    paper_clas=gradual(50, E4, paper),
    scripts_lm=[(25, ALL4, SIXTHS, clr(32, 10))],
    scripts_lm_head_first=[(1, [3], SIXTHS, clr(6, 4)), (25, ALL4, SIXTHS, clr(32, 10))],
    scripts_clas=top(E4, (1, -1, clr(8, 3)), (1, -2, clr(8, 3)), (50, 0, clr(8, 8))),
    scripts_chain_thaw=thaw(50, clr(8, 3), clr(8, 8)),
    notebook_lm=[(1, [3], [5e-4]*4, clr(32, 2)), (15, ALL4, [1e-3]*4, clr(20, 10))],
    notebook_clas=top(BOOK, (1, -1, clr(8, 3)), (1, -2, clr(8, 3)), (14, 0, clr(32, 10))),
    forum_lm=[(15, ALL4, LM26, clr_beta(10, 10))],
    forum_lm_as_asked=[(15, ALL4, [0.004/2.6*3, 0.004/2.6*2, 0.004/2.6, 0.004], clr_beta(10, 10))],
    tutorial_lm=[(1, [3], [1e-2]*4, one_cycle), (10, ALL4, [1e-3]*4, one_cycle)],
    tutorial_clas=[(1, [4], [2e-2]*5, one_cycle), (1, [3, 4], E4, one_cycle), (1, [2, 3, 4], np.array(E4)/2, one_cycle),
                   (2, ALL5, np.array(E4)/10, one_cycle)],
    table6_full=[(25, ALL4, [4e-3]*4, flat)],
    table6_full_discr=[(25, ALL4, LM26, flat)],
    table6_full_discr_stlr=[(25, ALL4, LM26, paper)],
    table7_full=[(50, ALL5, E3, flat)],
    table7_full_discr=[(50, ALL5, E4, flat)],
    table7_last=[(50, [4], E3, flat)],
    table7_chain_thaw=thaw(45, flat, flat),
    table7_freez=gradual(50, E3, flat),
    table7_freez_discr=gradual(50, E4, flat),
    table7_freez_stlr=gradual(50, E3, paper),
    table7_freez_cos=gradual(50, E3, cos_anneal),
    table7_freez_discr_stlr=gradual(50, E4, paper))

PAPER = dict(moms=(.7, .7, .7), sqr_mom=.99, wd=None, clip=None, bs=64, val_bs=None, bptt=70, drop_mult=1,
             drops=dict(input_p=.4, output_p=.4, weight_p=.5, embed_p=.05, hidden_p=.3))
SCRIPT_LM = dict(moms=(.8, .8, .8), sqr_mom=.99, wd=1e-7, clip=.3, bs=64, val_bs=None, bptt=70, drop_mult=1,
                 drops=dict(input_p=.25, output_p=.1, weight_p=.2, embed_p=.02, hidden_p=.15))
SCRIPT_CLAS = dict(moms=(.8, .8, .8), sqr_mom=.99, wd=1e-6, clip=25, bs=32, val_bs=64, bptt=70, drop_mult=1, drops=PAPER['drops'])
FORUM = dict(moms=(.95, .85, .95), sqr_mom=None, wd=None, clip=None, bs=None, val_bs=None, bptt=None, drop_mult=None, drops=None)
TUTORIAL = dict(FORUM, moms=(.8, .7, .8), bs=64, bptt=72)
SETTINGS = dict(
    scripts_lm=SCRIPT_LM, scripts_lm_head_first=SCRIPT_LM, scripts_clas=SCRIPT_CLAS, scripts_chain_thaw=SCRIPT_CLAS,
    notebook_lm=dict(SCRIPT_LM, bs=52, clip=None, drop_mult=.7),
    notebook_clas=dict(SCRIPT_CLAS, moms=(.7, .7, .7), bs=24, val_bs=48, wd=0, drop_mult=.5),
    forum_lm=FORUM, forum_lm_as_asked=FORUM, tutorial_lm=dict(TUTORIAL, wd=.1, drop_mult=1), tutorial_clas=dict(TUTORIAL, drop_mult=.5))

def test_all_are_here(): assert set(recipes) == set(PHASES)

@pytest.mark.parametrize('name', PHASES)
def test_published_numbers(name):
    recipe = recipes[name]
    plan = recipe.plan()
    assert len(plan.phases) == len(PHASES[name]) and recipe.n_epoch == plan.n_epoch == sum(p[0] for p in PHASES[name])
    for p,(epochs,groups,lrs,_) in zip(plan.phases, PHASES[name]):
        assert (p.epochs, list(p.groups), p.moms) == (epochs, groups, SETTINGS.get(name, PAPER)['moms'])
        np.testing.assert_allclose(p.lrs, lrs, rtol=1e-12)
    assert {k: getattr(recipe, k) for k in PAPER} == SETTINGS.get(name, PAPER)
    assert plan.lr == recipe.lr and plan.lr_from == 'as published'
    assert recipe.source and name in plan.source and recipe.source in plan.source and plan.names == recipe.names
    assert recipe.kind == ('language model' if plan.n_groups == 4 else 'classifier')

@pytest.mark.parametrize('name', PHASES)
def test_json(name):
    plan = recipes[name].plan()
    back = Plan.from_json(plan.to_json())
    assert back == plan and (back.names, back.source, back.lr, back.lr_from) == (plan.names, plan.source, plan.lr, plan.lr_from)

class Watch(Callback):
    "Momentum at every step, and the length of the gradient that is stepped with"
    order = 1000
    def before_fit(self): self.moms,self.norms = [],[]
    def before_step(self):
        self.moms.append(self.opt.hypers[-1]['mom'])
        self.norms.append(torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None]).norm().item())

# Batches an epoch, and epochs of the last phase, so that the original cuts a cycle at whole iterations
SIZES = {'scripts_clas': (24, 1), 'scripts_chain_thaw': (24, 1), 'notebook_clas': (30, 1)}

def learner(name, path, **kwargs):
    n = SIZES.get(name, (20, 1))[0]
    if recipes[name].kind == 'classifier': return make_clas(path, n=2*n, bs=2, **kwargs)
    return make_lm(path, n=40, bs=4, **kwargs)

@pytest.mark.parametrize('name', PHASES)
def test_a_run_has_the_originals_rates(tmp_path, name):
    learn,watch,n_last = learner(name, tmp_path),Watch(),SIZES.get(name, (20, 1))[1]
    nb,recipe,set_ = len(learn.dls.train),recipes[name],SETTINGS.get(name, PAPER)
    phases = [*PHASES[name][:-1], (n_last, *PHASES[name][-1][1:])]
    n_epoch = sum(p[0] for p in phases)
    with learn.no_bar(), learn.no_logging(): learn.apply_recipe(recipe, n_epoch, cbs=watch)
    want = [np.array(lrs)*share(i, e*nb)*np.isin(range(len(lrs)), groups) for e,groups,lrs,share in phases for i in range(e*nb)]
    assert nb == SIZES.get(name, (20, 1))[0]
    # fastai finds its place in `combined_cos` in float32
    np.testing.assert_allclose(learn.recorder.group_lrs, want, rtol=2e-6 if 'tutorial' in name else 1e-9, atol=1e-15)
    first,peak,last = set_['moms']
    assert watch.moms[0] == first and (first == peak or min(watch.moms) == pytest.approx(peak, abs=2e-3))
    h = learn.opt.hypers[0]
    assert h['sqr_mom'] == .99 and h['wd'] == (.01 if set_['wd'] is None else set_['wd'])
    assert set_['clip'] is None or max(watch.norms) <= set_['clip']*(1+1e-4)
    record = learn.recorder.run_record()
    assert name in record['plan']['source'] and ('gradient_clip' in record['callbacks']) == (set_['clip'] is not None)
    assert Plan.from_json(dumps(record)) == recipe.plan(n_epoch) and not any(isinstance(cb, GradientClip) for cb in learn.cbs)

def test_the_tutorials_recipe_is_the_tutorial(tmp_path):
    "By the calls that the tutorial shows, under stock fastai"
    a,b = make_clas(tmp_path, n=160),make_clas(tmp_path, n=160)
    b.freeze()
    seen,lr = [],1e-2
    class See(Callback):
        order = 1000
        def before_step(self): seen.append([h['lr']*any(p.requires_grad for p in g) for h,g in zip(self.opt.hypers, self.opt.param_lists)])
    with b.no_bar(), b.no_logging(), b.added_cbs(See()):
        b.fit_one_cycle(1, 2e-2)
        b.freeze_to(-2)
        b.fit_one_cycle(1, slice(lr/(2.6**4), lr))
        b.freeze_to(-3)
        b.fit_one_cycle(1, slice(lr/2/(2.6**4), lr/2))
        b.unfreeze()
        b.fit_one_cycle(2, slice(lr/10/(2.6**4), lr/10))
    with a.no_bar(), a.no_logging(): a.apply_recipe(recipes.tutorial_clas)
    np.testing.assert_allclose(a.recorder.group_lrs, seen, rtol=1e-6)

def test_the_papers_classifier_is_ulmfit_plan(clas):
    assert recipes.paper_clas.plan() == clas.ulmfit_plan(50, 1e-2, moms=(.7, .7, .7)) == recipes.table7_freez_discr_stlr.plan()
def test_the_papers_language_model_is_ulmfit_plan(lm):
    assert recipes.paper_lm.plan() == lm.ulmfit_plan(25, 4e-3, moms=(.7, .7, .7)) == recipes.table6_full_discr_stlr.plan()

def test_other_epochs_and_another_rate():
    plan = recipes.scripts_clas.plan(7, 1e-3)
    assert [p.epochs for p in plan.phases] == [1, 1, 5] and (plan.lr, plan.lr_from) == (1e-3, 'given')
    # It is no longer what was published
    assert plan.source.endswith('a455d3e; changed: epochs 7, lr 0.001') and recipes.scripts_clas.plan(52, 1e-2).source.endswith('a455d3e')
    np.testing.assert_allclose(plan.phases[0].lrs, np.array(E4)/10)
    found = recipes.notebook_clas.plan(lr=HeadLR(2e-2, [1e-2, 2e-2], [.5, .4], 'as told'))
    assert found.lr_from == 'head_lr_find, as told' and found.tried == ((1e-2, .5), (2e-2, .4))
    np.testing.assert_allclose(found.phases[0].lrs, np.array(BOOK)*2)

@pytest.mark.parametrize('args,match', [((2,), 'n_epoch=2: expected at least 3, as scripts_clas takes 2 epochs before its last phase'),
                                        ((0,), 'n_epoch=0: expected'), ((3.5,), 'n_epoch=3.5: expected'), ((3, -1), 'lr=-1: expected'),
                                        ((3, '1e-3'), "lr='1e-3': expected"), ((3, float('nan')), 'lr=nan: expected')])
def test_bad_epochs_and_rates_change_nothing(clas, args, match):
    clas.create_opt()
    before = snapshot(clas)
    for call in (recipes.scripts_clas.plan, partial(clas.apply_recipe, recipes.scripts_clas)):
        with pytest.raises((ValueError, TypeError), match=match): call(*args)
    assert same(before, snapshot(clas))

def test_a_checkpoint_of_another_run_is_refused_before_anything_changes(tmp_path):
    learn = make_clas(tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.fit_plan(learn.ulmfit_plan(5, 1e-2), checkpoint='r')
        learn.fit(1, 1e-3)
    before,opt = snapshot(learn),learn.opt
    for kw in ({}, dict(reset_opt=True)):
        with pytest.raises(ValueError, match='r.ckpt is of another run'): learn.apply_recipe(recipes.scripts_clas, 4, checkpoint='r', **kw)
        assert same(before, snapshot(learn)) and learn.opt is opt

def test_groups_of_a_new_optimiser_go_on(tmp_path):
    "The old one has others"
    for _ in range(2):
        learn = make_clas(tmp_path)
        splitter,learn.splitter = learn.splitter,lambda m: [list(m.parameters())]
        learn.create_opt()
        learn.splitter = splitter
        with learn.no_bar(), learn.no_logging(): learn.apply_recipe(recipes.scripts_clas, 4, reset_opt=True, checkpoint='r')
    assert len(learn.opt.param_lists) == 5 and learn.recorder.ran['finished']

def apply(name, **kw): return lambda learn: learn.apply_recipe(recipes[name], **kw)

REFUSED = {
    'lm on a classifier': (make_clas, apply('scripts_lm'), 'scripts_lm is for a language model, and the learner has no language model'),
    'classifier on an lm': (make_lm, apply('scripts_clas'), 'scripts_clas is for a classifier, and the learner has a language model'),
    'lm on an mlp': (make_mlp, apply('forum_lm'), 'forum_lm is for a language model'),
    'other groups': (make_mlp, apply('paper_clas'), r'the plan is for 5 layer groups \(encoder, .*the learner has 3'),
    'lm plan on a classifier': (make_clas, lambda l: l.fit_plan(recipes.paper_lm.plan()), 'the plan is for 4 layer groups'),
    'a recipe is no plan': (make_clas, lambda l: l.fit_plan(recipes.paper_clas), 'the plan is a Recipe: expected a Plan'),
    'a name': (make_clas, lambda l: l.apply_recipe('paper_clas'), "recipe='paper_clas': expected a Recipe, such as `recipes.paper_clas`"),
    'a checkpoint without a name': (make_clas, apply('scripts_clas', checkpoint_every=3), 'checkpoint_every=3 without `checkpoint`'),
    'clipped twice': (make_clas, apply('scripts_clas', cbs=GradientClip),
                      'GradientClip together with scripts_clas, which clips at 25: expected none'),
    'clipped already': (lambda p: make_clas(p, cbs=GradientClip(1.)), apply('scripts_clas'), 'GradientClip together'),
}

@pytest.mark.parametrize('make,call,match', REFUSED.values(), ids=REFUSED)
def test_refused_before_anything_changes(tmp_path, make, call, match):
    learn = make(tmp_path)
    learn.create_opt()
    before,state = snapshot(learn),torch.get_rng_state()
    with pytest.raises((ValueError, TypeError), match=match): call(learn)
    assert same(before, snapshot(learn)) and torch.equal(state, torch.get_rng_state())

def test_a_recipe_without_clipping_leaves_the_learners(tmp_path):
    learn = make_clas(tmp_path, cbs=GradientClip(1e-3))
    watch = Watch()
    with learn.no_bar(), learn.no_logging(): learn.apply_recipe(recipes.paper_clas, 5, cbs=watch)
    assert max(watch.norms) < 1.01e-3 and any(isinstance(cb, GradientClip) for cb in learn.cbs)

def test_optimisers_without_a_second_beta(tmp_path):
    learn = make_clas(tmp_path, opt_func=partial(SGD, mom=.9))
    with pytest.warns(UserWarning, match='β2=0.99 is ignored: the optimiser has none'), learn.no_bar(), learn.no_logging():
        learn.apply_recipe(recipes.paper_clas, 5)
    assert learn.opt.hypers[0]['mom'] == .7
    bare = make_clas(tmp_path, opt_func=partial(OptimWrapper, opt=torch.optim.Adagrad))
    with pytest.warns(UserWarning, match=r'β1=\(0.7, 0.7, 0.7\) is ignored'), bare.no_bar(), bare.no_logging():
        bare.apply_recipe(recipes.paper_clas, 5)
    torchs = make_clas(tmp_path, opt_func=partial(OptimWrapper, opt=torch.optim.Adam))
    with torchs.no_bar(), torchs.no_logging(): torchs.apply_recipe(recipes.scripts_clas, 3)
    assert torchs.opt.opt.param_groups[0]['betas'] == (.8, .99) and torchs.opt.opt.param_groups[0]['weight_decay'] == 1e-6

def test_it_is_the_plan_under_the_settings(tmp_path):
    a,b = make_clas(tmp_path),make_clas(tmp_path)
    set_seed(1)
    with a.no_bar(), a.no_logging(): a.apply_recipe(recipes.scripts_clas, 4, start_epoch=1)
    set_seed(1)
    with b.no_bar(), b.no_logging(): b.fit_plan(recipes.scripts_clas.plan(4), wd=1e-6, cbs=GradientClip(25.), start_epoch=1)
    assert all(torch.equal(v, weights(b)[k]) for k,v in weights(a).items())

SMALL = dict(emb_sz=8, n_hid=12)

@pytest.mark.parametrize('name', PHASES)
def test_fastais_constructors_take_the_settings(tmp_path, name):
    recipe,want = recipes[name],SETTINGS.get(name, PAPER)
    lm = recipe.kind == 'language model'
    dls = (make_lm if lm else make_clas)(tmp_path).dls
    dls.vocab,kw = list(range(30)),recipe.learner_kwargs
    if not lm: dls.c = 2
    kw['config'] = {**kw.get('config', {}), **SMALL} if 'config' in kw else None
    if not lm: kw['loss_func'] = CrossEntropyLossFlat()
    learn = (language_model_learner if lm else text_classifier_learner)(dls, AWD_LSTM, pretrained=False, **kw)
    assert learn.wd == want['wd'] and learn.moms == want['moms']
    encoder,drops,mult = (learn.model[0] if lm else learn.model[0].module),want['drops'],want['drop_mult']
    if drops:
        assert (encoder.input_dp.p, encoder.encoder_dp.embed_p) == pytest.approx((drops['input_p']*mult, drops['embed_p']*mult))
        assert [r.weight_p for r in encoder.rnns] == pytest.approx([drops['weight_p']*mult]*3)
        assert [d.p for d in encoder.hidden_dps] == pytest.approx([drops['hidden_p']*mult]*3)
    learn.create_opt()
    assert learn.opt.hypers[0]['eps'] == (1e-5 if want['sqr_mom'] is None else 1e-8) and learn.opt.hypers[0]['sqr_mom'] == .99
    assert recipe.dls_kwargs == {k:v for k,v in dict(bs=want['bs'], val_bs=want['val_bs'], seq_len=want['bptt']).items() if v}
    if not lm and want['bptt'] == 70:
        assert learn.model[0].bptt == 70 and learn.model[0].max_len == 1400
        assert [m.out_features for m in learn.model[1].modules() if isinstance(m, torch.nn.Linear)] == [50, 2]
        ps = [m.p for m in learn.model[1].modules() if isinstance(m, torch.nn.Dropout)]
        assert ps == pytest.approx([.4*mult, .1])

@pytest.mark.parametrize('name', PHASES)
def test_no_recipe_has_fastais_weight_decay_in_the_gradient(tmp_path, name):
    "As L2 it shrinks the weights to nothing, and no one has published that"
    kw = recipes[name].learner_kwargs
    learn = make_clas(tmp_path, **{k: kw[k] for k in ('wd', 'opt_func') if k in kw})
    learn.create_opt()
    l2 = any(getattr(cb, '__name__', '') == 'l2_reg' for cb in learn.opt.cbs)
    assert l2 == ('wd' in kw and 'opt_func' in kw) and (not l2 or learn.wd < 1e-5)

def test_a_new_optimiser(tmp_path):
    learn = make_clas(tmp_path)
    learn.create_opt()
    learn.opt.set_hyper('sqr_mom', .5)
    learn.opt.state[next(learn.model.parameters())]['step'] = 100
    learn.splitter = lambda m: [[*m[0].module.encoder.parameters()], *([*r.parameters()] for r in m[0].module.rnns), [*m[1].parameters()]]
    old = learn.opt
    with learn.no_bar(), learn.no_logging(): learn.apply_recipe(recipes.paper_clas, 5, reset_opt=True)
    assert learn.opt is not old and learn.opt.hypers[0]['sqr_mom'] == .99
    learn.splitter = lambda m: [[*m[0].parameters()], [*m[1].parameters()]]
    with pytest.raises(ValueError, match='the learner has 2'): learn.apply_recipe(recipes.paper_clas, 5, reset_opt=True)

def test_the_second_beta_is_set(clas):
    mine = Recipe('mine', 'classifier', 'here', 1e-2, recipes.paper_clas.steps, sqr_mom=.9)
    with clas.no_bar(), clas.no_logging(): clas.apply_recipe(mine, 5)
    assert {h['sqr_mom'] for h in clas.opt.hypers} == {.9} and clas.recorder.plan.names == ('encoder', 'rnns.0', 'rnns.1', 'rnns.2', 'head')

def test_recipes_as_keys_and_under_wrong_names():
    assert len(set(recipes.values())) == len(recipes) and pickle.loads(pickle.dumps(recipes))['forum_lm'] == recipes.forum_lm
    with pytest.raises(AttributeError, match="there is no recipe 'papr_clas', only paper_lm, paper_clas"):
        assert recipes.papr_clas

def test_weight_decay_of_fastai_0_7_goes_through_the_gradient(tmp_path):
    learn = make_clas(tmp_path, wd=.1, opt_func=recipes.scripts_clas.learner_kwargs['opt_func'])
    learn.create_opt()
    assert [cb.__name__ for cb in learn.opt.cbs if hasattr(cb, '__name__')][0] == 'l2_reg'

def test_the_table():
    table = recipes.table()
    assert isinstance(table, pd.DataFrame) and table.index.tolist() == list(recipes) and (table.source != '').all()
    row = table.loc['scripts_lm_head_first']
    assert row[['kind', 'epochs', 'rates in the last phase', 'batch size', 'bptt', 'β1', 'β2', 'clip', 'weight decay']].tolist() == [
        'language model', '1 + 25', '0.00067, 0.0013, 0.004, 0.002', '64', '70', '0.8', '0.99', '0.3', '1e-07']
    assert row.schedule == 'STLR(cut_frac=0.25, ratio=6), STLR(cut_frac=0.1, ratio=32)'
    assert row.dropout == 'input_p 0.25, output_p 0.1, weight_p 0.2, embed_p 0.02, hidden_p 0.15'
    assert table.loc['notebook_clas', 'weight decay'] == '0' and table.loc['forum_lm', 'weight decay'] == ''
    assert 'scripts_clas' in repr(recipes) and recipes._repr_html_().count('<tr') == len(recipes)+2

def test_a_recipe_shows_itself():
    for o in (repr(recipes.notebook_clas), recipes.notebook_clas._repr_html_()):
        assert 'imdb.ipynb' in o and 'clip 25' in o and 'all times 0.5' in o and '1.00e-04' in o
    r = Recipe('<b>', 'classifier', '<i>', 1e-2, recipes.paper_clas.steps)
    assert '<b>' not in r._repr_html_() and '<i>' not in r._repr_html_()
    assert '&lt;i&gt;' in Recipes(a=r)._repr_html_() and recipes.paper_clas == recipes['paper_clas']

def test_an_own_recipe(clas):
    mine = Recipe('mine', 'classifier', 'here', 1e-2, recipes.paper_clas.steps, wd=.3)
    with clas.no_bar(), clas.no_logging(): clas.apply_recipe(mine, 5)
    np.testing.assert_array_equal(clas.recorder.group_lrs, mine.plan(5).lrs(6))
    assert clas.opt.hypers[0]['wd'] == .3 and mine.plan().phases[0].sched == STLR() and mine.learner_kwargs == dict(wd=.3)
