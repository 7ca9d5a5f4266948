"Layer groups: an exact partition, input first, head last; and what is refused"
import pytest
import torch
from conftest import make_mlp, same, snapshot
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import OptimWrapper
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_clas_split, awd_lstm_lm_config, awd_lstm_lm_split
from fastai.text.models.core import get_language_model, get_text_classifier
from fastai.torch_core import params, trainable_params
from fastai.vision.models.xresnet import xresnet18
from fastcore.foundation import L
from torch import nn

from fastai_discrim.groups import GroupCallback, check_groups, group_labels, group_trains, layerwise_split, norm_ids

CFG = dict(emb_sz=8, n_hid=12)

def ids(groups): return [[id(p) for p in g] for g in groups]

def is_partition(model, groups):
    flat = [id(p) for g in groups for p in g]
    return len(flat) == len(set(flat)) and set(flat) == {id(p) for p in model.parameters()} and all(len(g) for g in groups)

@pytest.mark.parametrize('kw', [{}, dict(bidir=True), dict(n_layers=4), dict(n_layers=1)])
def test_text_classifier_is_as_fastai_splits_it(kw):
    m = get_text_classifier(AWD_LSTM, 20, 2, config=dict(awd_lstm_clas_config, **CFG, **kw))
    groups = layerwise_split(m)
    assert ids(groups) == ids(awd_lstm_clas_split(m)) and is_partition(m, groups)
    assert len(groups) == kw.get('n_layers', 3) + 2

@pytest.mark.parametrize('kw', [{}, dict(tie_weights=False), dict(out_bias=False), dict(n_layers=2)])
def test_language_model_is_as_fastai_splits_it(kw):
    m = get_language_model(AWD_LSTM, 20, config=dict(awd_lstm_lm_config, **CFG, **kw))
    groups = layerwise_split(m)
    assert ids(groups) == ids(awd_lstm_lm_split(m)) and is_partition(m, groups)
    assert len(groups) == kw.get('n_layers', 3) + 1

def test_it_changes_nothing():
    m = get_language_model(AWD_LSTM, 20, config=dict(awd_lstm_lm_config, **CFG))
    next(m.parameters()).requires_grad_(False)
    before = {k:v.clone() for k,v in m.state_dict().items()},[p.requires_grad for p in m.parameters()],torch.get_rng_state()
    assert ids(layerwise_split(m)) == ids(layerwise_split(m))
    assert all(torch.equal(v, before[0][k]) for k,v in m.state_dict().items()) and [p.requires_grad for p in m.parameters()] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])

def linears(n): return [nn.Linear(2, 2) for _ in range(n)]

def test_sequential_one_group_a_layer():
    a,b,c = linears(3)
    assert ids(layerwise_split(nn.Sequential(a, nn.ReLU(), b, nn.Dropout(), c, nn.Softmax(1)))) == ids(map(params, (a, b, c)))

def test_sequential_norms_go_with_their_layer():
    a,b = linears(2)
    n1,n2,n3 = (nn.BatchNorm1d(2) for _ in range(3))
    m = nn.Sequential(n1, a, n2, nn.ReLU(), b, n3)
    assert ids(layerwise_split(m)) == ids([params(n1)+params(a)+params(n2), params(b)+params(n3)])
    wrapped = nn.Sequential(a, nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()), b)
    assert layerwise_split(wrapped).map(len) == [4, 2]

def test_sequential_body_is_opened_the_head_stays_whole():
    a,b,c,d,e = linears(5)
    m = nn.Sequential(nn.Sequential(a, nn.Sequential(b, c)), nn.Sequential(d, nn.ReLU(), e))
    assert ids(layerwise_split(m)) == ids([params(a), params(b), params(c), params(d)+params(e)])
    assert ids(layerwise_split(nn.Sequential(m, nn.Identity()))) == ids(layerwise_split(m))

def test_tied_weight_is_in_the_last_layer_that_has_it():
    emb,rnn,dec = nn.Embedding(5, 3),nn.Linear(3, 3),nn.Linear(3, 5)
    dec.weight = emb.weight
    m = nn.Sequential(emb, rnn, dec)
    assert ids(layerwise_split(m)) == ids([params(rnn), params(dec)]) and is_partition(m, layerwise_split(m))
    assert ids(layerwise_split(nn.Sequential(rnn, emb, rnn))) == ids([params(emb), params(rnn)])

def test_parameters_of_the_root_go_with_the_input():
    class Tokens(nn.Sequential):
        def __init__(self, *args):
            super().__init__(*args)
            self.cls = nn.Parameter(torch.zeros(2))
    m = Tokens(*linears(3))
    groups = layerwise_split(m)
    assert len(groups) == 3 and groups[0][0] is m.cls and is_partition(m, groups)
    m = nn.Sequential(Tokens(*linears(2)), *linears(1))
    assert len(layerwise_split(m)) == 3 and is_partition(m, layerwise_split(m))

def test_frozen_parameters_keep_their_place():
    m = nn.Sequential(*linears(3))
    m[0].requires_grad_(False)
    assert is_partition(m, layerwise_split(m)) and len(layerwise_split(m)) == 3

def test_xresnet_one_group_a_block():
    m = xresnet18(n_out=3)
    groups = layerwise_split(m)
    assert is_partition(m, groups) and len(groups) == 3 + 8 + 1 and ids(groups[-1:]) == ids([params(m[-1])])

def test_other_models_are_refused_with_what_was_found():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem,self.head = linears(2)
    with pytest.raises(ValueError, match=r'not in Net \(its children: stem \(Linear\), head \(Linear\)\): write a splitter'):
        layerwise_split(Net())
    with pytest.raises(ValueError, match='with parameters, not in Sequential'): layerwise_split(nn.Sequential(nn.ReLU()))

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

def test_labels(clas, lm):
    assert group_labels(clas, check_groups(clas)) == ['encoder', 'rnns.0', 'rnns.1', 'rnns.2', 'head']
    assert group_labels(lm, check_groups(lm)) == ['rnns.0', 'rnns.1', 'rnns.2', 'head']

def test_group_trains_ignores_norm_layers_that_train_bn_keeps(tmp_path):
    learn = make_mlp(tmp_path, norm=True)
    learn.freeze()
    assert any(p.requires_grad for p in learn.opt.param_lists[1])
    assert [group_trains(g, norm_ids(learn.model)) for g in learn.opt.param_lists] == [False, False, True]

SPLITTERS = {
    'tuples': (lambda m: [tuple(m[0].parameters()), tuple(m[2:].parameters())], TypeError, 'made of tuple'),
    'generators': (lambda m: [m[0].parameters(), m[2:].parameters()], TypeError, 'made of generator'),
    'modules': (lambda m: [m[0], m[2:]], TypeError, 'made of'),
    'left out': (lambda m: [params(m[0]), params(m[4])], ValueError, r'leaves out 2 of 6 parameters \(2.weight, 2.bias\)'),
    'doubled': (lambda m: [params(m[0]), params(m[2:])+params(m[0])], ValueError, r'has twice 2 of 6 parameters \(0.weight, 0.bias\)'),
    'an empty group': (lambda m: L(m[0], m[1], m[2:]).map(params), ValueError, 'gives a layer group, 1, without parameters'),
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

def test_the_optimiser_is_what_counts_once_it_is_there(mlp):
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
