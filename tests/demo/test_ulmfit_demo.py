"The demo of the paper, whole, on a few short texts"
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastai_discrim
from fastai_discrim.demo import command

SMALL = """
from functools import partial
from fastai_discrim.demo import command, docstring_task, ulmfit_demo as demo
from fastai_discrim.search import choice

# As in `conftest.few_rates`
choice.N_FIRST,choice.NEAR_END = 5,1
demo.PRETRAIN,docstring_task.CLASSES,demo.CLASSES,demo.SMALL = ['mpmath'],*[['fsspec', 'jinja2']]*2,dict(emb_sz=8, n_hid=12)
demo.target_docs = partial(demo.target_docs, n=100, words=12)
command.main()
"""

def test_the_demo(tmp_path):
    "In a process of its own, in which nothing else has imported what it needs"
    args = ['--model', 'awd_lstm', '--out', str(tmp_path/'out'), '--epochs', '5', '--pretrain-docs', '40']
    root,env = Path(fastai_discrim.__file__).parents[1],{**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONIOENCODING': 'utf-8'}
    run = subprocess.run([sys.executable, '-c', SMALL, *args], cwd=root, env=env, capture_output=True, text=True, encoding='utf-8')
    assert run.returncode == 0, run.stderr
    rows = 'head alone', 'whole sequence', 'gradual=False', 'learn.fine_tune(4)', 'tf-idf'
    for o in ('little to transfer', 'Plan: 5 epochs, 5 phases, 5 groups', 'η_L =', *rows): assert o in run.stdout, o
    assert {p.name for p in (tmp_path/'out').glob('*.png')} == {'head_lr.png', 'plan.png', 'rates.png'}

def test_too_few_epochs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['fastai_discrim', '--model', 'awd_lstm', '--epochs', '4'])
    with pytest.raises(SystemExit, match='--epochs 4: expected at least 5, one for each layer group of the classifier'): command.main()
