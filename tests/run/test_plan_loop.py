"The loop of a plan's fit: fastai's, but for what is left out, and the learner's own only while the plan runs"
import pickle
from copy import deepcopy

import pytest
import torch
from conftest import StopAt, in_turn, make_mlp
from fastai.callback.core import (
    Callback,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelTrainException,
    CancelValidException,
)
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from run.resumed import plan_of

from fastai_discrim.callbacks.group_lrs import GroupLRRecorder
from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.run.plan_loop import PlanLoop, plan_loop

LRS = (1e-4, 1e-3, 1e-2)
PLAN = Plan([Phase(.5, (2,), LRS), Phase(1, (1, 2), LRS), Phase(1.5, (0, 1, 2), LRS)])
OWN = 'fit', '_do_fit', 'one_batch', 'phase'

class Events(Callback):
    "Note every event, and where it was"
    order = 300
    def __init__(self): self.seen = []
    def __call__(self, event_name): self.seen.append((event_name, *(getattr(self.learn, k, None) for k in ('epoch', 'iter', 'n_epoch'))))

class At(Callback):
    "Call `f` once, at an event of one epoch, and of one batch if it has any"
    order = 200
    def __init__(self, event, f, epoch=1, batch=2): self.event,self.f,self.epoch,self.batch,self.done = event,f,epoch,batch,False
    def __call__(self, event_name):
        if event_name != self.event or self.done or (event_name != 'before_fit' and self.learn.epoch < self.epoch): return
        if event_name.endswith(('_batch', '_pred', '_step')) and self.learn.iter < self.batch: return
        self.done = True
        self.f(self.learn)

def _raise(error):
    def f(learn): raise error
    return f

def events(path, f, event, stock):
    "Note all events of three epochs, under a plan or without, in which `f` is called at an event of the second"
    learn,seen = make_mlp(path),Events()
    with learn.no_bar(), learn.no_logging():
        if stock: learn.fit(3, 1e-2, cbs=[At(event, f), seen])
        else: learn.fit_plan(PLAN, cbs=[At(event, f), seen])
    assert vars(learn).keys().isdisjoint(OWN)
    return seen.seen

def same_as_stock(path, event, f):
    "Tell whether fastai's loop has the same events"
    ours,theirs = (events(path, f, event, stock) for stock in (False, True))
    return ours == theirs and len(ours) > 80

CANCELS = [('before_batch', CancelBatchException), ('after_pred', CancelBatchException), ('before_batch', CancelTrainException),
           ('before_batch', CancelEpochException), ('after_train', CancelEpochException), ('before_validate', CancelValidException),
           ('before_step', CancelFitException), ('after_epoch', CancelFitException), ('before_epoch', CancelFitException)]

@pytest.mark.parametrize('event,error', CANCELS, ids=lambda o: getattr(o, '__name__', o))
def test_cancelled_as_in_fastai(tmp_path, event, error): assert same_as_stock(tmp_path, event, _raise(error))

MIDDLE = 'before_epoch','before_train','after_batch','after_train','after_epoch'

# Shorter and longer than the plan
@pytest.mark.parametrize('event,n_epoch', in_turn(dict(zip(MIDDLE, MIDDLE)), {'1': 1, '5': 5}))
def test_a_fit_in_the_middle_is_one_of_fastai(tmp_path, event, n_epoch):
    "It has its own number of epochs, and the plan has its own after it"
    def fit(learn): learn.fit(n_epoch, 1e-3)
    def mark(learn): learn.events.seen.append('here')
    marked,nested = events(tmp_path, mark, event, stock=True),events(tmp_path, fit, event, stock=False)
    at = marked.index('here')
    before,after = marked[:at],marked[at+1:]
    inner = nested[at:len(nested)-len(after)]
    assert nested == before+inner+after
    alone = Events()
    with (learn := make_mlp(tmp_path)).no_bar(), learn.no_logging(): learn.fit(n_epoch, 1e-3, cbs=alone)
    # In `before_fit` the number of epochs is known, and nothing else
    def counted(seen): return [(event, epoch, n_epoch) for event,epoch,_,n_epoch in seen[1:]]
    assert inner[0][0] == 'before_fit' and counted(inner) == counted(alone.seen)

def test_the_number_of_epochs_is_read_once(tmp_path):
    for n in (1, 7): assert same_as_stock(tmp_path, 'after_batch', lambda l, n=n: setattr(l, 'n_epoch', n))

def test_a_plan_in_the_middle_of_a_plan_is_refused(tmp_path):
    with pytest.raises(ValueError, match='a plan runs on this learner already: expected one at a time'):
        events(tmp_path, lambda l: l.fit_plan(PLAN), 'after_batch', stock=False)

@pytest.mark.parametrize('copy', [lambda learn: pickle.loads(pickle.dumps(learn)), deepcopy], ids=['pickle', 'copy'])
def test_a_copy_has_no_plan(tmp_path, copy):
    "Of a learner that runs one"
    copies = []
    def _copy(learn):
        # A local function can't be pickled
        with learn.removed_cbs(learn.at): copies.append(copy(learn))
    learn = make_mlp(tmp_path)
    with learn.no_bar(),learn.no_logging(): learn.fit_plan(PLAN, cbs=At('after_epoch', _copy), checkpoint='r')
    assert vars(copies[0]).keys().isdisjoint([*OWN, '__getstate__']) and '__getstate__' not in vars(learn)
    other = copies[0]
    other.dls = learn.dls
    with other.no_bar(),other.no_logging(): other.fit(1, 3e-4, cbs=(rates := GroupLRRecorder()))
    assert len(other.recorder.values) == 1 and set(other.recorder.group_lrs[:, -1]) == {3e-4} and rates not in other.cbs
    # It can run another plan
    with other.no_bar(),other.no_logging(): other.fit_plan(PLAN)

def test_another_learner_fits_in_the_middle(tmp_path):
    "Nothing is overridden but on the learner that runs the plan"
    other,seen = make_mlp(tmp_path/'other'),Events()
    def f(learn):
        assert set(OWN) <= vars(learn).keys() and vars(other).keys().isdisjoint(OWN)
        with other.no_bar(), other.no_logging(): other.fit(2, 1e-3, cbs=seen)
    ours = events(tmp_path, f, 'after_batch', stock=False)
    assert [e for e in ours if e[0] == 'before_epoch'][-1][1] == 2
    assert [e[1:2] for e in seen.seen if e[0] == 'before_epoch'] == [(0,), (1,)]

@pytest.mark.parametrize('error', [KeyboardInterrupt, ZeroDivisionError, CancelFitException])
@pytest.mark.parametrize('event', ['before_fit', 'before_train', 'before_step', 'after_epoch', 'after_fit'])
def test_nothing_is_left(tmp_path, event, error):
    learn = make_mlp(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=[At('none', None), Events()])
    before,methods = set(vars(learn)),{k: vars(Learner)[k] for k in ('fit', '_do_fit', 'one_batch', '_do_epoch', 'all_batches')}
    # `CancelFitException` in `after_fit` goes through, in fastai, too
    raises = event == 'after_fit' or error is not CancelFitException
    try:
        with learn.no_bar(), learn.no_logging(): learn.fit_plan(PLAN, cbs=At(event, _raise(error), epoch=0, batch=0))
    except error: assert raises
    else: assert not raises
    assert set(vars(learn)) == before and {k: vars(Learner)[k] for k in methods} == methods

def test_what_was_the_learners_own_is_so_after(tmp_path):
    learn,calls = make_mlp(tmp_path),[]
    one_batch = learn.one_batch
    def own(i, b):
        calls.append(i)
        return one_batch(i, b)
    learn.one_batch,learn.model.phase = own,'of the model'
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(PLAN)
    assert calls == [*range(8), *range(2)]*3 and vars(learn)['one_batch'] is own and learn.phase == 'of the model'

def test_a_learner_with_a_loop_of_its_own(tmp_path):
    class Own(Learner):
        fitted = batches = 0
        def _do_fit(self):
            # Only fits in the middle of a plan's come here
            self.fitted += 1
            super()._do_fit()
        def one_batch(self, i, b):
            self.batches += 1
            super().one_batch(i, b)
        def _do_epoch(self):
            self._do_epoch_train()
            self._do_epoch_validate()
    mlp = make_mlp(tmp_path)
    learn = Own(mlp.dls, mlp.model, loss_func=mlp.loss_func, splitter=mlp.splitter, path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(PLAN, cbs=At('after_epoch', lambda l: l.fit(1, 1e-3)))
    assert (learn.fitted, learn.batches) == (1, 40)

def test_other_fits_begin_at_their_beginning(tmp_path):
    a = make_mlp(tmp_path)
    for stop in ((2, 3), (4, 3)):
        with pytest.raises(KeyboardInterrupt), a.no_bar():
            a.fit_plan(plan_of(a), checkpoint='r', checkpoint_every=2, cbs=StopAt(*stop))
        with a.no_bar(): a.fit(2, 1e-3)
        assert len(a.recorder.values) == 2 and len(a.recorder.lrs) == 16 and vars(a).keys().isdisjoint(OWN)

# By itself

class Trained(Callback):
    "Note which batches are trained, and which are validated"
    def __init__(self): self.seen = []
    def before_batch(self): self.seen.append((self.epoch, self.training, self.iter))

def fitted(learn, cbs=(), **position):
    "Fit three epochs in the loop of a plan alone, from a position on, and return what is trained and validated"
    trained = Trained()
    with plan_loop(learn, PLAN) as loop, learn.no_bar(), learn.no_logging():
        for k,v in position.items(): setattr(loop, k, v)
        learn.fit(3, 1e-3, cbs=[trained, *cbs])
    return [(e, i) for e,training,i in trained.seen if training],[(e, i) for e,training,i in trained.seen if not training]

def batches(*epochs, n=8): return [(e, i) for e in epochs for i in range(n)]

def test_from_an_epoch_on(mlp): assert fitted(mlp, first_epoch=1) == (batches(1, 2), batches(1, 2, n=2))

def test_no_epoch_is_left(mlp): assert fitted(mlp, first_epoch=3) == ([], [])

def test_batches_that_were_trained_before(mlp):
    before,restored = [p.detach().clone() for p in mlp.model.parameters()],[]
    def after_skipped(): restored.append([torch.equal(a, b) for a,b in zip(before, mlp.model.parameters())])
    trained,validated = fitted(mlp, first_epoch=1, batches_done=3, after_skipped=after_skipped)
    assert trained == batches(1, 2)[3:] and validated == batches(1, 2, n=2) and restored == [[True]*6]

def test_all_batches_of_an_epoch_were_trained_before(mlp):
    class LastBatch(Callback):
        def before_fit(self): self.seen = []
        def after_train(self): self.seen.append(self.iter)
    last = LastBatch()
    assert fitted(mlp, [last], batches_done=8) == (batches(1, 2), batches(0, 1, 2, n=2)) and last.seen == [7]*3

def test_batches_that_are_skipped_are_drawn(tmp_path):
    class Draws(list):
        drawn = 0
        def __getitem__(self, i):
            self.drawn += 1
            return super().__getitem__(i)
    learn = make_mlp(tmp_path)
    ds = list(learn.dls.train.dataset)
    items = Draws(ds)
    learn.dls = DataLoaders.from_dsets(items, ds[:16], bs=8, device='cpu', num_workers=0)
    # fastai looks at one, once
    assert learn.dls.train.n_inp == 1
    items.drawn = 0
    fitted(learn, first_epoch=2, batches_done=3)
    assert items.drawn == 64

def test_epochs_that_a_phase_leaves_out(mlp):
    class Ends(Callback):
        def after_epoch(self):
            if self.epoch == 0: self.loop.next_epoch = 2
    ends = Ends()
    with plan_loop(mlp, PLAN) as ends.loop, mlp.no_bar(), mlp.no_logging(): mlp.fit(3, 1e-3, cbs=[ends, trained := Trained()])
    assert [o for o in trained.seen if o[1]] == [(e, True, i) for e,i in batches(0, 2)]

def test_it_holds_what_the_learner_had(mlp):
    loop = PlanLoop(mlp)
    assert (loop.fastai_fit, loop.fastai_do_fit, loop.fastai_one_batch) == (mlp.fit, mlp._do_fit, mlp.one_batch)
    assert not (loop.begun or loop.running or loop.nested)
