"fastai's text models are split as fastai splits them; language models are known"
import pytest
import torch
from conftest import make_clas, make_lm, make_mlp
from fastai.learner import Learner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_clas_split, awd_lstm_lm_config, awd_lstm_lm_split
from fastai.text.models.core import get_language_model, get_text_classifier
from groups.architectures import MODELS, build, tokens, two_items
from groups.small_models import ids, is_partition
from torch import nn

from fastai_discrim.groups.split import layerwise_split
from fastai_discrim.groups.text_models import is_language_model, text_splitter

CFG = dict(emb_sz=8, n_hid=12)

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

@pytest.mark.parametrize('wrap', [nn.DataParallel, torch.compile])
def test_a_text_model_that_is_wrapped_is_split_as_it_was(wrap):
    m = get_text_classifier(AWD_LSTM, 20, 2, config=dict(awd_lstm_clas_config, **CFG))
    assert ids(layerwise_split(wrap(m))) == ids(awd_lstm_clas_split(m))

def test_fastai_has_a_splitter_for_its_text_models_only():
    assert text_splitter(get_text_classifier(AWD_LSTM, 20, 2, config=dict(awd_lstm_clas_config, **CFG))) is awd_lstm_clas_split
    assert text_splitter(get_language_model(AWD_LSTM, 20, config=dict(awd_lstm_lm_config, **CFG))) is awd_lstm_lm_split
    assert text_splitter(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) is None
    assert text_splitter(nn.Linear(2, 2)) is None

@pytest.mark.parametrize('name', [n for n in MODELS if MODELS[n][1] is tokens])
def test_language_models_are_known(tmp_path, name):
    m,x,*_ = build(name)
    learn = Learner(two_items(x), m, loss_func=lambda out, y: out.sum(), splitter=layerwise_split, path=tmp_path)
    assert is_language_model(learn) == ('masked' in name or 'language model' in name)

def test_learners_of_language_models_are_known(tmp_path):
    assert is_language_model(make_lm(tmp_path)) and not is_language_model(make_clas(tmp_path)) and not is_language_model(make_mlp(tmp_path))
    # Whatever its model is
    learn = make_lm(tmp_path)
    learn.model = nn.Linear(2, 2)
    assert is_language_model(learn)
