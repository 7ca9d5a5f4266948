"Refused arguments, with the value in the message"
import re
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastai_discrim.checks import (
    as_rate,
    check_count,
    check_data,
    check_flag,
    check_list,
    check_moms,
    check_names,
    check_number,
    check_rates,
    check_train_bn,
    count_items,
    has_valid,
    plain_number,
)


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

@pytest.mark.parametrize('v', [True, False, np.True_])
def test_flags_that_pass(v): check_flag(v, 'best'); check_flag(v, 'best', 'to leave it'); check_train_bn(v)

@pytest.mark.parametrize('v', [1, 0, 'yes', [], None])
def test_flags_that_are_refused(v):
    with pytest.raises(TypeError, match=re.escape(f'best={v!r}: expected True or False')): check_flag(v, 'best')

def test_none_where_it_has_a_meaning():
    check_flag(None, 'best', 'to leave it')
    check_train_bn(None)
    with pytest.raises(TypeError, match='best=1: expected True, False, or None to leave it'): check_flag(1, 'best', 'to leave it')
    with pytest.raises(TypeError, match='train_bn=1: expected True, False, or None for `learn.train_bn`'): check_train_bn(1)

@pytest.mark.parametrize('v', [(1, 2), [1, 2], np.array([1, 2]), range(1, 3), (i for i in (1, 2))])
def test_items_of_a_list(v): assert check_list(v, 'groups', 'indices') == [1, 2]

@pytest.mark.parametrize('v', ['ab', b'ab', slice(1, 2), 3, None, np.array(3)])
def test_values_without_items(v):
    with pytest.raises(TypeError, match='groups=.*: expected indices, in a list or tuple'): check_list(v, 'groups', 'indices')

@pytest.mark.parametrize('moms,match', [((.9, .8), 'moms has 2 values, expected 3'),
                                        ((.9, 1, .9), 'moms=1: expected a number of at least 0 and below 1'),
                                        ((.9, float('nan'), .9), 'moms=nan'), ('abc', "moms='abc'"), (.9, 'moms=0.9: expected 3 numbers')])
def test_momentum(moms, match):
    check_moms((.9, 0, .9)); check_moms((.9, .8), counts=(2, 3))
    with pytest.raises((ValueError, TypeError), match=match): check_moms(moms)

def test_data(mlp):
    check_data(mlp)
    assert count_items(mlp.dls.train) == 64
    mlp.dls.train.dataset = iter([])
    assert count_items(mlp.dls.train) is None
    mlp.dls.train.n = 0
    with pytest.raises(ValueError, match='the training set has None items and makes 0 batches: expected at least 1 batch'): check_data(mlp)

@pytest.mark.parametrize('v', [torch.tensor(.5), torch.tensor(.5, requires_grad=True), np.array(.5), np.float64(.5), .5])
def test_a_value_without_dimensions_is_a_number(v):
    assert check_number(v, 'x') == plain_number(v) == as_rate(v) == .5 and isinstance(check_number(v, 'x'), float)
    check_rates(v, 3)
    check_rates([v]*3, 3)

def test_other_values_are_no_numbers():
    assert check_count(torch.tensor(3)) == check_count(np.array(3)) == 3 and type(check_count(torch.tensor(3))) is int
    for v in (torch.tensor(True), np.array('x'), torch.ones(1), torch.tensor(1j)):
        with pytest.raises(TypeError, match='x='): check_number(v, 'x')
    with pytest.raises(TypeError, match='n_epoch='): check_count(torch.tensor(3.))

def suggested(*names): return namedtuple('SuggestedLRs', names)(*[10.**-i for i in range(1, len(names)+1)])

def test_a_result_of_lr_find_stands_for_its_valley():
    assert as_rate(suggested('valley')) == as_rate(suggested('valley', 'steep')) == .1 and as_rate(suggested('steep', 'valley')) == .01
    assert as_rate(suggested('steep')) == .1
    with pytest.raises(TypeError, match=r'lr=SuggestedLRs.*: expected one number; give one of them, such as `lr=res.steep`'):
        as_rate(suggested('steep', 'slide'))

@pytest.mark.parametrize('v', [slice(1e-5, 1e-3), slice(1e-3), [1e-4, 1e-3], (1e-3,), np.ones(3), torch.ones(3)])
def test_several_rates_where_one_is_expected(v):
    with pytest.raises(TypeError, match='body_lr=.*expected one number.*: set how they fall with `span=`.*`factor='): as_rate(v, 'body_lr')

class Loader:
    "A loader of `n` batches, or one whose length raises the error `n`"
    def __init__(self, n): self.n = n
    def __len__(self):
        if isinstance(self.n, Exception): raise self.n
        return self.n

def test_whether_a_learner_has_batches_to_validate_on():
    def valid(*loaders): return has_valid(SimpleNamespace(dls=SimpleNamespace(loaders=loaders)))
    assert valid([1], [1]) and valid([], [1]) and valid([1], Loader(1))
    assert not valid([1]) and not valid([1], []) and not valid([1], Loader(0))
    for without_length in (None, Loader(TypeError()), iter([1])): assert not valid([1], without_length)

def test_how_many_items_a_loader_has():
    assert count_items(SimpleNamespace(dataset=[1, 2])) == 2 and count_items([1]) is count_items(None) is None
    assert count_items(SimpleNamespace(dataset=Loader(TypeError()))) is None

def test_a_training_set_without_batches_or_length():
    def learner(train): return SimpleNamespace(dls=SimpleNamespace(train=train))
    check_data(learner([1]))
    with pytest.raises(ValueError, match='makes 0 batches: expected at least 1'): check_data(learner([]))
    with pytest.raises(TypeError, match=r"doesn't say how many batches it has \(no length\).* expected a loader with a length"):
        check_data(learner(Loader(TypeError('no length'))))

def test_unknown_arguments_are_refused_with_the_nearest_known_one():
    @check_names
    def fit_it(self, n_epoch, lr=None, cut_frac=.1): return n_epoch,lr,cut_frac
    assert fit_it(None, 1, lr=2) == (1, 2, .1) and fit_it.__name__ == 'fit_it'
    for name,near in dict(lr_max='lr', cut_fraction='cut_frac', n_epochs='n_epoch', epoch='n_epoch', pct_start='cut_frac').items():
        match = rf'^fit_it\(\) has no argument {name!r}: did you mean `{near}`\?$'
        with pytest.raises(TypeError, match=match): fit_it(None, 1, **{name: 1})
    with pytest.raises(TypeError, match=r"^fit_it\(\) has no argument 'zzz': expected n_epoch, lr, cut_frac$"): fit_it(None, 1, zzz=1)
