"Record the rate of each group at each step in fits with a plan, schedule or callback of ours, or with `GroupLRRecorder`"
from inspect import getmembers

import numpy as np
import pytest
from conftest import StopAt, make_mlp
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import load_learner

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.group_lrs import GroupLRRecorder
from fastai_discrim.callbacks.unfreezing import GradualUnfreezing
from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan


def test_a_stock_fit_is_recorded_by_a_group_lr_recorder(mlp):
    with mlp.no_bar(): mlp.fit(1, [1e-4, 1e-3, 1e-2], cbs=GroupLRRecorder())
    np.testing.assert_array_equal(mlp.recorder.group_lrs, np.tile([1e-4, 1e-3, 1e-2], (8, 1)))
    mlp.freeze()
    with mlp.no_bar(): mlp.fit(2, [1e-4, 1e-3, 1e-2], cbs=GroupLRRecorder())
    np.testing.assert_array_equal(mlp.recorder.group_lrs, np.tile([0, 0, 1e-2], (16, 1)))

# Fits of ours, and the rates that each records in its first step
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
            mlp.recorder.plot_group_lrs()
        assert mlp.recorder.group_lrs.shape == (0, 0)
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

def test_the_record_is_available_during_a_fit_and_after_an_interruption(mlp):
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.train_iter == 3: raise self.ex
    for ex in (CancelFitException(), KeyboardInterrupt()):
        stop = Stop(); stop.ex = ex
        try:
            with mlp.no_bar(): mlp.fit(1, 1e-2, cbs=[stop, GroupLRRecorder()])
        except KeyboardInterrupt: pass
        # The interruption in `after_batch` of the third batch came before the recorder
        assert mlp.recorder.group_lrs.shape == (2, 3)

def test_norm_layers_of_frozen_groups_do_not_count(tmp_path):
    learn = make_mlp(tmp_path, norm=True)
    learn.freeze()
    with learn.no_bar(): learn.fit(1, 1e-2, cbs=GroupLRRecorder())
    assert learn.recorder.group_lrs[:,:-1].max() == 0

def test_before_any_fit(mlp):
    with pytest.raises(ValueError, match='no rates are recorded'): mlp.recorder.plot_group_lrs()
    assert mlp.recorder.group_lrs.shape == (0, 0)

def test_all_attributes_of_a_recorder_can_be_read(mlp): assert dict(getmembers(mlp.recorder))['group_lrs'].size == 0

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
    assert load_learner(tmp_path/'some.pkl').recorder.group_lrs.shape == (0, 0)

def test_plots(clas):
    with clas.no_bar(): clas.fit_one_cycle(5, 1e-2, cbs=GradualUnfreezing(1))
    rates,spans = clas.recorder.plot_group_lrs()
    assert [t.get_text() for t in spans.get_yticklabels()] == ['0 encoder', '1 rnns.0', '2 rnns.1', '3 rnns.2', '4 head']
    assert rates.get_ylabel() == 'learning rate' and spans.get_xlabel() == 'epoch'
    assert rates.get_title(loc='left') == 'Run: 5 epochs, 5 phases, 5 groups'
    for i,line in enumerate(rates.get_lines()):
        y = clas.recorder.group_lrs[:,i]
        np.testing.assert_array_equal(line.get_ydata(), np.where(y > 0, y, np.nan))

def test_a_plot_after_regroup(clas):
    with clas.no_bar(): clas.fit_one_cycle(5, 1e-2, cbs=GradualUnfreezing(1))
    clas.regroup(n_groups=2)
    _,spans = clas.recorder.plot_group_lrs()
    assert [t.get_text() for t in spans.get_yticklabels()] == list('01234')

def marks(rates): return [segment[0,0] for c in rates.collections for segment in c.get_segments()]

@pytest.mark.parametrize('phases', [
    [Phase(1, (2,), (1e-4, 1e-3, 1e-2)), Phase(2, (0, 1, 2), (1e-4, 1e-3, 1e-2))],
    # The groups that train don't change
    [Phase(.5, (2,), (1e-4, 1e-3, 1e-2)), Phase(2.5, (2,), (1e-4, 1e-3, 1e-2))]])
def test_plan_and_run_share_an_axis(mlp, phases):
    plan = Plan(phases)
    with mlp.no_bar(): mlp.fit_plan(plan)
    for planned,ran in zip(plan.plot(), mlp.recorder.plot_group_lrs()):
        assert planned.get_xlim() == ran.get_xlim() == (0, 3) and planned.get_xlabel() == ran.get_xlabel()
    assert marks(mlp.recorder.plot_group_lrs()[0]) == marks(plan.plot()[0]) == [phases[0].epochs]
    assert mlp.recorder.plot_group_lrs(yscale='linear')[0].get_yscale() == 'linear'

def test_phases_are_marked_where_groups_are_unfrozen(mlp):
    with mlp.no_bar(): mlp.fit_one_cycle(3, 1e-2, cbs=GradualUnfreezing(.5))
    assert marks(mlp.recorder.plot_group_lrs()[0]) == [.5, 1]
    # The phases of an earlier plan are not marked
    with mlp.no_bar():
        mlp.fit_plan(Plan([Phase(1, (2,), (1e-4, 1e-3, 1e-2)), Phase(1, (1, 2), (1e-4, 1e-3, 1e-2))]))
        mlp.unfreeze()
        mlp.fit(2, 1e-2, cbs=GroupLRRecorder())
    assert marks(mlp.recorder.plot_group_lrs()[0]) == []

def test_a_phase_that_ended_early_leaves_a_gap(mlp):
    stop = EarlyStop(1, min_delta=100.)
    with mlp.no_bar(): mlp.fit_plan(Plan([Phase(4, (2,), (1e-4, 1e-3, 1e-2), early_stop=stop), Phase(1, (0, 1, 2), (1e-4, 1e-3, 1e-2))]))
    rates,spans = mlp.recorder.plot_group_lrs()
    assert [tuple(p.get_bbox().intervalx) for p in spans.patches] == [(0, 2), (4, 5)]*3 and marks(rates) == [4]
    assert np.isnan(rates.get_lines()[2].get_xdata()).sum() == 1

def test_a_fit_that_starts_late_or_is_interrupted(mlp):
    with mlp.no_bar(): mlp.fit(4, 1e-2, cbs=GroupLRRecorder(), start_epoch=2)
    rates,spans = mlp.recorder.plot_group_lrs()
    assert rates.get_xlim() == (0, 4) and tuple(spans.patches[0].get_bbox().intervalx) == (2, 4)
    class Look(Callback):
        "Validate in the middle of an epoch, which changes the learner's `epoch` and `iter`"
        order = 90
        def after_batch(self):
            if not self.training: return
            self.learn.validate()
            self.learn.training = True
    with mlp.no_bar(), mlp.no_logging(), pytest.raises(KeyboardInterrupt):
        mlp.fit(2, 1e-2, cbs=[GroupLRRecorder(), Look(), StopAt(0, 6)])
    spans = mlp.recorder.plot_group_lrs()[1]
    assert tuple(spans.patches[0].get_bbox().intervalx) == (0, .75) and spans.get_xlim() == (0, 2)
