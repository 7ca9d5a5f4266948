"What a run of each recipe does with the published numbers"
from functools import partial

import numpy as np
import pytest
import torch
from conftest import lr_find, make_clas, make_lm, make_mlp, same, snapshot, weights
from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from fastai.optimizer import SGD, OptimWrapper
from fastai.torch_core import set_seed
from recipes.published_numbers import E4, PAPER, PHASES, SETTINGS, gradual, paper, rates

from fastai_discrim.plan.json_text import dumps
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import STLR
from fastai_discrim.recipes import Recipe, recipes


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
    if recipes[name].kind == 'classifier': return make_clas(path, n=2*n, bs=2, length=6, **kwargs)
    return make_lm(path, n=40, bs=4, **kwargs)

@pytest.mark.parametrize('name', PHASES)
def test_a_run_has_the_originals_rates(tmp_path, name):
    learn,watch,n_last = learner(name, tmp_path),Watch(),SIZES.get(name, (20, 1))[1]
    nb,recipe,set_ = len(learn.dls.train),recipes[name],SETTINGS.get(name, PAPER)
    phases = [*PHASES[name][:-1], (n_last, *PHASES[name][-1][1:])]
    n_epoch = sum(p[0] for p in phases)
    with learn.no_bar(), learn.no_logging(): learn.apply_recipe(recipe, n_epoch, cbs=watch)
    assert nb == SIZES.get(name, (20, 1))[0]
    # fastai finds its place in `combined_cos` in float32
    np.testing.assert_allclose(learn.recorder.group_lrs, rates(phases, nb), rtol=2e-6 if 'tutorial' in name else 1e-9, atol=1e-15)
    first,peak,last = set_['moms']
    assert watch.moms[0] == first and (first == peak or min(watch.moms) == pytest.approx(peak, abs=2e-3))
    h = learn.opt.hypers[0]
    assert h['sqr_mom'] == .99 and h['wd'] == (.01 if set_['wd'] is None else set_['wd'])
    assert set_['clip'] is None or max(watch.norms) <= set_['clip']*(1+1e-4)
    record = learn.recorder.run_record()
    assert record['plan'].get('clip') == set_['clip']
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

BAD = [((2,), 'n_epoch=2: expected at least 3'), ((3, -1), 'lr=-1: expected'), ((3, '1e-3'), "lr='1e-3': expected"),
       ((3.5,), 'n_epoch=3.5: expected'), ((0,), 'n_epoch=0: expected'), ((3, float('nan')), 'lr=nan: expected')]

@pytest.mark.parametrize('args,match', BAD)
def test_bad_epochs_and_rates_change_nothing(clas, args, match):
    clas.create_opt()
    before = snapshot(clas)
    with pytest.raises((ValueError, TypeError), match=match): clas.apply_recipe(recipes.scripts_clas, *args)
    assert same(before, snapshot(clas))

def test_a_checkpoint_of_another_run_is_refused_before_anything_changes(tmp_path):
    learn = make_clas(tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.fit_plan(learn.ulmfit_plan(5, 1e-2), checkpoint='r')
        learn.fit(1, 1e-3)
    before,opt = snapshot(learn),learn.opt
    for kw in ({}, dict(reset_opt=True)):
        with pytest.raises(ValueError, match='r.ckpt belongs to another run'):
            learn.apply_recipe(recipes.scripts_clas, 4, checkpoint='r', **kw)
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
    'a recipe is no plan': (make_clas, lambda l: l.fit_plan(recipes.paper_clas), 'plan=paper_clas, .*: expected a Plan'),
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
    with pytest.warns(UserWarning, match='β2=0.99 is ignored, as the optimiser has none'), learn.no_bar(), learn.no_logging():
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

def test_an_own_recipe(clas):
    mine = Recipe('mine', 'classifier', 'here', 1e-2, recipes.paper_clas.steps, wd=.3)
    with clas.no_bar(), clas.no_logging(): clas.apply_recipe(mine, 5)
    np.testing.assert_array_equal(clas.recorder.group_lrs, mine.plan(5).lrs(4))
    np.testing.assert_allclose(clas.recorder.group_lrs, rates(gradual(5, E4, paper), 4), rtol=1e-12)
    assert clas.opt.hypers[0]['wd'] == .3 and mine.plan().phases[0].sched == STLR() and mine.learner_kwargs == dict(wd=.3)

def test_gradients_are_clipped(tmp_path):
    norms = {}
    for clip in (None, 1e-3):
        learn,watch = make_clas(tmp_path),Watch()
        mine = Recipe('mine', 'classifier', 'here', 1e-2, recipes.paper_clas.steps, clip=clip)
        with learn.no_bar(), learn.no_logging(): learn.apply_recipe(mine, 5, cbs=watch)
        norms[clip] = watch.norms
    assert max(norms[1e-3]) <= 1e-3*(1+1e-4) and min(norms[None]) > 2e-3

def test_the_plan_names_the_learners_groups(tmp_path):
    "Of which there may be five others than fastai's"
    def split(m):
        encoder,head = m[0].module,m[1]
        *lower,top = head.layers
        return [list(o.parameters()) for o in (encoder.encoder, encoder.rnns[:2], encoder.rnns[2], torch.nn.ModuleList(lower), top)]
    learn = make_clas(tmp_path)
    learn.splitter = split
    with learn.no_bar(), learn.no_logging(): learn.apply_recipe(recipes.paper_clas, 5)
    assert learn.recorder.plan.names == ('encoder', 'rnns.0 .. rnns.1', 'rnns.2', 'layers.0', 'head')

def test_one_rate_or_what_lr_find_gave(clas):
    with pytest.raises(TypeError, match=r'lr=slice.*: expected one number, .*: give the highest, as the recipe sets the others'):
        clas.apply_recipe(recipes.paper_clas, 5, slice(1e-3))
    with clas.no_logging():
        res = lr_find(clas, num_it=20)
        with clas.no_bar(): clas.apply_recipe(recipes.paper_clas, 5, res)
    assert clas.recorder.plan.lr == res.valley and clas.recorder.plan.lr_from == 'lr_find, valley'

def test_a_group_that_is_frozen_by_hand_is_passed_over_when_a_run_goes_on_too(tmp_path):
    class Stop(Callback):
        def before_batch(self):
            if self.epoch == 2: raise KeyboardInterrupt
    def _run(name, *cbs):
        learn = make_clas(tmp_path)
        for m in (learn.model[0].module.encoder, learn.model[0].module.encoder_dp): m.requires_grad_(False)
        set_seed(4)
        with learn.no_bar(),learn.no_logging():
            try: learn.apply_recipe(recipes.table7_chain_thaw, 6, cbs=cbs, checkpoint=name)
            except KeyboardInterrupt: pass
        return learn
    whole = _run('whole')
    _run('stopped', Stop())
    resumed = _run('stopped')
    assert all(map(torch.equal, whole.model.state_dict().values(), resumed.model.state_dict().values()))
    assert resumed.recorder.plan.passed_over == ('encoder',)
