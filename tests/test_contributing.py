"The examples of CONTRIBUTING.md, run as they stand there"
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import in_groups, moved, weights
from fastai.callback.core import Callback

from fastai_discrim.all import STLR, DiscriminativeLR, GradualUnfreezing, Plan, recipes

TEXT = (Path(__file__).resolve().parents[1]/'CONTRIBUTING.md').read_text()
BLOCKS = re.findall(r'^```python\n(.*?)^```$', TEXT, re.DOTALL | re.MULTILINE)
# Batches an epoch of conftest's learners
MLP_STEPS,CLAS_STEPS = 8,4

def run(defines):
    "Run the block that has `defines` in it, in a namespace of its own"
    block, = [o for o in BLOCKS if defines in o]
    names = {'__name__': 'contributing'}
    exec(compile(block, 'CONTRIBUTING.md', 'exec'), names)
    return names

@pytest.fixture
def mine():
    run("recipes['mine']")
    yield recipes.mine
    del recipes['mine']

def test_about_ten_lines_each():
    assert [len(o.strip().splitlines()) <= 14 for o in BLOCKS] == [True]*3

def test_schedule_in_json():
    Linear = run('class Linear')['Linear']
    plan = recipes.paper_clas.plan(7).under(Linear(0.2))
    read = Plan.from_json(plan.to_json())
    assert read == plan and {p.sched for p in read.phases} == {Linear(0.2)} and read != recipes.paper_clas.plan(7).under(Linear(0.3))
    assert 'Linear(end=0.2)' in repr(read)
    with pytest.raises(ValueError, match='end=2'): Linear(2)

def test_schedule_in_a_fit(mlp):
    plan = mlp.ulmfit_plan(4, 1e-2, epochs=1, sched=run('class Linear')['Linear'](0.2))
    mlp.fit_plan(plan)
    expected = []
    for n_epoch,lowest in (1, 2), (1, 1), (2, 0):
        n_steps = n_epoch*MLP_STEPS
        for step in range(n_steps):
            rate = 1e-2 - 0.8e-2*step/n_steps
            expected.append([0 if i < lowest else r for i,r in enumerate((rate/2.6/2.6, rate/2.6, rate))])
    assert len(mlp.dls.train) == MLP_STEPS and np.allclose(mlp.recorder.group_lrs, expected, rtol=1e-12, atol=0)
    assert set(mlp.recorder.hps['mom']) == {0.85}

class Weights(Callback):
    "Note the weights before the first step and after each"
    def before_fit(self): self.seen = [weights(self.learn)]
    def after_step(self): self.seen.append(weights(self.learn))

def test_strategy_as_a_callback(mlp):
    TopTwoFirst,seen = run('class TopTwoFirst')['TopTwoFirst'],Weights()
    mlp.fit_one_cycle(3, 1e-2, cbs=[TopTwoFirst(1.5), DiscriminativeLR(), seen])
    lrs,first = mlp.recorder.group_lrs,3*MLP_STEPS//2
    assert (lrs[:first] > 0).tolist() == [[False, True, True]]*first and (lrs[first:] > 0).all()
    assert np.allclose(lrs[:, 2]/lrs[:, 1], 2.6) and np.isclose(lrs[:, 2].max(), 1e-2, rtol=0.01)
    lowest,before,opened = in_groups(mlp, [0]),seen.seen[0],seen.seen[first]
    assert all(torch.equal(opened[n], before[n]) for n in lowest)
    assert moved(mlp, before) == set(before)

def test_strategy_is_refused_where_it_has_too_few_epochs(mlp):
    with pytest.raises(ValueError, match=r'n_epoch=2: expected at least 3, as TopTwoFirst\(epochs=2\)'):
        mlp.fit_one_cycle(2, 1e-2, cbs=run('class TopTwoFirst')['TopTwoFirst'](2))

def test_strategy_in_a_plan(mlp):
    TopTwoFirst = run('class TopTwoFirst')['TopTwoFirst']
    plan = mlp.ulmfit_plan(4, 1e-2, unfreezing=TopTwoFirst(1.5))
    assert [(p.epochs, p.groups) for p in plan.phases] == [(1.5, (1, 2)), (2.5, (0, 1, 2))]
    mlp.fit_plan(plan)
    assert ((mlp.recorder.group_lrs > 0).argmax(0) == [12, 0, 0]).all()
    with pytest.raises(ValueError, match='two unfreezing|in one fit'): mlp.fit(4, cbs=[TopTwoFirst(), GradualUnfreezing(1)])

def test_recipe_in_the_table_and_as_a_plan(mine):
    row = recipes.table().loc['mine']
    assert (row.kind, row.epochs, row.source, row['weight decay']) == ('classifier', '2 + 8', 'my notebook, cell 12', '0.02')
    plan = mine.plan()
    assert [(p.epochs, p.groups) for p in plan.phases] == [(2, (4,)), (8, (0, 1, 2, 3, 4))]
    assert all((p.sched, p.moms) == (STLR(), (0.8, 0.8, 0.8)) for p in plan.phases)
    for p,lr in zip(plan.phases, (2e-2, 1e-2)): assert np.allclose(p.lrs, [lr/2.6**n for n in (4, 3, 2, 1, 0)])
    assert Plan.from_json(plan.to_json()) == plan and plan.source == 'mine, my notebook, cell 12'

def test_recipe_in_a_fit(mine, clas):
    clas.apply_recipe(mine, 3)
    lrs = clas.recorder.group_lrs
    assert len(lrs) == 3*CLAS_STEPS and not lrs[:2*CLAS_STEPS, :4].any() and (lrs[2*CLAS_STEPS:] > 0).all()
    assert 0.9*2e-2 < lrs[:, 4].max() <= 2e-2 and lrs[2*CLAS_STEPS:].max() <= 1e-2
    assert {h['wd'] for h in clas.opt.hypers} == {0.02} and set(clas.recorder.hps['mom']) == {0.8}

def test_nothing_is_left(): assert 'mine' not in recipes
