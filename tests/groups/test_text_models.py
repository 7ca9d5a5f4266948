"fastai's text models are split as fastai splits them; language models are known"
import pytest
import torch
import transformers
from conftest import make_clas, make_lm, make_mlp
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
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
def test_a_wrapped_text_model_is_split_as_without_wrapper(wrap):
    m = get_text_classifier(AWD_LSTM, 20, 2, config=dict(awd_lstm_clas_config, **CFG))
    assert ids(layerwise_split(wrap(m))) == ids(awd_lstm_clas_split(m))

def test_fastai_has_a_splitter_for_its_text_models_only():
    assert text_splitter(get_text_classifier(AWD_LSTM, 20, 2, config=dict(awd_lstm_clas_config, **CFG))) is awd_lstm_clas_split
    assert text_splitter(get_language_model(AWD_LSTM, 20, config=dict(awd_lstm_lm_config, **CFG))) is awd_lstm_lm_split
    assert text_splitter(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) is None
    assert text_splitter(nn.Linear(2, 2)) is None

@pytest.mark.parametrize('name', [n for n in MODELS if MODELS[n][1] is tokens])
def test_language_models_are_recognised(tmp_path, name):
    m,x,*_ = build(name)
    learn = Learner(two_items(x), m, loss_func=lambda out, y: out.sum(), splitter=layerwise_split, path=tmp_path)
    assert is_language_model(learn) == ('masked' in name or 'language model' in name)

def test_learners_of_language_models_are_recognised(tmp_path):
    assert is_language_model(make_lm(tmp_path)) and not is_language_model(make_clas(tmp_path)) and not is_language_model(make_mlp(tmp_path))
    # The class of the learner decides, whatever its model is
    learn = make_lm(tmp_path)
    learn.model = nn.Linear(2, 2)
    assert is_language_model(learn)

class Clas(nn.Module):
    "A classifier on the output of a language model, its head declared first or last; `takes` makes one tensor of the output"
    def __init__(self, lm, head, takes, first=False):
        super().__init__()
        if first: self.head = head
        self.lm,self.takes = lm,takes
        self.head = head
    def forward(self, x): return self.head(self.takes(self.lm, x))

def bert(): return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2,
                                                                        num_attention_heads=2, intermediate_size=32))
def gpt2(): return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2))
def awd(): return get_language_model(AWD_LSTM, 30, config=dict(awd_lstm_lm_config, **CFG))
def last_hidden(lm, x): return lm(x, output_hidden_states=True).hidden_states[-1][:,0]

ON_A_LANGUAGE_MODEL = {
    'bert': (bert, lambda: nn.Linear(16, 2), last_hidden), 'gpt2': (gpt2, lambda: nn.Linear(16, 2), last_hidden),
    'its logits': (gpt2, lambda: nn.Linear(30, 2), lambda lm, x: lm(x).logits.mean(1)),
    'awd': (awd, lambda: nn.Linear(30, 2), lambda lm, x: lm(x)[0].mean(1)),
    'awd encoder': (awd, lambda: nn.Linear(8, 2), lambda lm, x: lm[0](x)[:,-1]),
    'tags': (bert, lambda: nn.Linear(16, 5), lambda lm, x: lm(x, output_hidden_states=True).hidden_states[-1])}

@pytest.mark.parametrize('first', [False, True])
@pytest.mark.parametrize('make,head,takes', ON_A_LANGUAGE_MODEL.values(), ids=ON_A_LANGUAGE_MODEL)
def test_a_classifier_on_a_language_model_is_no_language_model(tmp_path, make, head, takes, first):
    def _learner(model, cbs=None):
        return Learner(make_clas(tmp_path).dls, model, loss_func=CrossEntropyLossFlat(), splitter=layerwise_split, cbs=cbs, path=tmp_path)
    m = Clas(make(), head(), takes, first)
    assert not is_language_model(_learner(m))
    if isinstance(head(), nn.Linear) and 'awd' not in make.__name__: assert len(_learner(m).ulmfit_plan(9, 1e-2).phases) > 1
    assert is_language_model(_learner(make()))

class Logits(nn.Module):
    def __init__(self, lm): super().__init__(); self.other,self.lm = nn.Linear(2, 2),lm
    def forward(self, x): return self.lm(x).logits

def test_the_output_decides_however_the_model_is_wrapped(tmp_path):
    learn = Learner(make_clas(tmp_path).dls, Logits(bert()), loss_func=CrossEntropyLossFlat(), splitter=layerwise_split, path=tmp_path)
    assert is_language_model(learn)

def test_the_last_module_decides_if_the_model_can_not_run(tmp_path):
    def _learner(model):
        return Learner(DataLoaders([], []), model, loss_func=CrossEntropyLossFlat(), splitter=layerwise_split, path=tmp_path)
    assert is_language_model(_learner(bert())) and is_language_model(_learner(Logits(bert()))) and is_language_model(_learner(awd()))
    assert not is_language_model(_learner(Clas(bert(), nn.Linear(16, 2), last_hidden)))
