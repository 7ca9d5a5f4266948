"How plans show themselves"
import re

import pytest

from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan

NAMES = [f'encoder.layer.{i}' for i in range(13)] + ['head']

def plan(n, lrs=None, names=None):
    lrs = lrs or tuple(10.**-i for i in reversed(range(n)))
    return Plan([Phase(1, (n-1,), lrs), Phase(1, (n-2, n-1), lrs), Phase(2, tuple(range(n)), lrs)], names or NAMES[-n:])

def test_a_plan_of_few_groups_has_a_column_for_each():
    few = plan(6, names='abcdef')
    text,html = repr(few),few._repr_html_()
    assert text.splitlines()[1].split() == ['epochs', *'abcdef', 'schedule'] and 'Peak rates' not in text+html
    assert re.findall('<th>(.+?)</th>', html)[:8] == ['epochs', *'abcdef', 'schedule'] and html.count('>frozen<') == 5+4

@pytest.mark.parametrize('n', [7, 14])
def test_a_plan_of_many_groups_fits_into_a_notebook(n):
    text,html = repr(plan(n)),plan(n)._repr_html_()
    title,columns,_,*phases = text.splitlines()
    assert max(map(len, text.splitlines()[1:])) <= 100
    assert re.findall('<th>(.+?)</th>', html)[:4] == re.split('  +', columns.strip()) == ['epochs', 'trains', 'peak rates', 'schedule']
    assert re.split('  +', phases[0].strip()) == ['1', '1', 'head', '1.00e+00', 'STLR(cut_frac=0.1, ratio=32)']
    assert re.split('  +', phases[1].strip())[2:4] == ['encoder.layer.12 to head', '1.00e-01 to 1.00e+00']
    assert re.split('  +', phases[2].strip())[2:4] == ['all groups', f'1.00e-{n-1:02} to 1.00e+00']
    # Each group's rate is there
    for i,name in enumerate(NAMES[-n:]): assert f'{name}=1.00e{i-n+1:+03}'.replace('-00', '+00') in text and f'{name}=' in html
    assert plan(n).table().shape == (3, n+2)

def test_rates_that_differ_from_phase_to_phase():
    two = Plan([Phase(1, (6,), (1.,)*7), Phase(1, tuple(range(7)), (2.,)*7)], NAMES[-7:])
    for o in (repr(two), two._repr_html_()): assert '`plan.table()` has all' in o and 'head=' not in o

def test_long_names_are_counted():
    assert 'Peak rates' in repr(plan(3, names=[f'{o}.of.a.long.name.of.a.module' for o in 'abc']))

def test_names_of_a_narrow_table_are_escaped():
    assert '<b>' not in plan(7, names=['<b>', *NAMES[-6:]])._repr_html_()
