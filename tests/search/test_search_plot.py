"What a search tried and chose, as it is plotted"
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest

from fastai_discrim.plan.origin import BodyLR, HeadLR
from fastai_discrim.search.plot import plot_search

LRS,LOSSES = np.array([1e-3, 1e-2, 1e-1, 1.]),np.array([.9, .4, .5, 30.])

def plot(res, *args):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        plot_search(res, *args)
        # Drawn, too
        plt.gcf().canvas.draw()
    return plt.gca()

def labels(ax): return [t.get_text() for t in ax.get_legend().get_texts()]
def bands(ax): return [p.get_extents().bounds for p in ax.patches]

def test_the_losses_are_plotted_against_the_rates():
    ax = plot(HeadLR(1e-2, LRS, LOSSES, 'told'), 'head')
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), LRS)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), LOSSES)
    assert ax.get_xscale() == 'log' and ax.lines[0].get_marker() == 'o' and labels(ax)[0] == 'validation loss'
    assert (ax.get_xlabel(), ax.get_ylabel()) == ('learning rate of the head', 'validation loss')
    assert ax.get_title(loc='left').endswith('of the head')

def test_the_words_are_those_of_the_search():
    ax = plot(BodyLR(1e-2, LRS, LOSSES, 'told'), 'group below the head', 'training loss')
    assert (ax.get_xlabel(), ax.get_ylabel()) == ('learning rate of the group below the head', 'training loss')

def test_the_chosen_rate_is_a_line():
    ax = plot(BodyLR(1e-2, LRS, LOSSES, 'told'), 'body')
    assert labels(ax) == ['validation loss', 'chosen: 1.00e-02'] and len(ax.lines) == 2 and not ax.patches
    assert set(ax.lines[1].get_xdata()) == {1e-2} and ax.lines[1].get_linestyle() == '--'

def test_an_untrained_heads_loss_is_a_line():
    ax = plot(HeadLR(1e-2, LRS, LOSSES, 'told', .693), 'head')
    line, = [line for line in ax.lines if line.get_label() == 'untrained: 0.693']
    assert set(line.get_ydata()) == {.693}

def test_the_legend_is_in_the_order_of_the_curves_and_covers_none():
    def _labels(untrained): return labels(plot(HeadLR(1e-2, LRS, LOSSES, 'told', untrained, (1e-2, 1e-1)), 'head'))
    assert _labels(.693) == ['untrained: 0.693', 'validation loss', 'about as good', 'chosen: 1.00e-02']
    assert _labels(.2) == ['validation loss', 'untrained: 0.2', 'about as good', 'chosen: 1.00e-02']
    ax = plt.gca()
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1

def test_a_few_rates_are_named():
    ax = plot(BodyLR(2e-4, np.array([2e-4/3, 2e-4]), np.array([1.3, .9]), 'told'), 'group below the head')
    assert [t.get_text() for t in ax.get_xticklabels()] == ['6.7e-05', '2.0e-04']

@pytest.mark.parametrize('accepted,n', [((), 0), ((1e-2,), 0), ((1e-2, 1e-1), 1)])
def test_what_is_about_as_good_is_a_band(accepted, n):
    ax = plot(HeadLR(1e-2, LRS, LOSSES, 'told', .693, accepted), 'head')
    assert len(ax.patches) == n and ('about as good' in labels(ax)) == bool(n)
    if n: assert (ax.patches[0].get_x(), ax.patches[0].get_x() + ax.patches[0].get_width()) == pytest.approx((1e-2, 1e-1))

def test_where_it_diverges_the_rest_is_still_seen():
    low,high = plot(HeadLR(1e-2, LRS, LOSSES, 'told'), 'head').get_ylim()
    assert low < .4 and .9 < high < 2

def test_losses_that_are_higher_but_do_not_diverge_are_seen():
    "Those of a body begin at the highest rate and go down"
    low,high = plot(BodyLR(1e-3, LRS, np.array([.7, .8, 1.2, 1.9]), 'told'), 'group below the head').get_ylim()
    assert low < .7 and 1.2 < high

def test_the_untrained_line_is_seen():
    low,high = plot(HeadLR(1e-2, LRS, LOSSES, 'told', 1.6), 'head').get_ylim()
    assert low < .4 and 1.6 < high < 4

@pytest.mark.parametrize('losses', [[.4, .5, 3.], [3., .5, .4], [.4, .4, .4], [.4, np.nan, np.nan], [np.nan, .4, .3], [np.nan, np.nan, .3],
                                    [np.nan]*3, [-.4, -.5, 3.]])
@pytest.mark.parametrize('kind', [HeadLR, BodyLR])
def test_any_losses_can_be_plotted(losses, kind):
    ax = plot(kind(1e-3, LRS[:3], np.array(losses), 'told'), 'head')
    low,high = ax.get_ylim()
    assert low < high and (not np.isfinite(losses).any() or low < np.nanmin(losses) < high)

def test_many_rates_are_a_line_without_markers():
    lrs = np.geomspace(1e-5, 10, 100)
    assert plot(HeadLR(1e-2, lrs, np.log10(lrs)**2, 'range test'), 'head').lines[0].get_marker() == 'None'
