"The task of the demos: splits, floor and table"
import numpy as np
import pandas as pd

from fastai_discrim.demo import docstring_task as task


def test_a_module_lies_in_one_split(monkeypatch):
    monkeypatch.setattr(task, 'CLASSES', ['fsspec', 'jinja2'])
    df = task.target_docs(n=80, words=10)
    module = df.name.str.split('.').str[:3].str.join('.')
    assert (df.groupby(module).split.nunique() == 1).all() and set(df.split) == {'train', 'valid', 'test'}
    assert df.text.str.split(' ').str.len().max() <= 10
    wrong,of = task.bag_of_words(df)
    assert 0 <= wrong < of == (df.split == 'test').sum()

def test_a_bag_of_words_has_learnt_the_training_texts_alone():
    rows = [('train', 'a cat', 'x'), ('train', 'a dog', 'y'), ('test', 'cat cat', 'x'), ('test', 'dog', 'y'), ('test', 'dog', 'x')]
    assert task.bag_of_words(pd.DataFrame(rows, columns=['split', 'text', 'package'])) == (1, 3)

def test_error_table():
    table = task.error_table([('a', 25, 100), ('b', 0, 100)], ['trained'])
    half = 196*np.sqrt(.25*.75/100)
    assert list(table['test error']) == ['25.0%', '0.0%'] and list(table['95 % interval']) == [f'± {half:.1f}%', '± 0.0%']
