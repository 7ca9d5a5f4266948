"What a plot of rates shows"
import numpy as np

from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.plot import plot_lrs
from fastai_discrim.plan.schedules import CLRBeta, Cos, Flat, OneCycle

LRS = (1e-4, 1e-3, 1e-2)

PLAN = Plan([Phase(1, (2,), LRS), Phase(2, (1, 2), LRS, CLRBeta()), Phase(2, (0, 1, 2), LRS, OneCycle()),
             Phase(1, (0,), LRS, Cos()), Phase(1, (0, 2), LRS, Flat())], 'abc')

def test_plot():
    rates,spans = PLAN.plot()
    assert spans.get_xlim() == (0, 7) and spans.get_xlabel() == 'epoch' and len(rates.get_lines()) == 3
    assert PLAN.plot(n_iter=8)[1].get_xlabel() == 'iteration'
    np.testing.assert_array_equal(np.nan_to_num(PLAN.plot(n_iter=8)[0].get_lines()[0].get_ydata()), PLAN.lrs(8)[:,0])

def test_plot_spans_are_where_a_group_trains():
    lrs = np.array([[0, 1.], [1, 1], [0, 1], [1, 1]])
    _,spans = plot_lrs(lrs, n_iter=2)
    bars = [[p.get_extents().intervalx.tolist() for p in c.get_paths()] for c in spans.collections]
    assert bars == [[[.5, 1.], [1.5, 2.]], [[0, 2.]]] and spans.get_xlabel() == 'epoch'

def spans_of(spans): return [[p.get_extents().intervalx.tolist() for p in c.get_paths()] for c in spans.collections]

def test_a_plot_of_fractional_phases():
    plan = Plan([Phase(.25, (1,), (1e-3, 1e-2)), Phase(.75, (0, 1), (1e-3, 1e-2))], 'ab')
    _,spans = plan.plot()
    assert spans_of(spans) == [[[.25, 1.]], [[0, 1.]]] and [t.get_text() for t in spans.get_yticklabels()] == ['0 a', '1 b']
    assert spans_of(plan.plot(n_iter=8)[1]) == [[[2, 8]], [[0, 8]]]

def test_a_plot_shows_phases_far_shorter_than_an_epoch():
    _,spans = Plan([Phase(.001, (1,), (1e-3, 1e-2)), Phase(.999, (0, 1), (1e-3, 1e-2))]).plot()
    np.testing.assert_allclose(spans_of(spans)[0], [[.001, 1.]], atol=6e-4)
