"The model's own loss trains, where one asks for it"
from functools import partial

import pytest
import torch
from conftest import weights
from fastai.callback.training import GradientAccumulation
from fastai.data.block import RegressionBlock
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from fastai.torch_core import set_seed
from test_tokens import by_hand
from tiny import MODELS, make_df, make_dls, make_learner
from torch import nn
from transformers import BertForSequenceClassification

from fastai_discrim.huggingface import hf_text_classifier_learner


class Smoothed(BertForSequenceClassification):
    "A loss that is the model's own, and a note of what it was called with"
    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, labels=None):
        out = super().forward(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        if labels is not None:
            out.loss = 7*nn.functional.cross_entropy(out.logits, labels, label_smoothing=0.2)
            self.called.append((labels.tolist(), out.loss.item()))
        return out

def smoothed(**kwargs):
    set_seed(0)
    model = Smoothed(MODELS['bert'][1](3).config)
    model.called = []
    return hf_text_classifier_learner(make_dls(**kwargs), model, model_loss=True, metrics=accuracy)

def quiet(learn, f, *args, **kwargs):
    with learn.no_bar(),learn.no_logging(): return f(*args, **kwargs)

def test_it_is_what_trains_and_what_is_recorded():
    learn = smoothed()
    quiet(learn, learn.fit, 1, 1e-3)
    called = learn.model.hf.called
    assert len(called) == 4+2 and all(len(labels) == 8 for labels,_ in called)
    assert learn.recorder.values[0][1] == pytest.approx(sum(l for _,l in called[4:])/2, rel=1e-5)

def test_the_step_is_that_of_the_loss():
    learn,other = smoothed(bs=32),smoothed(bs=32)
    for l in (learn, other):
        for m in l.model.modules():
            if isinstance(m, nn.Dropout): m.p = 0.
        l.opt_func = partial(SGD, wd=0.)
    quiet(learn, learn.fit, 1, 1e-2)
    df = make_df()
    train = df[~df.is_valid]
    batch = by_hand(other.dls.tokenizer, list(train.text))
    hf = other.model.hf.train()
    loss = hf(**batch, labels=torch.tensor([other.dls.vocab.o2i[l] for l in train.label])).loss
    grads = torch.autograd.grad(loss, [p for p in hf.parameters()], allow_unused=True)
    for p,before,g in zip(learn.model.hf.parameters(), hf.parameters(), grads):
        assert torch.allclose(p, before if g is None else before - 1e-2*g, atol=1e-5)

@pytest.mark.parametrize('name', ['bert', 'gpt2', 'distilbert'])
@pytest.mark.filterwarnings('ignore:.*no padding token')
@pytest.mark.parametrize('task', ['one', 'many', 'number'])
def test_where_it_is_the_usual_one_nothing_changes(name, task):
    kind = MODELS[name][0]
    kwargs,n = dict(one=({}, 3), many=(dict(label_col='many', label_delim=';'), 5),
                    number=(dict(label_col='score', y_block=RegressionBlock(n_out=1)), 1))[task]
    def _trained(**own):
        learn = make_learner(name=name, dls=make_dls(kind=kind, **kwargs), n_out=n, metrics=None, **own)
        set_seed(1)
        quiet(learn, learn.fit_one_cycle, 1, 1e-3)
        return learn
    a,b = _trained(),_trained(model_loss=True)
    wa,wb = weights(a),weights(b)
    assert all(torch.allclose(wa[n], wb[n], atol=1e-4) for n in wa)
    assert b.recorder.values[0][1] == pytest.approx(a.recorder.values[0][1], rel=1e-4)

def test_single_losses_are_those_of_the_loss_function():
    learn = smoothed()
    probs,targs,losses = learn.get_preds(with_loss=True)
    assert torch.allclose(losses, -probs[range(16), targs].log(), atol=1e-4)

def test_predictions_need_no_labels():
    learn = smoothed()
    learn.model.hf.called.clear()
    assert len(learn.predict('ba be')) == 3 and learn.model.hf.called == []

def test_accumulated():
    learn = smoothed()
    quiet(learn, learn.fit, 1, 1e-3, cbs=GradientAccumulation(16))
    assert len(learn.recorder.losses) == 4

# The search

@pytest.mark.usefixtures('one_range_test')
@pytest.mark.filterwarnings('ignore:no rate')
def test_the_search_goes_by_it():
    learn = smoothed()
    found = quiet(learn, learn.head_lr_find, show_plot=False)
    assert found.how == 'range test of the head, as the model trains with a loss other than `loss_func`'
    # The losses are those of the model, seven times as high
    assert found.losses[0] == pytest.approx(7*1.1, abs=0.7)

@pytest.mark.all_rates
@pytest.mark.filterwarnings('ignore:no rate')
def test_the_search_runs_heads_alone_where_it_is_the_usual_one():
    def _found(**kwargs):
        learn = make_learner(**kwargs)
        set_seed(2)
        return quiet(learn, learn.head_lr_find, show_plot=False)
    found,own = _found(),_found(model_loss=True)
    assert own.how.startswith('validation loss of the head') and own.lr == pytest.approx(found.lr, rel=0.2)

@pytest.mark.usefixtures('one_range_test')
@pytest.mark.filterwarnings('ignore:no rate')
def test_one_line():
    learn = smoothed()
    quiet(learn, learn.fit_ulmfit, 2)
    assert learn.recorder.plan.lr_from.startswith('head_lr_find, range test of the head')
