"Fits that a callback begins in the middle of a plan: none of the plan's, and the plan goes on as it was"
import pytest
from conftest import StopAt, exact, make_mlp, moved, weights
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.metrics import AccumMetric
from plan.restated import assert_ran
from run.resumed import check

from fastai_discrim.callbacks.unfreezing import GradualUnfreezing
from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.run.checkpoint_file import checkpoint_file, read

LRS = (1e-4, 1e-3, 1e-2)
PLAN = Plan([Phase(1, (2,), LRS), Phase(1.5, (1, 2), LRS), Phase(1.5, (0, 1, 2), LRS)])
EVENTS = 'before_fit', 'before_epoch', 'before_train', 'after_batch', 'after_train', 'after_epoch', 'after_fit'

class Fits(Callback):
    "Fit once, in the middle, at an event of the second epoch"
    def __init__(self, event, fit=None, order=0):
        self.event,self.fit_nested,self.order,self.done = event,fit or (lambda learn: learn.fit(2, 1e-3)),order,False
    def __call__(self, event_name):
        if self.done or event_name != self.event or (event_name != 'before_fit' and self.learn.epoch < 1): return
        self.done = True
        self.before = self.seen()
        self.fit_nested(self.learn)
        self.after = self.seen()

    def seen(self):
        "Note what the plan goes by"
        learn = self.learn
        def attrs(cb): return {k: exact(v) for k,v in vars(cb).items() if k not in ELSEWHERE}
        return dict(counts=[getattr(learn, k, None) for k in ('epoch', 'n_epoch', 'train_iter', 'pct_train')], cbs=list(learn.cbs),
                    hypers=[dict(h) for h in learn.opt.hypers], recorder=attrs(learn.recorder), phase=learn.phase,
                    own=[attrs(cb) for cb in learn.cbs if type(cb).__name__ in OURS])

def assert_as_before(fits):
    assert fits.done
    recorder,recorder_after = fits.before.pop('recorder'),fits.after.pop('recorder')
    # fastai's recorder has some attributes only when it has seen an epoch
    assert recorder == {k: recorder_after[k] for k in recorder} and fits.before == fits.after

# The recorder's history is that of the last fit, as ever
ELSEWHERE = 'learn', 'loop', 'lrs', 'iters', 'losses', 'values', 'loss', 'smooth_loss'
OURS = 'PlanUnfreezing', 'PlanScheduler', 'RunRecorder', 'PhaseEnding', 'Checkpointing', 'GroupLRRecorder'

def fit_plan(learn, *cbs, plan=PLAN, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan, cbs=list(cbs), **kwargs)

@pytest.mark.parametrize('order', [0, 70, 2000])
@pytest.mark.parametrize('event', EVENTS)
def test_the_plan_goes_on_as_it_was(mlp, event, order):
    fits = Fits(event, order=order)
    plan = Plan([Phase(p.epochs, p.groups, p.lrs, early_stop=stop) for p,stop in zip(PLAN.phases, (EarlyStop(9), None, EarlyStop(9)))])
    fit_plan(mlp, fits, plan=plan, checkpoint='r', wd=.2)
    assert_as_before(fits)
    assert_ran(mlp, plan)
    assert [e for e,_ in mlp.recorder.ran['epochs']] == [0, 1, 2, 3] and mlp.recorder.ran['finished']
    assert {h['wd'] for h in mlp.opt.hypers} == {.2}

@pytest.mark.parametrize('event', EVENTS)
def test_it_writes_no_checkpoint(mlp, event):
    file = checkpoint_file(mlp, 'r')
    def fit(learn):
        def state(): return file.exists() and (file.stat().st_mtime_ns, read(file)['epoch'], read(file)['finished'])
        before = state()
        learn.fit(2, 1e-3)
        assert state() == before
    fit_plan(mlp, fits := Fits(event, fit), checkpoint='r', checkpoint_every=3)
    assert fits.done and read(file)['finished'] and read(file)['epoch'] == 4

@pytest.mark.parametrize('event', ['before_epoch', 'after_epoch'])
@pytest.mark.parametrize('every,it', [(None, 5), (3, 5)])
def test_stopped_and_gone_on_with(tmp_path, event, every, it):
    "A fit in every epoch; also before one whose first batches were trained before"
    class EveryEpoch(Callback):
        order,inside = 70,False
        def _fit(self):
            if self.inside: return
            self.inside = True
            try: self.learn.fit(1, 1e-3)
            finally: self.inside = False
    setattr(EveryEpoch, event, EveryEpoch._fit)
    class StopInPlan(StopAt):
        def before_step(self):
            if not self.learn.every_epoch.inside: super().before_step()
    check(lambda: make_mlp(tmp_path), [(1, it), (3, it)], plan=lambda l: PLAN, every=every, cbs=lambda: [EveryEpoch()], how=StopInPlan)

def test_what_it_trains_and_at_which_rate(mlp):
    "What trains now, at the rate it is given"
    rates,before = [],{}
    class Rates(Callback):
        order = 900
        def before_step(self): rates.append([h['lr'] for h in self.opt.hypers])
    def fit(learn):
        before.update(weights(learn))
        learn.fit(1, 3e-4, cbs=Rates)
        before['moved'] = moved(learn, before)
    fit_plan(mlp, Fits('after_epoch', fit))
    assert rates == [[3e-4]*3]*8 and before['moved'] == {'2.weight', '2.bias', '4.weight', '4.bias'}

def test_a_fit_with_callbacks_of_ours(mlp):
    "It is checked for itself, and records for itself"
    seen = []
    def fit(learn):
        learn.fit_stlr(3, 1e-2, cbs=GradualUnfreezing(1))
        seen.append(None)
    fit_plan(mlp, fits := Fits('after_epoch', fit))
    assert seen
    assert_as_before(fits)
    assert_ran(mlp, PLAN)

@pytest.mark.parametrize('error', [CancelFitException, KeyboardInterrupt, ZeroDivisionError])
def test_one_that_is_broken_off(mlp, error):
    class Break(Callback):
        def before_step(self): raise error('here')
    broken = []
    def fit(learn):
        try: learn.fit(2, 1e-3, cbs=Break)
        except error: broken.append(error)
    fit_plan(mlp, fits := Fits('after_epoch', fit), checkpoint='r')
    assert_as_before(fits)
    assert len(broken) == (error is not CancelFitException) and read(checkpoint_file(mlp, 'r'))['finished']
    assert_ran(mlp, PLAN)

def test_callbacks_that_come_and_go(mlp):
    "What it adds to the learner stays, and what it removes is gone"
    class Once(Callback):
        def after_fit(self): self.learn.remove_cb(self)
    class Stays(Callback): pass
    def fit(learn):
        with learn.no_bar(): learn.fit(1, 1e-3)
        learn.add_cb(Stays())
    class AddsIn(Callback):
        def before_fit(self): self.learn.add_cb(Stays())
    mlp.add_cb(Once())
    fit_plan(mlp, Fits('after_epoch', lambda learn: learn.fit(1, 1e-3, cbs=AddsIn)))
    assert [type(cb).__name__ for cb in mlp.cbs if type(cb).__name__ in ('Once', 'Stays')] == ['Stays']

def test_a_phase_ends_by_its_own_epochs(tmp_path):
    "The metric of the fit in the middle is none that the phase watches"
    learn = make_mlp(tmp_path)
    # Better with each epoch of the plan, worse with each in between
    learn.metrics = [AccumMetric(lambda p,y: 100 if learn.fits.done and learn.inside else -learn.epoch, flatten=False, name='count')]
    learn.inside = False
    def fit(learn):
        learn.inside = True
        learn.fit(3, 1e-3)
        learn.inside = False
    plan = Plan([Phase(4, (0, 1, 2), LRS, early_stop=EarlyStop(1, 'count', lower=True)), Phase(1, (0, 1, 2), LRS)])
    fit_plan(learn, Fits('after_epoch', fit), plan=plan)
    assert [(e, v[2]) for e,v in learn.recorder.ran['epochs']] == [(0, 0), (1, -1), (2, -2), (3, -3), (4, -4)]

def test_early_stopping_in_it_is_its_own(mlp):
    fit_plan(mlp, Fits('after_epoch', lambda l: l.fit(5, 1e-3, cbs=EarlyStoppingCallback(min_delta=100., patience=1))), checkpoint='r')
    assert len(mlp.recorder.ran['epochs']) == 4 and read(checkpoint_file(mlp, 'r'))['finished']
    assert_ran(mlp, PLAN)

def test_without_a_recorder(mlp):
    mlp.remove_cb(mlp.recorder)
    fit_plan(mlp, fits := FitsUnrecorded('after_epoch'), checkpoint='r')
    assert fits.done and read(checkpoint_file(mlp, 'r'))['epoch'] == 4

class FitsUnrecorded(Fits):
    def seen(self): return None

def test_fits_in_a_fit_in_a_plan(mlp):
    inner = FitsUnrecorded('after_epoch', lambda learn: learn.fit(1, 1e-4))
    fit_plan(mlp, fits := Fits('after_epoch', lambda learn: learn.fit(3, 1e-3, cbs=inner)), checkpoint='r')
    assert inner.done
    assert_as_before(fits)
    assert_ran(mlp, PLAN)

def test_lr_find_in_a_plan(mlp):
    "Its sweep is in the recorder after it, as `lr_find` and whoever looks at it expects"
    found = []
    def find(learn): found.extend([learn.lr_find(num_it=20, show_plot=False).valley, len(learn.recorder.lrs)])
    fit_plan(mlp, fits := Fits('after_epoch', find))
    assert 1e-7 < found[0] < 10 and found[1] == 20
    assert_as_before(fits)
    assert_ran(mlp, PLAN)

def test_with_a_progress_bar(mlp, capsys):
    fits = Fits('after_epoch', order=70)
    mlp.fit_plan(PLAN, cbs=fits)
    table = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()]
    assert fits.done and table == list('010123') and mlp.logger is print
    mlp.fit(1, 1e-3)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()] == ['0']

def test_nothing_is_left(mlp):
    fit_plan(mlp, Fits('after_epoch'))
    assert 'fit' not in vars(mlp) and not hasattr(mlp, 'phase')
    with mlp.no_bar(), mlp.no_logging(): mlp.fit(2, 1e-3)
    assert len(mlp.recorder.values) == 2 and len(mlp.recorder.losses) == 16
