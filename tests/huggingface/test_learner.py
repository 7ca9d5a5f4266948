"A learner of a model of transformers: it computes what the model computes by hand, and all of fastai's methods work"
import pickle
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HalfPrecision, moved, needs_stock_export_transforms, weights
from fastai.callback.training import GradientAccumulation
from fastai.learner import load_learner
from fastai.torch_core import set_seed
from test_tokens import by_hand
from tiny import MODELS, Pooled, make_df, make_dls, make_learner, make_tokenizer
from torch import nn

from fastai_discrim.all import layerwise_split
from fastai_discrim.huggingface import hf_text_classifier_learner

pytestmark = pytest.mark.filterwarnings('ignore:.*no padding token', 'ignore:.*no rate lowers', 'ignore:.*insecure pickle')
TEXTS = ['ba be', 'da bi bo bu ka', 'ta', 'ma me mi mo', 'sa se si']

def logits_by_hand(hf, tokenizer, texts):
    "What a model gives for each text, as one computes it with transformers alone"
    batch,hf = by_hand(tokenizer, texts),deepcopy(hf).eval()
    # A tokenizer of BERT gives more than other models take
    if isinstance(hf, Pooled) or 'token_type_ids' not in hf.forward.__code__.co_varnames: batch.pop('token_type_ids', None)
    with torch.no_grad(): out = hf(**batch)
    return out if isinstance(out, torch.Tensor) else out.logits

def quiet_fit(learn, *args, **kwargs):
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(*args, **kwargs)

@pytest.mark.parametrize('name', MODELS)
def test_logits_equal_the_model_called_by_hand(name, tmp_path):
    learn = make_learner(tmp_path, name)
    quiet_fit(learn, 1, 1e-2)
    logits = learn.get_preds(dl=learn.dls.test_dl(TEXTS), act=lambda x: x)[0]
    expected = logits_by_hand(learn.model.hf, learn.dls.tokenizer, TEXTS)
    assert torch.equal(logits, expected) and not torch.equal(logits[0], logits[1])
    # In other company, thus with other padding
    assert torch.allclose(learn.predict(TEXTS[0])[2], logits[0].softmax(0), atol=1e-5)

@pytest.mark.parametrize('name', MODELS)
def test_layers(name):
    kind,make,n_layers = MODELS[name]
    learn = make_learner(name=name)
    groups = learn.layer_groups()
    assert len(groups) == len(layerwise_split(learn.model.hf)) and n_layers in (None, len(groups))
    # By the names that the model itself has, its head last
    top = {n for n,_ in learn.model.hf.named_children()} | {n.split('.')[0] for n,_ in learn.model.hf.named_parameters()}
    named = [n for names in groups.modules for n in names.split(', ')]
    assert {n.split('.')[0] for n in named} <= top and groups.parameters.sum() == sum(p.numel() for p in learn.model.hf.parameters())
    assert groups.modules.iloc[-1] in ('classifier', 'score', 'logits_proj', 'pre_classifier, classifier', 'pooler, classifier',
                                       'sequence_summary, logits_proj')
    assert learn.train_bn is False and not any(n.startswith('hf') for n in named)

def test_a_plan_has_the_names_too():
    assert list(make_learner().ulmfit_plan(7, 1e-2).names) == ['embeddings', 'encoder.layer.0', 'encoder.layer.1', 'pooler', 'head']

@pytest.mark.parametrize('name', MODELS)
def test_fit_ulmfit_finds_the_rate_and_trains_all(name, tmp_path):
    learn = make_learner(tmp_path, name)
    before = weights(learn)
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(2)
    assert learn.recorder.plan.lr_from.startswith('head_lr_find, validation loss of the head') and learn.recorder.plan.lr > 0
    still = {n for n in before if n not in moved(learn, before)}
    # The bias of keys has no effect on attention, and these none here
    assert all(n.endswith(('rel_embeddings.weight', 'mask_emb')) or 'key' in n or 'k_lin' in n for n in still)
    assert np.array_equal(learn.recorder.group_lrs, learn.recorder.plan.lrs(len(learn.dls.train)))

def test_predictions_with_inputs_are_in_the_order_of_the_items():
    learn = make_learner()
    df = make_df()
    inputs,probs,targs = learn.get_preds(with_input=True)
    texts = list(df.text[df.is_valid])
    assert [learn.dls.vocab[i] for i in targs] == list(df.label[df.is_valid])
    rows = [[i for i in ids.tolist() if i] for ids in inputs['input_ids']]
    assert rows == [make_tokenizer()(t)['input_ids'] for t in texts]
    plain,_ = learn.get_preds()
    expected = logits_by_hand(learn.model.hf, learn.dls.tokenizer, texts).softmax(1)
    assert torch.equal(plain, probs) and torch.allclose(probs, expected, atol=1e-5)

def test_what_is_wrong_is_counted():
    learn = make_learner()
    probs,targs,decoded,losses = learn.get_preds(with_decoded=True, with_loss=True)
    loss,acc = learn.validate()
    assert torch.equal(decoded, probs.argmax(1)) and acc == pytest.approx((decoded == targs).float().mean().item())
    nll = -probs[range(16), targs].log()
    assert torch.allclose(losses, nll, atol=1e-4) and loss == pytest.approx(nll.mean().item(), rel=1e-4)
    test = learn.dls.test_dl(make_df(9, seed=1), with_labels=True)
    assert len(learn.validate(dl=test)) == 2 and len(test.dataset) == 9

def test_summary_names_the_layers():
    text = str(make_learner().summary())
    assert 'Linear' in text and 'Embedding' in text and 'Total params' in text

# Saving

def test_an_exported_learner_predicts_the_same_in_another_process(tmp_path):
    needs_stock_export_transforms()
    learn = make_learner(tmp_path)
    quiet_fit(learn, 1, 1e-2)
    learn.export('model.pkl')
    expected = [learn.predict(t) for t in TEXTS]
    code = ('import pickle, sys, warnings; warnings.simplefilter("ignore")\nfrom fastai.learner import load_learner\n'
            'learn = load_learner(sys.argv[1])\n'
            'with learn.no_bar(): pickle.dump([learn.predict(t) for t in sys.argv[3:]], open(sys.argv[2], "wb"))')
    run = subprocess.run([sys.executable, '-c', code, tmp_path/'model.pkl', tmp_path/'preds.pkl', *TEXTS], capture_output=True, text=True,
                         cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    for (label,i,probs),(l,j,other) in zip(expected, pickle.loads((tmp_path/'preds.pkl').read_bytes()), strict=True):
        assert label == l and i == j and torch.equal(probs, other)
    # It holds no text
    assert not any(t.encode() in (tmp_path/'model.pkl').read_bytes() for t in make_df().text)

@pytest.mark.filterwarnings('ignore:a text of')
@pytest.mark.parametrize('name', [n for n in MODELS if n != 't5'])
def test_save_pretrained_is_read_by_transformers_alone(name, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    learn = make_learner(tmp_path, name, dls=make_dls(tmp_path, MODELS[name][0], max_length=9))
    quiet_fit(learn, 1, 1e-2)
    folder = learn.save_pretrained(tmp_path/'saved')
    hf,tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).eval(),AutoTokenizer.from_pretrained(folder)
    texts = [*TEXTS, ' '.join(['ba']*30)]
    with torch.no_grad(): logits = hf(**tokenizer(texts, padding=True, truncation=True, return_tensors='pt')).logits
    assert torch.equal(learn.get_preds(dl=learn.dls.test_dl(texts), act=lambda x: x)[0], logits)
    names = dict(enumerate(learn.dls.vocab))
    assert hf.config.id2label == names and hf.config.label2id == {l: i for i,l in names.items()}
    # And by a learner of ours
    again = hf_text_classifier_learner(make_dls(tmp_path, tokenizer=folder), folder)
    assert torch.equal(again.get_preds(dl=again.dls.test_dl(texts), act=lambda x: x)[0], logits)

def test_a_folder_with_a_head_for_other_classes_gets_a_new_one(tmp_path):
    make_learner(n_out=5, dls=make_dls(label_col='many', label_delim=';')).save_pretrained(tmp_path)
    learn = hf_text_classifier_learner(make_dls(tokenizer=tmp_path), tmp_path)
    assert learn.model.hf.classifier.out_features == 3 and learn.model.hf.config.id2label == {0: 'high', 1: 'low', 2: 'mid'}

@pytest.mark.filterwarnings('ignore:the run had the callbacks')
def test_checkpoint_goes_on_to_the_same_weights(tmp_path):
    from conftest import StopAt
    def _learner(): return make_learner(tmp_path)
    learn = whole = _learner()
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(6, 1e-2)
    learn = _learner()
    with learn.no_bar(),learn.no_logging(),pytest.raises(KeyboardInterrupt): learn.fit_ulmfit(6, 1e-2, checkpoint='run', cbs=StopAt(3, 2))
    learn = _learner()
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(6, 1e-2, checkpoint='run')
    assert all(torch.equal(p, q) for p,q in zip(learn.model.parameters(), whole.model.parameters()))

def test_accumulated_gradients_make_the_same_step():
    def _trained(bs, **kwargs):
        learn = make_learner(dls=make_dls(bs=bs), seed=3)
        # All items in one step: the order plays no part, and without dropout nothing is drawn
        for m in learn.model.modules():
            if isinstance(m, nn.Dropout): m.p = 0.
        learn.model.hf.config.attention_probs_dropout_prob = 0.
        set_seed(3)
        with learn.no_bar(),learn.no_logging(): learn.fit(1, 1e-3, **kwargs)
        return weights(learn)
    whole,parts = _trained(32),_trained(8, cbs=GradientAccumulation(32))
    assert all(torch.allclose(whole[n], parts[n], atol=2e-4) for n in whole if 'key.bias' not in n)

# Other models

def test_a_model_that_is_not_of_transformers(tmp_path):
    needs_stock_export_transforms()
    learn = make_learner(tmp_path, 't5')
    learn.export('model.pkl')
    assert torch.equal(load_learner(tmp_path/'model.pkl').predict(TEXTS[0])[2], learn.predict(TEXTS[0])[2])
    with pytest.raises(TypeError, match='the model is a Pooled: expected one of transformers or peft.*learn.export'):
        learn.save_pretrained(tmp_path)

def test_a_splitter_and_norms_of_ones_own():
    def _halves(m):
        ps = list(m.parameters())
        return [ps[:10], ps[10:]]
    learn = make_learner(splitter=_halves, train_bn=True, wd=0.1)
    assert len(learn.layer_groups()) == 2 and learn.train_bn and learn.wd == 0.1

def test_the_model_pads_by_the_tokens_of_the_tokenizer():
    learn = make_learner(name='gpt2')
    assert learn.model.hf.config.pad_token_id == learn.dls.tokenizer.pad_token_id == 1
    with pytest.warns(UserWarning, match='the model pads by token 0 and the tokenizer by 1'):
        make_learner(dls=make_dls(kind=MODELS['roberta'][0]))

# Precision

@pytest.mark.parametrize('model_loss', [False, True])
def test_half_precision(model_loss):
    learn = make_learner(model_loss=model_loss)
    full = learn.get_preds()[0]
    half = learn.get_preds(cbs=HalfPrecision())[0]
    assert half.dtype == torch.float and torch.allclose(half, full, atol=0.02) and not torch.equal(half, full)
    before = weights(learn)
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(6, 1e-2, cbs=HalfPrecision())
    assert len(moved(learn, before)) > 40 and not learn.recorder.losses[-1].isnan()

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('model_loss', [False, True])
def test_half_precision_on_a_gpu(model_loss):
    learn = make_learner(dls=make_dls(device='cuda'), model_loss=model_loss).to_fp16()
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(6)
    assert not learn.recorder.losses[-1].isnan() and learn.predict(TEXTS[0])[2].dtype == torch.float
