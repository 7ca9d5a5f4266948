"Every group's rate at every step, in any fit"
import numpy as np
import pytest
from conftest import make_mlp
from fastai.callback.core import Callback, CancelFitException

from fastai_discrim.plan.plot import plot_lrs
from fastai_discrim.callbacks.unfreezing import GradualUnfreezing


def test_stock_fits_are_recorded(mlp):
    with mlp.no_bar(): mlp.fit(1, [1e-4, 1e-3, 1e-2])
    np.testing.assert_array_equal(mlp.recorder.group_lrs, np.tile([1e-4, 1e-3, 1e-2], (8, 1)))
    mlp.freeze()
    with mlp.no_bar(): mlp.fit(2, [1e-4, 1e-3, 1e-2])
    np.testing.assert_array_equal(mlp.recorder.group_lrs, np.tile([0, 0, 1e-2], (16, 1)))

def test_validation_does_not_wipe_the_record(mlp):
    with mlp.no_bar(): mlp.fit(1, 1e-2)
    before = mlp.recorder.group_lrs
    with mlp.no_bar(): mlp.validate(); mlp.get_preds()
    np.testing.assert_array_equal(mlp.recorder.group_lrs, before)

def test_predicting_during_a_fit_does_not_wipe_the_record(mlp):
    class Peek(Callback):
        def after_train(self): self.learn.get_preds(dl=self.dls.valid)
    with mlp.no_bar(): mlp.fit(3, 1e-2, cbs=Peek)
    assert mlp.recorder.group_lrs.shape == (24, 3)

def test_the_record_is_there_while_the_fit_runs_and_when_it_breaks_off(mlp):
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.train_iter == 3: raise self.ex
    for ex in (CancelFitException(), KeyboardInterrupt()):
        stop = Stop(); stop.ex = ex
        try:
            with mlp.no_bar(): mlp.fit(1, 1e-2, cbs=stop)
        except KeyboardInterrupt: pass
        # `after_batch` of the third batch was broken off before the recorder's turn
        assert mlp.recorder.group_lrs.shape == (2, 3)

def test_norm_layers_of_frozen_groups_do_not_count(tmp_path):
    learn = make_mlp(tmp_path, norm=True)
    learn.freeze()
    with learn.no_bar(): learn.fit(1, 1e-2)
    assert learn.recorder.group_lrs[:,:-1].max() == 0

def test_before_any_fit(mlp):
    with pytest.raises(ValueError, match='no rates are recorded'): _ = mlp.recorder.group_lrs

def test_plots(clas):
    with clas.no_bar(): clas.fit_one_cycle(5, 1e-2, cbs=GradualUnfreezing())
    rates,spans = clas.recorder.plot_group_lrs()
    assert [t.get_text() for t in spans.get_yticklabels()] == ['0 encoder', '1 rnns.0', '2 rnns.1', '3 rnns.2', '4 head']
    assert rates.get_ylabel() == 'learning rate' and spans.get_xlabel() == 'iteration'
    for i,line in enumerate(rates.get_lines()):
        y = clas.recorder.group_lrs[:,i]
        np.testing.assert_array_equal(line.get_ydata(), np.where(y > 0, y, np.nan))

def test_a_plot_after_other_groups_were_made(clas):
    with clas.no_bar(): clas.fit_one_cycle(5, 1e-2, cbs=GradualUnfreezing())
    clas.regroup(n_groups=2)
    _,spans = clas.recorder.plot_group_lrs()
    assert [t.get_text() for t in spans.get_yticklabels()] == list('01234')

def test_plot_spans_are_where_a_group_trains():
    lrs = np.array([[0, 1.], [1, 1], [0, 1], [1, 1]])
    _,spans = plot_lrs(lrs, n_iter=2)
    bars = [[p.get_extents().intervalx.tolist() for p in c.get_paths()] for c in spans.collections]
    assert bars == [[[.5, 1.], [1.5, 2.]], [[0, 2.]]] and spans.get_xlabel() == 'epoch'
