"Where the head of a model begins, and which heads can't be run alone"
import pytest
import torch
from conftest import make_lm
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.torch_core import set_seed
from groups.architectures import MODELS, build, two_items
from search.split_models import HEADS, Bert, Cat, Gated, Late, Padded, Siblings, Skip, Tied, Uncalled, split, tokens
from torch import nn

from fastai_discrim.groups.split import layerwise_split
from fastai_discrim.search.frozen_features import frozen_features
from fastai_discrim.search.split_head import HeadNotSeparable, split_head


@pytest.mark.parametrize('make,shape,kind', HEADS.values(), ids=HEADS)
def test_the_input_of_the_heads_first_module_with_parameters_is_kept(tmp_path, make, shape, kind):
    learn = make(tmp_path)
    head = split(learn)
    assert type(head.entry) is kind
    with learn.no_bar(): batches = frozen_features(learn, head, learn.dls.valid)
    (((x,),kwargs,*_),y),*_ = batches
    assert x.shape[1:] == shape and not kwargs and sum(len(b[1]) for b in batches) == 16
    assert type(x) is type(y) is torch.Tensor and not x.requires_grad

@pytest.mark.parametrize('name', HEADS)
def test_only_a_head_that_looks_at_the_tokens_needs_them(tmp_path, name):
    head = split(HEADS[name][0](tmp_path))
    assert head.needs_inputs == (name == 'last') and head.sources() == [head.entry, head.root][:1+head.needs_inputs]

def test_what_trains_or_drops_before_the_first_weights_belongs_to_the_head(mlp):
    ps = []
    for first in (nn.BatchNorm1d(8, affine=False), nn.Dropout(0.), nn.Dropout(.9)):
        mlp.model = nn.Sequential(*mlp.model[:4], first, nn.Linear(8, 2))
        set_seed(1)
        nn.init.normal_(mlp.model[-1].weight)
        assert split(mlp).entry is first
        set_seed(1)
        with mlp.no_bar(): ps.append(mlp.head_lr_find([1e-2, 1e-1], show_plot=False).losses.tolist())
    assert ps[0] != ps[1] != ps[2]

@pytest.mark.parametrize('learn,why', [(lambda p: tokens(Skip()), 'the head needs more from the body'),
                                       (lambda p: tokens(Cat()), 'the head needs more from the body'),
                                       (lambda p: tokens(Late()), 'the head, or the module that holds its parameters, is called before'),
                                       (lambda p: tokens(Uncalled()), 'no module of the head is called after the body'),
                                       (lambda p: tokens(Tied()), 'the head, or the module that holds its parameters, is called before'),
                                       (lambda p: tokens(Gated()), 'the head, or the module that holds its parameters, is called before'),
                                       (make_lm, 'the head, or the module that holds its parameters, is called before')],
                         ids=['skip', 'cat', 'late', 'uncalled', 'tied', 'gated', 'lm'])
def test_heads_that_can_not_be_run_alone(tmp_path, learn, why):
    learn = learn(tmp_path)
    before = [p.clone() for p in learn.model.parameters()]
    with pytest.raises(HeadNotSeparable, match=why): split(learn)
    assert all(map(torch.equal, before, learn.model.parameters()))

def test_a_head_of_nested_tensors_can_not_be_run_alone():
    "In evaluation mode, torch's encoder makes a nested tensor of a batch with padding"
    with pytest.raises(HeadNotSeparable, match='nested tensors'): split(tokens(Padded()))

def test_the_error_of_a_copy_is_told():
    "A batch of features meets one item from the body"
    with pytest.raises(HeadNotSeparable, match=r'RuntimeError: Sizes of tensors must match'): split(tokens(Cat()))

def test_a_prediction_of_several_tensors():
    "A dict, and no callback that takes one tensor from it"
    learn = tokens(Bert())
    learn.remove_cb(learn.logits)
    learn.loss_func = lambda p,y: p['logits'].sum()
    with pytest.raises(HeadNotSeparable, match='the prediction is a dict, not one tensor'): split(learn)

def test_the_weights_are_put_back_also_when_it_is_broken_off(mlp):
    class Stop(Callback):
        n = 0
        def before_batch(self):
            self.n += 1
            if self.n == 2: raise KeyboardInterrupt
    mlp.add_cb(Stop())
    before = [p.clone() for p in mlp.model.parameters()]
    with pytest.raises(KeyboardInterrupt): split(mlp)
    assert all(map(torch.equal, before, mlp.model.parameters()))

def test_no_hooks_are_left():
    learn = tokens(Siblings())
    split(learn)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in learn.model.modules())

class First(Callback):
    "AWD-LSTM gives what it remembers too"
    def after_pred(self):
        if isinstance(self.pred, tuple): self.learn.pred = self.pred[0]

# The head of T5's encoder is its last block, which takes position biases from the first
NOT_ALONE = ('unet_learner resnet18', 'collaborative', 'AWD-LSTM language model', 'bert masked', 'camembert masked', 'gpt2 language model',
             't5 encoder')

@pytest.mark.parametrize('name', MODELS)
def test_the_head_can_be_run_alone(tmp_path, name):
    m,x,*_ = build(name)
    learn = Learner(two_items(x), m, loss_func=lambda out, y: out.sum(), splitter=layerwise_split, path=tmp_path, cbs=First())
    learn.create_opt()
    learn.opt.freeze_to(-1)
    head = learn.opt.param_lists[-1]
    if name in NOT_ALONE:
        with pytest.raises(HeadNotSeparable): split_head(learn, head)
    else: assert set(split_head(learn, head).root.parameters()) >= set(head)
