"A checkpoint of another run is refused, before anything changes, and says what is different"
from functools import partial

import numpy as np
import pytest
import torch
from conftest import StopAt, make_mlp, same, snapshot
from fastai.callback.mixup import MixUp
from fastai.losses import LabelSmoothingCrossEntropyFlat
from fastai.metrics import accuracy, error_rate
from fastai.optimizer import Adam, OptimWrapper
from run.resumed import plan_of

from fastai_discrim.run.run_identity import check_same_run, func_name, run_identity


def _cut(model, *at):
    ps = list(model.parameters())
    return [ps[a:b] for a,b in zip((0, *at), (*at, None))]

OTHERS = {
    'plan': (lambda l: l, lambda l: l.ulmfit_plan(4, 2e-2), r'its plan is\n.*1.00e-02.*\nand this one\n.*2.00e-02'),
    'parameters': (lambda l: l.model.__setitem__(0, torch.nn.Linear(4, 9)), None, 'parameters: 130 in 6 .* there, 135 in 6 '),
    'training items': (lambda l: setattr(l.dls.train, 'dataset', l.dls.train.dataset[:60]), None, 'training items: 64 there, 60 here'),
    'batch size': (lambda l: setattr(l.dls.train, 'bs', 7), None, 'batch size: 8 there, 7 here'),
    'vocabulary': (lambda l: setattr(l.dls, 'vocab', ['a', 'b']), None, r'vocabulary: None there, 2 entries, \w+ here'),
    'optimiser': (lambda l: setattr(l, 'opt_func', torch.optim.SGD), None, 'optimiser: Adam there, SGD here'),
    'buffers': (lambda l: l.model.register_buffer('b', torch.zeros(2)), None, 'buffers: 0 in 0 tensors, .* there, 2 in 1 tensors'),
    'weight decay': (lambda l: setattr(l, 'wd', .3), None, 'weight decay: None there, 0.3 here'),
    'loss function': (lambda l: setattr(l, 'loss_func', LabelSmoothingCrossEntropyFlat()), None,
                      'loss function: CrossEntropyLoss there, LabelSmoothingCrossEntropy here'),
    'metrics': (lambda l: setattr(l, 'metrics', [error_rate, accuracy]), None,
                r"metrics: \['accuracy'\] there, \['error_rate', 'accuracy'\] here"),
    'layer groups': (lambda l: setattr(l, 'splitter', lambda m: _cut(m, 3, 4)), None,
                     r'layer groups: \[2, 2, 2\] there, \[3, 1, 2\] here'),
    'momentum': (lambda l: setattr(l, 'moms', (.9, .8, .9)), None, r'momentum: \[0.95, 0.85, 0.95\] there, \[0.9, 0.8, 0.9\] here'),
}

@pytest.mark.parametrize('change,plan,match', OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, plan, match):
    def make():
        learn = make_mlp(tmp_path)
        return learn,learn.ulmfit_plan(4, 1e-2)
    learn,the_plan = make()
    with learn.no_bar(): learn.fit_plan(the_plan, checkpoint='a')
    other,the_plan = make()
    change(other)
    before,state = snapshot(other),torch.get_rng_state()
    with pytest.raises(ValueError, match=f'(?s)a.ckpt belongs to another run: .*{match}.*expected the same; give this run another name'):
        other.fit_plan(plan(other) if plan else the_plan, checkpoint='a')
    assert same(before, snapshot(other)) and torch.equal(state, torch.get_rng_state())

def test_a_weight_decay_for_each_group_is_compared(tmp_path):
    def run(wd, name='a'):
        learn = make_mlp(tmp_path)
        with learn.no_bar(): learn.fit_plan(learn.ulmfit_plan(3, 1e-2), wd=np.array(wd) if name == 'a' else wd, checkpoint=name)
    for _ in range(2): run([.1, .2, .3])
    for _ in range(2): run(slice(.01, .1), 'b')
    with pytest.raises(ValueError, match=r'weight decay: \[0.1, 0.2, 0.3\] there, \[0.1, 0.2, 0.4\] here'): run([.1, .2, .4])

def test_after_ctrl_c_in_a_stock_fit_mixup_leaves_its_loss(tmp_path):
    "A run has that of the learner all the same"
    learn = make_mlp(tmp_path)
    with learn.no_bar(), pytest.raises(KeyboardInterrupt): learn.fit(3, cbs=[MixUp(), StopAt(2, 4)])
    assert func_name(learn.loss_func) == 'lf' and run_identity(learn, plan_of(learn))['loss function'] == 'CrossEntropyLoss'

def test_names_of_functions():
    class Own: pass
    wrapped = partial(OptimWrapper, opt=torch.optim.AdamW)
    assert [func_name(f) for f in (Adam, wrapped, accuracy, partial(Adam, mom=.9))] == ['Adam', 'OptimWrapper(AdamW)', 'accuracy', 'Adam']
    assert func_name(torch.nn.CrossEntropyLoss()) == 'CrossEntropyLoss' and func_name(Own()) == 'Own'

def test_the_same_run_has_the_same_identity(tmp_path):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    before = run_identity(a, plan_of(a))
    # What training changes is no part of it
    with a.no_bar(): a.fit(1)
    assert run_identity(a, plan_of(a)) == before == run_identity(b, plan_of(b))
    assert {type(v) for v in before.values()} <= {str, int, float, list, type(None)}
    check_same_run(tmp_path/'r.ckpt', before, before)

def test_more_than_one_difference_is_said(mlp, tmp_path):
    before = run_identity(mlp, plan_of(mlp))
    mlp.moms,mlp.wd = (.9, .8, .9),.3
    with pytest.raises(ValueError, match=r'weight decay: None there, 0.3 here; momentum: \[0.95, .* there, \[0.9, 0.8, 0.9\] here: exp'):
        check_same_run(tmp_path/'r.ckpt', before, run_identity(mlp, plan_of(mlp)))

@pytest.mark.parametrize('wd,want', [(None, .01), (.2, .2), ([.1, .2, .3], [.1, .2, .3]), (slice(.01, .1), [.01, .1])])
def test_weight_decay_is_that_of_the_fit(tmp_path, wd, want):
    learn = make_mlp(tmp_path, wd=.01)
    assert run_identity(learn, plan_of(learn), wd=wd)['weight decay'] == want

def test_a_plan_of_another_length_within_an_epoch(mlp, tmp_path):
    plans = [mlp.ulmfit_plan(3, 1e-2, gradual=True, epochs=n) for n in (.3, .4)]
    with pytest.raises(ValueError, match=r'(?s)its plan is\n.*0\.3 .*and this one\n.*0\.4 '):
        check_same_run(tmp_path/'r.ckpt', *(run_identity(mlp, plan) for plan in plans))
