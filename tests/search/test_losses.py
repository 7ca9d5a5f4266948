"Losses of candidates are compared item by item"
import numpy as np
import pytest
from search.made_losses import losses_of

from fastai_discrim.search.losses import Losses, joined_parts, mean_losses


def test_the_mean_is_over_items():
    losses = Losses(np.array([[1., 4.], [0., 8.], [np.nan, 1.], [np.inf, 1.]]), np.array([3., 1.]))
    np.testing.assert_array_equal(losses.mean, [1.75, 2., np.nan, np.nan])

def test_the_error_of_a_difference_is_that_of_paired_items():
    g = np.random.default_rng(0)
    parts = g.normal(size=(2, 20))
    d = parts[0]-parts[1]
    mean,error = Losses(parts, np.full(20, 3.)).difference(0, 1)
    assert mean == pytest.approx(d.mean()) and error == pytest.approx(d.std(ddof=1)/20**.5)

def test_parts_of_other_sizes_count_by_their_items():
    "In many samples of a difference of 0 with unit variance an item, the mean's spread is the error that each sample tells"
    g = np.random.default_rng(0)
    sizes = np.array([1., 2, 3, 4, 6, 8]*4)
    samples = [Losses(np.stack([g.normal(size=24)/sizes**.5, np.zeros(24)]), sizes).difference(0, 1) for _ in range(2000)]
    means,errors = np.array(samples).T
    assert (errors**2).mean()**.5 == pytest.approx(means.std(), rel=.05) == pytest.approx(sizes.sum()**-.5, rel=.05)

def test_one_part_tells_no_error():
    assert losses_of([3., 1.]).difference(0, 1) == (2., 0.)
    assert losses_of([1.01, 1.]).is_clearly_lower(1, 0) and not losses_of([1., 1.]).is_clearly_lower(1, 0)

@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_what_is_not_finite_is_never_lower_and_always_higher(bad):
    losses = Losses(np.array([[1., 1.], [1., bad], [bad, bad]]), np.ones(2))
    assert losses.difference(1, 0) == (np.inf, 0.)
    assert losses.is_clearly_lower(0, 1) and losses.is_clearly_lower(0, 2)
    assert not any(losses.is_clearly_lower(a, b) for a in (1, 2) for b in range(3))

def test_clearly_lower_is_by_more_than_a_standard_error():
    # Differences of 0 and 2 have a mean of 1 and an error of 1
    def is_lower(a, b): return Losses(np.array([[0., 0.], [a, b]]), np.ones(2)).is_clearly_lower(0, 1)
    assert not is_lower(0., 2.) and is_lower(.01, 2.) and not is_lower(-.01, 2.)

def test_candidates_are_joined_and_picked():
    a,b = losses_of([1., 2.], [4, 4]),losses_of([3.], [4, 4])
    both = a.joined(b)
    assert both.mean.tolist() == [1, 2, 3] and both.sizes.tolist() == [4, 4] and both.at([2, 0]).mean.tolist() == [3, 1]
    assert both.at(slice(-1)).mean.tolist() == [1, 2]

def test_candidates_with_coarser_parts_are_joined_on_these():
    "A weighted loss can't be had for a part, but where the loss is not finite it can"
    fine = Losses(np.array([[1., 4., 6., 2.]]), np.array([2., 1., 1., 4.]))
    coarse = Losses(np.array([[5., 3.]]), np.array([4., 4.]))
    for a,b,parts in ((fine, coarse, [[3., 2.], [5., 3.]]), (coarse, fine, [[5., 3.], [3., 2.]])):
        both = a.joined(b)
        assert both.sizes.tolist() == [4, 4] and both.parts.tolist() == parts and both.mean.tolist() == [*a.mean, *b.mean]
    # Neither is finer than the other everywhere
    other = Losses(np.array([[0., 1., 2.]]), np.array([4., 2., 2.]))
    both = fine.joined(other)
    assert both.sizes.tolist() == [4, 4] and both.parts.tolist() == [[3., 2.], [0., 1.5]]
    assert np.isnan(Losses(np.array([[1., np.nan, 6., 2.]]), fine.sizes).joined(coarse).mean).tolist() == [True, False]
    runs = mean_losses([fine, coarse])
    assert runs.sizes.tolist() == [4, 4] and runs.parts.tolist() == [[4., 2.5]]

def test_losses_on_other_items_make_more_parts():
    both = joined_parts([losses_of([1., 2.], [4, 2]), losses_of([3., 5.], [6])])
    assert both.sizes.tolist() == [4, 2, 6] and both.parts.tolist() == [[1, 1, 3], [2, 2, 5]] and both.mean.tolist() == [2., 3.5]

def test_trainings_are_averaged():
    runs = [Losses(np.array([[1., 3.], [2., np.nan]]), np.array([1., 3.])), Losses(np.array([[3., 5.], [4., 4.]]), np.array([1., 3.]))]
    mean = mean_losses(runs)
    assert mean.sizes.tolist() == [1, 3] and mean.parts[0].tolist() == [2, 4] and mean.mean[0] == 3.5 and np.isnan(mean.mean[1])
