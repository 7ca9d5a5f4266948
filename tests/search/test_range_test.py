"Where the head can't be run alone: a range test, and a line that says so"
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import in_groups, moved, weights
from fastai.callback.core import Callback, CancelBatchException, CancelFitException
from fastai.callback.schedule import minimum

from fastai_discrim.plan.origin import HeadLR
from fastai_discrim.search.range_test import range_test


def find(learn, **kw):
    with learn.no_bar(),learn.no_logging(): return learn.head_lr_find(**{'show_plot': False, **kw})

def test_a_language_model_gets_a_range_test_that_says_so(lm, capsys):
    with lm.no_bar(): res = lm.head_lr_find(lrs=[1e-4, 1e-1])
    said = "the head can't train alone (the head, or the module that holds its parameters, is called before the end of the body), " \
           'so the rate comes from a range test like `lr_find`, averaged over 3 runs'
    assert said in capsys.readouterr().out
    assert res.how.startswith('range test') and plt.gca().get_ylabel() == 'training loss, smoothed'
    assert res.lr == res.lrs[res.losses.argmin()]/10 and res.lrs[0] >= 1e-4 and res.lrs[-1] <= 1e-1

def test_a_range_test_that_falls_nowhere_warns(lm, one_range_test):
    # Its tokens are random: there is nothing to learn
    with pytest.warns(UserWarning, match='no rate of the range test lowers the loss of .* by 1 %: .* choose one by hand'):
        find(lm, lrs=[1e-9, 1e-7])

class Record:
    "`lr_find` that is told what comes out, and keeps what it was asked"
    def __init__(self, learn, monkeypatch, *curves):
        self.asked,self.curves,self.recorder = [],iter(curves),learn.recorder
        monkeypatch.setattr(type(learn), 'lr_find', lambda _, *args, **kwargs: self(*args))
    def __call__(self, lo, hi, n):
        self.asked.append((lo, hi, n))
        losses = next(self.curves)
        self.recorder.lrs,self.recorder.losses = list(np.geomspace(lo, hi, n)[:len(losses)]),list(losses)

# The loss falls up to step 60 of 100
FALLING = np.array([2-i/100 for i in range(60)] + [1.4+i for i in range(40)])

def test_three_runs_are_averaged_as_far_as_all_of_them_went(mlp, monkeypatch):
    runs = FALLING,FALLING[:80]+1,np.r_[FALLING[:70], np.nan, FALLING[71:]]+2
    record = Record(mlp, monkeypatch, *runs)
    res,caution = range_test(mlp, np.array([1e-4, 1e-2, 1.]), 'so it is')
    assert record.asked == [(1e-4, 1., 100)]*3 and caution is None
    # As fastai does it, 10 at the start and 5 at the end are left out; the third run has 60 up to its nan
    np.testing.assert_allclose(res.lrs, np.geomspace(1e-4, 1, 100)[10:70])
    np.testing.assert_allclose(res.losses, FALLING[10:70]+1)
    assert res.lr == minimum(res.lrs, res.losses, 100)[0] == pytest.approx(10**(-4 + 4*60/99)/10)
    assert isinstance(res, HeadLR) and res.how == 'range test of the head, as so it is'

def test_without_rates_it_goes_from_1e_5_to_10(mlp, monkeypatch):
    record = Record(mlp, monkeypatch, *[FALLING]*3)
    range_test(mlp)
    assert record.asked == [(1e-5, 10, 100)]*3

@pytest.mark.parametrize('fall,warned', [(.011, False), (.009, True)])
def test_a_fall_of_a_hundredth_is_the_least_that_tells(mlp, monkeypatch, fall, warned):
    curve = np.r_[np.full(50, 3.), np.full(50, 3*(1-fall))]
    Record(mlp, monkeypatch, *[curve]*3)
    assert (range_test(mlp)[1] is not None) == warned

@pytest.mark.parametrize('n,ok', [(17, True), (16, False)])
def test_two_rates_are_the_fewest(mlp, monkeypatch, n, ok):
    "Of 17 steps 10 at the start and 5 at the end are left out"
    Record(mlp, monkeypatch, *[FALLING[:n]]*3)
    if ok: assert len(range_test(mlp)[0].lrs) == 2
    else:
        with pytest.raises(ValueError, match='the loss was finite at 1 rates: expected at least 2'): range_test(mlp)

def test_a_callback_that_ends_it_is_said(lm):
    class Early(Callback):
        def after_batch(self):
            if self.training and self.train_iter > 5: raise CancelFitException
    lm.add_cb(Early())
    with pytest.raises(ValueError, match='leave out a callback that ends a fit'): find(lm)

def test_only_the_head_trains_in_it(lm, monkeypatch):
    "Nothing else has moved at any step, and each run begins with the same weights"
    monkeypatch.setattr('fastai_discrim.search.range_test.RUNS', 2)
    ever,steps,begun = set(),[],[]
    class See(Callback):
        def before_train(self):
            if self.epoch == 0: begun.append(moved(self.learn, before))
        def after_batch(self):
            if self.training:
                steps.append(self.train_iter)
                ever.update(moved(self.learn, before))
    before = weights(lm)
    lm.add_cb(See())
    find(lm)
    lm.create_opt()
    assert len(steps) > 100 and ever and ever <= in_groups(lm, [3]) and begun == [set(), set()]

def test_a_callback_skips_batches_of_few_items(mlp, one_range_test):
    "As a guard for batch norms does; the model never runs two items then"
    class SkipSmall(Callback):
        def before_batch(self):
            if len(self.xb[0]) < 3: raise CancelBatchException()
    mlp.add_cb(SkipSmall())
    res = find(mlp)
    assert res.how.startswith('range test') and 'a callback skips batches of few items' in res.how
