"The published numbers, compared with those that are written down once more"
import pickle
import re
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import make_clas
from recipes.published_numbers import E4, PAPER, PHASES, SETTINGS, rates

from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import Cos
from fastai_discrim.recipes import Recipe, Step, recipes
from fastai_discrim.recipes.published import Recipes


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

@pytest.mark.parametrize('name', PHASES)
def test_rates_of_every_step_are_the_originals(name):
    # With 120 steps an epoch fastai 0.7 cuts every cycle at a whole one
    n_iter = 20 if 'tutorial' in name else 120
    phases = [*PHASES[name][:-1], (5, *PHASES[name][-1][1:])]
    plan = recipes[name].plan(sum(p[0] for p in phases))
    # fastai finds its place in `combined_cos` in float32
    np.testing.assert_allclose(plan.lrs(n_iter), rates(phases, n_iter), rtol=2e-6 if 'tutorial' in name else 1e-9, atol=1e-15)

def test_the_papers_classifier_is_ulmfit_plan(clas):
    assert recipes.paper_clas.plan() == clas.ulmfit_plan(50, 1e-2, epochs=1, moms=(.7, .7, .7)) == recipes.table7_freez_discr_stlr.plan()

def test_the_papers_language_model_is_ulmfit_plan(lm):
    assert recipes.paper_lm.plan() == lm.ulmfit_plan(25, 4e-3, moms=(.7, .7, .7)) == recipes.table6_full_discr_stlr.plan()

def test_recipes_as_keys_and_under_wrong_names():
    assert len(set(recipes.values())) == len(recipes) and pickle.loads(pickle.dumps(recipes))['forum_lm'] == recipes.forum_lm
    with pytest.raises(AttributeError, match="there is no recipe 'papr_clas', only paper_lm, paper_clas"):
        assert recipes.papr_clas

def test_the_table():
    table = recipes.table()
    assert isinstance(table, pd.DataFrame) and table.index.tolist() == list(recipes) and (table.source != '').all()
    row = table.loc['scripts_lm_head_first']
    assert row[['kind', 'epochs', 'rates in the last phase', 'batch size', 'bptt', 'β1', 'β2', 'clip', 'weight decay']].tolist() == [
        'language model', '1 + 25', '0.00067, 0.0013, 0.004, 0.002', '64', '70', '0.8', '0.99', '0.3', '1e-07']
    assert row.schedule == 'STLR(cut_frac=0.25, ratio=6), STLR(cut_frac=0.1, ratio=32)'
    assert row.dropout == 'input_p 0.25, output_p 0.1, weight_p 0.2, embed_p 0.02, hidden_p 0.15'
    assert table.loc['notebook_clas', 'weight decay'] == '0' and table.loc['forum_lm', 'weight decay'] == ''

def test_it_fits_into_a_terminal_and_a_notebook():
    table,notes = repr(recipes).split('\n\n')
    assert max(map(len, table.splitlines())) <= 110 and 'scripts_clas' in table and 'scripts_clas: fastai 0.7' in notes
    html = recipes._repr_html_()
    assert html.count('<tr') == len(recipes)+2 and re.findall('<th>([a-z ]+)</th>', html.split('recipe</th>')[0]) == [
        'kind', 'epochs', 'rates in the last phase', 'schedule', 'source']
    assert 'recipes.table()' in html and 'recipes.table()' in table

MINE = """
from fastai_discrim.plan.schedules import Cos
from fastai_discrim.recipes import Recipe, Step, recipes

head = Step(0.5, (4,), 2.6, Cos())
whole = Step(9.5, (0, 1, 2, 3, 4), 2.6, Cos(), scale=0.1)
recipes['mine'] = Recipe('mine', 'classifier', 'my notebook', 1e-2, (head, whole), moms=(0.9, 0.8, 0.9), wd=0.03)
"""

@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path/'my_recipe.py').write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: __import__('my_recipe')
    sys.modules.pop('my_recipe', None)
    recipes.pop('mine', None)

def test_a_recipe_of_ones_own_is_one_file(mine, tmp_path):
    mine()
    row = recipes.table().loc['mine']
    assert row[row != ''].to_dict() == {
        'kind': 'classifier', 'epochs': '0.5 + 9.5', 'rates in the last phase': '2.2e-05, 5.7e-05, 0.00015, 0.00038, 0.001',
        'schedule': 'Cos(hold=0)', 'β1': '(0.9, 0.8, 0.9)', 'weight decay': '0.03', 'source': 'my notebook'}
    assert recipes.table().index.tolist() == [*PHASES, 'mine'] and 'mine: my notebook' in repr(recipes) and 'mine' in recipes._repr_html_()
    assert recipes.mine is recipes['mine'] and recipes.mine.n_epoch == 10 and 'mine' in dir(recipes)
    learn = make_clas(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.apply_recipe(recipes.mine, 2)
    # 4 steps an epoch: the head has half an epoch
    want = np.zeros((8, 5))
    want[:2,4] = 1e-2*(np.cos(np.pi*np.arange(2)/2)+1)/2
    want[2:] = np.array(E4)/10*(np.cos(np.pi*np.arange(6)/6)+1)[:,None]/2
    np.testing.assert_allclose(learn.recorder.group_lrs, want, rtol=1e-12, atol=1e-15)
    assert {h['wd'] for h in learn.opt.hypers} == {.03}

def test_only_recipes_are_added():
    before = list(recipes)
    with pytest.raises(TypeError, match=r"recipes\['mine'\] is a Plan: expected a Recipe"): recipes['mine'] = recipes.paper_clas.plan()
    with pytest.raises(TypeError, match=r"recipes\['mine'\] is a int: expected a Recipe"): recipes.mine = 3
    assert list(recipes) == before

def test_the_table_goes_by_the_names_under_which_recipes_are_found():
    one = Recipe('same', 'classifier', 'here', 1e-2, (Step(3, (4,), 1., Cos()),))
    two = Recipes(a=one, b=recipes.paper_lm)
    assert two.table().index.tolist() == ['a', 'b'] and two.a is one
    assert Recipes(a=one).table().columns.tolist()[-2:] == ['source', 'note'] and 'a: here' in repr(Recipes(a=one))
