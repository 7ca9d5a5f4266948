"The task of the demos, to tell which package a docstring is from: its data, a bag of words as the baseline, and a table of errors"
__all__ = []

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from .docstrings import docstrings

# The docstrings of these packages have the same format
CLASSES = ['numpy', 'scipy', 'pandas', 'sklearn', 'networkx', 'matplotlib']

def target_docs(n:int=600, words:int=30) -> pd.DataFrame:
    "Return the first `words` words of at most `n` docstrings of each of `CLASSES`, in the columns of `docstrings`, with a `split`"
    df = docstrings(CLASSES, n_max=n)
    df['text'] = [' '.join(text.split(' ')[:words]) for text in df.text]
    # Docstrings of one module resemble each other, so each module belongs to one split
    module = df.name.str.split('.').str[:3].str.join('.')
    modules = module.drop_duplicates().sample(frac=1, random_state=0)
    split = dict(zip(modules, (['train']*3 + ['valid', 'test'])*len(modules)))
    return df.assign(split=module.map(split))

def bag_of_words(df:pd.DataFrame) -> tuple:
    "Train tf-idf with logistic regression, which needs no pretraining; return the number of errors on the test split, and its size"
    train,test = df[df.split == 'train'],df[df.split == 'test']
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=500))
    model.fit(train.text, train.package)
    return int((model.predict(test.text) != test.package).sum()),len(test)

def count_errors(learn, df:pd.DataFrame) -> tuple:
    "Test a classifier whose metric is accuracy; return the number of errors on the test split, and its size"
    test = df[df.split == 'test']
    _,acc = learn.validate(dl=learn.dls.test_dl(test, with_labels=True))
    return round((1-acc)*len(test)),len(test)

def error_table(rows:list, columns:list) -> pd.DataFrame:
    """Make a table of test errors with 95 % intervals. Each row ends with the number of errors and the size of the test split; `columns`
    are the names of its other members"""
    table = pd.DataFrame(rows, columns=[*columns, 'wrong', 'of'])
    error = table.wrong/table.of
    table['test error'] = error.map('{:.1%}'.format)
    table['95 % interval'] = (1.96 * (error * (1-error) / table.of)**.5).map('± {:.1%}'.format)
    return table

def save_figure(figure, file):
    "Save a figure of matplotlib, and print the path"
    figure.savefig(file, dpi=110)
    print(f'saved {file}')
