"Recipes as data: the plan and the settings that they make, and how they show themselves"
from collections import namedtuple

import numpy as np
import pytest
import torch
from conftest import SMALL, make_clas, make_lm
from fastai.losses import CrossEntropyLossFlat
from fastai.text.learner import language_model_learner, text_classifier_learner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config
from recipes.published_numbers import BOOK, E4, PAPER, PHASES, SETTINGS

from fastai_discrim.plan.origin import BodyLR, HeadLR
from fastai_discrim.plan.schedules import STLR, Cos, Flat
from fastai_discrim.recipes import Recipe, Step, recipes
from fastai_discrim.recipes.published import Recipes


def test_other_epochs_and_another_rate():
    plan = recipes.scripts_clas.plan(7, 1e-3)
    assert [p.epochs for p in plan.phases] == [1, 1, 5] and (plan.lr, plan.lr_from) == (1e-3, 'given')
    # It is no longer what was published
    assert plan.source.endswith('a455d3e; changed: epochs 7, lr 0.001') and recipes.scripts_clas.plan(52, 1e-2).source.endswith('a455d3e')
    np.testing.assert_allclose(plan.phases[0].lrs, np.array(E4)/10)
    found = recipes.notebook_clas.plan(lr=HeadLR(2e-2, [1e-2, 2e-2], [.5, .4], 'as told'))
    assert found.lr_from == 'head_lr_find, as told' and found.tried == ((1e-2, .5), (2e-2, .4))
    np.testing.assert_allclose(found.phases[0].lrs, np.array(BOOK)*2)
    suggested = recipes.notebook_clas.plan(lr=namedtuple('SuggestedLRs', 'valley')(2e-2))
    assert suggested.lr_from == 'lr_find, valley' and suggested.phases[0].lrs == found.phases[0].lrs
    with pytest.raises(TypeError, match='lr=BodyLR.*: expected the rate of the head'):
        recipes.notebook_clas.plan(lr=BodyLR(1e-3, [], [], ''))

BAD = [((2,), 'n_epoch=2: expected at least 3, as scripts_clas takes 2 epochs before its last phase'), ((0,), 'n_epoch=0: expected'),
       ((3.5,), 'n_epoch=3.5: expected'), ((3, -1), 'lr=-1: expected'), ((3, '1e-3'), "lr='1e-3': expected"),
       ((3, float('nan')), 'lr=nan: expected')]

@pytest.mark.parametrize('args,match', BAD)
def test_bad_epochs_and_rates(args, match):
    with pytest.raises((ValueError, TypeError), match=match): recipes.scripts_clas.plan(*args)

@pytest.mark.parametrize('name', PHASES)
def test_fastais_constructors_take_the_settings(tmp_path, name):
    recipe,want = recipes[name],SETTINGS.get(name, PAPER)
    lm = recipe.kind == 'language model'
    dls = (make_lm if lm else make_clas)(tmp_path).dls
    dls.vocab,kw = list(range(30)),recipe.learner_kwargs
    if not lm: dls.c = 2
    # Use fastai's config if the recipe has none, with small sizes
    kw['config'] = {**kw.get('config', awd_lstm_lm_config if lm else awd_lstm_clas_config), **SMALL}
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

def test_weight_decay_of_fastai_0_7_goes_through_the_gradient(tmp_path):
    learn = make_clas(tmp_path, wd=.1, opt_func=recipes.scripts_clas.learner_kwargs['opt_func'])
    learn.create_opt()
    assert [cb.__name__ for cb in learn.opt.cbs if hasattr(cb, '__name__')][0] == 'l2_reg'

def test_a_recipe_shows_itself():
    for o in (repr(recipes.notebook_clas), recipes.notebook_clas._repr_html_()):
        assert 'imdb.ipynb' in o and 'clip 25' in o and 'all times 0.5' in o and '1.00e-04' in o
    r = Recipe('<b>', 'classifier', '<i>', 1e-2, recipes.paper_clas.steps)
    assert '<b>' not in r._repr_html_() and '<i>' not in r._repr_html_()
    assert '&lt;i&gt;' in Recipes(a=r)._repr_html_() and recipes.paper_clas == recipes['paper_clas']

def test_lengths_may_be_fractions_of_an_epoch():
    steps = (Step(.1, (4,), 1., Flat()), Step(.2, (3, 4), 1., Flat()), Step(2.7, (0, 1, 2, 3, 4), 1., Cos()))
    mine = Recipe('mine', 'classifier', 'here', 1e-2, steps)
    assert mine.n_epoch == 3 and [p.epochs for p in mine.plan().phases] == [.1, .2, 2.7] and mine.plan() == mine.plan(3)
    assert [p.epochs for p in mine.plan(1).phases] == pytest.approx([.1, .2, .7]) and mine.plan(1).n_epoch == 1
    assert mine.plan(1).source == 'mine, here; changed: epochs 1' and mine.plan(3).source == 'mine, here'
    with pytest.raises(ValueError, match='n_epoch=1: expected at least 3, as late takes 2.5 epochs before its last phase'):
        Recipe('late', 'classifier', 'here', 1e-2, (Step(2.5, (4,), 1., Flat()), Step(.5, (3, 4), 1., Flat()))).plan(1)
    with pytest.raises(ValueError, match='the phases have 2.5 epochs in all: expected a whole number'):
        Recipe('odd', 'classifier', 'here', 1e-2, (Step(2.5, (4,), 1., Flat()),)).plan()

def test_rates_of_a_step():
    "A number divides from group to group; a tuple multiplies"
    np.testing.assert_allclose(Step(1, (0,), 2., STLR(), scale=.5).lrs(.8, 3), [.1, .2, .4], rtol=1e-15)
    np.testing.assert_allclose(Step(1, (0,), (3, 1, .5), STLR(), scale=.5).lrs(.8, 3), [1.2, .4, .2], rtol=1e-15)

def test_a_kind_that_there_is_not():
    with pytest.raises(ValueError, match="kind='classifer': expected 'language model' or 'classifier'"):
        Recipe('mine', 'classifer', 'here', 1e-2, recipes.paper_clas.steps)

def test_settings_that_the_source_does_not_state_are_left_out():
    def settings(**kw): return Recipe('mine', 'classifier', 'here', 1e-2, recipes.paper_clas.steps, **kw).settings()
    assert settings() == settings(val_bs=64) == settings(drop_mult=1) == settings(drops={}) == {}
    assert settings(drop_mult=.5) == {'dropout': 'as in fastai, all times 0.5'}
    assert settings(bs=32, val_bs=64, moms=(.9, .9, .9), wd=0.) == {
        'batch size': '32, 64 to validate', 'β1': '0.9', 'weight decay': '0'}
    assert settings(moms=(.9, .8, .9), drops=dict(input_p=.1, embed_p=.02), drop_mult=2) == {
        'β1': '(0.9, 0.8, 0.9)', 'dropout': 'input_p 0.1, embed_p 0.02, all times 2'}
