"What others write to put a model of transformers under fastai goes on working"
import numpy as np
import pytest
import torch
from conftest import moved, weights
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from tiny import MODELS, make_df, make_tokenizer
from torch import nn
from transformers import DataCollatorWithPadding

import fastai_discrim.huggingface  # noqa: F401, beside which it is to work
from fastai_discrim.all import layerwise_split


def items():
    "Tokens by name, with a label"
    df,tokenizer = make_df(),make_tokenizer()
    return tokenizer,[{**tokenizer(t), 'labels': ['low', 'mid', 'high'].index(l)} for t,l in zip(df.text, df.label)]

def torch_loaders(collate):
    tokenizer,rows = items()
    collator = DataCollatorWithPadding(tokenizer)
    def _loader(rows, **kwargs): return torch.utils.data.DataLoader(rows, 8, collate_fn=lambda b: collate(collator(b)), **kwargs)
    return DataLoaders(_loader(rows[:32], shuffle=True, drop_last=True), _loader(rows[32:]), device='cpu')

class HuggingFaceCallback(Callback):
    "The pattern of fastxtend: batches are dicts with the labels in them, and the model's own loss counts"
    def before_batch(self): self.learn.xb,self.learn.yb = (dict(self.xb[0]),),(self.xb[0]['labels'],)
    def after_pred(self): self.own,self.learn.pred = self.pred.loss,self.pred.logits
    def after_loss(self): self.learn.loss_grad,self.learn.loss = self.own,self.own.clone()

class Wrapper(nn.Module):
    def __init__(self, hf): super().__init__(); self.hf_model = hf
    def forward(self, batch): return self.hf_model(**batch)

class Logits(Callback):
    def after_pred(self): self.learn.pred = self.pred.logits

class WrappedLogits(nn.Module):
    def __init__(self, hf): super().__init__(); self.hf = hf
    def forward(self, ids, mask): return self.hf(input_ids=ids, attention_mask=mask).logits

def of_fastxtend():
    dls = torch_loaders(lambda b: (dict(b),))
    return dls,Wrapper,dict(cbs=HuggingFaceCallback())

def of_tuples():
    dls = torch_loaders(lambda b: (b['input_ids'], b['attention_mask'], b['labels']))
    return dls,lambda hf: hf,dict(cbs=Logits())

def of_a_wrapper(): return torch_loaders(lambda b: (b['input_ids'], b['attention_mask'], b['labels'])),WrappedLogits,{}

@pytest.mark.parametrize('glue', [of_fastxtend, of_tuples, of_a_wrapper])
def test_a_plan_runs(glue, tmp_path):
    set_seed(0)
    dls,wrap,kwargs = glue()
    learn = Learner(dls, wrap(MODELS['bert'][1](3)), loss_func=CrossEntropyLossFlat(), splitter=layerwise_split, metrics=accuracy,
                    path=tmp_path, **kwargs)
    before = weights(learn)
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(6, 1e-2)
    assert np.array_equal(learn.recorder.group_lrs, learn.recorder.plan.lrs(4)) and len(moved(learn, before)) > 40

@pytest.mark.filterwarnings('ignore:.*no rate lowers')
@pytest.mark.parametrize('glue', [of_fastxtend, of_tuples, of_a_wrapper])
def test_the_rate_is_found(glue, tmp_path):
    set_seed(0)
    dls,wrap,kwargs = glue()
    learn = Learner(dls, wrap(MODELS['bert'][1](3)), loss_func=CrossEntropyLossFlat(), splitter=layerwise_split, path=tmp_path, **kwargs)
    with learn.no_bar(): assert learn.head_lr_find(show_plot=False).how.startswith('validation loss of the head')
