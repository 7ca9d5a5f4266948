"Models of peft: what trains is what peft says, and the adapter that is saved predicts as the learner did"
from copy import deepcopy

import pytest
import torch
from conftest import moved, needs_stock_export_transforms, weights
from fastai.torch_core import set_seed
from tiny import MODELS, make_dls

peft = pytest.importorskip('peft')

from fastai_discrim.huggingface import hf_text_classifier_learner

TEXTS = ['ba be', 'da bi bo bu ka', 'ta']

@pytest.fixture
def lora(tmp_path):
    "A learner of a model with LoRA, and the model that it was made of"
    set_seed(1)
    base = MODELS['bert'][1](3)
    config = peft.LoraConfig(task_type='SEQ_CLS', r=2, target_modules=['query', 'value'])
    return hf_text_classifier_learner(make_dls(tmp_path), peft.get_peft_model(deepcopy(base), config)),base

def fit(learn):
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(2, 1e-2)

def test_what_trains_is_what_peft_says(lora):
    learn,_ = lora
    free = {n for n,p in learn.model.named_parameters() if p.requires_grad}
    assert free and all('lora' in n or 'modules_to_save' in n for n in free)
    before = weights(learn)
    fit(learn)
    assert moved(learn, before) == free

def test_layers_are_those_of_the_model(lora):
    learn,_ = lora
    groups = learn.layer_groups()
    assert groups.parameters.sum() == sum(p.numel() for p in learn.model.parameters())
    assert groups.training.sum() == sum(p.numel() for p in learn.model.parameters() if p.requires_grad)
    assert 'classifier' in groups.modules.iloc[-1] and 'layer.0' in ' '.join(groups.modules)

def test_the_saved_adapter_predicts_as_the_learner_did(lora, tmp_path):
    learn,base = lora
    fit(learn)
    folder = learn.save_pretrained(tmp_path/'adapter')
    again = peft.PeftModel.from_pretrained(base, folder).eval()
    from transformers import AutoTokenizer
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=True, return_tensors='pt')
    with torch.no_grad(): logits = again(**batch).logits
    assert torch.equal(learn.get_preds(dl=learn.dls.test_dl(TEXTS), act=lambda x: x)[0], logits)
    assert (folder/'adapter_config.json').exists() and not (folder/'config.json').exists()

def test_the_exported_learner_too(lora, tmp_path):
    needs_stock_export_transforms()
    from fastai.learner import load_learner
    learn,_ = lora
    fit(learn)
    learn.export('model.pkl')
    again = load_learner(tmp_path/'model.pkl')
    assert all(torch.equal(again.predict(t)[2], learn.predict(t)[2]) for t in TEXTS)

def test_a_plan_trains_no_more(lora, tmp_path):
    learn,base = lora
    free = {n for n,p in learn.model.named_parameters() if p.requires_grad}
    before = weights(learn)
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(8, 1e-2)
    assert moved(learn, before) == free == {n for n,p in learn.model.named_parameters() if p.requires_grad}
    again = peft.PeftModel.from_pretrained(base, learn.save_pretrained(tmp_path/'adapter')).eval()
    batch = learn.dls.tokenizer(TEXTS, padding=True, return_tensors='pt')
    with torch.no_grad(): logits = again(**batch).logits
    assert torch.equal(learn.get_preds(dl=learn.dls.test_dl(TEXTS), act=lambda x: x)[0], logits)
