"Discriminative rates against the formula, written out"
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan.falls import ODD_FALLS
from plan.strategies import between, quick

from fastai_discrim.plan.rates import discriminative_lrs


def test_each_rate_is_its_upper_neighbours_divided():
    lrs = discriminative_lrs(0.01, 5)
    assert isinstance(lrs, np.ndarray) and lrs.shape == (5,) and lrs[-1] == 0.01
    assert all(lo == hi/2.6 for lo,hi in zip(lrs, lrs[1:]))
    assert discriminative_lrs(0.01, 1).tolist() == [0.01] and discriminative_lrs(1, 3, factor=2).tolist() == [.25, .5, 1]
    # What people write instead is off for any number of groups but 5
    assert not np.isclose(0.01/2.6**4, discriminative_lrs(0.01, 4)[0]) and np.isclose(0.01/2.6**4, lrs[0])

@pytest.mark.parametrize('args,match', [((0, 5), 'lr=0'), ((-1, 5), 'lr=-1'), ((1e-2, 0), 'n_groups=0'), ((1e-2, 5, 0), 'factor=0'),
                                        ((1e-2, 5, -2.6), 'factor=-2.6'), ((1e-2, 5, float('nan')), 'factor=nan'),
                                        ((float('nan'), 5), 'lr=nan')])
def test_bad_numbers(args, match):
    with pytest.raises(ValueError, match=match): discriminative_lrs(*args)

@pytest.mark.parametrize('n', [2, 3, 5, 13, 40])
def test_other_ways_to_fall(n):
    lr = 3e-2
    for span in (1, 10, 1e4): assert np.allclose(discriminative_lrs(lr, n, span=span), np.geomspace(lr/span, lr, n), rtol=1e-12)
    for decay in (.65, .95): assert np.allclose(discriminative_lrs(lr, n, decay=decay), [lr*decay**(n-1-i) for i in range(n)], rtol=1e-12)
    for low in (0, .01, .5):
        lrs = discriminative_lrs(lr, n, min_scale=low)
        assert np.array_equal(lrs, np.maximum(discriminative_lrs(lr, n), low*lr)) and lrs[-1] == lr
    assert np.allclose(discriminative_lrs(lr, n, decay=.5, min_scale=.1), [lr*max(.5**(n-1-i), .1) for i in range(n)], rtol=1e-12)

def test_a_span_of_one_group(): assert discriminative_lrs(1e-2, 1, span=100).tolist() == [1e-2]

@pytest.mark.parametrize('kw,match', ODD_FALLS.values(), ids=ODD_FALLS)
def test_odd_ways_to_fall_are_refused(kw, match):
    with pytest.raises((ValueError, TypeError), match=match): discriminative_lrs(1e-2, 3, **kw)

def test_the_body_falls_from_a_rate_of_its_own():
    assert discriminative_lrs(1e-2, 4, 2, body_lr=1e-3).tolist() == [.25e-3, .5e-3, 1e-3, 1e-2]
    # It may be above the head's
    assert discriminative_lrs(1e-3, 3, 2, body_lr=1e-2).tolist() == [.5e-2, 1e-2, 1e-3]
    assert discriminative_lrs(1e-2, 1, body_lr=1e-3).tolist() == [1e-2]
    # `span` and `min_scale` are then the body's
    np.testing.assert_allclose(discriminative_lrs(1., 4, span=100, body_lr=.1), [.001, .01, .1, 1.], rtol=1e-12)
    np.testing.assert_allclose(discriminative_lrs(1., 4, 10, min_scale=.05, body_lr=.1), [.005, .01, .1, 1.], rtol=1e-12)
    for body_lr in (0, -1, float('nan'), '1'):
        with pytest.raises((ValueError, TypeError), match='body_lr=.*: expected'): discriminative_lrs(1e-2, 3, body_lr=body_lr)

@quick
@given(between(1e-6, 1), st.integers(1, 40), between(1, 5), between(0, .5))
def test_rates_never_rise_towards_the_input(lr, n, factor, min_scale):
    lrs = discriminative_lrs(lr, n, factor, min_scale)
    assert lrs.shape == (n,) and lrs[-1] == lr and (np.diff(lrs) >= 0).all() and lrs.min() >= lr*min_scale
    np.testing.assert_allclose(lrs, [lr*max(factor**(i+1-n), min_scale) for i in range(n)], rtol=1e-9)
