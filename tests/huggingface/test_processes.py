"Two processes that train one model of transformers: they stay bit-equal, and predict as one"
import os

import pytest
import torch
from tiny import make_learner

pytest.importorskip('accelerate')

from test_distributed import both, check_equal, trained

pytestmark = [pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork'),
              pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')]

@pytest.mark.parametrize('model_loss', [False, True])
def test_one_line_in_two_processes(tmp_path, model_loss):
    def run(path):
        learn = make_learner(path, model_loss=model_loss)
        res = trained(learn, lambda l: l.fit_ulmfit(3))
        preds = learn.get_preds()[0]
        if os.environ['RANK'] == '0': learn.save_pretrained(path/'saved')
        return {**res, 'lr': learn.recorder.plan.lr, 'preds': preds.tolist()}
    a,b = both(run, tmp_path)
    check_equal(a, b, 3)
    assert a['lr'] == b['lr'] and a['preds'] == b['preds'] and any('word_embeddings' in n for n in a['moved'][-1])
    from transformers import AutoModelForSequenceClassification
    saved = dict(AutoModelForSequenceClassification.from_pretrained(tmp_path/'saved').named_parameters())
    for n,p in a['after'][-1].items(): assert torch.equal(torch.tensor(p), saved[n.removeprefix('hf.')])
