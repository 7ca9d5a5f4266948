"The main job, whole, on a few short texts"
import sys
from functools import partial

from fastai_discrim import __main__ as main


def test_a_module_lies_in_one_split(monkeypatch):
    monkeypatch.setattr(main, 'CLASSES', ['fsspec', 'jinja2'])
    df = main.target_docs(n=80, words=10)
    module = df.name.str.split('.').str[:3].str.join('.')
    assert (df.groupby(module).split.nunique() == 1).all() and set(df.split) == {'train', 'valid', 'test'}
    assert df.text.str.split(' ').str.len().max() <= 10
    wrong,of = main.bag_of_words(df)
    assert 0 <= wrong < of == (df.split == 'test').sum()

def test_the_main_job(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(main, 'PRETRAIN', ['mpmath'])
    monkeypatch.setattr(main, 'CLASSES', ['fsspec', 'jinja2'])
    monkeypatch.setattr(main, 'SMALL', dict(emb_sz=8, n_hid=12))
    monkeypatch.setattr(main, 'target_docs', partial(main.target_docs, n=100, words=12))
    monkeypatch.setattr(sys, 'argv', ['fastai_discrim', '--out', str(tmp_path/'out'), '--epochs', '5', '--pretrain-docs', '40'])
    main.main()
    out = capsys.readouterr().out
    rows = 'head alone', 'whole sequence', 'gradual=False', 'learn.fine_tune(4)', 'tf-idf'
    for o in ('Plan: 5 epochs, 5 phases, 5 groups', 'η_L =', *rows): assert o in out, o
    assert {p.name for p in (tmp_path/'out').glob('*.png')} == {'head_lr.png', 'plan.png', 'rates.png'}
