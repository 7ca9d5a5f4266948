"Tell whether a group trains apart from norm layers, which `train_bn` keeps training in frozen groups"
import pytest
from conftest import make_mlp
from fastai.torch_core import params
from torch import nn

from fastai_discrim.groups.norms import group_trains, norm_ids


def test_norm_layers_are_found_whatever_wraps_the_model():
    m = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2)))
    want = {id(p) for p in [*params(m[1]), *params(m[2][0])]}
    assert norm_ids(m) == want == norm_ids(nn.DataParallel(m))

def test_group_trains_ignores_norm_layers_that_train_bn_keeps(tmp_path):
    learn = make_mlp(tmp_path, norm=True)
    learn.freeze()
    assert any(p.requires_grad for p in learn.opt.param_lists[1])
    assert [group_trains(g, norm_ids(learn.model)) for g in learn.opt.param_lists] == [False, False, True]

@pytest.mark.parametrize('linear', [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize('norm', [(False, False), (True, False), (False, True), (True, True)])
def test_a_group_trains_iff_one_of_its_parameters_outside_of_norms_does(linear, norm):
    m = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for p,rg in zip(m.parameters(), linear+norm): p.requires_grad_(rg)
    for group in (params(m), params(m)[::-1]): assert group_trains(group, norm_ids(m)) is any(linear)

@pytest.mark.parametrize('norm', [(False,)*4, (True, False, False, False), (False, False, False, True), (True,)*4])
def test_a_group_of_norm_layers_only_trains_iff_one_of_its_parameters_does(norm):
    m = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.LayerNorm(2))
    for p,rg in zip(params(m[1:]), norm): p.requires_grad_(rg)
    assert group_trains(params(m[1:]), norm_ids(m)) is any(norm)

@pytest.mark.parametrize('train_bn', [True, False])
def test_a_frozen_group_of_norm_layers_only_trains_where_train_bn_keeps_it_training(tmp_path, train_bn):
    def splitter(m): return [params(m[:3]), params(m[3]), params(m[4:])]
    learn = make_mlp(tmp_path, norm=True, splitter=splitter, train_bn=train_bn)
    learn.freeze()
    assert [group_trains(g, norm_ids(learn.model)) for g in learn.opt.param_lists] == [False, train_bn, True]
    learn.unfreeze()
    assert all(group_trains(g, norm_ids(learn.model)) for g in learn.opt.param_lists)

def test_an_empty_group_does_not_train(): assert not group_trains([], frozenset())
