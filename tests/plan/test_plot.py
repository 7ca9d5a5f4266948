"What a plot of rates shows"
import matplotlib.pyplot as plt
import numpy as np
import pytest

from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.plot import phase_labels, plot_lrs
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

def test_a_title_says_what_it_is():
    assert PLAN.plot()[0].get_title(loc='left') == 'Plan: 7 epochs, 5 phases, 3 groups'

def test_on_a_linear_scale_a_slanted_triangle_is_a_triangle():
    rates,_ = Plan([Phase(1, (0, 1, 2), LRS)]).plot(100, yscale='linear')
    ys = rates.get_lines()[2].get_ydata()
    assert rates.get_yscale() == 'linear' and rates.get_ylim()[0] == 0 and PLAN.plot()[0].get_yscale() == 'log'
    # Two straight lines, up for a tenth of the steps
    slopes = np.diff(ys)
    assert np.allclose(slopes[:10], slopes[0]) and np.allclose(slopes[10:], slopes[10]) and slopes[0] > 0 > slopes[10]
    with pytest.raises(ValueError, match="yscale='logit': expected 'log' or 'linear'"): PLAN.plot(yscale='logit')

def marks(rates): return [segment[0,0] for c in rates.collections for segment in c.get_segments()]
def numbers(rates):
    top, = [a for a in rates.child_axes]
    return [t.get_text() for t in top.get_xticklabels()]

def test_phases_are_marked():
    rates,_ = PLAN.plot()
    assert marks(rates) == [1, 3, 5, 6] and numbers(rates) == list('12345')
    assert marks(PLAN.plot(n_iter=10)[0]) == [10, 30, 50, 60]
    # One is the whole
    assert marks(Plan([Phase(2, (2,), LRS)]).plot()[0]) == [] == Plan([Phase(2, (2,), LRS)]).plot()[0].child_axes

def test_the_name_of_the_phases_touches_no_other_label():
    plan = Plan([Phase(1, (2,), LRS), Phase(1, (1, 2), LRS), Phase(4, (0, 1, 2), LRS)], 'abc')
    # Two side by side, as `compare_plans` draws them
    fig,axs = plt.subplots(2, 2, figsize=(6, 3), layout='constrained')
    for col in range(2): plan.plot(axs=axs[:,col])
    fig.canvas.draw()
    for ax in axs[0]:
        name, = [t for t in ax.texts if t.get_text() == 'phase']
        others = [t for o in axs[0] for t in [*o.get_yticklabels(), *o.child_axes[0].get_xticklabels()] if t.get_text()]
        box = name.get_window_extent()
        assert len(others) > 6 and not [t.get_text() for t in others if box.overlaps(t.get_window_extent())]
    plt.close(fig)

def test_short_phases_are_numbered_together():
    assert phase_labels([0, 1, 2, 10], .5) == [(.5, '1'), (1.5, '2'), (6, '3')]
    assert phase_labels([0, .1, .2, .3, 10], .5) == [(.15, '1-3'), (5.15, '4')]
    # As many as have room, and what is left
    assert [text for _,text in phase_labels(np.arange(0, 10.01, .4), .5)] == ['1-4', '5-8', '9-12', '13-16', '17-20', '21-24', '25']
    assert [text for _,text in phase_labels([0, 9, 9.1, 9.3], .5)] == ['1', '2-3']
    assert [text for _,text in phase_labels([0, 9, 9.1, 9.2], .5)] == ['1']

def test_lines_that_would_be_an_area_are_left_out():
    short = [Phase(.005, (2,), LRS) for _ in range(10)]
    assert marks(Plan([*short, Phase(.95, (0, 1, 2), LRS)]).plot()[0]) == pytest.approx([.05], abs=1e-3)

def test_rates_that_are_the_same_are_all_seen():
    one = [(Phase(1, (0, 1, 2), lrs, Flat())) for lrs in ((1e-2,)*3, (1e-3, 1e-2, 1e-2), LRS)]
    widths = [[line.get_linewidth() for line in Plan([p]).plot()[0].get_lines()] for p in one]
    assert widths[0][0] > widths[0][1] > widths[0][2] == widths[1][0] < widths[1][1] and len(set(widths[2])) == 1
    assert max(line.get_linewidth() for line in Plan([Phase(1, tuple(range(20)), (1.,)*20)]).plot()[0].get_lines()) <= 7

def test_the_end_of_a_cosine_does_not_flatten_the_rest():
    low,high = Plan([Phase(3, (0, 1, 2), LRS, OneCycle())]).plot()[0].get_ylim()
    assert LRS[0]/300 < low < LRS[0]/200 and 1e-2 < high < 2e-2
    # All of the slanted triangle's is
    assert LRS[0]/50 < Plan([Phase(3, (0, 1, 2), LRS)]).plot()[0].get_ylim()[0] < LRS[0]/32

def test_an_axis_longer_than_the_plan():
    for ax in PLAN.plot(n_epoch=10): assert ax.get_xlim() == (0, 10)
    for ax in PLAN.plot(n_iter=5, n_epoch=10): assert ax.get_xlim() == (0, 50)

def test_where_no_step_was_made_there_is_a_gap():
    lrs = np.array([[0, 1.], [1, 1], [1, 1]])
    rates,spans = plot_lrs(lrs, n_iter=2, steps=[1, 4, 5], n_steps=8)
    assert rates.get_xlim() == spans.get_xlim() == (0, 4)
    np.testing.assert_array_equal(rates.get_lines()[1].get_xdata(), [.5, np.nan, 2, 2.5])
    assert spans_of(spans) == [[[2., 3.]], [[.5, 1.], [2., 3.]]]
    # Grey is where a step was made
    assert {tuple(p.get_bbox().intervalx) for p in spans.patches} == {(.5, 1.), (2., 3.)}

@pytest.mark.parametrize('n,figsize', [
    (1, None), (3, None), (14, None), (26, None), (5, (4, 3)), (14, (4, 3)), (14, (14, 9)), (40, (3, 3))])
def test_names_of_groups_do_not_overlap(n, figsize):
    _,spans = Plan([Phase(1, tuple(range(n)), (1e-3,)*n)], [f'encoder.layer.{i}' for i in range(n)]).plot(figsize=figsize)
    fig = spans.figure
    fig.canvas.draw()
    labels = [t for t in spans.get_yticklabels() if t.get_text()]
    assert labels[-1].get_text().startswith(f'{n-1} ')
    boxes = [t.get_window_extent() for t in labels]
    assert all(above.y0 > below.y0 + .6*below.height for below,above in zip(boxes, boxes[1:])), 'they lie on each other'
    assert all(b.x0 >= 0 for b in boxes) and fig.get_size_inches()[1] < 9.5
    plt.close(fig)
