"What was stopped goes on, and ends as if it had not been"
import os
import random
import signal
import stat
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import StopAt, everything, make_clas, make_lm, make_mlp, weights
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.mixup import MixUp
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.metrics import AccumMetric, F1Score, accuracy
from fastai.optimizer import SGD, OptimWrapper, ranger
from fastai.text.data import SortedDL
from fastai.torch_core import set_seed
from torch.utils.data import DataLoader as TorchLoader

from fastai_discrim.plan.phase import EarlyStop
from fastai_discrim.plan.schedules import OneCycle
from fastai_discrim.recipes import recipes
from fastai_discrim.run.checkpoint_file import checkpoint_file, previous, read
from fastai_discrim.run.run_identity import func_name, run_identity

MAKERS = dict(mlp=make_mlp, clas=make_clas, lm=partial(make_lm, n=16))

def outcome(learn):
    "All that has to be the same in the end"
    e,rec = everything(learn),learn.recorder
    return {**{k: e[k] for k in ('params', 'buffers', 'opt', 'hypers', 'rg', 'grad', 'rng', 'py', 'np', 'torch', 'modes')},
            'lrs': list(map(float, rec.lrs)), 'losses': [l.item() for l in rec.losses], 'values': [list(v) for v in rec.values],
            'groups': rec.group_lrs.tolist(), 'hps': {k: list(map(float, v)) for k,v in rec.hps.items()}, 'iters': list(rec.iters),
            'smooth': rec.smooth_loss.value.item(), 'count': (learn.train_iter, learn.pct_train)}

def strange(i):
    "The random states of another process"
    set_seed(1000+i)
    torch.rand(i), random.random(), np.random.rand(2)

def plan_of(learn): return learn.ulmfit_plan(6, 1e-2, gradual=True)

def check(make, stops, plan=plan_of, every=None, cbs=list, compare=outcome, how=StopAt):
    "Run without a stop, and with some, each time with a new learner; the ends must be equal"
    def run(seed, stop=None, **kwargs):
        learn = make()
        strange(seed) if seed else set_seed(3)
        try:
            with learn.no_bar(), learn.no_logging():
                learn.fit_plan(plan(learn), cbs=[*cbs(), *([how(*stop)] if stop else [])], **kwargs)
        except KeyboardInterrupt: assert stop and stop in ((learn.epoch, learn.iter), (learn.epoch, None)), 'it was stopped elsewhere'
        else: assert not stop, 'it was not stopped'
        return learn
    want = compare(run(0))
    for i,stop in enumerate(stops): run(i, stop, checkpoint='r', checkpoint_every=every)
    got = compare(run(len(stops), checkpoint='r', checkpoint_every=every))
    for k in want: assert want[k] == got[k], k

@pytest.mark.parametrize('name', MAKERS)
@pytest.mark.parametrize('every,stops', [(None, [(2, 3)]), (None, [(0, 1)]), (2, [(2, 3)]), (1, [(3, 0)]), (3, [(1, 5), (4, 4)]),
                                         (1, [(0, 2), (0, 3), (5, 5)])], ids=str)
def test_bit_for_bit(tmp_path, name, every, stops): check(lambda: MAKERS[name](tmp_path), stops, every=every)

@pytest.mark.parametrize('stop', [(0, 3), (2, 3)])
def test_norm_layers(tmp_path, stop):
    "What tells them from others is of this process alone"
    check(lambda: make_mlp(tmp_path, norm=True), [stop], every=None if stop[0] == 0 else 2)
    file = checkpoint_file(make_mlp(tmp_path), 'r')
    assert not any('_norms' in attrs for _,attrs in read(file)['ranks'][0]['learner']['callbacks'])

def fractional_plan(learn, **kwargs):
    "Every group opens within an epoch, two of them within the first, in phases of two or three steps"
    return learn.ulmfit_plan(3, 1e-2, gradual=True, epochs=.3, **kwargs)

# Before, at and after the steps at which groups open: 2 and 5 of mlp's 8, 2, 4, 5 and 7 of clas's 6 an epoch
AROUND = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 0), (1, 1)]

@pytest.mark.parametrize('name', ['mlp', 'clas'])
@pytest.mark.parametrize('every,stops', [(1, AROUND), (3, AROUND[::2]), (None, [(0, 3), (1, 1)])], ids=str)
def test_within_a_phase_that_ends_within_an_epoch(tmp_path, name, every, stops):
    check(lambda: MAKERS[name](tmp_path), stops, plan=fractional_plan, every=every)

def test_of_a_language_model_within_an_epoch(tmp_path):
    check(lambda: MAKERS['lm'](tmp_path), [(0, 1), (0, 2), (1, 0)], plan=fractional_plan, every=1)

@pytest.mark.parametrize('stop', AROUND[1:4])
def test_norm_statistics_within_an_epoch(tmp_path, stop):
    check(lambda: make_mlp(tmp_path, norm=True), [stop], plan=partial(fractional_plan, train_bn=False), every=1)

@pytest.mark.parametrize('opt', [ranger, partial(OptimWrapper, opt=torch.optim.AdamW)], ids=['ranger', 'torch'])
def test_optimisers_within_an_epoch(tmp_path, opt):
    def compare(learn): return {k:v for k,v in outcome(learn).items() if k != 'opt'}
    check(lambda: make_mlp(tmp_path, opt_func=opt), AROUND[:5], plan=fractional_plan, every=1, compare=compare)

def test_steps_of_the_fractional_plan(tmp_path):
    "So that the stops above are where they say"
    for name,ends in (('mlp', [2, 5, 24]), ('clas', [2, 4, 5, 7, 18])):
        learn = MAKERS[name](tmp_path)
        assert fractional_plan(learn).timeline(len(learn.dls.train)).ends == ends

class StopInValidation(StopAt):
    def before_step(self): pass
    def before_validate(self):
        if self.epoch == self.at[0]: raise KeyboardInterrupt

@pytest.mark.parametrize('name', MAKERS)
@pytest.mark.parametrize('epoch', [1, 5])
def test_after_the_last_batch_of_an_epoch(tmp_path, name, epoch):
    check(lambda: MAKERS[name](tmp_path), [(epoch, None)], every=1, how=StopInValidation)

OPTS = dict(sgd=partial(SGD, mom=.9), ranger=ranger, adamw=partial(OptimWrapper, opt=torch.optim.AdamW))

@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
@pytest.mark.parametrize('make', [make_mlp, make_clas])
def test_optimisers(tmp_path, make, opt):
    compare = outcome
    if 'OptimWrapper' in str(opt):
        def compare(learn):
            state = {k: {n: v.tolist() for n,v in s.items()} for k,s in learn.opt.opt.state_dict()['state'].items()}
            return {**{k:v for k,v in outcome(learn).items() if k != 'opt'}, 'state': state}
    if opt is ranger:
        def compare(learn):
            return {**outcome(learn), 'slow': [[p.tolist() for p in g] for g in learn.opt.slow_weights], 'k': learn.opt.count}
    check(lambda: make(tmp_path, opt_func=opt), [(2, 3), (4, 1)], every=2, compare=compare)

def test_a_cycle_over_the_whole_plan(tmp_path):
    check(lambda: make_clas(tmp_path), [(2, 3)], plan=lambda l: plan_of(l).under(OneCycle(), whole=True), every=2)

def test_gradients_that_have_not_been_stepped_with(tmp_path):
    class StopBackward(StopAt):
        # `GradientAccumulation` calls off the steps in between
        def after_backward(self): super().before_step()
        def before_step(self): pass
    def run(stop=None, **kwargs):
        learn = make_mlp(tmp_path)
        strange(1) if kwargs and not stop else set_seed(3)
        try:
            with learn.no_bar(), learn.no_logging():
                learn.fit_plan(plan_of(learn), cbs=[GradientAccumulation(24), *([StopBackward(*stop)] if stop else [])], **kwargs)
        except KeyboardInterrupt: pass
        return learn
    want = outcome(run())
    run((2, 4), checkpoint='r', checkpoint_every=1)
    state = read(checkpoint_file(make_mlp(tmp_path), 'r'))
    assert state['batches'] == 4 and any(torch.is_tensor(g) for g in state['ranks'][0]['learner']['grads'])
    got = outcome(run(checkpoint='r', checkpoint_every=1))
    for k in want: assert want[k] == got[k], k

@pytest.mark.parametrize('cbs', [lambda: [SaveModelCallback()], lambda: [SaveModelCallback(monitor='accuracy', every_epoch=2)],
                                 lambda: [EarlyStoppingCallback(min_delta=-.2, patience=3)], lambda: [GradientClip(.5)],
                                 lambda: [MixUp()], lambda: [ReduceLROnPlateau()]],
                         ids=['best', 'every second', 'early', 'clip', 'mixup', 'plateau'])
@pytest.mark.parametrize('every', [None, 3])
def test_callbacks(tmp_path, cbs, every): check(lambda: make_mlp(tmp_path), [(1, 4), (2, 6)], every=every, cbs=cbs)

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

def test_a_history_that_can_not_be_kept_is_said(mlp):
    mlp.metrics = [AccumMetric(lambda x, y: pd.DataFrame({'a': [1]}), flatten=False)]
    with mlp.no_bar(), mlp.no_logging(), pytest.warns(UserWarning, match='Recorder.values: no numbers'):
        mlp.fit_plan(plan_of(mlp), checkpoint='r')

def test_after_ctrl_c_mixup_leaves_its_loss(tmp_path):
    "It is the run's own all the same"
    learn = make_mlp(tmp_path)
    with learn.no_bar(), pytest.raises(KeyboardInterrupt): learn.fit_plan(plan_of(learn), checkpoint='r', cbs=[MixUp(), StopAt(2, 4)])
    assert func_name(learn.loss_func) == 'lf' and run_identity(learn, plan_of(learn))['loss function'] == 'CrossEntropyLoss'

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
    table = [line.split()[0] for line in capsys.readouterr().out.split('going on from')[1].splitlines() if line[:1].isdigit()]
    assert table == list('012345')

@pytest.mark.parametrize('every', [None, 2])
def test_sorted_loaders_shuffled_by_numpy(tmp_path, every):
    def make():
        learn = make_clas(tmp_path)
        docs = [(x[:4 + i%9], y) for i,(x,y) in enumerate(learn.dls.train.dataset)]
        def pad(b): return [(torch.cat([x, x.new_ones(12-len(x))]), y) for x,y in b]
        learn.dls = DataLoaders(SortedDL(docs, bs=4, shuffle=True, before_batch=pad, num_workers=0),
                                SortedDL(docs[:16], bs=4, before_batch=pad, num_workers=0), device='cpu')
        return learn
    check(make, [(1, 5), (3, 2)], every=every)

class Noisy(list):
    "Items that are other ones each time they are drawn"
    def __getitem__(self, i):
        x,y = super().__getitem__(i)
        return x + .1*torch.randn(4) + float(np.random.rand()) + random.random(), y

@pytest.mark.parametrize('workers', [0, 1])
def test_random_items(tmp_path, workers):
    def make():
        learn = make_mlp(tmp_path)
        ds = learn.dls.train.dataset
        learn.dls = DataLoaders.from_dsets(Noisy(ds), ds[:16], bs=8, device='cpu', num_workers=workers)
        return learn
    check(make, [(1, 5)], every=2, plan=lambda l: l.ulmfit_plan(3, 1e-2))

def test_torch_loaders(tmp_path):
    def make():
        learn = make_mlp(tmp_path)
        ds = list(learn.dls.train.dataset)
        learn.dls = DataLoaders(TorchLoader(ds, 8, shuffle=True, generator=torch.Generator().manual_seed(1)), TorchLoader(ds[:16], 8))
        return learn
    check(make, [(1, 5), (3, 2)], every=2)

def test_metrics_of_the_training_set(tmp_path):
    def make():
        learn = make_mlp(tmp_path)
        learn.recorder.train_metrics = True
        learn.metrics = [accuracy, AccumMetric(lambda p,y: (p.argmax(-1) == y).float().mean().item(), flatten=False)]
        return learn
    check(make, [(1, 5)], every=2)

def test_parameters_frozen_by_hand(tmp_path):
    def make():
        learn = make_clas(tmp_path)
        learn.model[1].layers[-1][0].weight.requires_grad_(False)
        return learn
    with pytest.warns(UserWarning, match='are frozen in a layer group'): check(make, [(2, 3)], every=2)

def test_in_half_precision(tmp_path):
    def make():
        learn = make_mlp(tmp_path)
        return learn.to_bf16()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        check(make, [(2, 3)], every=2)

def test_a_finished_run_loads_its_result(tmp_path, capsys):
    a,b = make_clas(tmp_path),make_clas(tmp_path)
    set_seed(3)
    with a.no_bar(): a.fit_plan(plan_of(a), checkpoint='r')
    strange(1)
    capsys.readouterr()
    b.fit_plan(plan_of(b), checkpoint='r')
    assert 'r.ckpt is of a finished run of 6 epochs: its result is loaded, and nothing is left to train' in capsys.readouterr().out
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

def test_it_says_where_it_goes_on(tmp_path, capsys):
    for stop in ((2, 3), None):
        learn = make_mlp(tmp_path)
        try:
            with learn.no_bar(): learn.fit_plan(plan_of(learn), checkpoint='r', checkpoint_every=2, cbs=StopAt(*stop) if stop else None)
        except KeyboardInterrupt: pass
    assert 'r.ckpt: epoch 2, batch 2' in capsys.readouterr().out

def test_eta_is_not_looked_for_again(tmp_path, monkeypatch):
    want = make_clas(tmp_path)
    set_seed(3)
    with want.no_bar(), want.no_logging(): want.fit_ulmfit(5)
    a,b = make_clas(tmp_path),make_clas(tmp_path)
    set_seed(3)
    with pytest.raises(KeyboardInterrupt), a.no_bar(), a.no_logging(): a.fit_ulmfit(5, checkpoint='r', cbs=StopAt(0, 0))
    strange(2)
    monkeypatch.setattr(type(b), 'head_lr_find', lambda *args, **kw: pytest.fail('it was looked for'))
    with b.no_bar(), b.no_logging(): b.fit_ulmfit(5, checkpoint='r')
    assert outcome(want)['params'] == outcome(b)['params'] and b.recorder.plan.lr_from == want.recorder.plan.lr_from
    c = make_clas(tmp_path)
    with pytest.raises(ValueError, match='r.ckpt is of another run: its plan is'): c.fit_ulmfit(6, checkpoint='r')
    with pytest.raises(ValueError, match='r.ckpt is of another run: its plan is'): c.fit_ulmfit(5, 3e-2, checkpoint='r')

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

def test_other_fits_begin_at_their_beginning(tmp_path):
    a = make_mlp(tmp_path)
    for stop in ((2, 3), (4, 3)):
        with pytest.raises(KeyboardInterrupt), a.no_bar():
            a.fit_plan(plan_of(a), checkpoint='r', checkpoint_every=2, cbs=StopAt(*stop))
        with a.no_bar(): a.fit(2, 1e-3)
        assert len(a.recorder.values) == 2 and len(a.recorder.lrs) == 16 and not {"_do_fit", "one_batch", "phase"} & set(vars(a))

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

def test_in_an_own_folder_and_by_two_names(tmp_path):
    learn = make_mlp(tmp_path/'deep', model_dir='elsewhere')
    with learn.no_bar(): learn.fit_plan(plan_of(learn), checkpoint='runs/a')
    assert (tmp_path/'deep'/'elsewhere'/'runs'/'a.ckpt').exists() and read(checkpoint_file(learn, 'b')) is None

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

def test_what_can_not_be_kept_is_said(mlp):
    class Holds(Callback):
        def __init__(self): self.thing = object()
    with pytest.warns(UserWarning, match='Holds.thing: no numbers, text, arrays or tensors, and so not') as w, mlp.no_bar():
        mlp.fit_plan(plan_of(mlp), checkpoint='r', cbs=Holds)
    assert sum('Holds' in str(o.message) for o in w) == 1

def test_other_callbacks_than_before_are_said(tmp_path):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    with pytest.raises(KeyboardInterrupt), a.no_bar(): a.fit_plan(plan_of(a), checkpoint='r', cbs=[MixUp(), StopAt(1, 2)])
    with pytest.warns(UserWarning, match='the run had the callbacks .*mix_up.*: expected the same'), b.no_bar():
        b.fit_plan(plan_of(b), checkpoint='r')

@pytest.mark.parametrize('metrics', [lambda: [F1Score(average=None)], lambda: [F1Score(average='macro'), F1Score(average='micro')]])
def test_metrics_of_several_numbers(tmp_path, metrics):
    def make():
        learn = make_mlp(tmp_path)
        learn.metrics = metrics()
        return learn
    check(make, [(2, 3)], every=2, compare=lambda l: {k:v for k,v in outcome(l).items() if k != 'values'})

def test_after_its_last_epoch(tmp_path):
    class AtTheEnd(StopAt):
        order = 2000
        def before_step(self): pass
        def after_epoch(self):
            if self.epoch == 5: raise KeyboardInterrupt
    check(lambda: make_mlp(tmp_path), [(5, None)], how=AtTheEnd)

def test_no_space_when_it_goes_on(tmp_path, monkeypatch):
    learn = make_mlp(tmp_path)
    with pytest.raises(KeyboardInterrupt), learn.no_bar(): learn.fit_plan(plan_of(learn), checkpoint='r', cbs=StopAt(2, 1))
    from fastai_discrim.run import checkpoint_file as checkpoint
    def full(fd): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(checkpoint.os, 'fsync', full)
    other = make_mlp(tmp_path)
    with pytest.raises(OSError, match='No space left'), other.no_bar(): other.fit_plan(plan_of(other), checkpoint='r', cbs=StopAt(2, 1))

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

def test_a_log_that_is_appended_to_has_each_epoch_once(tmp_path):
    for stop in ((3, 2), None):
        learn = make_mlp(tmp_path)
        try:
            cbs = [CSVLogger(append=True), *([StopAt(*stop)] if stop else [])]
            with learn.no_bar(): learn.fit_plan(plan_of(learn), checkpoint='r', cbs=cbs)
        except KeyboardInterrupt: pass
    epochs = [line.split(',')[0] for line in (tmp_path/'history.csv').read_text().splitlines()]
    assert [e for e in epochs if e != 'epoch'] == list('012345')

def test_checkpoint_arguments_are_looked_at_before_eta_is_looked_for(clas, monkeypatch):
    monkeypatch.setattr(type(clas), 'head_lr_find', lambda *args, **kw: pytest.fail('it was looked for'))
    for kw in (dict(checkpoint=3), dict(checkpoint=''), dict(checkpoint='a\0b'), dict(checkpoint='a', checkpoint_every=0),
               dict(checkpoint_every=3)):
        with pytest.raises((TypeError, ValueError), match='expected'): clas.fit_ulmfit(5, **kw)

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
    want = run(stop=[])
    run(stop=[StopAt(2, 0)])
    assert run(start_epoch=2) != want

# Killed for good

def kill(*args): os.kill(os.getpid(), signal.SIGKILL)

class KillAt(StopAt):
    def before_step(self):
        if (self.epoch, self.iter) == self.at: kill()

def in_a_process_that_is_killed(f):
    pid = os.fork()
    if pid == 0:
        try: f()
        finally: os._exit(1)
    deadline = time.time()+60
    while time.time() < deadline:
        done,status = os.waitpid(pid, os.WNOHANG)
        if done: break
        time.sleep(.02)
    else: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0); pytest.fail('the process hangs')
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f'it was not killed: {status}'

def killed_while_writing(monkeypatch, what, at):
    "In the `at`th call of what `write` calls"
    from fastai_discrim.run import checkpoint_file as checkpoint
    real,calls = getattr(os, what),[]
    def f(*args):
        calls.append(args)
        if len(calls) == at:
            if what == 'fsync' and stat.S_ISREG(os.fstat(args[0]).st_mode): os.ftruncate(args[0], os.fstat(args[0]).st_size//2)
            kill()
        return real(*args)
    monkeypatch.setattr(checkpoint.os, what, f)

# Where it is killed, and the steps between checkpoints
KILLS = {'in an epoch': (KillAt(2, 3), None), 'between checkpoints': (KillAt(2, 3), 2), 'at its first step': (KillAt(0, 0), None),
         'writing the file': (('fsync', 5), 3), 'writing the folder': (('fsync', 6), None),
         'before the old one moves': (('replace', 4), None), 'before the new one moves': (('replace', 5), 3)}

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')
@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
@pytest.mark.parametrize('how,every', KILLS.values(), ids=KILLS)
@pytest.mark.parametrize('name', MAKERS)
def test_killed(tmp_path, monkeypatch, name, how, every):
    def run(seed, *cbs, **kw):
        learn = MAKERS[name](tmp_path)
        strange(seed) if seed else set_seed(3)
        with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan_of(learn), cbs=cbs, **kw)
        return learn
    want = outcome(run(0))
    def killed():
        if isinstance(how, tuple): killed_while_writing(monkeypatch, *how)
        run(0, *([] if isinstance(how, tuple) else [how]), checkpoint='r', checkpoint_every=every)
    in_a_process_that_is_killed(killed)
    got = outcome(run(7, checkpoint='r', checkpoint_every=every))
    for k in want: assert want[k] == got[k], k
    learn = MAKERS[name](tmp_path)
    assert all(torch.equal(read(checkpoint_file(learn, 'r'))['learner']['model'][k], torch.tensor(v)) for k,v in want['params'].items())
    assert not weights(learn).keys() ^ want['params'].keys() and previous(checkpoint_file(learn, 'r')).exists()
