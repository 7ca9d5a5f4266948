"The layers of every common architecture are a partition, in the order in which they run"
from collections import Counter

import pytest
import torch
import torchvision.models as tv
import transformers as tf
from groups.architectures import MODELS, build
from groups.small_models import same_state, state

from fastai_discrim.groups.modules import own_params
from fastai_discrim.groups.split import layerwise_split


@pytest.mark.parametrize('name', MODELS)
def test_partition_stem_first_head_last_and_nothing_changed(name):
    m,_,n,stem,head = build(name)
    names,before = {p:k for k,p in m.named_parameters()},state(m)
    groups = layerwise_split(m)
    flat = [p for g in groups for p in g]
    assert len(flat) == len(names) and set(flat) == set(names) and len(groups) == n
    assert all(names[p].startswith(stem) for p in groups[0]) and all(names[p].startswith(head) for p in groups[-1])
    assert same_state(state(m), before)

@pytest.mark.parametrize('name', MODELS)
def test_layers_are_in_the_order_in_which_they_run(name):
    m,x,*_ = build(name)
    at,ran = {p:i for i,g in enumerate(layerwise_split(m)) for p in g},[]
    # A tied weight is in the last layer that has it, but also runs earlier
    times = Counter(p for o in m.modules() for p in own_params(o))
    def _is_leaf(o): return own_params(o) and len(own_params(o)) == len(list(o.parameters())) and all(times[p] == 1 for p in own_params(o))
    leaves = [o for o in m.modules() if _is_leaf(o)]
    hooks = [o.register_forward_hook(lambda o, *_: ran.extend(at[p] for p in own_params(o))) for o in leaves]
    m.eval()
    with torch.no_grad(): m(x)
    assert ran == sorted(ran) and len(set(ran)) >= len(set(at.values()))-1
    for h in hooks: h.remove()

PUBLISHED = {'resnet152': (tv.resnet152, 52), 'vgg16': (tv.vgg16, 14), 'convnext_base': (tv.convnext_base, 41),
             'vit_l_16': (tv.vit_l_16, 26), 'densenet201': (tv.densenet201, 103),
             'bert': (lambda: tf.BertForSequenceClassification(tf.BertConfig()), 15),
             'gpt2': (lambda: tf.GPT2LMHeadModel(tf.GPT2Config()), 14), 't5': (lambda: tf.T5ForConditionalGeneration(tf.T5Config()), 13)}

@pytest.mark.parametrize('make,n', PUBLISHED.values(), ids=PUBLISHED)
def test_at_their_published_sizes(make, n):
    with torch.device('meta'): m = make()
    groups = layerwise_split(m)
    flat = [p for g in groups for p in g]
    assert len(groups) == n and len(flat) == len(set(flat)) and set(flat) == set(m.parameters())
