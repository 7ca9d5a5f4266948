"Fits in which nothing of ours takes part: what they do must not depend on what is imported"
import inspect
import io
import re
import tempfile
import warnings
import zipfile
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path

from fastai.basics import *
from fastai.callback.all import *

from .learner import exact, make, state

FITS = {}

def fits(f, name=None, bar=False, **kwargs):
    "Add a list of fits; `kwargs` are for the learner that `f` is given, and it appends what else is to be compared to `seen`"
    FITS[name or f.__name__] = f,bar,kwargs
    return f

def run(name):
    "Do the fits of `name`, and return all that could be seen of them"
    f,bar,kwargs = FITS[name]
    seen,out = [],io.StringIO()
    with tempfile.TemporaryDirectory() as path, warnings.catch_warnings(record=True) as warned, redirect_stdout(out):
        warnings.simplefilter('always')
        learn = make(Path(path), **kwargs)
        # It hides errors of the loop behind its own
        if not bar: learn.remove_cb(ProgressCallback)
        f(learn, seen)
        return dict(state(learn), seen=exact(seen), out=exact(out.getvalue().replace(path, 'PATH')),
                    warned=[(o.category.__name__, str(o.message).replace(path, 'PATH')) for o in warned])

@contextmanager
def error(seen):
    "Add the type and text of the error that is raised inside"
    try: yield
    except BaseException as e: seen.append((type(e).__name__, re.sub(r'0x[0-9a-f]+', '0x', str(e))))
    else: seen.append('no error')

class At(Callback):
    "Call `f` with the learner, at an event of one epoch and batch"
    order = 200
    def __init__(self, event, f, epoch=1, batch=1): self.event,self.f,self.when = event,f,(epoch, batch)
    def __call__(self, event_name):
        learn = self.learn
        if event_name != self.event: return
        epoch,batch = self.when
        by_batch = event_name in ('before_batch', 'after_pred', 'after_loss', 'before_backward', 'before_step', 'after_step', 'after_batch')
        if learn.epoch == epoch and (not by_batch or (learn.training and learn.iter == batch)): self.f(learn)

class Counted(Callback):
    "Counts its instances, and the fits of each"
    made = []
    def __init__(self): self.made.append(0)
    def before_fit(self): self.made[-1] += 1

# What a user calls

@fits
def fit(learn, seen): learn.fit(2)

@partial(fits, bar=True)
def fit_with_a_progress_bar(learn, seen):
    learn.fit(2)
    learn.fine_tune(1)
    with learn.no_bar(): learn.fit_one_cycle(1)
    with error(seen): learn.fit(1.5)

@fits
def fit_with_all_arguments(learn, seen): learn.fit(2, 1e-2, 0.1, None, True, 1)

@fits
def fit_with_rates(learn, seen):
    learn.fit(1, slice(1e-4, 1e-2))
    learn.fit(1, [1e-4, 1e-3, 1e-2])
    learn.fit(1, slice(1e-2))

@fits
def one_cycle(learn, seen):
    learn.fit_one_cycle(2, slice(1e-3, 1e-2))
    learn.fit_one_cycle(1, 1e-2, reset_opt=True)

@fits
def flat_cos(learn, seen): learn.fit_flat_cos(3, slice(1e-3, 1e-2))

@fits
def sgdr(learn, seen): learn.fit_sgdr(2, 1, 1e-2)

@fits
def fine_tune(learn, seen): learn.fine_tune(1)

@fits
def fine_tune_with_all_arguments(learn, seen): learn.fine_tune(2, 1e-2, 2, 50, 0.2, div=3., wd=0.1)

@fits
def fine_tune_without_frozen_epochs(learn, seen): learn.fine_tune(1, freeze_epochs=0)

@fits
def frozen(learn, seen):
    learn.fit(1)
    learn.freeze()
    learn.fit_one_cycle(1, 1e-2)
    learn.freeze_to(1)
    learn.fit_one_cycle(1, slice(1e-3, 1e-2))
    learn.unfreeze()
    learn.fit(1)

@fits
def lr_find(learn, seen):
    seen.append(learn.lr_find(num_it=12, show_plot=False))
    learn.fit(1)

@fits
def no_epochs(learn, seen):
    for n in (0, -1, False): learn.fit(n)

@fits
def odd_numbers_of_epochs(learn, seen):
    for n in (1.5, 2., '2', None, [1], True):
        with error(seen): learn.fit(n)
        with error(seen): learn.fit_one_cycle(n)
        with error(seen): learn.fine_tune(n)

@fits
def odd_arguments(learn, seen):
    with error(seen): learn.fit()
    with error(seen): learn.fit(1, foo=1)
    with error(seen): learn.fit(1, 'a lot')
    with error(seen): learn.fit(1, [1e-3, 1e-2])
    with error(seen): learn.fit(1, 1e-3, 0.1, None, False, 0, 7)
    with error(seen): learn.fine_tune()
    with error(seen): learn.fine_tune(1, foo=1)

@fits
def start_epoch(learn, seen):
    learn.fit_one_cycle(3, 1e-2, start_epoch=1)
    learn.fit(2, start_epoch=2)
    learn.fit(2, start_epoch=3)

@fits
def signatures(learn, seen):
    for f in (Learner.fit, Learner.fine_tune, Learner.fit_one_cycle, Learner.freeze_to, Learner.one_batch, Recorder.after_batch):
        seen.append((str(inspect.signature(f)), f.__name__, f.__qualname__, f.__doc__))
    learn.show_training_loop()

for opt in (SGD, ranger):
    @partial(fits, name=f'optimiser_{opt.__name__}', opt_func=opt)
    def optimiser(learn, seen):
        learn.freeze()
        learn.fit_flat_cos(1, 1e-2)
        learn.unfreeze()
        learn.fit(1, slice(1e-3, 1e-2))

@fits
def no_training_data(learn, seen):
    learn.dls.train.n = 0
    with error(seen): learn.fit(1)
    with error(seen): learn.fine_tune(1)

# Callbacks

@fits
def a_callback_class(learn, seen):
    learn.fit(2, cbs=Counted)
    learn.fit(1, cbs=[Counted, Counted])
    seen.append(Counted.made)

@fits
def fine_tune_makes_a_callback_for_each_of_its_fits(learn, seen):
    learn.fine_tune(1, cbs=Counted)
    seen.append(Counted.made)

@fits
def a_callback_class_that_is_on_the_learner_too(learn, seen):
    learn.add_cb(Counted)
    learn.fit(1, cbs=Counted)
    seen.append(Counted.made)

@fits
def a_callback_that_is_on_the_learner_too(learn, seen):
    cb = Counted()
    learn.add_cb(cb)
    learn.fit(1, cbs=cb)
    seen.append((Counted.made, cb.learn is None))

@fits
def callbacks_in_all_kinds_of_lists(learn, seen):
    for cbs in ((Counted(),), L(Counted()), [], (), {Counted: 1}, [[Counted()]]):
        with error(seen): learn.fit(1, cbs=cbs)
        with error(seen): learn.fine_tune(1, cbs=cbs)
    # fastai adds what a generator gives, and has none left to remove
    learn.fit(1, cbs=(Counted() for _ in range(2)))
    seen.append((Counted.made, len(learn.cbs)))

@fits
def what_is_no_callback(learn, seen):
    with error(seen): learn.fit(1, cbs='SaveModelCallback')
    with error(seen): learn.fit(1, cbs=[None])
    with error(seen): learn.fit(1, cbs=partial(SaveModelCallback, fname='x'))

@fits
def a_callback_that_cannot_be_made(learn, seen):
    with error(seen): learn.fit(1, cbs=At)
    with error(seen): learn.fine_tune(1, cbs=At)

@fits
def trackers(learn, seen):
    cbs = [SaveModelCallback(), EarlyStoppingCallback(patience=1, min_delta=10.), ReduceLROnPlateau(patience=1, min_delta=10.), CSVLogger()]
    learn.fit(5, 1e-2, cbs=cbs)

@fits
def gradients(learn, seen): learn.fit_one_cycle(2, 1e-2, cbs=[GradientAccumulation(16), GradientClip(0.1)])

@fits
def other_callbacks(learn, seen):
    learn.fit(1, cbs=MixUp)
    learn.fit(1, cbs=[ShortEpochCallback(0.5), BnFreeze])
    learn.fit(1, cbs=ParamScheduler({'lr': SchedCos(1e-2, [1e-4, 1e-3, 1e-2][-1])}))

@fits
def n_epoch_set_in_a_fit(learn, seen):
    learn.fit(3, cbs=At('before_epoch', lambda learn: setattr(learn, 'n_epoch', 2)))
    learn.fit(2, cbs=At('after_epoch', lambda learn: setattr(learn, 'n_epoch', 5)))

class OtherEpoch(Callback):
    "Number the epochs otherwise"
    def __init__(self, seen): self.seen = seen
    def before_epoch(self): self.learn.epoch += 7
    def after_batch(self): self.seen.append(self.epoch)

@fits
def epoch_set_in_before_epoch(learn, seen): learn.fit(3, cbs=OtherEpoch(seen))

class Nested(Callback):
    "One fit in another"
    order = 300
    def __init__(self): self.inside = False
    def after_epoch(self):
        if self.inside or self.learn.epoch: return
        self.inside = True
        self.learn.fit(1, 1e-2)

@fits
def a_fit_in_a_fit(learn, seen): learn.fit(3, cbs=Nested)

@fits
def validation_in_a_fit(learn, seen):
    learn.fit(3, cbs=At('after_epoch', lambda learn: seen.append(learn.validate())))
    def predict(learn):
        with learn.no_mbar(): seen.append(learn.get_preds(inner=True))
    learn.fit(3, cbs=At('before_train', predict))
    seen.append(learn.get_preds(with_loss=True))
    seen.append(learn.validate())
    learn.fit(1)

# Ways to end

def _raise(ex): raise ex

for ex in (CancelFitException, CancelEpochException, CancelTrainException, CancelBatchException, CancelStepException,
           CancelBackwardException, CancelValidException, KeyboardInterrupt, ValueError, AssertionError, SystemExit):
    for ev in ('before_backward', 'before_step', 'after_batch', 'before_epoch'):
        if ev == 'before_backward' and ex is not CancelBackwardException: continue
        if ev in ('after_batch', 'before_epoch') and ex not in (KeyboardInterrupt, CancelFitException): continue
        @partial(fits, name=f'{ex.__name__}_in_{ev}')
        def ended(learn, seen, ex=ex, ev=ev):
            with error(seen): learn.fit_one_cycle(2, slice(1e-3, 1e-2), cbs=At(ev, lambda learn: _raise(ex)))
            with error(seen): learn.fine_tune(1, cbs=At(ev, lambda learn: _raise(ex), epoch=0))
            learn.fit(1)

# Other learners and recorders

@fits
def a_recorder_put_back(learn, seen):
    learn.remove_cb(learn.recorder)
    learn.fit(1, cbs=Recorder())
    learn.fit(1)

class MyRecorder(Recorder):
    def after_batch(self):
        super().after_batch()
        if self.training: self.rates = [*getattr(self, 'rates', []), self.opt.hypers[-1]['lr']]

@partial(fits, default_cbs=False, cbs=[TrainEvalCallback, MyRecorder, CastToTensor])
def a_subclass_of_recorder(learn, seen): learn.fit_one_cycle(2, 1e-2)

@partial(fits, default_cbs=False, cbs=TrainEvalCallback)
def no_recorder(learn, seen):
    learn.fit(1)
    learn.fit(1, slice(1e-3, 1e-2))

class OwnFit(Learner):
    def fit(self, n_epoch, lr=None, wd=None, cbs=None, reset_opt=False, start_epoch=0, more=1):
        self.more = more
        super().fit(n_epoch+more, lr, cbs=cbs, reset_opt=reset_opt, start_epoch=start_epoch)

@partial(fits, cls=OwnFit)
def a_learner_with_a_fit_that_calls_the_stock_one(learn, seen):
    learn.fit(1, more=2)
    learn.fine_tune(1)
    learn.lr_find(num_it=5, show_plot=False)

class WholeFit(Learner):
    def fit(self, n_epoch, lr=None, wd=None, cbs=None, reset_opt=False, start_epoch=0):
        with self.added_cbs(cbs):
            if reset_opt or not self.opt: self.create_opt()
            self.opt.set_hypers(lr=self.lr if lr is None else lr)
            self.n_epoch = n_epoch
            self._with_events(self._do_fit, 'fit', CancelFitException, self._end_cleanup)

@partial(fits, cls=WholeFit)
def a_learner_with_a_fit_of_its_own(learn, seen):
    learn.fit(1)
    learn.fit_one_cycle(1)
    learn.fine_tune(1)

class OwnLoop(Learner):
    def _do_fit(self):
        for epoch in reversed(range(self.n_epoch)):
            self.epoch = epoch
            self._with_events(self._do_epoch, 'epoch', CancelEpochException)
    def one_batch(self, i, b):
        self.batches = getattr(self, 'batches', 0) + 1
        super().one_batch(i, b)
    def _step(self):
        self.steps = getattr(self, 'steps', 0) + 1
        super()._step()

@partial(fits, cls=OwnLoop)
def a_learner_with_a_loop_of_its_own(learn, seen):
    learn.fit(3)
    learn.fine_tune(1)

@fits
def batches_without_a_fit(learn, seen):
    # As in fastai's own tests
    learn.create_opt()
    learn.epoch,learn.n_epoch,learn.dl = 0,1,learn.dls.train
    for name in ('before_fit', 'before_epoch', 'before_train'): learn(name)
    learn.all_batches()
    learn.one_batch(0, learn.dls.one_batch())
    learn('after_train')
    learn.fit(1)

class Named(nn.Sequential):
    "A model whose attributes have the names of ours"
    phase,plan,ran,group_lrs = 'evening','B','far',[1., 2.]
    def __init__(self, *layers):
        super().__init__(*layers)
        self.phase = 'morning'

@fits
def a_model_with_a_phase(learn, seen):
    learn.model = Named(*learn.model)
    def look(learn): seen.append((learn.phase, learn.plan, learn.recorder.phase, learn.recorder.plan, learn.recorder.ran))
    look(learn)
    learn.fit(2, cbs=At('after_batch', look))
    look(learn)
    with error(seen): seen.append(learn.first_phase)

@fits
def export(learn, seen):
    learn.fit(1)
    learn.export()
    with zipfile.ZipFile(learn.path/'export.pkl') as z:
        seen.append(sum(b'fastai_discrim' in z.read(n) for n in z.namelist()))
    new = load_learner(learn.path/'export.pkl')
    seen.append((sorted(vars(new)), sorted(vars(new.recorder)), new.get_preds(dl=learn.dls.valid)))
    learn.save('m')
    learn.load('m')
    learn.fit(1)

# Loops as other packages write them

@fits
def torch_loop(learn, seen):
    opt = SGD(learn.splitter(learn.model), lr=1e-2)
    for xb,yb in DataLoader(learn.dls.train_ds, bs=8):
        learn.loss_func(learn.model(xb), yb).backward()
        opt.step()
        opt.zero_grad()
    learn.fit(1)

def names(): return list(FITS)
