"What a run leaves behind, and that it runs again from it"
import json
from functools import partial
from pathlib import Path

import fastai
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MAKERS, make_clas, make_mlp, weights
from fastai.callback.core import Callback, CancelFitException, CancelTrainException
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.metrics import AccumMetric, F1Score
from fastai.optimizer import OptimWrapper
from fastai.torch_core import set_seed
from torch.utils.data import DataLoader as TorchLoader

from fastai_discrim import __version__
from fastai_discrim.plan.origin import HeadLR
from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.recipes import recipes

LRS = (1e-4, 1e-3, 1e-2)
PLAN = Plan([Phase(1, (2,), LRS), Phase(2, (0, 1, 2), LRS)], 'abc', source='a paper')

def read(path): return json.loads(Path(path).read_text(), parse_constant=lambda s: pytest.fail(f'{s} is no JSON'))

def test_the_record_of_a_run(mlp):
    set_seed(11)
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=GradientClip, wd=.2)
    path = mlp.recorder.save_run(seed=11, data='points')
    assert path == mlp.path/'run.json'
    d = read(path)
    assert Plan.from_json(path.read_text()) == PLAN and d['plan']['source'] == 'a paper' and d['version'] == 1 and d['finished'] is True
    assert d['versions'].items() >= dict(fastai_discrim=__version__, fastai=fastai.__version__, torch=str(torch.__version__)).items()
    assert d['torch_seed'] == 11 and d['notes'] == {'seed': 11, 'data': 'points'} and d['lr'] is None
    assert d['optimiser'] == dict(name='Optimizer', opt_func='Adam', moms=[.95, .85, .95], wd=.2, sqr_mom=.99, eps=1e-5)
    assert d['train'] == dict(items=64, batches=8, batch_size=8) and d['valid'] == dict(items=16, batches=2, batch_size=8)
    assert d['callbacks']['gradient_clip'] == dict(max_norm=1., norm_type=2.) and d['callbacks']['plan_scheduler'] == {}
    epochs = [dict(epoch=e, train_loss=v[0], valid_loss=v[1], accuracy=v[2]) for e,v in enumerate(mlp.recorder.values)]
    assert d['phases'] == [dict(phase=1, epochs=epochs[:1]), dict(phase=2, epochs=epochs[1:])]

@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
def test_a_recorded_run_runs_again(tmp_path, make):
    a,b = make(tmp_path),make(tmp_path)
    set_seed(3)
    with a.no_bar(): a.fit_plan(a.ulmfit_plan(5, 2e-2))
    plan = Plan.from_json(a.recorder.save_run(tmp_path/'runs'/'a.json').read_text())
    set_seed(read(tmp_path/'runs'/'a.json')['torch_seed'])
    with b.no_bar(): b.fit_plan(plan)
    assert all(torch.equal(v, weights(b)[k]) for k,v in weights(a).items())
    first,second = a.recorder.run_record(),b.recorder.run_record()
    assert first['phases'] == second['phases'] and first['plan'] == second['plan']

@pytest.mark.all_rates
def test_how_the_heads_rate_was_found(clas):
    with clas.no_bar(), clas.no_logging(): clas.fit_ulmfit(5)
    d = read(clas.recorder.save_run())
    assert d['lr_from'].startswith('head_lr_find, ') and d['lr'] == d['plan']['lr'] == d['plan']['phases'][0]['lrs'][-1]
    assert len(d['plan']['tried']) >= 13
    assert d['plan']['tried'][0][0] <= d['lr'] <= d['plan']['tried'][-1][0]

def broken_off(error, epoch, at=3):
    class Break(Callback):
        def before_step(self):
            if self.epoch == epoch and self.iter == at: raise error
    return Break

def test_a_run_that_was_stopped(mlp):
    with pytest.raises(KeyboardInterrupt), mlp.no_bar(): mlp.fit_plan(PLAN, cbs=broken_off(KeyboardInterrupt, 1))
    d = read(mlp.recorder.save_run())
    assert d['finished'] is False and [len(p['epochs']) for p in d['phases']] == [1, 0] and Plan.from_json(json.dumps(d)) == PLAN
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=broken_off(CancelFitException, 2))
    d = mlp.recorder.run_record()
    assert d['finished'] is False and [len(p['epochs']) for p in d['phases']] == [1, 1]

def test_an_epoch_that_was_cut_short_has_no_misnamed_numbers(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN, cbs=broken_off(CancelTrainException, 1))
    rows = mlp.recorder.run_record()['phases'][1]['epochs']
    assert rows[0] == dict(epoch=1, incomplete=list(mlp.recorder.values[1])) and rows[1]['epoch'] == 2 and 'accuracy' in rows[1]

@pytest.mark.parametrize('lengths,want', [
    ((.5, 1, 1.5), [[], [0], [1, 2]]), ((.25, .25, .5, 1), [[], [], [0], [1]]), ((2.5, .5), [[0, 1], [2]]),
    # A sum of tenths is off 1 by 1e-16; a phase that ends at the last step of an epoch ends with it
    ((*[.1]*10, 1), [*[[]]*9, [0], [1]]), ((.99, 1.01), [[0], [1]]), ((1.01, .99), [[0], [1]])])
def test_an_epoch_counts_for_the_phase_that_it_ends_in(tmp_path, lengths, want):
    learn = make_mlp(tmp_path, n=160)
    with learn.no_bar(): learn.fit_plan(Plan([Phase(n, (2,), LRS) for n in lengths], 'abc'))
    d = read(learn.recorder.save_run())
    assert [[row['epoch'] for row in p['epochs']] for p in d['phases']] == want
    assert [p['phase'] for p in d['phases']] == list(range(1, len(lengths)+1))
    rows = [row for p in d['phases'] for row in p['epochs']]
    assert [row['valid_loss'] for row in rows] == [v[1] for v in learn.recorder.values]

def test_the_plan_of_the_last_fit_that_ran_one(mlp):
    for n,want in ((1, [[0], [1]]), (.5, [[], [0, 1]])):
        plan = Plan([Phase(n, (2,), LRS), Phase(2-n, (0, 1, 2), LRS)], 'abc')
        with mlp.no_bar(): mlp.fit_plan(plan)
        for fit in (mlp.fit, mlp.fit_one_cycle, mlp.fit_stlr):
            with mlp.no_bar(): fit(1)
            assert mlp.recorder.plan == plan and len(mlp.recorder.values) == 1
        assert [[row['epoch'] for row in p['epochs']] for p in mlp.recorder.run_record()['phases']] == want

def test_epochs_that_were_left_out(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN, start_epoch=2)
    d = mlp.recorder.run_record()
    assert [[r['epoch'] for r in p['epochs']] for p in d['phases']] == [[], [2]] and d['finished']

def test_nothing_to_validate_and_no_numbers(tmp_path, monkeypatch):
    # It would end the fit
    monkeypatch.setattr('fastai_discrim.run.loss_guard.LossGuard.check', lambda guard: None)
    learn = make_mlp(tmp_path)
    learn.dls.valid.dataset,learn.dls.valid.n = [],0
    learn.loss_func = lambda p,y: p.mean()*float('nan')
    with learn.no_bar(): learn.fit_plan(PLAN)
    d = read(learn.recorder.save_run())
    assert d['valid']['items'] == 0 and d['phases'][0]['epochs'] == [dict(epoch=0, train_loss='nan', valid_loss=None, accuracy=None)]

def test_a_fit_without_a_plan_has_no_record(mlp):
    for _ in range(2):
        with pytest.raises(ValueError, match='no fit of this learner ran a plan: expected `learn.fit_plan`'): mlp.recorder.run_record()
        with mlp.no_bar(): mlp.fit(1)
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    before = mlp.recorder.run_record()
    # A fit without a plan is stock fastai's, which knows nothing of the record
    with mlp.no_bar(): mlp.fit(1)
    assert mlp.recorder.run_record() == before and mlp.recorder.plan == PLAN

def test_it_does_not_go_with_an_export(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    # What `export` pickles of a callback
    assert not {'plan', 'ran'} & set(mlp.recorder.__getstate__()) and mlp.recorder.plan == PLAN

def test_numpy_in_the_notes_is_written(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    assert read(mlp.recorder.save_run('a.json', accuracy=np.float32(.5)))['notes'] == {'accuracy': .5}

def test_the_seed_is_that_of_the_beginning(tmp_path):
    learn = make_clas(tmp_path)
    torch.manual_seed(5)
    with learn.no_bar(): learn.fit_plan(learn.ulmfit_plan(5, 1e-2))
    torch.manual_seed(6)
    assert learn.recorder.run_record()['torch_seed'] == 5

def test_evaluation_before_it_is_saved(mlp):
    with mlp.no_bar():
        mlp.fit_plan(PLAN)
        before = mlp.recorder.run_record()
        mlp.validate()
        assert mlp.recorder.run_record() == before
        mlp.get_preds()
    assert mlp.recorder.run_record() == before and before['finished']

@pytest.mark.parametrize('opt,name', [(torch.optim.Adam, 'Adam'), (torch.optim.SGD, 'SGD'), (torch.optim.AdamW, 'AdamW')])
def test_optimisers_of_torch(tmp_path, opt, name):
    learn = make_mlp(tmp_path, opt_func=partial(OptimWrapper, opt=opt))
    with learn.no_bar(): learn.fit_plan(PLAN, wd=.3)
    d = read(learn.recorder.save_run())
    assert d['optimiser']['name'] == name and d['optimiser']['opt_func'] == f'OptimWrapper({name})' and d['optimiser']['wd'] == .3

def test_the_rate_is_that_of_its_origin(clas):
    found = HeadLR(3e-3, [1e-3, 3e-3], [.5, .4], 'as told')
    for name,lr in (('tutorial_clas', None), ('notebook_clas', None), ('tutorial_clas', found)):
        plan = recipes[name].plan(lr=lr)
        with clas.no_bar(), clas.no_logging(): clas.fit_plan(Plan(plan.phases[-1:], plan.names, plan.lr, plan.lr_from))
        d = clas.recorder.run_record()
        assert (d['lr'], d['lr_from']) == ((1e-2, 'as published') if lr is None else (3e-3, 'head_lr_find, as told'))

def test_metrics_of_one_name_and_of_several_numbers(mlp):
    mlp.metrics = [F1Score(average='macro'), F1Score(average='micro'), F1Score(average=None)]
    with mlp.no_bar(), mlp.no_logging(): mlp.fit_plan(PLAN)
    row = read(mlp.recorder.save_run())['phases'][1]['epochs'][-1]
    want = mlp.recorder.values[-1]
    assert [row['f1_score'], row['f1_score 2'], row['f1_score 3']] == [want[2], want[3], list(want[4])]

def test_a_metric_that_is_no_number(mlp):
    "What fastai's `fit` takes ends no plan"
    def table(x, y): return pd.DataFrame({'a': [1]})
    mlp.metrics = [AccumMetric(table, flatten=False)]
    with mlp.no_bar(), mlp.no_logging(): mlp.fit_plan(PLAN)
    row = read(mlp.recorder.save_run())['phases'][1]['epochs'][-1]
    assert row['table'] == str(pd.DataFrame({'a': [1]})) and row['valid_loss'] == mlp.recorder.values[-1][1]

@pytest.mark.parametrize('raises', [False, True])
def test_data_without_a_length(mlp, raises):
    ds = list(mlp.dls.train.dataset)
    class Items:
        def __getitem__(self, i): return ds[i]
    if raises: Items.__len__ = lambda self: len(iter(ds))
    mlp.dls = DataLoaders(DataLoader(Items(), bs=8, n=64), DataLoader(Items(), bs=8, n=16))
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    d = mlp.recorder.run_record()
    assert d['train'] == dict(items=None, batches=8, batch_size=8) and d['valid'] == dict(items=None, batches=2, batch_size=8)
    assert mlp.head_lr_find(show_plot=False).lr > 0

def test_notes(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    notes = dict(path=Path('a'), n=np.int64(3), x=float('nan'), more=[{'t': torch.tensor([1., 2.])}, (1, None)])
    d = read(mlp.recorder.save_run(**notes))
    assert d['notes'] == dict(path='a', n=3, x='nan', more=[{'t': [1., 2.]}, [1, None]]) and type(d['notes']['n']) is int
    with pytest.raises(TypeError, match='model has a Linear: expected numbers, text, paths'): mlp.recorder.save_run(model=mlp.model[0])

def test_nothing_ran(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN, start_epoch=3)
    assert mlp.recorder.run_record()['finished'] is False

def test_loaders_of_torch_and_one_alone(mlp):
    ds = list(mlp.dls.train.dataset)
    mlp.dls = DataLoaders(TorchLoader(ds, 8), TorchLoader(ds[:16], 4))
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    assert mlp.recorder.run_record()['valid'] == dict(items=16, batches=4, batch_size=4)
    mlp.dls.loaders = mlp.dls.loaders[:1]
    d = mlp.recorder.run_record()
    assert d['train'] == dict(items=64, batches=8, batch_size=8) and d['valid'] is None

def test_without_a_recorder(mlp):
    mlp.remove_cbs([mlp.recorder, *[cb for cb in mlp.cbs if cb.name == 'progress']])
    mlp.fit_plan(PLAN)
    assert mlp.opt.hypers[-1]['lr'] < 1e-2
