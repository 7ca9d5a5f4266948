"Phases of several plans, aligned by what trains"
import pytest

from fastai_discrim.plan.align import align, what_trains
from fastai_discrim.plan.phase import Phase


@pytest.mark.parametrize('groups,text', [
    ((0, 1, 2, 3), 'all groups'), ((3,), 'd'), ((2, 3), 'c to d'), ((1, 2), 'b to c'), ((0, 3), 'a, d'), ((0, 2, 3), 'a, c, d')])
def test_what_trains(groups, text): assert what_trains(Phase(1, groups, (1.,)*4), 'abcd') == text

@pytest.mark.parametrize('plans,rows', [
    (['abc', 'abc'], 'abc'), (['ac', 'abc'], 'abc'), (['abc', 'ac'], 'abc'), (['a', 'b'], 'ab'), (['abd', 'acd', 'ad'], 'abcd'),
    (['aaa', 'a'], 'aaa'), (['xab', 'aby'], 'xaby'), (['ab', 'ba', 'aba'], 'aba')])
def test_each_plan_lies_in_the_rows_in_order(plans, rows):
    found,places = align([list(p) for p in plans])
    assert ''.join(found) == rows
    for plan,at in zip(plans, places):
        there = [i for i in at if i is not None]
        assert there == list(range(len(plan))) and all(i is None or plan[i] == row for i,row in zip(at, found))
