"Every group's rate at every step: recorded where a plan, schedule or callback of ours takes part, or `GroupLRRecorder` is given"
import numpy as np
import pytest
from conftest import make_mlp
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import load_learner

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.group_lrs import GroupLRRecorder
from fastai_discrim.callbacks.unfreezing import GradualUnfreezing
from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan


def test_stock_fits_are_recorded_where_one_asks_for_it(mlp):
    with mlp.no_bar(): mlp.fit(1, [1e-4, 1e-3, 1e-2], cbs=GroupLRRecorder())
    np.testing.assert_array_equal(mlp.recorder.group_lrs, np.tile([1e-4, 1e-3, 1e-2], (8, 1)))
    mlp.freeze()
    with mlp.no_bar(): mlp.fit(2, [1e-4, 1e-3, 1e-2], cbs=GroupLRRecorder())
    np.testing.assert_array_equal(mlp.recorder.group_lrs, np.tile([0, 0, 1e-2], (16, 1)))

# What makes a fit one of ours, and the rates it then records in its first step
OURS = {
    'fit_stlr': (lambda l: l.fit_stlr(1, [1e-4, 1e-3, 1e-2], ratio=1), [1e-4, 1e-3, 1e-2]),
    'fit_clr_beta': (lambda l: l.fit_clr_beta(1, [1e-4, 1e-3, 1e-2], div=1), [1e-4, 1e-3, 1e-2]),
    'unfreezing': (lambda l: l.fit(3, [1e-4, 1e-3, 1e-2], cbs=GradualUnfreezing), [0, 0, 1e-2]),
    'discriminative': (lambda l: l.fit(1, 1e-2, cbs=DiscriminativeLR(10)), [1e-4, 1e-3, 1e-2]),
    'plan': (lambda l: l.fit_plan(l.ulmfit_plan(3, 1e-2, ratio=1)), [0, 0, 1e-2]),
    'fine_tune': (lambda l: l.fine_tune(3, 1e-2, cbs=GradualUnfreezing), [0, 0, 1e-4/5*5]),
}

@pytest.mark.parametrize('fit,first', OURS.values(), ids=OURS)
def test_stock_fits_leave_the_record_alone(mlp, fit, first):
    with mlp.no_bar():
        mlp.fit(1, 1e-2)
        with pytest.raises(ValueError, match='no rates are recorded: expected a fit of at least one batch before this, with a plan'):
            _ = mlp.recorder.group_lrs
        fit(mlp)
        n,before = mlp.n_epoch*8,mlp.recorder.group_lrs
        assert before.shape == (n, 3)
        np.testing.assert_array_equal(before[0] > 0, np.array(first) > 0)
        if fit is not OURS['fine_tune'][0]: np.testing.assert_allclose(before[0], first, rtol=1e-9)
        mlp.unfreeze()
        for stock in (lambda: mlp.fit(2, 5e-2), lambda: mlp.fit_one_cycle(1, 5e-2), lambda: mlp.fine_tune(1)): stock()
        mlp.lr_find(show_plot=False, num_it=5)
    np.testing.assert_array_equal(mlp.recorder.group_lrs, before)
    with mlp.no_bar(): mlp.fit_stlr(1, 1e-2)
    assert mlp.recorder.group_lrs.shape == (8, 3)

def test_validation_does_not_wipe_the_record(mlp):
    with mlp.no_bar(): mlp.fit(1, 1e-2, cbs=GroupLRRecorder())
    before = mlp.recorder.group_lrs
    with mlp.no_bar(): mlp.validate(); mlp.get_preds()
    np.testing.assert_array_equal(mlp.recorder.group_lrs, before)

def test_predicting_during_a_fit_does_not_wipe_the_record(mlp):
    class Peek(Callback):
        def after_train(self): self.learn.get_preds(dl=self.dls.valid)
    with mlp.no_bar(): mlp.fit(3, 1e-2, cbs=[Peek, GroupLRRecorder()])
    assert mlp.recorder.group_lrs.shape == (24, 3)

def test_the_record_is_there_while_the_fit_runs_and_when_it_breaks_off(mlp):
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.train_iter == 3: raise self.ex
    for ex in (CancelFitException(), KeyboardInterrupt()):
        stop = Stop(); stop.ex = ex
        try:
            with mlp.no_bar(): mlp.fit(1, 1e-2, cbs=[stop, GroupLRRecorder()])
        except KeyboardInterrupt: pass
        # `after_batch` of the third batch was broken off before the recorder's turn
        assert mlp.recorder.group_lrs.shape == (2, 3)

def test_norm_layers_of_frozen_groups_do_not_count(tmp_path):
    learn = make_mlp(tmp_path, norm=True)
    learn.freeze()
    with learn.no_bar(): learn.fit(1, 1e-2, cbs=GroupLRRecorder())
    assert learn.recorder.group_lrs[:,:-1].max() == 0

def test_before_any_fit(mlp):
    with pytest.raises(ValueError, match='no rates are recorded'): _ = mlp.recorder.group_lrs

def test_groups_that_open_in_the_middle_of_an_epoch(mlp):
    with mlp.no_bar(): mlp.fit(1, 1e-2, cbs=GradualUnfreezing(.25))
    np.testing.assert_array_equal(mlp.recorder.group_lrs > 0, [[0, 0, 1]]*2 + [[0, 1, 1]]*2 + [[1, 1, 1]]*4)

def test_without_a_recorder(mlp):
    mlp.remove_cb(mlp.recorder)
    with mlp.no_bar():
        mlp.fit(3, 1e-2, cbs=[GradualUnfreezing, DiscriminativeLR])
        mlp.fit_plan(Plan([Phase(1, (2,), (1e-4, 1e-3, 1e-2))]))

def test_the_record_is_not_exported(mlp, tmp_path):
    mlp.dls.new_empty = lambda: mlp.dls
    mlp.export('none.pkl')
    with mlp.no_bar(): mlp.fit(60, 1e-2, cbs=GroupLRRecorder())
    mlp.recorder.values,mlp.recorder.losses,mlp.recorder.lrs = [],[],[]
    mlp.export('some.pkl')
    assert mlp.recorder.group_lrs.shape == (480, 3)
    with pytest.raises(ValueError, match='no rates are recorded'): _ = load_learner(tmp_path/'some.pkl').recorder.group_lrs

def test_plots(clas):
    with clas.no_bar(): clas.fit_one_cycle(5, 1e-2, cbs=GradualUnfreezing(1))
    rates,spans = clas.recorder.plot_group_lrs()
    assert [t.get_text() for t in spans.get_yticklabels()] == ['0 encoder', '1 rnns.0', '2 rnns.1', '3 rnns.2', '4 head']
    assert rates.get_ylabel() == 'learning rate' and spans.get_xlabel() == 'iteration'
    for i,line in enumerate(rates.get_lines()):
        y = clas.recorder.group_lrs[:,i]
        np.testing.assert_array_equal(line.get_ydata(), np.where(y > 0, y, np.nan))

def test_a_plot_after_other_groups_were_made(clas):
    with clas.no_bar(): clas.fit_one_cycle(5, 1e-2, cbs=GradualUnfreezing(1))
    clas.regroup(n_groups=2)
    _,spans = clas.recorder.plot_group_lrs()
    assert [t.get_text() for t in spans.get_yticklabels()] == list('01234')
