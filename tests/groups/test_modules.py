"Kinds of modules, by class, by forward and by name"
import pytest
import torch
from groups.small_models import Net, linears
from torch import nn

from fastai_discrim.groups.modules import (
    children_with_params,
    is_embedding,
    is_head_name,
    is_norm,
    is_plain_list,
    own_params,
    without_number,
)


class RMSNorm(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(*shape))

class Skip(nn.Sequential):
    def forward(self, x): return x + super().forward(x)

@pytest.mark.parametrize('m,want', [(nn.LayerNorm(2), True), (nn.BatchNorm2d(2), True), (RMSNorm(2), True), (RMSNorm(2, 2), False),
                                    (nn.Linear(2, 2), False), (nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()), True),
                                    (nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2)), False), (nn.GroupNorm(1, 2), True)])
def test_norms(m, want): assert is_norm(m) is want

@pytest.mark.parametrize('m,want', [(nn.Embedding(2, 2), True), (nn.ModuleList([nn.Embedding(2, 2), nn.Dropout()]), True),
                                    (nn.Sequential(nn.Embedding(2, 2), nn.LayerNorm(2)), False)])
def test_embeddings(m, want): assert is_embedding(m) is want

@pytest.mark.parametrize('m,want', [(nn.Sequential(), True), (nn.ModuleList(), True), (nn.ModuleDict(), True), (Skip(), False),
                                    (Net(a=nn.Linear(2, 2)), False)])
def test_plain_lists(m, want): assert is_plain_list(m) is want

@pytest.mark.parametrize('name,want', [('head', True), ('fc', True), ('fc1', True), ('pre_classifier', True), ('lm_head', True),
                                       ('score', True), ('qa_outputs', True), ('heads', True), ('ahead', False), ('header', False),
                                       ('fcn', False), ('attention', False), ('num_heads2', True)])
def test_names_of_heads(name, want): assert is_head_name(name) is want

@pytest.mark.parametrize('name,want', [('layer1', 'layer'), ('Mixed_5b', 'Mixed_'), ('layer', 'layer'), ('conv2d', 'conv'),
                                       ('block12', 'block'), ('b1_c', 'b1_c'), ('0', '')])
def test_numbers_at_the_end_of_a_name(name, want): assert without_number(name) == want

def test_children_and_own_parameters():
    a,b = linears(2)
    m = Net(a=a, drop=nn.Dropout(), b=b, again=a, none=None)
    m.w = nn.Parameter(torch.zeros(1))
    assert children_with_params(m) == dict(a=a, b=b, again=a)
    assert [p is m.w for p in own_params(m)] == [True]
