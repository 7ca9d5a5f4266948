"Names and short labels of layer groups"
import pytest
import transformers
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.learner import vision_learner
from groups.small_models import Net
from torch import nn
from torchvision.models import resnet18, vgg11

from fastai_discrim.groups.labels import group_labels, group_names
from fastai_discrim.groups.layer_groups import check_groups
from fastai_discrim.groups.split import layerwise_split


def empty_learner(model, path):
    return Learner(DataLoaders([], []), model, loss_func=CrossEntropyLossFlat(), splitter=layerwise_split, path=path)

def test_labels(clas, lm):
    assert group_labels(clas, check_groups(clas)) == ['encoder', 'rnns.0', 'rnns.1', 'rnns.2', 'head']
    assert group_labels(lm, check_groups(lm)) == ['rnns.0', 'rnns.1', 'rnns.2', 'head']

def gpt2():
    config = transformers.GPT2Config(vocab_size=9, n_embd=4, n_layer=2, n_head=2)
    return Net(model=transformers.GPT2ForSequenceClassification(config))

@pytest.mark.parametrize('model,labels', [
    (gpt2, ['wte .. wpe', 'h.0', 'h.1 .. ln_f', 'head']),
    (lambda: Net(model=resnet18()), ['conv1 .. bn1', *(f'layer{i}.{j}' for i in range(1, 5) for j in range(2)), 'head']),
    (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), ['0', '1', 'head']),
])
def test_labels_leave_out_the_prefix_of_all_names(tmp_path, model, labels):
    learn = empty_learner(model(), tmp_path)
    assert group_labels(learn, check_groups(learn)) == labels

def test_names_are_those_of_the_largest_modules_that_lie_in_a_group(tmp_path):
    m = Net(a=nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), b=nn.Linear(2, 2), c=nn.Linear(2, 2))
    learn = empty_learner(m, tmp_path)
    groups = [[*m.a[0].parameters()], [*m.a[1].parameters(), *m.b.parameters()], [m.c.weight], [m.c.bias]]
    assert group_names(learn, groups) == [['a.0'], ['a.1', 'b'], ['c.weight'], ['c.bias']]
    groups = [[*m.a.parameters(), m.c.bias], [*m.b.parameters(), m.c.weight]]
    assert group_names(learn, groups) == [['a', 'c.bias'], ['b', 'c.weight']]
    assert group_labels(learn, groups) == ['a .. c.bias', 'head']

def test_a_module_with_two_names_is_named_once(tmp_path):
    lin = nn.Linear(2, 2)
    m = Net(a=lin, b=Net(inner=lin, other=nn.Linear(2, 2)))
    assert group_names(empty_learner(m, tmp_path), [[*lin.parameters()], [*m.b.other.parameters()]]) == [['a'], ['b.other']]

def test_a_tied_weight_is_named_once(tmp_path):
    a,b = nn.Linear(2, 2),nn.Linear(2, 2)
    b.weight = a.weight
    groups = [[a.bias], [b.bias], [a.weight]]
    assert group_names(empty_learner(Net(a=a, b=b), tmp_path), groups) == [['a.bias'], ['b.bias'], ['a.weight']]

def test_labels_keep_common_parts_after_the_first_difference(tmp_path):
    def part(): return Net(m=nn.Linear(2, 2), n=nn.Linear(2, 2))
    m = Net(x=Net(a=part(), b=part()), fc=nn.Linear(2, 2))
    groups = [[*m.x.a.m.parameters()], [*m.x.b.m.parameters()], [*m.x.a.n.parameters(), *m.x.b.n.parameters(), *m.fc.parameters()]]
    assert group_labels(empty_learner(m, tmp_path), groups) == ['a.m', 'b.m', 'head']

def test_labels_of_a_cut_body_are_those_of_the_model_that_it_was_cut_from(tmp_path):
    dls = DataLoaders([], [])
    learn = vision_learner(dls, resnet18, pretrained=False, n_out=2, n_in=1, loss_func=CrossEntropyLossFlat(), splitter=layerwise_split,
                           normalize=False, path=tmp_path)
    blocks = [f'layer{i}.{j}' for i in range(1, 5) for j in range(2)]
    assert group_labels(learn, check_groups(learn)) == ['conv1 .. bn1', *blocks, 'head']
    # The table has the names in this model
    assert group_names(learn, check_groups(learn))[1] == ['0.4.0']
    # A body of another architecture keeps its own names
    learn.arch = vgg11
    assert group_labels(learn, check_groups(learn))[1] == '0.4.0'
    learn.arch = 'no function'
    assert group_labels(learn, check_groups(learn))[1] == '0.4.0'
