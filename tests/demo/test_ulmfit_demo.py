"The demo, whole, on a few short texts"
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fastai_discrim
from fastai_discrim.demo import ulmfit_demo as demo


def test_a_module_lies_in_one_split(monkeypatch):
    monkeypatch.setattr(demo, 'CLASSES', ['fsspec', 'jinja2'])
    df = demo.target_docs(n=80, words=10)
    module = df.name.str.split('.').str[:3].str.join('.')
    assert (df.groupby(module).split.nunique() == 1).all() and set(df.split) == {'train', 'valid', 'test'}
    assert df.text.str.split(' ').str.len().max() <= 10
    wrong,of = demo.bag_of_words(df)
    assert 0 <= wrong < of == (df.split == 'test').sum()

SMALL = """
from functools import partial
from fastai_discrim.demo import ulmfit_demo as demo

demo.PRETRAIN,demo.CLASSES,demo.SMALL = ['mpmath'],['fsspec', 'jinja2'],dict(emb_sz=8, n_hid=12)
demo.target_docs = partial(demo.target_docs, n=100, words=12)
demo.main()
"""

def test_the_demo(tmp_path):
    "In a process of its own, in which nothing else has imported what it needs"
    args = ['--out', str(tmp_path/'out'), '--epochs', '5', '--pretrain-docs', '40']
    root,env = Path(fastai_discrim.__file__).parents[1],{**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONIOENCODING': 'utf-8'}
    run = subprocess.run([sys.executable, '-c', SMALL, *args], cwd=root, env=env, capture_output=True, text=True, encoding='utf-8')
    assert run.returncode == 0, run.stderr
    rows = 'head alone', 'whole sequence', 'gradual=False', 'learn.fine_tune(4)', 'tf-idf'
    for o in ('Plan: 5 epochs, 5 phases, 5 groups', 'η_L =', *rows): assert o in run.stdout, o
    assert {p.name for p in (tmp_path/'out').glob('*.png')} == {'head_lr.png', 'plan.png', 'rates.png'}

def test_too_few_epochs(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['fastai_discrim', '--epochs', '4'])
    with pytest.raises(SystemExit) as e: demo.main()
    assert e.value.code == 2
    assert '--epochs 4: expected at least 5, one for each layer group of the classifier' in capsys.readouterr().err

def test_python_m_runs_it(monkeypatch):
    calls = []
    monkeypatch.setattr(demo, 'main', lambda: calls.append(1))
    runpy.run_module('fastai_discrim', run_name='__main__')
    assert calls == [1]
    # Importing it does not
    runpy.run_module('fastai_discrim.__main__', run_name='imported')
    assert calls == [1]
