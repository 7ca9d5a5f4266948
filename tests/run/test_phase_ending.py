"Phases that end by themselves"
import numpy as np
import pytest
import torch
from conftest import make_mlp, same, snapshot, trains
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.imports import noop
from fastai.metrics import ValueMetric, accuracy
from fastai.optimizer import ranger
from fastai.torch_core import set_seed

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

def ran(plan, es, n_iter=8): return plan.lrs(n_iter).reshape(plan.n_epoch, n_iter, -1)[es].reshape(-1, plan.n_groups)

@pytest.mark.parametrize('ends,values,want', [
    # Better, worse: ended after epoch 1, and the next phase counts from anew
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
    np.testing.assert_array_equal(learn.recorder.group_lrs, ran(plan, want))
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
    plan = plan_of((EarlyStop(2, 'valid_loss', .02, best=True),)*3)
    class Stop(Callback):
        def __init__(self, at): self.at = at
        def before_step(self):
            if (self.epoch, self.iter) == self.at: raise KeyboardInterrupt
    def run(stop=None, seed=3, **kw):
        learn = make_mlp(tmp_path)
        set_seed(seed)
        try:
            with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan, cbs=Stop(stop) if stop else None, **kw)
        except KeyboardInterrupt: pass
        return learn
    want = run()
    assert len(epochs(want)) < 12
    for e in epochs(want):
        run((e, 4), checkpoint=f'r{e}', checkpoint_every=3)
        got = run(seed=77+e, checkpoint=f'r{e}', checkpoint_every=3)
        assert epochs(got) == epochs(want) and all(map(torch.equal, got.model.parameters(), want.model.parameters())), e

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
    assert 'until accuracy stalls within 0.01 for 2, on from the best' in table and 'until valid_loss stalls for 1' in table

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
