"Callbacks and metrics go on with what they had"
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import StopAt, make_mlp
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.rnn import ModelResetter, RNNCallback
from fastai.callback.schedule import ParamScheduler, SchedLin
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientClip
from fastai.metrics import AccumMetric, F1Score, accuracy
from run.resumed import check, outcome, plan_of

from fastai_discrim.run.callback_state import callback_state, in_checkpoint, init_args, plain_attrs, set_attrs, set_callback_state
from fastai_discrim.run.checkpoint_file import checkpoint_file, read
from fastai_discrim.run.plain_data import from_plain


@pytest.mark.parametrize('cbs', [lambda: [SaveModelCallback()], lambda: [SaveModelCallback(monitor='accuracy', every_epoch=2)],
                                 lambda: [EarlyStoppingCallback(min_delta=-.2, patience=3)], lambda: [GradientClip(.5)],
                                 lambda: [MixUp()], lambda: [ParamScheduler({'wd': SchedLin(.1, 0.)})]],
                         ids=['best', 'every second', 'early', 'clip', 'mixup', 'plateau'])
@pytest.mark.parametrize('every', [None, 3])
def test_callbacks(tmp_path, cbs, every): check(lambda: make_mlp(tmp_path), [(1, 4), (2, 6)], every=every, cbs=cbs)

def test_what_is_written_of_metrics(mlp):
    class Metrics(Callback):
        def __init__(self): self.one,self.many = F1Score(),[F1Score()]
    cb,lost = Metrics(),set()
    cb.one.total,cb.one.f = 3,object()
    state = callback_state(cb, {}, lost)
    assert state['one']['total'] == 3 and 'f' not in state['one'] and 'many' not in state and lost == {'Metrics.many'}

def test_early_stopping_counts_on(tmp_path):
    "It stops where it would have stopped, though it has waited before the stop"
    def make(): return make_mlp(tmp_path)
    def cbs(): return [EarlyStoppingCallback(min_delta=100., patience=3)]
    check(make, [(2, 4)], cbs=cbs)
    assert read(checkpoint_file(make(), 'r'))['finished']

def stopped_with_one_and_gone_on_with_another(tmp_path, first, then, stop=(2, 4)):
    "The learner that goes on with callback `then` where one with `first` was stopped"
    for cbs in ([first, StopAt(*stop)], [then]):
        learn = make_mlp(tmp_path)
        try:
            with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan_of(learn), checkpoint='r', cbs=cbs)
        except KeyboardInterrupt: pass
    return learn

def test_what_a_callback_was_given_is_what_it_is_given_now(tmp_path):
    cb = EarlyStoppingCallback(patience=9)
    stopped_with_one_and_gone_on_with_another(tmp_path, EarlyStoppingCallback(patience=2), cb, stop=(1, 4))
    assert cb.patience == 9

def test_what_is_monitored_is_what_it_is_given_now(tmp_path):
    "A tracker goes on with another metric, and doesn't compare it with the best of the one before"
    cb = SaveModelCallback(monitor='accuracy')
    learn = stopped_with_one_and_gone_on_with_another(tmp_path, SaveModelCallback(monitor='valid_loss'), cb)
    accs = [v[2] for v in learn.recorder.values]
    assert cb.best == max(accs[2:]) and learn.validate()[1] == max(accs[2:]) > accs[1]

def _highest(fname): return dict(monitor='valid_loss', comp=np.greater, fname=fname)

@pytest.mark.parametrize('first,then,stop', [(dict(monitor='accuracy', comp=np.less), dict(monitor='accuracy'), 0),
                                             (_highest('a'), _highest('b'), 2), (_highest('b'), _highest('b'), 2)])
def test_the_best_in_another_direction_or_file_counts_no_more(tmp_path, first, then, stop):
    cb = SaveModelCallback(**then)
    learn = stopped_with_one_and_gone_on_with_another(tmp_path, SaveModelCallback(**first), cb, stop=(stop, 4))
    values = [v[cb.idx] for v in learn.recorder.values]
    # The loss falls, so that the highest is before the stop
    assert cb.best == max(values if first == then else values[stop:]) and (max(values) > max(values[stop:]) or not stop)

class Odd(Callback):
    "State of every kind, on which the run depends"
    def __init__(self, n=0): self.n,self.array,self.set,self.where = n,np.zeros(2),set(),[]
    def after_batch(self):
        if not self.training: return
        self.n += 1
        self.array += .5
        self.set.add(self.n % 7)
        self.where.append(Path(f'{self.n}'))
    def before_batch(self):
        scale = 1 + 1e-3*(self.n + self.array.sum() + len(self.set) + len(self.where))
        self.learn.xb = tuple(x*scale for x in self.xb)

@pytest.mark.parametrize('every', [None, 2])
def test_callbacks_of_ones_own(tmp_path, every): check(lambda: make_mlp(tmp_path), [(2, 3), (4, 4)], every=every, cbs=lambda: [Odd()])

def test_two_callbacks_of_one_class(tmp_path):
    def cbs(): return [SaveModelCallback(monitor='valid_loss', fname='loss'), SaveModelCallback(monitor='accuracy', fname='acc')]
    def files(learn): return {**outcome(learn), **{n: [t.tolist() for t in torch.load(learn.path/'models'/f'{n}.pth').values()]
                                                   for n in ('loss', 'acc')}}
    check(lambda: make_mlp(tmp_path), [(2, 3)], cbs=cbs, compare=files)

def test_a_history_that_can_not_be_kept_is_said(mlp):
    mlp.metrics = [AccumMetric(lambda x, y: pd.DataFrame({'a': [1]}), flatten=False)]
    with mlp.no_bar(), mlp.no_logging(), pytest.warns(UserWarning, match='Recorder.values: expected numbers'):
        mlp.fit_plan(plan_of(mlp), checkpoint='r')

def test_what_can_not_be_kept_is_said(mlp):
    class Holds(Callback):
        def __init__(self): self.thing = object()
    with pytest.warns(UserWarning, match='Holds.thing: expected numbers, text, arrays or tensors; the checkpoint') as w, mlp.no_bar():
        mlp.fit_plan(plan_of(mlp), checkpoint='r', cbs=Holds)
    assert sum('Holds' in str(o.message) for o in w) == 1

# Metrics

def test_metrics_of_the_training_set(tmp_path):
    def make():
        learn = make_mlp(tmp_path)
        learn.recorder.train_metrics = True
        learn.metrics = [accuracy, AccumMetric(lambda p,y: (p.argmax(-1) == y).float().mean().item(), flatten=False)]
        return learn
    check(make, [(1, 5)], every=2)

@pytest.mark.parametrize('metrics', [lambda: [F1Score(average=None)], lambda: [F1Score(average='macro'), F1Score(average='micro')]])
def test_metrics_of_several_numbers(tmp_path, metrics):
    def make():
        learn = make_mlp(tmp_path)
        learn.metrics = metrics()
        return learn
    check(make, [(2, 3)], every=2, compare=lambda l: {k:v for k,v in outcome(l).items() if k != 'values'})

# The state by itself

class Counts(Callback):
    def __init__(self, n=3, f=None): self.n,self.f,self.seen = n,f,[1, 2]

def test_attributes_that_it_was_made_with_are_written_only_once_they_change():
    cb = Counts(5)
    args = init_args(cb)
    assert args == {'n': '5', 'f': 'None'} and callback_state(cb, args, set()) == {'seen': [1, 2]}
    cb.n = 6
    assert callback_state(cb, args, set()) == {'seen': [1, 2], 'n': 6} and plain_attrs(cb) == {'seen': [1, 2]}

def test_what_can_not_be_written_is_named():
    cb,lost = Counts(),set()
    cb.thing,cb.dates,cb.long = object(),np.datetime64('2020-01-01'),np.zeros(2, np.longdouble)
    cb.paths = {Path('a'): 1}
    assert callback_state(cb, init_args(cb), lost) == {'seen': [1, 2]}
    assert lost == {'Counts.thing', 'Counts.dates', 'Counts.long', 'Counts.paths'}

def test_of_callbacks_of_fastai_only_a_history_matters():
    cb,lost = SaveModelCallback(),set()
    cb.thing = object()
    callback_state(cb, init_args(cb), lost)
    assert lost == set()

def test_it_comes_back():
    a,b = Counts(),Counts()
    a.array,a.where,a.seen,a.learn = np.arange(3.),[Path('x')],[4],None
    state = callback_state(a, init_args(a), set())
    assert 'learn' not in state
    set_callback_state(b, from_plain(state))
    assert b.seen == [4] and b.where == [Path('x')] and np.array_equal(b.array, np.arange(3.)) and b.n == 3

def test_a_module_comes_back_in_place():
    a,b = Counts(),Counts()
    a.average,b.average = torch.nn.Linear(2, 2),torch.nn.Linear(2, 2)
    before = b.average
    set_callback_state(b, from_plain(callback_state(a, init_args(a), set())))
    assert b.average is before and torch.equal(a.average.weight, b.average.weight)

def test_metrics_come_back_in_place(mlp):
    a,b = mlp.recorder,make_mlp(mlp.path).recorder
    with mlp.no_bar(): mlp.fit(1)
    b.before_fit()
    before = b.smooth_loss
    set_attrs(b, from_plain(plain_attrs(a)))
    assert b.smooth_loss is before and b.smooth_loss.value == a.smooth_loss.value and b.smooth_loss.count == a.smooth_loss.count == 8
    assert [list(v) for v in b.values] == [list(v) for v in a.values]

def test_which_are_in_a_checkpoint(mlp):
    "A progress bar, and what is made again by each batch, are not"
    assert [in_checkpoint(cb) for cb in (Counts(), SaveModelCallback(), ModelResetter(), RNNCallback(), mlp.progress)] == [
        True, True, True, False, False]
