"Phases without groups that have nothing left to train"
import pytest

from fastai_discrim.plan.opening import chain_thaw, fill, gradual
from fastai_discrim.plan.passed_over import pass_over, pass_over_in_plan
from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import STLR, Flat


def filled(phases, dead, n_epoch): return fill(pass_over(phases, dead), n_epoch, 'it')

@pytest.mark.parametrize('dead,want', [
    ((), [(1, (3,)), (1, (2, 3)), (1, (1, 2, 3)), (6, (0, 1, 2, 3))]),
    ((0,), [(1, (3,)), (1, (2, 3)), (7, (1, 2, 3))]),
    ((1,), [(1, (3,)), (1, (2, 3)), (7, (0, 2, 3))]),
    ((0, 2), [(1, (3,)), (8, (1, 3))]),
    ((3,), [(1, (2,)), (1, (1, 2)), (7, (0, 1, 2))]),
    ((0, 1, 2), [(9, (3,))])], ids=str)
def test_gradual_unfreezing(dead, want): assert filled(gradual(4), dead, 9) == want

def test_epochs_of_each_group_go_with_it():
    assert filled(gradual(4, [3, 2, 1]), (2,), 9) == [(3, (3,)), (1, (1, 3)), (5, (0, 1, 3))]
    assert filled(gradual(4, .25), (0,), 1) == [(.25, (3,)), (.25, (2, 3)), (.5, (1, 2, 3))]

def test_fewer_groups_need_fewer_epochs():
    assert filled(gradual(4), (0,), 3) == [(1, (3,)), (1, (2, 3)), (1, (1, 2, 3))]
    with pytest.raises(ValueError, match='n_epoch=2: expected at least 3'): filled(gradual(4), (0,), 2)

@pytest.mark.parametrize('dead,want', [
    ((0,), [(1, (3,)), (1, (1,)), (1, (2,)), (6, (1, 2, 3))]),
    ((3,), [(1, (0,)), (1, (1,)), (1, (2,)), (6, (0, 1, 2))]),
    ((1, 2, 3), [(9, (0,))]),
    ((0, 1, 2), [(9, (3,))])], ids=str)
def test_chain_thaw(dead, want): assert filled(chain_thaw(4), dead, 9) == want

def test_a_strategy_that_says_the_same_twice_keeps_it():
    twice = [(1, (1,)), (2, (1,)), (1, (0, 1))]
    assert pass_over(twice, ()) == twice

def test_all_groups_that_would_train_are_frozen_by_hand():
    with pytest.raises(ValueError, match=r'all groups that would train, \[2, 3\], are frozen by hand'):
        pass_over(gradual(4, down_to=2), (2, 3))

LRS = (1e-3, 1e-2)

def test_a_plan():
    plan = Plan([Phase(1, (1,), LRS, Flat()), Phase(2, (0,), LRS, STLR(), moms=(.9,)*3), Phase(3, (0, 1), LRS, sched=None)], 'ab')
    assert pass_over_in_plan(plan, ()) is plan
    got = pass_over_in_plan(plan, (0,))
    # The cycle that the second phase began is the third's
    assert got == Plan([Phase(1, (1,), LRS, Flat()), Phase(5, (1,), LRS, STLR(), moms=(.9,)*3)]) and got.passed_over == ('a',)
    assert pass_over_in_plan(got, (0,)) is got
    last = Plan([Phase(1, (1,), LRS), Phase(2, (0,), LRS, early_stop=EarlyStop())])
    assert pass_over_in_plan(last, (0,)) == Plan([Phase(3, (1,), LRS)])
    with pytest.raises(ValueError, match=r'all groups that the plan trains, \[0\], are frozen by hand'):
        pass_over_in_plan(Plan([Phase(1, (0,), LRS)]), (0,))
