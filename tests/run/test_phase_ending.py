"Phases that end by themselves"
import numpy as np
import pytest
import torch
from conftest import make_mlp, same, snapshot, trains
from fastai.callback.core import (
    Callback,
    CancelEpochException,
    CancelTrainException,
    CancelValidException,
)
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.imports import noop
from fastai.metrics import AccumMetric, ValueMetric, accuracy
from fastai.optimizer import ranger
from plan.restated import plan_lrs
from run.resumed import assert_equal, check, go_on, outcome, run

from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import OneCycle

LRS = (1e-4, 1e-3, 1e-2)

class Told:
    "A metric that is what it is told to be, epoch by epoch"
    def __init__(self, values): self.values = iter(values)
    def __call__(self): return next(self.values)

def told(path, values, **kw):
    learn = make_mlp(path, **kw)
    learn.metrics = [ValueMetric(Told(values), 'score')]
    return learn

def plan_of(ends, epochs=(4, 5, 3), **kw):
    return Plan([Phase(n, g, LRS, early_stop=e, **kw) for n,g,e in zip(epochs, ((2,), (1, 2), (0, 1, 2)), ends)], 'abc')

def epochs(learn): return [e for e,_ in learn.recorder.ran['epochs']]

def ran_lrs(plan, es, n_iter=8): return plan.lrs(n_iter).reshape(plan.n_epoch, n_iter, -1)[es].reshape(-1, plan.n_groups)

@pytest.mark.parametrize('ends,values,want', [
    # Better, worse: ended after epoch 1, and the next phase counts from 0
    ((EarlyStop(1, 'score'),)*3, [1, 0, 5, 6, 7, 8, 9, 1, 0], [0, 1, 4, 5, 6, 7, 8, 9, 10]),
    ((EarlyStop(2, 'score'), None, None), [3, 2, 1, 4, 5, 6, 7, 8, 9, 1, 1], [0, 1, 2, *range(4, 12)]),
    # 1.05 is no improvement on 1 by more than a tenth
    ((EarlyStop(2, 'score', 0.1), None, None), [1, 1.05, 1.08, 2]+[1]*8, [0, 1, 2, *range(4, 12)]),
    ((None, EarlyStop(1, 'score'), None), [9, 8, 7, 6, 1, 1, 2, 2, 2], [0, 1, 2, 3, 4, 5, 9, 10, 11]),
    ((EarlyStop(9, 'score'),)*3, [1]*12, list(range(12))),
    ((None, None, EarlyStop(1, 'score')), [*range(9), 20, 19], list(range(11))),
])
def test_which_epochs_run(tmp_path, ends, values, want):
    learn,plan = told(tmp_path, values),plan_of(ends)
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan)
    assert epochs(learn) == want and len(learn.recorder.values) == len(want)
    np.testing.assert_array_equal(learn.recorder.group_lrs, ran_lrs(plan, want))
    d = learn.recorder.run_record()
    assert d['finished'] and [[r['epoch'] for r in p['epochs']] for p in d['phases']] == [
        [e for e in want if a <= e < b] for a,b in ((0, 4), (4, 9), (9, 12))]

def test_it_ends_where_early_stopping_would(tmp_path):
    for kw in (dict(patience=1, min_delta=.02), dict(patience=2, min_delta=.03), dict(patience=3, monitor='accuracy')):
        a,b = make_mlp(tmp_path),make_mlp(tmp_path)
        a.metrics = b.metrics = [accuracy]
        with a.no_bar(), a.no_logging(): a.fit_plan(Plan([Phase(30, (0, 1, 2), LRS, OneCycle(), early_stop=EarlyStop(**kw))]))
        with b.no_bar(), b.no_logging(): b.fit_one_cycle(30, np.array(LRS), cbs=EarlyStoppingCallback(**kw))
        assert [list(v) for v in a.recorder.values] == [list(v) for v in b.recorder.values] and len(a.recorder.values) < 30

def test_the_next_phase_begins_from_the_best(tmp_path):
    values = [1, 5, 4, 3, 2]
    class Watch(Callback):
        order = 900
        def before_fit(self): self.ends,self.begins = {},{}
        def before_train(self): self.begins[self.epoch] = self.model[0].weight.detach().clone(), self.model[4].weight.detach().clone()
        def before_validate(self): self.ends[self.epoch] = self.model[0].weight.detach().clone(), self.model[4].weight.detach().clone()
    def run(best, patience, vals):
        learn,watch = told(tmp_path, vals),Watch()
        plan = Plan([Phase(4, (0, 1, 2), LRS, early_stop=EarlyStop(patience, 'score', best=best)), Phase(1, (0, 1, 2), LRS)])
        with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan, cbs=watch)
        return learn,watch
    for patience,vals,best_epoch in ((2, [1, 5, 4, 3, 2], 1), (9, [1, 5, 4, 3, 2], 1), (9, [1, 2, 3, 4, 0], 3)):
        _,watch = run(True, patience, vals)
        assert all(map(torch.equal, watch.begins[4], watch.ends[best_epoch]))
    learn,watch = run(False, 2, values)
    assert all(map(torch.equal, watch.begins[4], watch.ends[max(e for e in watch.ends if e < 4)])) and len(learn.cbs) == 4

def test_stopped_and_gone_on_with(tmp_path):
    "In every epoch that runs"
    plan = plan_of((EarlyStop(2, 'valid_loss', .02, best=True),)*3)
    def make(): return make_mlp(tmp_path)
    def compare(learn): return {**outcome(learn), 'epochs': epochs(learn)}
    want = compare(run(make, lambda l: plan)[0])
    assert len(want['epochs']) < 12
    assert_equal(want, go_on(make, [(e, 4) for e in want['epochs']], lambda l: plan, every=3, compare=compare))

def test_other_callbacks_and_what_trains(tmp_path):
    learn = told(tmp_path, [1, 0, 5, 6, 7, 8, 9, 1, 0])
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan_of((EarlyStop(1, 'score'),)*3), cbs=SaveModelCallback(every_epoch=1))
    assert trains(learn) == [True]*3 and len(list((tmp_path/'models').glob('model_*.pth'))) == 9
    assert vars(learn).keys().isdisjoint(['_do_fit', 'one_batch', 'phase'])
    with learn.no_bar(), learn.no_logging():
        learn.metrics = []
        learn.fit(2)
    assert len(learn.recorder.values) == 2

def test_as_data():
    plan = plan_of((EarlyStop(2, 'accuracy', .01, True), None, EarlyStop()))
    assert Plan.from_json(plan.to_json()) == plan != plan_of((None,)*3) and plan_of((None,)*3).phases[0].early_stop is None
    table = repr(plan)
    assert 'until accuracy stalls within 0.01 for 2 epochs, on from the best' in table and 'until valid_loss stalls for 1 epoch' in table

def test_numbers_of_numpy():
    plan = plan_of((EarlyStop(np.int64(2), 'accuracy', np.float32(.5), np.True_, np.False_), None, None))
    assert Plan.from_json(plan.to_json()) == plan == plan_of((EarlyStop(2, 'accuracy', .5, True, False), None, None))

@pytest.mark.parametrize('start', [1, 2, 4, 6])
def test_begun_in_the_middle_of_a_phase(tmp_path, start):
    learn = told(tmp_path, [*range(8)] + [5]*4)
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan_of((EarlyStop(1, 'score'),)*3), start_epoch=start)
    assert epochs(learn)[0] == start and learn.recorder.ran['finished']

def test_in_ulmfit_plan(clas):
    plan = clas.ulmfit_plan(20, 1e-2, epochs=3, early_stop=EarlyStop(2))
    assert [p.early_stop for p in plan.phases] == [EarlyStop(2)]*5
    with clas.no_bar(), clas.no_logging(): clas.fit_ulmfit(20, 1e-2, epochs=3, early_stop=EarlyStop(1, min_delta=10.))
    assert epochs(clas) == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13]

@pytest.mark.parametrize('make,match', [
    (lambda: EarlyStop(0), 'patience=0: expected at least 1'), (lambda: EarlyStop(1, 3), 'monitor=3: expected the name'),
    (lambda: EarlyStop(1, best='no'), "best='no': expected True or False"),
    (lambda: EarlyStop(1, lower='higher'), "lower='higher': expected"),
    (lambda: EarlyStop(1, min_delta=-1), 'min_delta=-1: expected'),
    (lambda: Phase(1, (2,), LRS, early_stop=3), 'early_stop=3: expected an EarlyStop'),
    (lambda: Plan([Phase(2, (2,), LRS, early_stop=EarlyStop()), Phase(1, (2,), LRS, None)]),
     'sched=None after a phase with `early_stop`: expected')])
def test_bad_endings(make, match):
    with pytest.raises((ValueError, TypeError), match=match): make()

def test_what_is_not_measured_is_refused_before_anything_changes(mlp):
    before = snapshot(mlp)
    with pytest.raises(ValueError, match="monitor='f1': expected what the learner measures, train_loss, valid_loss, accuracy"):
        mlp.fit_plan(plan_of((EarlyStop(1, 'f1'), None, None)))
    assert same(before, snapshot(mlp))

@pytest.mark.parametrize('monitor,change', [('valid_accuracy', None), ('train_accuracy', None), ('accuracy', 'train_metrics'),
                                            ('valid_loss', 'valid_metrics'), ('valid_loss', 'nothing to validate')])
def test_what_will_not_be_measured_is_refused(mlp, monitor, change):
    if change == 'train_metrics': mlp.recorder.train_metrics = True
    elif change == 'valid_metrics': mlp.recorder.valid_metrics = False
    elif change: mlp.dls.valid.dataset,mlp.dls.valid.n = [],0
    with pytest.raises(ValueError, match=f"monitor='{monitor}': expected what the learner measures"):
        mlp.fit_plan(plan_of((None, EarlyStop(1, monitor), None)))

def test_a_metric_of_the_training_set_alone(mlp):
    mlp.recorder.train_metrics,mlp.recorder.valid_metrics = True,False
    with mlp.no_bar(),mlp.no_logging(): mlp.fit_plan(plan_of((None, EarlyStop(1, 'accuracy'), None)))
    assert 'accuracy' in mlp.recorder.metric_names

def test_the_best_epoch_is_named_after_one_without_a_measurement(mlp, capsys):
    class Cut(Callback):
        def before_batch(self):
            if self.training and self.epoch == 1: raise CancelEpochException()
    with mlp.no_bar():
        mlp.logger = print
        mlp.fit_plan(plan_of((EarlyStop(1, min_delta=100.), None, None), epochs=(5, 1, 1)), cbs=Cut)
    assert 'has not improved since epoch 0: the phase ends' in capsys.readouterr().out

def test_lower_or_higher_is_better(tmp_path):
    for lower,values in ((True, [5, 4, 3, 9] + [1]*9), (False, [1, 2, 3, 0] + [9]*9), (None, [1, 2, 3, 0] + [9]*9)):
        learn,plan = told(tmp_path, values),plan_of((EarlyStop(1, 'score', lower=lower), None, None), epochs=(5, 1, 1))
        with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan)
        assert epochs(learn) == [0, 1, 2, 3, 5, 6], lower
    assert 'score (lower is better) stalls' in str(EarlyStop(1, 'score', lower=True)) and EarlyStop.__doc__

def test_lookahead_begins_from_the_best_too(tmp_path):
    learn = told(tmp_path, [1, 5, 4, 3, 2], opt_func=ranger)
    class Watch(Callback):
        def before_train(self):
            if self.epoch == 4: self.apart = max((s-f).abs().max().item() for a,b in zip(self.opt.slow_weights, self.opt.param_lists)
                                                 for s,f in zip(a, b))
    watch = Watch()
    plan = Plan([Phase(4, (0, 1, 2), (1e-2,)*3, early_stop=EarlyStop(9, 'score', best=True)), Phase(1, (0, 1, 2), (1e-2,)*3)])
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan, cbs=watch)
    assert watch.apart == 0

def test_it_says_that_a_phase_ends(tmp_path, capsys):
    for quiet in (False, True):
        learn = told(tmp_path, [1, 0, 5, 6, 7, 8, 9, 1, 0])
        with learn.no_bar():
            if quiet: learn.logger = noop
            learn.fit_plan(plan_of((EarlyStop(1, 'score'), None, None)))
        assert ('score has not improved since epoch 0: the phase ends' in capsys.readouterr().out) == (not quiet)

# Phases that begin in the middle of an epoch, and end with one

def halves(early_stop, lengths=(.5, 2.5, 2), **kwargs):
    "The second phase may end early"
    phases = zip(lengths, ((2,), (1, 2), (0, 1, 2)), (None, early_stop, None))
    return Plan([Phase(n, g, LRS, early_stop=stop, **kwargs) for n,g,stop in phases], 'abc')

def assert_rates(learn, plan, epochs):
    "Raise unless the rates are those of the epochs that ran, as restated"
    lrs = plan_lrs(plan, 8).reshape(plan.n_epoch, 8, -1)[epochs].reshape(-1, 3)
    np.testing.assert_allclose(learn.recorder.group_lrs, lrs, rtol=1e-9)

@pytest.mark.parametrize('patience,values,want', [
    # The epoch in which the phase begins counts for it; better, worse
    (1, [1, 0, 5, 6], [0, 1, 3, 4]), (1, [0, 1, 0, 5, 6], [0, 1, 2, 3, 4]), (2, [2, 1, 0, 5, 6], [0, 1, 2, 3, 4]),
    # Worse in its last epoch: it has ended by then
    (1, [0, 1, 2, 1, 1], [0, 1, 2, 3, 4]), (9, [3, 2, 1, 0, 0], [0, 1, 2, 3, 4])])
def test_begun_within_an_epoch(tmp_path, patience, values, want):
    learn,plan = told(tmp_path, values),halves(EarlyStop(patience, 'score'))
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan)
    assert epochs(learn) == want
    assert_rates(learn, plan, want)
    d = learn.recorder.run_record()
    assert d['finished'] and [[r['epoch'] for r in p['epochs']] for p in d['phases']] == [[], [e for e in want if e < 3], [3, 4]]

def test_an_epoch_counts_for_the_phase_that_it_ends_in(tmp_path):
    "What the phase before it watched is no best of its own"
    # The first phase ends with the first epoch; the second begins within the third
    lengths,stops = (1, 1.5, 2.5, 1),(EarlyStop(9, 'score'), None, EarlyStop(1, 'score'), None)
    plan = Plan([Phase(n, (2,) if i % 2 else (0, 1, 2), LRS, early_stop=stop) for i,(n,stop) in enumerate(zip(lengths, stops))], 'abc')
    for values,want in (([9, 9, 1, 2, 0, 5], [0, 1, 2, 3, 4, 5]), ([9, 9, 1, 0, 5], [0, 1, 2, 3, 5])):
        learn = told(tmp_path, values)
        with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan)
        assert epochs(learn) == want
        assert_rates(learn, plan, want)

class KeepsWeights(Callback):
    "Keep the weights before and after the training of each epoch"
    order = 900
    def before_fit(self): self.begins,self.ends = {},{}
    def _now(self): return [p.detach().clone() for p in self.model.parameters()]
    def before_train(self): self.begins[self.epoch] = self._now()
    def after_train(self): self.ends[self.epoch] = self._now()

def test_the_best_of_a_phase_begun_within_an_epoch(tmp_path):
    learn,watch = told(tmp_path, [7, 8, 2, 9, 9]),KeepsWeights()
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(halves(EarlyStop(9, 'score', best=True)), cbs=watch)
    assert all(map(torch.equal, watch.begins[3], watch.ends[1])) and not all(map(torch.equal, watch.ends[1], watch.ends[2]))

@pytest.mark.parametrize('stop', [(0, 5), (1, 2), (3, 1)])
@pytest.mark.parametrize('best,every', [(False, 3), (True, 3), (True, None)])
def test_begun_within_an_epoch_stopped_and_gone_on_with(tmp_path, stop, best, every):
    "It has counted before the stop, and counts on"
    plan = halves(EarlyStop(1, 'count', lower=True, best=best))
    def make():
        learn = make_mlp(tmp_path)
        # Worse with each epoch, so that the second phase ends with the second
        learn.metrics = [AccumMetric(lambda p,y: learn.epoch, flatten=False, name='count')]
        return learn
    def compare(learn): return {**outcome(learn), 'epochs': epochs(learn)}
    assert compare(run(make, lambda l: plan)[0])['epochs'] == [0, 1, 3, 4]
    check(make, [stop], plan=lambda l: plan, every=every, compare=compare)

@pytest.mark.parametrize('start,want', [(1, [1, 2, 3, 4]), (2, [2, 3, 4])])
def test_start_epoch_within_a_phase_begun_within_an_epoch(tmp_path, start, want):
    learn = told(tmp_path, [0, 1, 1, 1])
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(halves(EarlyStop(2, 'score')), start_epoch=start)
    assert epochs(learn) == want

def test_a_phase_that_ends_within_an_epoch_has_no_early_stop():
    with pytest.raises(ValueError, match=r'early_stop in phase 2, which ends after 2.5 epochs: expected a phase that ends with an epoch'):
        halves(EarlyStop(1, 'score'), lengths=(.5, 2, 2.5))

# Epochs that are cut short

class CutShort(Callback):
    "Cut epochs short, at an event of the training or of the validation"
    order = 900
    def __init__(self, event, error, epochs): self.event,self.error,self.epochs = event,error,epochs
    def __call__(self, event_name):
        if event_name == self.event and self.learn.epoch in self.epochs: raise self.error

@pytest.mark.parametrize('event,error', [('before_step', CancelEpochException), ('before_validate', CancelEpochException),
                                         ('before_validate', CancelValidException)])
def test_an_epoch_without_the_metric_does_not_count(tmp_path, event, error):
    "Neither as a better one nor as a worse one"
    # What is measured: better in epochs 0 and 2, worse in 4 and 5
    learn,watch = told(tmp_path, [1, 2, 1, 0, *[9]*9]),KeepsWeights()
    with learn.no_bar(), learn.no_logging():
        learn.fit_plan(plan_of((EarlyStop(2, 'score'), None, None), (8, 1, 1)), cbs=[watch, CutShort(event, error, (1, 3))])
    assert list(watch.begins) == [0, 1, 2, 3, 4, 5, 8, 9] and len(learn.recorder.values) == 8

@pytest.mark.parametrize('monitor', ['valid_loss', 'score'])
def test_an_epoch_whose_training_is_cut_short_counts(tmp_path, monitor):
    "By its validation: the recorder, which leaves out the loss of the training, has that at another place"
    learn = told(tmp_path, [1, 2, 0, 0, *[9]*9])
    losses,validate = iter([.5, .4, .6, .6, *[.1]*9]),learn._do_epoch_validate
    def told_loss(*args, **kwargs):
        loss = next(losses)
        learn.recorder.loss = ValueMetric(lambda: loss, 'loss')
        validate(*args, **kwargs)
    learn._do_epoch_validate = told_loss
    with learn.no_bar(), learn.no_logging():
        learn.fit_plan(plan_of((EarlyStop(2, monitor), None, None), (8, 1, 1)), cbs=CutShort('before_step', CancelTrainException, range(8)))
    assert epochs(learn) == [0, 1, 2, 3, 8, 9]

def test_the_best_is_loaded_after_an_epoch_that_was_cut_short(tmp_path):
    "At the end of its phase"
    learn,watch = told(tmp_path, [1, 2, *[9]*9]),KeepsWeights()
    with learn.no_bar(), learn.no_logging():
        learn.fit_plan(plan_of((EarlyStop(9, 'score', best=True), None, None), (3, 1, 1)),
                       cbs=[watch, CutShort('before_validate', CancelEpochException, (2,))])
    assert all(map(torch.equal, watch.begins[3], watch.ends[1])) and not all(map(torch.equal, watch.ends[1], watch.ends[2]))

@pytest.mark.parametrize('error', [CancelEpochException, CancelTrainException, CancelValidException])
def test_with_metrics_of_the_training(tmp_path, error):
    learn,watch = make_mlp(tmp_path),KeepsWeights()
    learn.recorder.train_metrics,learn.metrics = True,[AccumMetric(lambda p,y: learn.epoch, flatten=False, name='count')]
    event = 'before_validate' if error is CancelValidException else 'before_step'
    with learn.no_bar(), learn.no_logging():
        learn.fit_plan(plan_of((EarlyStop(2, 'valid_count', lower=True), None, None), (8, 1, 1)), cbs=[watch, CutShort(event, error, (1,))])
    # Worse with each epoch
    assert list(watch.begins) == ([0, 1, 2, 8, 9] if error is CancelTrainException else [0, 1, 2, 3, 8, 9])
