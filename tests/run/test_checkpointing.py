"What was stopped goes on, and ends as if it had not been"
import warnings

import pandas as pd
import pytest
import torch
from conftest import StopAt, make_clas, make_mlp, needs_stock_load_text
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.mixup import MixUp
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.metrics import AccumMetric
from fastai.torch_core import set_seed
from fastcore.foundation import L
from run.resumed import MAKERS, assert_equal, check, check_maker, go_on, outcome, plan_of, run, strange

from fastai_discrim.plan.phase import EarlyStop
from fastai_discrim.plan.schedules import OneCycle
from fastai_discrim.recipes import recipes
from fastai_discrim.run.checkpoint_file import checkpoint_file, read, read_checkpoint
from fastai_discrim.run.fit_plan import check_plan


@pytest.mark.parametrize('name', MAKERS)
@pytest.mark.parametrize('every,stops', [(None, [(2, 3)]), (None, [(0, 1)]), (2, [(2, 3)]), (1, [(3, 0)]), (3, [(1, 5), (4, 4)]),
                                         (1, [(0, 2), (0, 3), (5, 5)])], ids=str)
def test_bit_for_bit(tmp_path, name, every, stops): check_maker(tmp_path, name, stops, every=every)

def plan_of_three(learn):
    "A plan too short for batch norms to forget what they were pretrained on"
    return learn.ulmfit_plan(3, 1e-2)

@pytest.mark.parametrize('every', [None, 1])
@pytest.mark.parametrize('stop', [(0, 1), (1, 3)], ids=str)
@pytest.mark.parametrize('how', ['new', 'pretrained'])
def test_the_same_learner_goes_on(tmp_path, how, stop, every):
    "As after Ctrl-C in a notebook: its batch norms are no longer what they were when the run began"
    def _make():
        learn = make_mlp(tmp_path, norm=True)
        if how == 'pretrained': learn.model[3].running_mean += 1000
        return learn
    learn = _make()
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*debias_batch_norm')
        got = go_on(lambda: learn, [stop], plan=plan_of_three, every=every)
    assert_equal(outcome(run(_make, plan_of_three)[0]), got)

def test_another_learner_goes_on_with_the_callbacks_of_the_run(tmp_path):
    "A run that corrects its pretrained batch norms does so, too, where those of the learner that goes on are new"
    def _make(mean):
        learn = make_mlp(tmp_path, norm=True)
        learn.model[3].running_mean += mean
        return learn
    _,stopped = run(lambda: _make(1000), plan_of_three, cbs=[StopAt(1, 3)], checkpoint='r')
    assert stopped
    got,_ = run(lambda: _make(0), plan_of_three, seed=1, checkpoint='r')
    assert_equal(outcome(run(lambda: _make(1000), plan_of_three)[0]), outcome(got))

class StopInValidation(StopAt):
    def before_step(self): pass
    def before_validate(self):
        if self.epoch == self.at[0]: raise KeyboardInterrupt

@pytest.mark.parametrize('name', MAKERS)
@pytest.mark.parametrize('epoch', [1, 5])
def test_after_the_last_batch_of_an_epoch(tmp_path, name, epoch):
    check_maker(tmp_path, name, [(epoch, None)], every=1, how=StopInValidation)

def test_a_cycle_over_the_whole_plan(tmp_path):
    check(lambda: make_clas(tmp_path), [(2, 3)], plan=lambda l: plan_of(l).under(OneCycle(), whole=True), every=2)

class Reorders(Callback):
    "Put callbacks in another order during the fit, as fastai's `FetchPredsCallback` does"
    def after_epoch(self): self.learn.cbs = L(reversed(self.learn.cbs))

def test_the_arguments_of_the_line_that_resumes_count(tmp_path):
    "Also where another callback reorders the callbacks"
    def _run(patience, *cbs):
        learn = make_mlp(tmp_path)
        learn.lr = 1e-9
        cbs = [EarlyStoppingCallback(min_delta=100., patience=patience), Reorders(), *cbs]
        try:
            with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(8, 1e-9, cbs=cbs, checkpoint='r')
        except KeyboardInterrupt: pass
        return learn.epoch
    assert _run(5, StopAt(2, 3)) == 2
    assert _run(20) == 7

def test_after_its_last_epoch(tmp_path):
    class AtTheEnd(StopAt):
        order = 2000
        def before_step(self): pass
        def after_epoch(self):
            if self.epoch == 5: raise KeyboardInterrupt
    check(lambda: make_mlp(tmp_path), [(5, None)], how=AtTheEnd)

def test_stock_fastai_ends_somewhere_else(tmp_path):
    "What a user would do without a checkpoint, so that the tests above can tell: load the weights, and begin at that epoch"
    def run(stop=None, **kw):
        learn = make_clas(tmp_path)
        set_seed(3)
        if kw: learn.load('model_1', with_opt=True)
        try:
            with learn.no_bar(), learn.no_logging():
                learn.fit_plan(plan_of(learn), cbs=None if kw else [SaveModelCallback(every_epoch=1, with_opt=True), *stop], **kw)
        except KeyboardInterrupt: pass
        return {n: p.tolist() for n,p in learn.model.named_parameters()}
    needs_stock_load_text()
    want = run(stop=[])
    run(stop=[StopAt(2, 0)])
    assert run(start_epoch=2) != want

def test_what_something_else_called_off_can_go_on(tmp_path):
    class Enough(Callback):
        def before_step(self):
            if (self.epoch, self.iter) == (3, 2): raise CancelFitException
    want = make_mlp(tmp_path)
    set_seed(3)
    with want.no_bar(): want.fit_plan(plan_of(want))
    for cbs in ([Enough()], []):
        learn = make_mlp(tmp_path)
        set_seed(3 if cbs else 8)
        with learn.no_bar(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            learn.fit_plan(plan_of(learn), checkpoint='r', cbs=cbs)
    assert all(map(torch.equal, want.model.parameters(), learn.model.parameters()))

def test_going_on_warns_of_nothing(tmp_path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        for stop in ((2, 3), (99, 0)):
            learn = make_mlp(tmp_path, norm=True)
            plan = learn.ulmfit_plan(6, 1e-2, epochs=2, early_stop=EarlyStop(1))
            try:
                with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan, checkpoint='r', cbs=StopAt(*stop))
            except KeyboardInterrupt: assert stop == (2, 3)
    assert learn.recorder.ran['finished'] and not [str(w.message) for w in said if issubclass(w.category, UserWarning)]

def test_a_checkpoint_that_is_resumed_is_not_written_as_text(tmp_path, monkeypatch):
    "Callbacks are compared by the `repr` of their arguments, and that of a whole checkpoint takes long"
    seen = []
    def snapshot(v):
        seen.append(type(v))
        return repr(v)
    monkeypatch.setattr('fastai_discrim.run.callback_state._snapshot', snapshot)
    check(lambda: make_mlp(tmp_path), [(2, 3)])
    assert bool in seen and dict not in seen

def test_other_callbacks_than_before_are_said(tmp_path):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    with pytest.raises(KeyboardInterrupt), a.no_bar(): a.fit_plan(plan_of(a), checkpoint='r', cbs=[MixUp(), StopAt(1, 2)])
    with pytest.warns(UserWarning, match='the run lacks mix_up, stop_at: expected the callbacks that it had before'), b.no_bar():
        b.fit_plan(plan_of(b), checkpoint='r')
    c,d = make_mlp(tmp_path),make_mlp(tmp_path)
    with pytest.raises(KeyboardInterrupt), c.no_bar(): c.fit_plan(plan_of(c), checkpoint='s', cbs=StopAt(1, 2))
    with pytest.warns(UserWarning, match='the run lacks stop_at and also has mix_up: expected'), d.no_bar():
        d.fit_plan(plan_of(d), checkpoint='s', cbs=MixUp())

def test_it_says_where_it_goes_on(tmp_path, capsys):
    for stop in ((2, 3), None):
        learn = make_mlp(tmp_path)
        try:
            with learn.no_bar(): learn.fit_plan(plan_of(learn), checkpoint='r', checkpoint_every=2, cbs=StopAt(*stop) if stop else None)
        except KeyboardInterrupt: pass
    assert 'r.ckpt: epoch 2, batch 2' in capsys.readouterr().out

# What is seen of it

def test_the_log_is_whole(tmp_path):
    def run(stop, **kw):
        learn = make_mlp(tmp_path)
        rows = []
        learn.logger = rows.append
        try:
            with learn.no_bar(): learn.fit_plan(plan_of(learn), cbs=[CSVLogger(), *([StopAt(*stop)] if stop else [])], **kw)
        except KeyboardInterrupt: pass
        return learn,rows
    want,_ = run(None)
    csv = pd.read_csv(want.path/'history.csv').drop(columns='time')
    run((3, 2), checkpoint='r')
    got,rows = run(None, checkpoint='r')
    pd.testing.assert_frame_equal(pd.read_csv(got.path/'history.csv').drop(columns='time'), csv)
    # The epochs before are in the table again
    assert [r[0] for r in rows if isinstance(r[0], int)] == list(range(6))
    got.recorder.plot_loss()

def test_with_a_progress_bar(tmp_path, capsys):
    for stop in ((3, 2), None):
        learn = make_mlp(tmp_path)
        try: learn.fit_plan(plan_of(learn), checkpoint='r', checkpoint_every=2, cbs=StopAt(*stop) if stop else None)
        except KeyboardInterrupt: pass
    table = [line.split()[0] for line in capsys.readouterr().out.split('resuming from')[1].splitlines() if line[:1].isdigit()]
    assert table == list('012345')

def test_a_log_that_is_appended_to_has_each_epoch_once(tmp_path):
    for stop in ((3, 2), None):
        learn = make_mlp(tmp_path)
        try:
            cbs = [CSVLogger(append=True), *([StopAt(*stop)] if stop else [])]
            with learn.no_bar(): learn.fit_plan(plan_of(learn), checkpoint='r', cbs=cbs)
        except KeyboardInterrupt: pass
    epochs = [line.split(',')[0] for line in (tmp_path/'history.csv').read_text().splitlines()]
    assert [e for e in epochs if e != 'epoch'] == list('012345')

# Finished runs

def test_a_finished_run_loads_its_result(tmp_path, capsys):
    a,b = make_clas(tmp_path),make_clas(tmp_path)
    set_seed(3)
    with a.no_bar(): a.fit_plan(plan_of(a), checkpoint='r')
    strange(1)
    capsys.readouterr()
    b.fit_plan(plan_of(b), checkpoint='r')
    assert 'r.ckpt belongs to a finished run of 6 epochs: its result is loaded, and nothing is left to train' in capsys.readouterr().out
    want,got = outcome(a),outcome(b)
    for k in want: assert want[k] == got[k], k
    assert b.recorder.plan == a.recorder.plan and b.recorder.run_record()['phases'] == a.recorder.run_record()['phases']
    with b.no_bar(): b.fit(1, 1e-3)

def test_a_finished_run_is_loaded_where_its_data_is(tmp_path):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    with a.no_bar(): a.fit_plan(plan_of(a), checkpoint='r')
    # A device that every machine has
    b.dls.device = torch.device('meta')
    b.fit_plan(plan_of(b), checkpoint='r')
    kept = [v for p in b.opt.all_params() for v in p[2].values() if torch.is_tensor(v) and v.ndim]
    assert kept and {v.device.type for v in kept} == {p.device.type for p in b.model.parameters()} == {'meta'}

# By other ways to run a plan

@pytest.mark.parametrize('kw', [{}, dict(body_lr=2e-3)], ids=str)
def test_eta_is_not_looked_for_again(tmp_path, monkeypatch, kw):
    want = make_clas(tmp_path)
    set_seed(3)
    with want.no_bar(), want.no_logging(): want.fit_ulmfit(5, **kw)
    a,b = make_clas(tmp_path),make_clas(tmp_path)
    set_seed(3)
    with pytest.raises(KeyboardInterrupt), a.no_bar(), a.no_logging(): a.fit_ulmfit(5, checkpoint='r', cbs=StopAt(0, 0), **kw)
    strange(2)
    monkeypatch.setattr(type(b), 'head_lr_find', lambda *args, **kw: pytest.fail('it was looked for'))
    with b.no_bar(), b.no_logging(): b.fit_ulmfit(5, checkpoint='r', **kw)
    assert outcome(want)['params'] == outcome(b)['params'] and b.recorder.plan.lr_from == want.recorder.plan.lr_from
    c = make_clas(tmp_path)
    with pytest.raises(ValueError, match='r.ckpt belongs to another run: its plan is'): c.fit_ulmfit(6, checkpoint='r')
    with pytest.raises(ValueError, match='r.ckpt belongs to another run: its plan is'): c.fit_ulmfit(5, 3e-2, checkpoint='r')

@pytest.mark.parametrize('kw', [dict(body_lr=3e-3), {}], ids=str)
def test_a_run_whose_rates_were_given_goes_on_without_them(tmp_path, monkeypatch, kw):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    for name in ('head_lr_find', 'body_lr_find'): monkeypatch.setattr(type(b), name, lambda *args, **kw: pytest.fail('it was looked for'))
    with pytest.raises(KeyboardInterrupt), a.no_bar(): a.fit_ulmfit(3, 1e-2, checkpoint='r', cbs=StopAt(1, 0), **kw)
    with b.no_bar(), b.no_logging(): b.fit_ulmfit(3, checkpoint='r')
    assert b.recorder.plan.lr_from == 'given' and b.recorder.ran['finished']

def test_a_learner_without_momentum(tmp_path):
    "Where the plan has one"
    check(lambda: make_mlp(tmp_path, moms=None), [(1, 3)], plan=lambda l: l.ulmfit_plan(3, 1e-2, moms=(.9, .8, .9)))

def test_checkpoint_arguments_are_looked_at_before_eta_is_looked_for(clas, monkeypatch):
    monkeypatch.setattr(type(clas), 'head_lr_find', lambda *args, **kw: pytest.fail('it was looked for'))
    for kw in (dict(checkpoint=3), dict(checkpoint=''), dict(checkpoint='a\0b'), dict(checkpoint='a', checkpoint_every=0),
               dict(checkpoint_every=3)):
        with pytest.raises((TypeError, ValueError), match='expected'): clas.fit_ulmfit(5, **kw)

def test_a_recipe_goes_on(tmp_path):
    def run(stop=None, **kw):
        learn = make_clas(tmp_path)
        strange(1) if kw and not stop else set_seed(3)
        try:
            with learn.no_bar(), learn.no_logging():
                learn.apply_recipe(recipes.scripts_clas, 4, cbs=StopAt(*stop) if stop else None, **kw)
        except KeyboardInterrupt: pass
        return learn
    want = run()
    run((2, 3), checkpoint='r')
    assert outcome(run(checkpoint='r')) == outcome(want)

RESUMABLE = dict(fit_plan=lambda learn, **kw: learn.fit_plan(learn.ulmfit_plan(2, 1e-2), **kw),
                 fit_ulmfit=lambda learn, **kw: learn.fit_ulmfit(2, **kw),
                 apply_recipe=lambda learn, **kw: learn.apply_recipe(recipes.scripts_clas, 5, **kw))

@pytest.mark.parametrize('name', RESUMABLE)
def test_a_resumed_call_reads_the_checkpoint_once_and_checks_the_plan_once(tmp_path, monkeypatch, name):
    "Also `fit_ulmfit`, which takes the rates from the checkpoint"
    calls = []
    def _count(module, f):
        def _counted(*args, **kw):
            calls.append(f.__name__)
            return f(*args, **kw)
        monkeypatch.setattr(f'fastai_discrim.{module}.{f.__name__}', _counted)
    for module in ('ulmfit', 'run.run_identity'): _count(module, read_checkpoint)
    for module in ('ulmfit', 'run.fit_plan', 'recipes.apply'): _count(module, check_plan)
    for cbs in (StopAt(1, 1), None):
        learn = make_clas(tmp_path)
        calls.clear()
        try:
            with learn.no_bar(), learn.no_logging(): RESUMABLE[name](learn, cbs=cbs, checkpoint='r')
        except KeyboardInterrupt: pass
    assert calls.count('read_checkpoint') == calls.count('check_plan') == 1

def test_in_an_own_folder_and_by_two_names(tmp_path):
    learn = make_mlp(tmp_path/'deep', model_dir='elsewhere')
    with learn.no_bar(): learn.fit_plan(plan_of(learn), checkpoint='runs/a')
    assert (tmp_path/'deep'/'elsewhere'/'runs'/'a.ckpt').exists() and read(checkpoint_file(learn, 'b')) is None

# Validation and predictions in the middle of a fit

class Predicts(Callback):
    "Looks at predictions in the middle of a fit, which fastai takes for another fit"
    # Not while fastai's recorder has an epoch's numbers half together
    def __init__(self, when):
        self.when,self.busy = when.removesuffix(' late'),False
        if when in ('before_fit late', 'after_epoch'): self.order = 70
    def _look(self, when):
        if when != self.when or self.busy: return
        self.busy = True
        assert len(self.learn.get_preds()[0]) == 16
        self.learn.validate()
        self.busy = False
    def before_fit(self): self._look('before_fit')
    def before_epoch(self): self._look('before_epoch')
    def after_train(self): self._look('after_train')
    def after_epoch(self): self._look('after_epoch')

class StopInEpoch(StopAt):
    trained = None
    def before_step(self): pass
    def before_train(self): self.trained = self.epoch
    def before_validate(self):
        if self.trained == self.ep and not self.learn.predicts.busy: raise KeyboardInterrupt

@pytest.mark.parametrize('how,it,every', [(StopInEpoch, None, None), (StopAt, 5, 2)])
@pytest.mark.parametrize('when', ['before_fit', 'before_fit late', 'before_epoch', 'after_train', 'after_epoch'])
def test_predictions_in_between_are_no_fit_of_their_own(tmp_path, when, how, it, every):
    # Between training and validation the recorder mixes up what both measure, and no tracker can work
    ends = None if when == 'after_train' else EarlyStop(1, 'count', lower=True)
    def plan(learn): return learn.ulmfit_plan(8, 1e-2, epochs=3, early_stop=ends)
    def make():
        learn = make_mlp(tmp_path)
        # Worse with each validation, so that each phase but the last ends after its second epoch
        learn.calls = iter(range(100))
        learn.metrics = [AccumMetric(lambda p,y: next(learn.calls), flatten=False, name='count')]
        return learn
    def compare(learn):
        ran = learn.recorder.ran
        assert [e for e,_ in ran['epochs']] == ([0, 1, 3, 4, 6, 7] if ends else list(range(8))) and ran['finished']
        return {k:v for k,v in outcome(learn).items() if k in ('params', 'opt', 'rg', 'torch', 'groups')}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        check(make, [(3, it), (6, it)], plan=plan, every=every, cbs=lambda: [Predicts(when)], compare=compare, how=how)

def test_validation_in_between_writes_nothing(tmp_path):
    learn = make_mlp(tmp_path)
    class Validate(Callback):
        def after_epoch(self):
            if self.epoch == 1:
                before = checkpoint_file(self.learn, 'r').stat().st_mtime_ns
                self.learn.get_preds(inner=True)
                assert checkpoint_file(self.learn, 'r').stat().st_mtime_ns == before, 'a checkpoint was written'
    with learn.no_bar(): learn.fit_plan(plan_of(learn), checkpoint='r', cbs=Validate)
    assert read(checkpoint_file(learn, 'r'))['finished']

def test_no_space_when_it_goes_on(tmp_path, monkeypatch):
    learn = make_mlp(tmp_path)
    with pytest.raises(KeyboardInterrupt), learn.no_bar(): learn.fit_plan(plan_of(learn), checkpoint='r', cbs=StopAt(2, 1))
    from fastai_discrim.run import checkpoint_file as checkpoint
    def full(fd): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(checkpoint.os, 'fsync', full)
    other = make_mlp(tmp_path)
    with pytest.raises(OSError, match='No space left'), other.no_bar(): other.fit_plan(plan_of(other), checkpoint='r', cbs=StopAt(2, 1))
