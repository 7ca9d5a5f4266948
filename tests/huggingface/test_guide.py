"The guide to models of Hugging Face: its lines, run as they stand there, and what comes of them"
import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import needs_stock_export_transforms
from fastai.learner import load_learner
from fastai.torch_core import set_seed
from tiny import MODELS, make_df, make_tokenizer

TEXT = (Path(__file__).resolve().parents[2]/'docs/howto/huggingface.md').read_text(encoding='utf-8')
LINES, = [o for o in re.findall(r'^```python\n(.*?)^```$', TEXT, re.DOTALL | re.MULTILINE) if 'hf_text_classifier_learner' in o]

@pytest.mark.filterwarnings('ignore:.*no rate lowers', 'ignore:.*insecure pickle', 'ignore:.*fork.*:DeprecationWarning')
def test_the_lines(tmp_path, monkeypatch):
    needs_stock_export_transforms()
    monkeypatch.chdir(tmp_path)
    # A folder of this name comes before the hub
    kind,make,_ = MODELS['distilbert']
    set_seed(0)
    make(2).save_pretrained('distilbert-base-uncased')
    make_tokenizer(kind).save_pretrained('distilbert-base-uncased')
    names = dict(df=make_df())
    exec(compile(LINES, 'huggingface.md', 'exec'), names)
    learn = names['learn']
    assert learn.recorder.plan.n_epoch == 4 and np.array_equal(learn.recorder.group_lrs, learn.recorder.plan.lrs(len(learn.dls.train)))
    probs = learn.predict('ba be')[2]
    assert torch.equal(load_learner('model.pkl').predict('ba be')[2], probs)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    model,tokenizer = AutoModelForSequenceClassification.from_pretrained('model').eval(),AutoTokenizer.from_pretrained('model')
    with torch.no_grad(): logits = model(**tokenizer('ba be', return_tensors='pt')).logits
    assert torch.equal(logits[0].softmax(0), probs)

def test_about_five_lines():
    statements = ast.parse(LINES).body
    assert len({o.lineno for o in statements if not isinstance(o, ast.ImportFrom)}) == 6, 'the name, and five lines'
