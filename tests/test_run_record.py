"What a run leaves behind, and that it runs again from it"
import json
from pathlib import Path

import fastai
import numpy as np
import pytest
import torch
from conftest import MAKERS, make_clas, make_mlp, weights
from fastai.callback.core import Callback, CancelFitException, CancelTrainException
from fastai.callback.training import GradientClip
from fastai.torch_core import set_seed

from fastai_discrim import __version__
from fastai_discrim.plan import Phase, Plan

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
    assert d['torch_seed'] == 11 and d['notes'] == {'seed': 11, 'data': 'points'} and d['eta_L'] == 1e-2
    assert d['optimiser'] == dict(name='Optimizer', opt_func='Adam', moms=[.95, .85, .95], wd=.2, sqr_mom=.99, eps=1e-5)
    assert d['train'] == dict(items=64, batches=8, batch_size=8) and d['valid'] == dict(items=16, batches=2, batch_size=8)
    assert {'gradient_clip', 'plan_scheduler'} <= set(d['callbacks'])
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

def test_how_the_heads_rate_was_found(clas):
    with clas.no_bar(), clas.no_logging(): clas.fit_ulmfit(5)
    d = read(clas.recorder.save_run())
    assert d['eta_L_from'].startswith('head_lr_find, ') and d['eta_L'] == d['plan']['phases'][0]['lrs'][-1]
    assert len(d['plan']['tried']) >= 13
    assert d['plan']['tried'][0][0] <= d['eta_L'] <= d['plan']['tried'][-1][0]

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

def test_epochs_that_were_left_out(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN, start_epoch=2)
    d = mlp.recorder.run_record()
    assert [[r['epoch'] for r in p['epochs']] for p in d['phases']] == [[], [2]] and d['finished']

def test_nothing_to_validate_and_no_numbers(tmp_path):
    learn = make_mlp(tmp_path)
    learn.dls.valid.dataset,learn.dls.valid.n = [],0
    learn.loss_func = lambda p,y: p.mean()*float('nan')
    with learn.no_bar(): learn.fit_plan(PLAN)
    d = read(learn.recorder.save_run())
    assert d['valid']['items'] == 0 and d['phases'][0]['epochs'] == [dict(epoch=0, train_loss='nan', valid_loss=None, accuracy=None)]

def test_a_fit_without_a_plan_has_no_record(mlp):
    for _ in range(2):
        with pytest.raises(ValueError, match='ran no plan: expected `learn.fit_plan`'): mlp.recorder.run_record()
        with mlp.no_bar(): mlp.fit_plan(PLAN); mlp.fit(1)

def test_it_does_not_go_with_an_export(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    # What `export` pickles of a callback
    assert not {'plan', 'torch_seed', 'callbacks'} & set(mlp.recorder.__getstate__()) and mlp.recorder.plan == PLAN

def test_numpy_in_the_notes_is_written(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    assert read(mlp.recorder.save_run('a.json', accuracy=np.float32(.5)))['notes'] == {'accuracy': .5}

def test_the_seed_is_that_of_the_beginning(tmp_path):
    learn = make_clas(tmp_path)
    torch.manual_seed(5)
    with learn.no_bar(): learn.fit_plan(learn.ulmfit_plan(5, 1e-2))
    torch.manual_seed(6)
    assert learn.recorder.run_record()['torch_seed'] == 5
