"A loss that explodes is said at once, and one that is not finite ends the fit"
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from conftest import MAKERS, StopAt, make_mlp, moved, weights
from fastai.callback.core import Callback, CancelBatchException, CancelStepException
from run.resumed import outcome

from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import Flat
from fastai_discrim.run.checkpoint_file import checkpoint_file, read
from fastai_discrim.run.loss_guard import LossGuard

EXPLODED,NOT_FINITE = 'the training loss rose from [0-9]','the training loss is not finite'
# Rates at which next to nothing is learnt: what the loss does is done by `Factors`
LRS = (1e-7, 2e-7, 3e-7)
PLAN = Plan([Phase(1, (2,), LRS, Flat()), Phase(3, (0, 1, 2), LRS, Flat())], ('input', 'middle', 'head'))

class Factors(Callback):
    "Multiply the training loss by a factor for each step, the last one to the end"
    saves_state = False
    def __init__(self, factors, offset=0.): self.factors,self.offset,self.guards = factors,offset,[]
    def before_fit(self): self.guards = [cb for cb in self.learn.cbs if isinstance(cb, LossGuard)]
    def after_loss(self):
        if not self.training: return
        f = self.factors[min(self.train_iter, len(self.factors)-1)]
        self.learn.loss_grad = self.loss_grad*f + self.offset
        self.learn.loss = self.loss_grad.clone()

def fit(learn, factors, plan=PLAN, offset=0., cbs=(), **kwargs):
    "Fit, and return the warnings of the loss, and the callback"
    cb = Factors(factors, offset)
    with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(record=True) as got:
        warnings.simplefilter('always')
        learn.fit_plan(plan, cbs=[cb, *cbs], **kwargs)
    return [str(w.message) for w in got if 'training loss' in str(w.message)],cb

def after(n, factor): return [1.]*n + [factor]

@pytest.mark.parametrize('n,where', [
    # Epochs have 8 steps, and at the end of each is a look
    (8, 'in epoch 1, step 7, phase 2, with peak rates input at 1.0e-07, middle at 2.0e-07, head at 3.0e-07: expected it to fall'),
    (16, 'in epoch 2, step 7, phase 2')])
def test_it_is_said_once_where_it_explodes(mlp, n, where):
    said,_ = fit(mlp, after(n, 100.))
    assert len(said) == 1 and where in said[0] and re.match(EXPLODED, said[0]) and 'lower `body_lr`' in said[0]
    began,now = map(float, re.search(r'rose from (\S+) to (\S+) in', said[0]).groups())
    assert now == pytest.approx(100*began, rel=.1) and began == pytest.approx(np.log(2), rel=.3)
    assert len(mlp.recorder.losses) == 32

def test_a_checkpoint_is_of_use_until_the_next_one(mlp):
    (said,),_ = fit(mlp, after(8, 100.), checkpoint='r')
    assert said.endswith('stop the fit before it writes the next checkpoint, and start again from the pretrained weights, or from '
                         "`learn.load_checkpoint('r')`, with a lower `body_lr` (`lr` if only the head trains)")
    assert 'stop the fit' not in fit(mlp, after(8, 100.))[0][0]

def test_the_phase_is_told_by_its_position(mlp):
    "Two phases may be equal"
    a,b = PLAN.phases[0],Phase(1, (0, 1, 2), LRS, Flat())
    said,_ = fit(mlp, after(16, 100.), Plan([a, b, a], PLAN.names))
    assert 'in epoch 2, step 7, phase 3, with' in said[0]

def test_only_what_trains_is_named(tmp_path):
    learn = make_mlp(tmp_path, n=256)
    said,_ = fit(learn, after(20, 100.))
    assert len(said) == 1 and 'in epoch 0, step 29, phase 1, with peak rates head at 3.0e-07: ' in said[0]

def test_it_is_looked_at_every_ten_steps_and_at_the_end_of_an_epoch(tmp_path, monkeypatch):
    looks,check = [],LossGuard.check
    def _check(self):
        looks.append((self.epoch, self.iter+1, len(self.losses)))
        check(self)
    monkeypatch.setattr(LossGuard, 'check', _check)
    fit(make_mlp(tmp_path, n=200), [1.], Plan([Phase(2, (0, 1, 2), LRS, Flat())]))
    assert looks == [(ep, *at) for ep in range(2) for at in ((10, 10), (20, 10), (25, 5))]

@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_ends_the_fit(mlp, bad):
    said,_ = fit(mlp, after(12, bad))
    assert len(said) == 1 and re.match(NOT_FINITE, said[0]) and 'in epoch 1, step 7, phase 2' in said[0] and 'the fit ends here' in said[0]
    assert len(mlp.recorder.losses) == 16 and len(mlp.recorder.values) == 1

def test_it_ends_after_ten_steps_at_the_latest(tmp_path):
    learn = make_mlp(tmp_path, n=256)
    said,_ = fit(learn, after(11, np.nan))
    assert len(said) == 1 and 'in epoch 0, step 19' in said[0] and learn.train_iter == 20
    learn = make_mlp(tmp_path, n=256)
    assert 'step 9' in fit(learn, [np.nan])[0][0]

@pytest.mark.parametrize('n', [2, 3, 6])
def test_an_explosion_within_the_first_steps_is_one(mlp, n):
    said,_ = fit(mlp, after(n, 100.))
    assert len(said) == 1 and 'in epoch 0, step 7, phase 1' in said[0]
    assert float(re.search(r'rose from (\S+) to', said[0]).group(1)) == pytest.approx(np.log(2), rel=.3)

# When nothing is wrong

@pytest.mark.parametrize('bad', [np.nan, np.inf])
@pytest.mark.parametrize('at', [0, 5, 12])
def test_a_step_that_is_skipped_ends_nothing(mlp, bad, at):
    "As under mixed precision, where the scaler skips steps whose gradients overflow"
    class Skip(Callback):
        def before_step(self):
            if not self.loss_grad.isfinite(): raise CancelStepException()
    assert not fit(mlp, [1.]*at + [bad, 1.], cbs=[Skip()])[0]
    assert len(mlp.recorder.losses) == 32 and all(p.isfinite().all() for p in mlp.model.parameters())

@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
def test_usual_fits_are_silent(tmp_path, make):
    learn = make(tmp_path)
    assert not fit(learn, [1.], learn.ulmfit_plan(4, 1e-2))[0]
    # A second one begins with a lower loss
    assert not fit(learn, [1.], learn.ulmfit_plan(4, 1e-2))[0]

@pytest.mark.parametrize('factors,offset', [(after(8, 3.), 0.), (after(8, .01), 0.), ([3., 1/3]*32, 0.), (after(8, 100.), -100.),
                                            ([1.], -10.), (after(8, 100.), -1.), ([0.], 0.), (after(8, 0.), 0.)])
def test_noise_and_negative_losses_are_no_explosion(mlp, factors, offset):
    assert not fit(mlp, factors, offset=offset)[0]
    assert len(mlp.recorder.values) == 4

def test_a_validation_in_the_middle_of_a_fit_is_not_looked_at(mlp):
    class InTheMiddle(Callback):
        order,run_valid,steps = 100,False,0
        def after_batch(self):
            self.steps += 1
            if self.iter != 3: return
            self.learn.validate(cbs=Bad())
            # fastai leaves the learner as in validation
            self.learn.training = True
            self.model.train()
    class Bad(Callback):
        def after_loss(self): self.learn.loss = self.learn.loss*float('nan')
    cb = InTheMiddle()
    assert not fit(mlp, [1.], cbs=[cb])[0] and cb.steps == 32

def test_batches_that_a_callback_skips(mlp):
    class Skip(Callback):
        order = -20
        def before_batch(self):
            if self.training and self.iter % 3 == 0: raise CancelBatchException()
    mlp.remove_cbs([mlp.recorder])
    assert not fit(mlp, [1.], cbs=[Skip()])[0]

# Nothing is left

def check_nothing_left(learn, cb):
    assert len(cb.guards) == 1 and not any(isinstance(o, LossGuard) for o in learn.cbs)
    assert not any(isinstance(o, LossGuard) for o in vars(learn).values())

@pytest.mark.parametrize('factors', [[1.], after(12, np.nan), after(12, 100.)])
def test_nothing_is_left_after_the_fit(mlp, factors):
    _,cb = fit(mlp, factors)
    assert cb.guards[0].losses == [] and not any(isinstance(v, torch.Tensor) for v in vars(cb.guards[0]).values())
    check_nothing_left(mlp, cb)

def test_nothing_is_left_after_ctrl_c(mlp):
    cb = Factors([1.])
    with pytest.raises(KeyboardInterrupt),mlp.no_bar(),mlp.no_logging(): mlp.fit_plan(PLAN, cbs=[cb, StopAt(1, 5)])
    check_nothing_left(mlp, cb)

# Checkpoints

def test_a_resumed_run_compares_with_the_first_losses_of_the_run(tmp_path):
    "The losses before the stop are near 0, those after it as at the start"
    def factors(): return [1.]*8 + [1e-3]*8 + [1.]
    for stop in ([StopAt(2, 1)], []):
        learn = make_mlp(tmp_path)
        try: said = fit(learn, factors(), checkpoint='r', cbs=stop)[0]
        except KeyboardInterrupt: continue
    assert len(learn.recorder.values) == 4 and not said

def test_one_hard_batch_for_a_trained_head_is_no_explosion(mlp):
    assert not fit(mlp, [1e-3]*12 + [10.] + [1e-3])[0]

# Epochs of 32 steps
LONG = Plan([Phase(1, (2,), LRS, Flat()), Phase(1, (0, 1, 2), LRS, Flat())])

@pytest.mark.parametrize('every,n,at', [(None, 40, (1, 0)), (None, 12, (0, 0)), (15, 12, (0, 0)), (15, 25, (0, 15)), (3, 13, (0, 12)),
                                        (1, 13, (0, 13)), (10, 45, (1, 8)), (40, 41, (1, 8))])
def test_a_checkpoint_from_before_can_be_gone_on_from(tmp_path, every, n, at):
    "It is the last one before the loss was not finite, and its run ends as one in which it never was"
    def make(): return make_mlp(tmp_path, n=256)
    kwargs = dict(plan=LONG, checkpoint='r', checkpoint_every=every)
    learn = make()
    said,_ = fit(learn, after(n, np.nan), **kwargs)
    assert len(said) == 1
    state = read(checkpoint_file(learn, 'r'))
    assert (state['epoch'], state['batches'], state['finished']) == (*at, False)
    assert all(torch.isfinite(torch.as_tensor(t)).all() for t in state['learner']['model'].values())
    (again,want) = make(),make()
    assert not fit(again, [1.], **kwargs)[0] and read(checkpoint_file(again, 'r'))['finished']
    fit(want, [1.], **{**kwargs, 'checkpoint': 'other'})
    assert outcome(again)['params'] == outcome(want)['params'] and moved(learn, weights(again))

def test_it_can_be_pickled():
    assert pickle.loads(pickle.dumps(LossGuard(PLAN, 'r', 3))).checkpoint_every == 3
