"A rate is chosen from losses: pure arithmetic, by hand and by properties"
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastai_discrim.search.choice import first_lrs, loss_noise, lowers, lrs_beyond, middle_lr, search_lrs

# Losses that differ by enough to be told apart, and some that are not finite
LOSS = st.one_of(st.integers(-300, 300).map(lambda i: i/100), st.sampled_from([np.nan, np.inf]))
CURVES = st.lists(LOSS, min_size=2, max_size=20).filter(lambda ls: np.isfinite(ls).any()).map(np.array)

def test_the_first_rates():
    np.testing.assert_allclose(first_lrs(), [10**(-3+i/4) for i in range(13)])

# What lies beyond the ends

def valley(best, n=13):
    "Losses with their lowest at index `best`, clear of the others"
    losses = np.full(n, 1.)
    losses[best] = .5
    return losses

@pytest.mark.parametrize('best,where', [(0, 'below'), (1, 'below'), (2, None), (3, None), (6, None), (9, None), (10, None), (11, 'above'),
                                        (12, 'above')])
def test_the_two_at_each_end_are_near_it_and_no_others(best, where):
    more = lrs_beyond(first_lrs(), valley(best))
    want = dict(below=[10**(-4+i/4) for i in range(4)], above=[10**(i/4) for i in range(1, 5)]).get(where)
    if want is None: assert more is None
    else: np.testing.assert_allclose(more, want)

@pytest.mark.parametrize('n', [13, 17, 21])
def test_near_an_end_does_not_depend_on_how_many_there_are(n):
    lrs = 10**(np.arange(n)/4 - 4)
    goes_on = [lrs_beyond(lrs, valley(i, n)) is not None for i in range(n)]
    assert goes_on == [True]*2 + [False]*(n-4) + [True]*2

def test_the_last_decade_within_the_limits():
    low,high = 1e-6*10**(np.arange(13)/4),10**(np.arange(13)/4 - 1)
    np.testing.assert_allclose(lrs_beyond(low*1.001, valley(0))[0], 1.001e-7)
    assert lrs_beyond(low*.999, valley(0)) is None
    np.testing.assert_allclose(lrs_beyond(high*.999, valley(12))[-1], 999)
    assert lrs_beyond(high*1.001, valley(12)) is None

def test_only_what_is_better_than_the_middle_by_more_than_noise_is_followed():
    losses = valley(0)
    assert lrs_beyond(first_lrs(), losses, noise=.499) is not None
    assert lrs_beyond(first_lrs(), losses, noise=.501) is None
    # Where the middle has no loss, nothing speaks against going on
    losses[6] = np.nan
    assert lrs_beyond(first_lrs(), losses, noise=.501) is not None

@pytest.mark.parametrize('best', [1e-6, 1e-4, 2e-3, 1e-2, .5, 1, 30, 90])
def test_it_looks_further_where_the_best_is_near_an_end(best):
    lrs,losses,untrained = search_lrs(lambda lrs: np.log10(lrs/best)**2)
    assert losses.argmin() not in (0, len(lrs)-1) and abs(np.log10(lrs[losses.argmin()]/best)) <= .125+1e-9
    assert np.allclose(np.diff(np.log10(lrs)), .25) and untrained == np.log10(1e-12/best)**2
    np.testing.assert_array_equal(losses, np.log10(lrs/best)**2)

@pytest.mark.parametrize('f', [lambda lrs: lrs, lambda lrs: -lrs, lambda lrs: lrs*np.nan])
def test_it_does_not_look_forever(f):
    lrs,_,_ = search_lrs(f)
    assert 1e-7 <= lrs[0] and lrs[-1] <= 1e3 and 13 <= len(lrs) <= 41

def test_given_rates_are_all_that_is_looked_at():
    asked = []
    def f(lrs):
        asked.extend(lrs)
        return lrs
    lrs,losses,untrained = search_lrs(f, np.array([1e-2, 1e-1]))
    assert lrs.tolist() == losses.tolist() == [1e-2, 1e-1] and untrained == 1e-12 and asked == [1e-12, 1e-2, 1e-1]

def test_each_rate_is_evaluated_once():
    asked = []
    def f(lrs):
        asked.extend(lrs)
        return np.log10(lrs/1e-6)**2
    lrs,_,_ = search_lrs(f)
    assert len(lrs) > 13 and sorted(asked) == [1e-12, *lrs]

# Chance

@pytest.mark.parametrize('untrained,n,want', [(.7, 100, .035), (-.7, 100, .035), (2., 4, .5), (2., 10**6, 1e-3), (2., np.inf, 0.),
                                              (np.nan, 4, 0.), (np.inf, 4, 0.), (-np.inf, 4, 0.)])
def test_noise_is_half_of_an_untrained_heads_loss_over_the_root_of_the_items(untrained, n, want):
    assert loss_noise(untrained, n) == pytest.approx(want, rel=1e-12)

@pytest.mark.parametrize('gain,goes_on', [(.51, True), (.49, False), (.3, False), (.16, False)])
def test_a_search_goes_on_for_more_than_noise(gain, goes_on):
    "One item validates, and an untrained head has a loss of 1: half of that is noise"
    def f(lrs): return np.where(lrs < 1e-9, 1., np.where(lrs < 2e-3, 1-gain, 1.))
    lrs,_,_ = search_lrs(f, n_items=1)
    assert (lrs[0] < 1e-3) == goes_on

def test_noise_widens_what_is_about_as_good():
    "Without a gain only noise does: a loss that is higher by it has a weight of 1/e"
    lrs = np.array([1e-2, 1e-1])
    lr = middle_lr(lrs, np.array([1., 1.5]), 1., loss_noise(1., 1))
    assert np.log10(lr) == pytest.approx((-2 - 1/np.e) / (1 + 1/np.e))

def test_few_items_can_not_tell():
    # 20 that validate, and a loss that falls a little towards ever lower rates: chance, as the same with a million is not
    def falling(lrs): return .7 + .01*np.log10(lrs/1e-12)/12
    few,many = (search_lrs(falling, n_items=n) for n in (20, 10**6))
    assert few[0].min() == pytest.approx(1e-3) and many[0].min() < 1e-6
    lrs,losses,untrained = few
    assert middle_lr(lrs, losses, untrained, loss_noise(untrained, 20)) == pytest.approx(np.sqrt(1e-3), rel=.1)
    # What is far worse than chance allows is left out, few as they are
    assert middle_lr(lrs, losses + 5*(lrs > .02), untrained, loss_noise(untrained, 20)) < .01
    # Where an untrained head has no finite loss, nothing is known of chance
    lrs,losses,untrained = search_lrs(lambda lrs: np.where(lrs < 1e-9, np.inf, np.log10(lrs/10)**2), n_items=20)
    assert lrs[losses.argmin()] == pytest.approx(10)
    assert middle_lr(lrs, losses, untrained, loss_noise(untrained, 20)) == pytest.approx(10)
    # And many items give what they gave without a thought of noise
    loss = np.log10(lrs/.03)**2 + 1
    assert middle_lr(lrs, loss, 3., loss_noise(3., 10_000)) == pytest.approx(middle_lr(lrs, loss, 3.), rel=.02)

# The middle

def test_middle():
    lrs = np.array([1e-3, 1e-2, 1e-1, 1])
    assert middle_lr(lrs, np.array([9, 1., 1., 9]), 9.) == pytest.approx(10**-1.5)
    assert middle_lr(lrs, np.array([9, 5, 1., np.nan]), 3.) == pytest.approx(1e-1, rel=1e-3)
    assert middle_lr(lrs, np.array([-1., -5, -1., np.inf]), -1.) == pytest.approx(1e-2, rel=.05)
    assert 1e-2 < middle_lr(lrs, np.array([9, 1., 1.05, 9]), 2.) < 10**-1.5
    # As good, but on the other side of what is not
    assert middle_lr(lrs, np.array([.5, .9, .51, .9]), 1.) == pytest.approx(1e-3)
    # The unit of the loss is nothing to it
    loss = np.array([3., 1., 1.2, 4])
    assert middle_lr(lrs, loss*1e-12, 5e-12) == pytest.approx(middle_lr(lrs, loss, 5.))
    # Nothing is gained: the best of what is bad
    for untrained in (1., .5, np.nan): assert middle_lr(lrs, np.array([1., 1.2, 1.4, 9]), untrained) == pytest.approx(1e-3)

def test_a_fifth_of_the_gain_is_about_as_good():
    "A loss that is higher by it has a weight of 1/e"
    lr = middle_lr(np.array([1e-2, 1e-1]), np.array([1., 1.2]), 2.)
    assert np.log10(lr) == pytest.approx((-2 - 1/np.e) / (1 + 1/np.e))

@pytest.mark.parametrize('excess,counts', [(2.9, True), (3.1, False)])
def test_three_times_that_is_cut_off_with_what_lies_beyond(excess, counts):
    "A gain of 5, so 1 is about as good. Beyond the second rate there is one that is as good as the best"
    lr = middle_lr(np.array([1e-3, 1e-2, 1e-1]), np.array([0., excess, 0.]), 5.)
    w = np.exp(-excess)
    assert np.log10(lr) == pytest.approx((-3 - 2*w - 1) / (2+w) if counts else -3.)

@settings(max_examples=200, deadline=None)
@given(CURVES, st.integers(-300, 600).map(lambda i: i/100), st.integers(0, 100).map(lambda i: i/100))
def test_the_middle_lies_around_the_best_and_has_no_unit(losses, untrained, noise):
    lrs = np.geomspace(1e-3, 1, len(losses))
    lr = middle_lr(lrs, losses, untrained, noise)
    assert lrs[0]*(1-1e-9) <= lr <= lrs[-1]*(1+1e-9)
    # All rates ten times as high, all losses twice as high, all of them higher by one
    assert middle_lr(10*lrs, losses, untrained, noise) == pytest.approx(10*lr)
    assert middle_lr(lrs, 2*losses, 2*untrained, 2*noise) == pytest.approx(lr)
    # Without a gain, and without noise, it is the best
    if untrained <= np.nanmin(losses): assert middle_lr(lrs, losses, untrained) == lrs[np.nanargmin(losses)]

@settings(max_examples=200, deadline=None)
@given(CURVES)
def test_what_is_looked_at_next_continues_the_grid(losses):
    lrs = 10**(np.arange(len(losses))/4 - 3)
    more = lrs_beyond(lrs, losses)
    if more is None: return
    assert len(more) == 4 and np.allclose(np.diff(np.log10(more)), .25)
    below,above = np.log10(lrs[0]/more[-1]),np.log10(more[0]/lrs[-1])
    best = np.nanargmin(losses)
    assert (best < 2 and below == pytest.approx(.25)) or (best >= len(lrs)-2 and above == pytest.approx(.25))

# Is anything gained?

@pytest.mark.parametrize('loss,lowest,want', [(1., .98, True), (1., .995, False), (-1., -1.02, True), (-1., -1.005, False),
                                              (0., -1e-9, True), (1., 1., False), (1., 2., False), (np.nan, 1., False),
                                              (1., np.nan, False)])
def test_a_hundredth_of_the_loss_is_little(loss, lowest, want): assert lowers(loss, lowest) is want
