"List, check and change the layer groups of a learner"
from functools import partial

import pytest
import torch
from conftest import make_mlp, needs_stock_export_transforms, same, snapshot
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders, Datasets
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD, OptimWrapper, ranger
from fastai.torch_core import params, set_seed, trainable_params
from fastai.vision.learner import vision_learner
from fastcore.foundation import L
from torch import nn
from torchvision.models import resnet18

from fastai_discrim.callbacks.base import GroupCallback
from fastai_discrim.groups.layer_groups import check_groups, own_lr
from fastai_discrim.groups.split import layerwise_split

OPTS = dict(adam={}, sgd=dict(opt_func=partial(SGD, mom=.9)), ranger=dict(opt_func=ranger),
            torch=dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)))

def test_layer_groups_table(clas):
    t = clas.layer_groups()
    assert t.modules.tolist() == ['0.module.encoder', '0.module.rnns.0', '0.module.rnns.1', '0.module.rnns.2', '1']
    assert t.parameters.sum() == sum(p.numel() for p in clas.model.parameters()) and (t.training == t.parameters).all()
    clas.freeze_to(-2)
    t = clas.layer_groups()
    assert t.training.tolist() == [0, 0, 0, *t.parameters[-2:]] and t.lr.tolist() == [clas.lr]*5
    assert '<table' in t._repr_html_() and '0.module.rnns.2' in t._repr_html_()

def test_layer_groups_names_a_tied_weight_once(lm):
    assert lm.layer_groups().modules.tolist() == ['0.rnns.0', '0.rnns.1', '0.rnns.2', '0.encoder, 1']

def test_layer_groups_of_an_undivided_learner(tmp_path):
    assert make_mlp(tmp_path, splitter=trainable_params).layer_groups().modules.tolist() == ['0, 2, 4']

SPLITTERS = {
    'tuples': (lambda m: [tuple(m[0].parameters()), tuple(m[2:].parameters())], TypeError, 'made of tuple'),
    'generators': (lambda m: [m[0].parameters(), m[2:].parameters()], TypeError, 'made of generator'),
    'modules': (lambda m: [m[0], m[2:]], TypeError, 'made of'),
    'left out': (lambda m: [params(m[0]), params(m[4])], ValueError, r'leaves out 2 of 6 parameters \(2.weight, 2.bias\)'),
    'doubled': (lambda m: [params(m[0]), params(m[2:])+params(m[0])], ValueError, r'repeats 2 of 6 parameters \(0.weight, 0.bias\)'),
    'an empty group': (lambda m: L(m[0], m[1], m[2:]).map(params), ValueError, 'gives no parameters in layer group 1: '),
    'foreign': (lambda m: [params(m), params(nn.Linear(1, 1))], ValueError, 'has 2 parameters that are not in the model: expected'),
    'one group': (lambda m: [params(m)], ValueError, r'gives 1 layer group, expected at least 2: .*splitter=layerwise_split'),
    'the default': (trainable_params, ValueError, 'gives 1 layer group, expected at least 2'),
}

CALLS = {
    'plan': lambda learn: learn.ulmfit_plan(3, 1e-2),
    'fit_ulmfit': lambda learn: learn.fit_ulmfit(3, 1e-2),
    'head_lr_find': lambda learn: learn.head_lr_find(),
}

@pytest.mark.parametrize('call', CALLS.values(), ids=CALLS)
@pytest.mark.parametrize('case', SPLITTERS.values(), ids=SPLITTERS)
def test_bad_splitters_are_refused_before_anything_changes(tmp_path, case, call):
    splitter,error,match = case
    learn = make_mlp(tmp_path, splitter=splitter)
    before = snapshot(learn)
    with pytest.raises(error, match=match): call(learn)
    assert same(before, snapshot(learn)) and learn.opt is None

@pytest.mark.parametrize('name', ['left out', 'doubled', 'an empty group', 'one group', 'the default'])
def test_bad_splitters_are_refused_in_a_stock_fit(tmp_path, name):
    splitter,error,match = SPLITTERS[name]
    learn = make_mlp(tmp_path, splitter=splitter)
    learn.create_opt()
    before = snapshot(learn)
    with pytest.raises(error, match=match), learn.no_bar(): learn.fit(1, cbs=GroupCallback)
    after = snapshot(learn)
    assert all(map(torch.equal, before[0], after[0])) and before[1] == after[1] and len(before[3]) == len(after[3])

def test_groups_of_a_built_torch_optimizer(tmp_path):
    learn = make_mlp(tmp_path)
    opt = torch.optim.AdamW([dict(params=params(learn.model[0])), dict(params=params(learn.model[2:]))], lr=1e-2)
    learn = Learner(learn.dls, learn.model, loss_func=CrossEntropyLossFlat(), opt_func=OptimWrapper(opt=opt), path=tmp_path)
    assert check_groups(learn).map(len) == [2, 4]

def test_the_groups_are_those_of_the_optimiser_once_it_exists(mlp):
    mlp.create_opt()
    mlp.splitter = lambda m: L(m[:3], m[3:]).map(params)
    assert len(check_groups(mlp)) == 3 and len(check_groups(mlp, reset_opt=True)) == 2

@pytest.mark.parametrize('n', [0, -1, 2.5])
def test_a_refused_fit_does_not_block_what_comes_after(mlp, n):
    "fastai keeps the `n_epoch` of a refused fit, and its `validate` never gives back the lock if `before_fit` raises"
    mlp.add_cb(GroupCallback())
    with mlp.no_bar():
        with pytest.raises((ValueError, TypeError), match=f'n_epoch={n!r}: expected'): mlp.fit(n)
        assert len(mlp.validate()) == 2 and len(mlp.get_preds()) == 2
        mlp.fit(1)

def test_layer_groups_makes_no_optimiser(mlp):
    assert mlp.layer_groups().lr.tolist() == [mlp.lr]*3 and mlp.opt is None

def three(m): return L(m[0], m[2], m[4]).map(params)
def two(m): return L(m[:4], m[4]).map(params)

@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
@pytest.mark.parametrize('state', ['new', 'trained', 'frozen'])
def test_regroup_equals_a_learner_with_these_groups_from_the_start(tmp_path, opt, state):
    a,b = make_mlp(tmp_path, splitter=two, **opt),make_mlp(tmp_path, splitter=three, **opt)
    for learn in (a, b):
        set_seed(4)
        with learn.no_bar(),learn.no_logging():
            if state != 'new': learn.fit(2, 1e-2)
            if state == 'frozen': learn.freeze()
            if learn is a and state != 'frozen': assert learn.regroup(three) is learn
            if state == 'frozen':
                # `Learner.freeze` wipes the state of the optimiser
                learn.opt.freeze_to(-1)
                learn.fit(1, 1e-2)
                if learn is a: learn.regroup(three)
            if learn is a: assert len(learn.opt.hypers) == 3 and learn.opt.frozen_idx == (2 if state == 'frozen' else 0)
            learn.fit(1, 1e-2)
    assert all(map(torch.equal, a.model.parameters(), b.model.parameters())) and [p.requires_grad for p in a.model.parameters()] == [
        p.requires_grad for p in b.model.parameters()]

# A function at module level, so that the export can pickle it
def an_image(i): return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i))
def a_label(i): return torch.tensor(i % 2)

def make_vision(path):
    ds = Datasets(range(4), [[an_image], [a_label]])
    dls = DataLoaders.from_dsets(ds, ds, bs=4, device='cpu', num_workers=0)
    dls.c = 2
    return vision_learner(dls, resnet18, pretrained=False, loss_func=CrossEntropyLossFlat(), path=path)

def test_regroup_a_vision_learner(tmp_path):
    learn = make_vision(tmp_path)
    learn.freeze()
    was = [p.requires_grad for p in learn.model.parameters()]
    assert len(learn.opt.param_lists) == 3 and len(learn.regroup().opt.param_lists) == 10
    assert [p.requires_grad for p in learn.model.parameters()] == was and learn.opt.frozen_idx == 9
    assert learn.layer_groups().training.tolist()[-1] == learn.layer_groups().parameters.tolist()[-1]
    learn.unfreeze()
    assert all(p.requires_grad for p in learn.model.parameters())
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(2, 1e-3, gradual=False)
    assert learn.recorder.group_lrs.shape[1] == 10

def test_regroup_an_exported_learner(tmp_path):
    needs_stock_export_transforms()
    learn = make_vision(tmp_path).regroup()
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(2, 1e-3, gradual=False)
    learn.export('a.pkl')
    again = load_learner(tmp_path/'a.pkl')
    assert len(again.regroup(n_groups=5).opt.param_lists) == 5 == len(again.regroup(partial(layerwise_split, n_groups=5)).opt.param_lists)
    assert all(map(torch.equal, learn.model.parameters(), again.model.parameters()))

def test_regroup_gives_a_learner_without_groups_its_layers(tmp_path):
    learn = make_mlp(tmp_path, splitter=trainable_params)
    learn.model[0].requires_grad_(False)
    learn.create_opt()
    learn.regroup()
    assert len(learn.opt.param_lists) == 3 and learn.opt.frozen_idx == 0 and not learn.model[0].weight.requires_grad

def test_regroup_gives_lookahead_its_missing_slow_weights(tmp_path):
    learn = make_mlp(tmp_path, splitter=trainable_params, opt_func=ranger)
    learn.model[0].requires_grad_(False)
    with learn.no_bar(),learn.no_logging():
        learn.fit(1, 1e-2)
        slow = dict(zip(learn.opt.param_lists[0], learn.opt.slow_weights[0]))
        learn.regroup()
        pairs = [o for ps,ss in zip(learn.opt.param_lists, learn.opt.slow_weights) for o in zip(ps, ss)]
        assert len(slow) == 4 and len(pairs) == 6 and all(s is not p and torch.equal(s, slow.get(p, p)) for p,s in pairs)
        learn.fit(1, 1e-2)

@pytest.mark.parametrize('case', [c for n,c in SPLITTERS.items() if n not in ('one group', 'the default')])
def test_regroup_refuses_before_anything_changes(tmp_path, case):
    splitter,error,match = case
    learn = make_mlp(tmp_path)
    with learn.no_bar(),learn.no_logging(): learn.fit(1, 1e-2)
    before,opt,was = snapshot(learn),learn.opt,learn.splitter
    with pytest.raises(error, match=match) as e: learn.regroup(splitter)
    assert same(before, snapshot(learn)) and learn.opt is opt and learn.splitter is was
    # A new optimiser would still have the old splitter
    assert 'learn.create_opt()' not in str(e.value)

def test_regroup_refuses_a_ready_optimiser(tmp_path):
    learn = make_mlp(tmp_path)
    learn.opt_func = OptimWrapper(opt=torch.optim.SGD(learn.model.parameters(), lr=.1))
    with pytest.raises(ValueError, match='opt_func is an optimiser with groups of its own: expected a function'): learn.regroup()

def test_regroup_in_the_middle_of_unfreezing_leaves_no_layer_frozen_for_good(tmp_path):
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)], nn.Linear(4, 2))
    learn = Learner(make_mlp(tmp_path).dls, model, splitter=layerwise_split, loss_func=CrossEntropyLossFlat(), path=tmp_path)
    class Stop(Callback):
        def before_batch(self):
            if self.epoch == 2: raise KeyboardInterrupt
    with learn.no_bar(),learn.no_logging():
        with pytest.raises(KeyboardInterrupt): learn.fit_ulmfit(6, 1e-2, epochs=1, cbs=Stop())
        model[4].bias.requires_grad_(False)
        learn.regroup(n_groups=3)
        # The head, and the three layers above the lowest two, of which two had opened
        assert [all(p.requires_grad for p in g) for g in learn.opt.param_lists] == [False, False, True]
        assert [p.requires_grad for p in learn.opt.param_lists[1]] == [True]*3 + [False]
        with pytest.warns(UserWarning, match=r'1 parameters are frozen by hand, and stay so \(4.bias\)'): learn.fit_ulmfit(3, 1e-2)
    assert [n for n,p in model.named_parameters() if not p.requires_grad] == ['4.bias']

def test_regroup_unfreezes_a_partly_frozen_group_except_what_was_frozen_by_hand(tmp_path):
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)], nn.Linear(4, 2))
    learn = Learner(make_mlp(tmp_path).dls, model, splitter=layerwise_split, loss_func=CrossEntropyLossFlat(), path=tmp_path)
    learn.create_opt()
    learn.opt.freeze_to(-2)
    model[4].bias.requires_grad_(False)
    learn.regroup(n_groups=3)
    # The middle group has a layer that was frozen, and one that trained
    assert [[p.requires_grad for p in g] for g in learn.opt.param_lists] == [[False]*6, [True]*3 + [False], [True]*2]
    assert learn.opt.frozen_idx == 1

def test_one_group_may_leave_out_frozen_parameters_as_fastais_default_splitter_does(tmp_path):
    learn = make_mlp(tmp_path, splitter=trainable_params)
    learn.model[0].requires_grad_(False)
    assert check_groups(learn, at_least=1).map(len) == [4] and len(learn.layer_groups()) == 1

def test_regroup_expects_a_function(mlp):
    with pytest.raises(TypeError, match='splitter=5: expected a function of a model; .*use `n_groups=5`'): mlp.regroup(5)

def test_regroup_keeps_state_that_belongs_to_no_single_parameter(tmp_path):
    learn = make_mlp(tmp_path, **OPTS['torch'])
    learn.create_opt()
    learn.opt.opt.state['a mark'] = [learn.model[0].weight]
    learn.regroup(two)
    assert learn.opt.opt.state['a mark'] == [learn.model[0].weight]

def test_regroup_gives_each_group_the_rate_of_its_last_layer(mlp):
    mlp.create_opt()
    mlp.opt.set_hyper('lr', [1e-4, 1e-3, 1e-2])
    assert [h['lr'] for h in mlp.regroup(two).opt.hypers] == [1e-3, 1e-2]
    assert [h['lr'] for h in mlp.regroup(three).opt.hypers] == [1e-3, 1e-3, 1e-2]

def test_own_lr_is_that_of_the_optimiser_that_the_fit_creates(tmp_path):
    learn = make_mlp(tmp_path, lr=3e-3)
    assert own_lr(learn) == 3e-3
    learn = make_mlp(tmp_path, lr=3e-3, opt_func=partial(SGD, lr=.5))
    assert own_lr(learn) == .5
    learn.create_opt()
    assert own_lr(learn) == learn.lr == .5
    learn.lr = 1e-2
    assert own_lr(learn) == 1e-2 and own_lr(learn, reset_opt=True) == .5
