"What is refused, with the value in the message"
import numpy as np
import pytest

from fastai_discrim.checks import check_count, check_number, check_rates


@pytest.mark.parametrize('v,error', [(-1e-3, ValueError), (0, ValueError), (float('nan'), ValueError), (float('inf'), ValueError),
                                     (True, TypeError), (np.True_, TypeError), ('1e-3', TypeError), (None, TypeError), (1j, TypeError)])
def test_rates_one_number(v, error):
    for lr in (v, slice(v), slice(v, 1e-2), [1e-3, v, 1e-2]):
        if lr == slice(None, 1e-2): continue # `slice(None, lr)` is fastai's `slice(lr)`
        with pytest.raises(error, match='lr=.*expected a number above 0'): check_rates(lr, 3)

@pytest.mark.parametrize('lr', [1e-3, np.float32(1e-3), 1, slice(1e-3), slice(1e-5, 1e-3),
                                [1e-5, 1e-4, 1e-3], np.ones(3), np.array(1e-3)[()]])
def test_rates_that_fastai_takes_pass(lr): check_rates(lr, 3)

@pytest.mark.parametrize('lr', [[1e-3], [1e-3]*2, np.ones(4), (), 'abc'])
def test_rates_of_the_wrong_count(lr):
    with pytest.raises((ValueError, TypeError), match='expected'): check_rates(lr, 3)

@pytest.mark.parametrize('n,error', [(0, ValueError), (-1, ValueError), (1.5, TypeError), (2., TypeError),
                                     (True, TypeError), ('3', TypeError), (None, TypeError)])
def test_epochs(n, error):
    with pytest.raises(error, match=f'n_epoch={n!r}: expected'): check_count(n)

def test_number_bounds():
    check_number(1, 'ratio', low=1, at_least=True)
    with pytest.raises(ValueError, match='ratio=0.5: expected a number of at least 1'): check_number(.5, 'ratio', low=1, at_least=True)
    with pytest.raises(ValueError, match='cut_frac=1: expected a number above 0 and below 1'): check_number(1, 'cut_frac', high=1)
