"Plans side by side"
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from fastai_discrim.plan.compare import compare_plans
from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import STLR, Cos
from fastai_discrim.recipes import recipes

LRS = (1e-4, 1e-3, 1e-2)
A = Plan([Phase(1, (2,), LRS), Phase(2, (0, 1, 2), LRS)], 'abc')

def test_only_what_differs_is_in_the_table():
    b = Plan([Phase(1, (2,), LRS), Phase(2, (0, 1, 2), (1e-4, 1e-3, 2e-2), STLR(0.2), (.9, .8, .9))], 'abc')
    table = compare_plans(A, b, show_plot=False)
    assert {k: tuple(row) for k,row in zip(table.index, table.values)} == {
        ('all groups', 'c'): ('0.01', '0.02'),
        ('all groups', 'schedule'): ('STLR(cut_frac=0.1, ratio=32)', 'STLR(cut_frac=0.2, ratio=32)'),
        ('all groups', 'momentum'): ("the learner's", '(0.9, 0.8, 0.9)')}
    assert table.columns.tolist() == ['plan 1', 'plan 2'] and not plt.get_fignums()

def test_phases_are_aligned_by_what_trains():
    "Not by their number: the last phase of all groups is the second here, the third there"
    b = Plan([Phase(1, (2,), LRS), Phase(2, (1, 2), LRS), Phase(3, (0, 1, 2), LRS)], 'abc')
    for plans in (dict(short=A, long=b), dict(long=b, short=A)):
        table = compare_plans(**plans, show_plot=False)
        assert table['short'].to_dict() == {
            ('all', 'epochs'): '3', ('all', 'phases'): '2', ('b to c', 'phase'): 'no such phase', ('b to c', 'epochs'): '',
            ('all groups', 'phase'): '2', ('all groups', 'epochs'): '2'}
        assert table['long'].tolist() == ['6', '3', '2', '2', '3', '3']

def test_what_differs_between_those_that_have_a_phase():
    one,two = (Plan([Phase(1, (2,), lrs), Phase(2, (0, 1, 2), LRS)], 'abc') for lrs in (LRS, (1e-4, 1e-3, 2e-2)))
    table = compare_plans(one, two, Plan([Phase(3, (0, 1, 2), LRS)], 'abc'), show_plot=False)
    assert table.loc['c'].T.to_dict('list') == {'phase': ['1', '1', 'no such phase'], 'epochs': ['1', '1', ''], 'c': ['0.01', '0.02', '']}

def test_groups_that_one_of_them_lacks():
    table = compare_plans(short=Plan([Phase(3, (0, 1), (1., 2.))], 'ac'), long=A, show_plot=False)
    assert table.columns.tolist() == ['short', 'long'] and table.index[0] == ('all', 'phases')
    assert table.loc['all groups', 'short'].to_dict() == {'phase': '1', 'epochs': '3', 'a': '1', 'b': 'no such group', 'c': '2'}

def test_phases_come_in_order():
    table = compare_plans(Plan([Phase(1, (2,), LRS)]*11), A, show_plot=False)
    assert list(dict.fromkeys(table.index.get_level_values(0))) == ['all', *(f'c ({i})' for i in range(2, 12)), 'all groups']
    assert table.loc[('c (11)', 'phase')].tolist() == ['11', 'no such phase']

def test_what_differs_looks_different():
    b = Plan([Phase(1, (2,), (1e-4, 1e-3, 0.01000000001)), A.phases[1]], 'abc')
    assert compare_plans(A, b, show_plot=False).loc[('c', 'c')].tolist() == ['0.01', '0.01000000001']

def test_equal_plans_make_an_empty_table():
    assert compare_plans(A, replace(A, source='elsewhere'), show_plot=False).shape == (0, 2)

@pytest.mark.parametrize('n,shape', [(2, (1, 2)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3))])
def test_one_figure(n, shape):
    plans = {f'p{i}': A.under(Cos()) if i else A for i in range(n)}
    compare_plans(**plans)
    axs = plt.gcf().axes
    rates = [a for a in axs if a.get_title(loc='left') in plans]
    training = [a for a in axs if a not in rates]
    assert len(plt.get_fignums()) == 1 and len(axs) == 2*n and [a.get_title(loc='left') for a in rates] == list(plans)
    assert len({a.get_ylim() for a in rates}) == 1 and all(len(a.lines) == 3 for a in rates)
    assert all(a.get_xlim() == b.get_xlim() == (0, 3) for a,b in zip(rates, training))
    assert rates[0].get_gridspec().ncols == shape[1] and rates[0].get_gridspec().nrows == 2*shape[0]
    # Names, once a row
    named = [a for a in training if any(t.get_text() for t in a.get_yticklabels())]
    assert len(named) == shape[0]

def test_plans_of_other_lengths_share_an_axis():
    compare_plans(short=A, long=Plan([Phase(30, (2,), LRS)], 'xyz'), yscale='linear')
    axs = plt.gcf().axes
    assert {a.get_xlim() for a in axs} == {(0, 30)} and [a.get_yscale() for a in axs] == ['linear']*4
    # Other groups have their names beside them
    assert [[t.get_text()[2:] for t in a.get_yticklabels()] for a in axs[2:]] == [['a', 'b', 'c'], ['x', 'y', 'z']]

def test_recipes_with_other_layer_groups():
    table = compare_plans(lm=recipes.paper_lm.plan(), classifier=recipes.paper_clas.plan())
    assert table.loc[('all', 'layer groups')].tolist() == ['4', '5'] and table.loc[('head', 'phase')].tolist() == ['no such phase', '1']
    assert table.loc[('all groups', 'encoder')].tolist() == ['no such group', '0.000219']

def test_what_can_not_be_compared():
    with pytest.raises(ValueError, match='1 plan: expected two or more'): compare_plans(A)
    with pytest.raises(TypeError, match='b is a int: expected a Plan'): compare_plans(A, b=3)
    with pytest.raises(TypeError, match='plan 2 is a Recipe: expected a Plan, such as `recipes'): compare_plans(A, recipes.paper_lm)

def test_names_that_would_hide_something():
    def plans(names): return [Plan([Phase(1, (0, 1, 2), lrs)], names) for lrs in (LRS, (2e-4, 1e-3, 1e-2))]
    assert compare_plans(*plans('aab'), show_plot=False).index.tolist() == [('all groups', '0 a')]
    assert compare_plans(*plans(['epochs', 'schedule', 'c']), show_plot=False).index.tolist() == [('all groups', '0 epochs')]
    with pytest.raises(ValueError, match="'plan 1'.*: expected other names"): compare_plans(A, **{'plan 1': A})

def test_names_are_no_difference():
    assert compare_plans(Plan(A.phases), A, Plan(A.phases, 'xyz'), show_plot=False).shape == (0, 3)

def test_names_come_from_the_plan_that_has_them():
    other = [Phase(1, (2,), (1., 2., 3.)), A.phases[1]]
    for plans in ((Plan(A.phases), Plan(other, 'abc')), (A, Plan(other))):
        assert compare_plans(*plans, show_plot=False).index.tolist() == [('c', 'c')]

def test_what_looks_alike_takes_more_digits_alone():
    b = Plan([A.phases[0], Phase(2, (0, 1, 2), (2e-4, 1e-3, 1e-2*(1+1e-4)))], 'abc')
    table = compare_plans(A, b, show_plot=False)
    assert table.loc['all groups'].values.tolist() == [['0.0001', '0.0002'], ['0.01', '0.010001']]

def test_the_order_is_that_of_the_plan_that_says_most():
    lm = Plan([Phase(1, (0, 1), (1., 2.))], 'xc')
    table = compare_plans(lm, A, show_plot=False)
    assert [k for where,k in table.index if where == 'all groups'] == ['phase', 'epochs', 'a', 'b', 'c', 'x']

def test_what_ends_a_phase():
    table = compare_plans(A, replace(A, phases=[A.phases[0], replace(A.phases[1], early_stop=EarlyStop(2))]), show_plot=False)
    assert table.index.tolist() == [('all groups', 'early stop')]
    assert table.iloc[0].tolist() == ['', 'until valid_loss stalls for 2 epochs']

def test_lengths_in_fractions_of_an_epoch():
    def table(*lengths):
        plans = [Plan([Phase(n, (2,), LRS), Phase(3000-n, (0, 1, 2), LRS)]) for n in lengths]
        return compare_plans(*plans, show_plot=False)
    assert table(.4, 1).to_dict('list') == {'plan 1': ['0.4', '2999.6'], 'plan 2': ['1', '2999']}
    # As `%g`, and more digits where that is not enough
    assert table(1/3, 1234.5).values.tolist() == [['0.333333', '1234.5'], ['2999.67', '1765.5']]
    assert table(1, 1+1e-9).values.tolist() == [['1', '1.000000001'], ['2999', '2998.999999999']]

def test_a_group_that_is_called_as_a_row_is():
    plans = [Plan([Phase(1, (0, 1, 2), lrs)], ['early stop', 'b', 'c']) for lrs in (LRS, (2e-4, 1e-3, 1e-2))]
    assert compare_plans(*plans, show_plot=False).index.tolist() == [('all groups', '0 early stop')]

def test_a_cycle_that_goes_on_norm_layers_and_clipping():
    whole = replace(A.under(Cos(), whole=True), train_bn=False, clip=.5)
    table = compare_plans(A.under(Cos()), whole, show_plot=False)
    assert {k: tuple(row) for k,row in zip(table.index, table.values)} == {
        ('all', 'train_bn'): ('', 'False'), ('all', 'clip'): ('', '0.5'), ('all groups', 'schedule'): ('Cos(hold=0)', 'goes on'),
        ('all groups', 'momentum'): ("the learner's", 'goes on')}
