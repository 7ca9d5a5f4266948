"A rate is chosen from losses: pure arithmetic, by hand and by properties"
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search.made_losses import losses_of

from fastai_discrim.search.choice import about_as_good, first_lrs, lowers, lrs_beyond, search_lrs
from fastai_discrim.search.losses import Losses

pytestmark = pytest.mark.all_rates

thorough = settings(max_examples=200, deadline=None)

# Whole numbers, and a power of 2 of parts: nothing is rounded
PARTS = st.lists(st.integers(-8, 8).map(float), min_size=4, max_size=4)
CANDIDATE = st.one_of(PARTS, PARTS, PARTS, st.sampled_from([[np.nan]*4, [np.inf]*4, [1., np.nan, 1., 1.], [0., np.inf, 0., 0.]]))

@st.composite
def candidates(draw):
    "Losses of several candidates in four parts, some not finite, but one"
    parts = draw(st.lists(CANDIDATE, min_size=2, max_size=12).filter(lambda rows: np.isfinite(rows).all(1).any()))
    return Losses(np.array(parts), np.ones(4))

# What lies beyond the ends

def test_the_first_rates():
    np.testing.assert_allclose(first_lrs(), [10**(-3+i/4) for i in range(13)])

def valley(best, n=13):
    "Losses with their lowest at index `best`, clear of the others"
    means = np.full(n, 1.)
    means[best] = .5
    return losses_of(means)

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

@pytest.mark.parametrize('gains,goes_on', [((.6, .4), True), ((1.1, -.1), False), ((-.5, .4), False)])
def test_only_what_is_clearly_better_than_the_middle_is_followed(gains, goes_on):
    "Gains of .6 and .4 have a mean of .5 and an error of .1; 1.1 and -.1 the same mean and an error of .6"
    parts = np.full((13, 2), 1.)
    parts[0] -= gains
    if not goes_on and sum(gains) < 0: parts[1:] -= .01
    assert (lrs_beyond(first_lrs(), Losses(parts, np.ones(2))) is not None) == goes_on

def test_where_the_middle_has_no_loss_nothing_speaks_against_going_on():
    parts = np.full((13, 2), 1.)
    parts[0],parts[6] = [1.1, -.1],np.nan
    assert lrs_beyond(first_lrs(), Losses(parts, np.ones(2))) is not None

def one_part(f):
    "Turn a function from rates to numbers into one to `Losses`"
    return lambda lrs: losses_of(f(lrs))

@pytest.mark.parametrize('best', [1e-6, 1e-4, 2e-3, 1e-2, .5, 1, 30, 90])
def test_it_looks_further_where_the_best_is_near_an_end(best):
    lrs,losses = search_lrs(one_part(lambda lrs: np.log10(lrs/best)**2))
    *means,untrained = losses.mean
    assert np.argmin(means) not in (0, len(lrs)-1) and abs(np.log10(lrs[np.argmin(means)]/best)) <= .125+1e-9
    assert np.allclose(np.diff(np.log10(lrs)), .25) and untrained == np.log10(1e-12/best)**2
    np.testing.assert_array_equal(means, np.log10(lrs/best)**2)

@pytest.mark.parametrize('f', [lambda lrs: lrs, lambda lrs: -lrs, lambda lrs: lrs*np.nan, lambda lrs: lrs*np.inf])
def test_it_does_not_look_forever(f):
    lrs,losses = search_lrs(one_part(f))
    assert 1e-7 <= lrs[0] and lrs[-1] <= 1e3 and 13 <= len(lrs) <= 41 and len(losses.mean) == len(lrs)+1

def test_given_rates_are_all_that_is_looked_at():
    asked = []
    def f(lrs):
        asked.extend(lrs)
        return lrs
    lrs,losses = search_lrs(one_part(f), np.array([1e-2, 1e-1]))
    assert lrs.tolist() == [1e-2, 1e-1] and losses.mean.tolist() == [1e-2, 1e-1, 1e-12] and sorted(asked) == [1e-12, 1e-2, 1e-1]

def test_each_rate_is_evaluated_once():
    asked = []
    def f(lrs):
        asked.extend(lrs)
        return np.log10(lrs/1e-6)**2
    lrs,_ = search_lrs(one_part(f))
    assert len(lrs) > 13 and sorted(asked) == [1e-12, *lrs]

@pytest.mark.parametrize('n_items,goes_on', [(20, False), (20_000, True)])
def test_few_items_can_not_tell(n_items, goes_on):
    "A loss that falls by a tenth from 1 to 1e-7, on items that differ by ten times that from rate to rate"
    def f(lrs):
        noise = np.stack([np.random.default_rng(int(-1000*np.log10(lr)) + 10**6).normal(size=n_items) for lr in lrs])
        noise -= noise.mean(1, keepdims=True)
        return Losses(np.where(lrs < 1e-9, 1., .7 + .1*np.log10(lrs)/7)[:,None] + noise, np.ones(n_items))
    lrs,losses = search_lrs(f)
    assert (lrs.min() < 1e-5) == goes_on
    # All are about as good, or only the lowest ones are
    good = about_as_good(losses.at(slice(-1)))
    assert good[0] == 0 and (lrs[good[-1]] == lrs[-1]) == (not goes_on)

def test_it_looks_no_lower_where_nothing_is_better_than_an_untrained_head():
    "Ever lower rates end there, and would train nothing"
    lrs,losses = search_lrs(one_part(lambda lrs: 1+lrs))
    assert lrs[0] == pytest.approx(1e-3) and losses.mean[0] > losses.mean[-1]
    # Higher ones may yet be better
    lrs,_ = search_lrs(one_part(lambda lrs: np.where(lrs < 1e-9, 0., 3-np.log10(lrs))))
    assert lrs[-1] > 100
    # Where an untrained head has no finite loss, nothing speaks against lower ones
    lrs,_ = search_lrs(one_part(lambda lrs: np.where(lrs < 1e-9, np.inf, 1+lrs)))
    assert lrs[0] < 1e-6

def test_later_rates_may_have_coarser_parts():
    "A weighted loss has the mean over items where all of them have the same loss, as with an untrained head; elsewhere it hasn't"
    def f(lrs):
        means = np.log10(lrs/1e-5)**2
        return losses_of(means, [1, 1, 2]) if lrs.min() < 1e-4 and len(lrs) == 4 else losses_of(means, [4])
    lrs,losses = search_lrs(f)
    assert len(lrs) > 17 and losses.sizes.tolist() == [4]
    np.testing.assert_allclose(losses.mean[:-1], np.log10(lrs/1e-5)**2)

# What is about as good as the best

@pytest.mark.parametrize('means,want', [
    ([9, 1., 2., 9], [1]), ([9, 1., 1., 9], [1, 2]), ([1., 1., 1., 1.], [0, 1, 2, 3]), ([-1., -5, -1., np.inf], [1]),
    # As good, but on the other side of what is not
    ([.5, .9, .5, .9], [0]), ([.6, .9, .5, .5], [2, 3]), ([.5, np.nan, .5, .5], [0]), ([np.nan, np.inf, .5, np.nan], [2]),
    ([np.nan, .5, .5, np.inf], [1, 2]), ([.5, .6, .7, .8], [0]), ([.8, .7, .6, .5], [3])])
@pytest.mark.parametrize('sizes', [(16,), (1, 2, 3)], ids=['one part', 'parts'])
def test_without_chance_only_what_is_as_low_is_as_good(means, want, sizes):
    assert about_as_good(losses_of(means, sizes)).tolist() == want

def test_what_is_higher_by_less_than_a_standard_error_is_as_good():
    # The mean of 1 has an error of 1, and a half, by two and by many items
    few = Losses(np.array([[0., 2.], [0., 0.], [.5, 1.5], [3., 3.]]), np.ones(2))
    assert about_as_good(few).tolist() == [0, 1]
    many = Losses(np.array([[0., 2.]*50, [0., 0.]*50, [-.1, .12]*50]), np.ones(100))
    assert about_as_good(many).tolist() == [1, 2]

def brute_force(losses):
    "Walk from the best down and up for as long as the paired difference is at most its standard error"
    finite = np.isfinite(losses.parts).all(1)
    means = np.where(finite, np.where(finite[:,None], losses.parts, 0).mean(1), np.inf)
    best = int(means.argmin())
    def is_good(i):
        if not finite[i]: return False
        d = losses.parts[i]-losses.parts[best]
        return d.mean() <= d.std(ddof=1)/len(d)**.5*(1+1e-12)
    low = high = best
    while low > 0 and is_good(low-1): low -= 1
    while high < len(means)-1 and is_good(high+1): high += 1
    return list(range(low, high+1))

def near_tie(losses):
    "Is a difference within rounding of its standard error? Who is right then is nobody's business"
    best = np.nanargmin(losses.mean)
    both = [losses.difference(i, best) for i in range(len(losses.mean)) if i != best and np.isfinite(losses.mean[i])]
    return any(abs(mean-error) < 1e-9 for mean,error in both if error)

@thorough
@given(candidates())
def test_it_is_the_best_and_what_lies_beside_it(losses):
    good = about_as_good(losses).tolist()
    assert np.nanargmin(losses.mean) in good
    if not near_tie(losses): assert good == brute_force(losses)

@thorough
@given(candidates(), st.integers(-40, 40), st.integers(-100, 100))
def test_it_has_no_unit_and_no_zero(losses, power, offset):
    good = about_as_good(losses).tolist()
    assert about_as_good(Losses(losses.parts*2.**power, losses.sizes)).tolist() == good
    assert about_as_good(Losses(losses.parts+offset, losses.sizes)).tolist() == good
    assert about_as_good(Losses(losses.parts, losses.sizes*8)).tolist() == good
    # In the order of the rates, up or down
    ties = np.sum(losses.mean == np.nanmin(losses.mean)) > 1
    if not ties: assert about_as_good(losses.at(slice(None, None, -1))).tolist() == [len(losses.mean)-1-i for i in reversed(good)]

@thorough
@given(candidates(), st.integers(-40, 40))
def test_what_is_looked_at_next_continues_the_grid_in_any_unit(losses, power):
    lrs = 10**(np.arange(len(losses.mean))/4 - 3)
    more = lrs_beyond(lrs, losses)
    scaled = lrs_beyond(lrs, Losses(losses.parts*2.**power, losses.sizes))
    assert (more is None) == (scaled is None)
    if more is None: return
    assert len(more) == 4 and np.allclose(np.diff(np.log10(more)), .25) and np.array_equal(more, scaled)
    below,above = np.log10(lrs[0]/more[-1]),np.log10(more[0]/lrs[-1])
    best = np.nanargmin(losses.mean)
    assert (best < 2 and below == pytest.approx(.25)) or (best >= len(lrs)-2 and above == pytest.approx(.25))

# Is anything gained?

@pytest.mark.parametrize('loss,lowest,want', [(1., .98, True), (1., .995, False), (-1., -1.02, True), (-1., -1.005, False),
                                              (0., -1e-9, True), (1., 1., False), (1., 2., False), (np.nan, 1., False),
                                              (1., np.nan, False)])
def test_a_hundredth_of_the_loss_is_little(loss, lowest, want): assert lowers(loss, lowest) is want
