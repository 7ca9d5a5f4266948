"The task of the demos: which package is a docstring from? Its data, a bag of words as the floor, and the table at the end"
__all__ = []

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from .docstrings import docstrings

# The docstrings of these have one format
CLASSES = ['numpy', 'scipy', 'pandas', 'sklearn', 'networkx', 'matplotlib']

def first_words(
    text:str, # A text
    n:int, # Words at most
) -> str:
    "Return the first `n` words of `text`"
    return ' '.join(text.split(' ')[:n])

def target_docs(
    n:int=600, # Docstrings a package at most
    words:int=30, # Words of a docstring at most
) -> pd.DataFrame: # Columns of `docstrings`, and `split`
    "Return the first words of docstrings of `CLASSES`, with a `split`"
    df = docstrings(CLASSES, n_max=n)
    df['text'] = [first_words(text, words) for text in df.text]
    # Docstrings of one module resemble each other, so a module lies in one split
    module = df.name.str.split('.').str[:3].str.join('.')
    modules = module.drop_duplicates().sample(frac=1, random_state=0)
    split = dict(zip(modules, (['train']*3 + ['valid', 'test'])*len(modules)))
    return df.assign(split=module.map(split))

def bag_of_words(
    df:pd.DataFrame, # Texts of the splits `train` and `test`
) -> tuple: # Wrong answers on the test split, and its size
    "Train tf-idf and logistic regression, which need no pretraining"
    train,test = df[df.split == 'train'],df[df.split == 'test']
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=500))
    model.fit(train.text, train.package)
    return int((model.predict(test.text) != test.package).sum()),len(test)

def count_errors(
    learn, # A learner with a metric, accuracy
    df:pd.DataFrame, # Texts
) -> tuple: # Wrong answers on the test split, and its size
    "Test a classifier"
    test = df[df.split == 'test']
    _,acc = learn.validate(dl=learn.dls.test_dl(test, with_labels=True))
    return round((1-acc)*len(test)),len(test)

def error_table(
    rows:list, # Tuples, the last two members of each the wrong answers and the size of the test split
    columns:list, # What the other members are
) -> pd.DataFrame:
    "Make a table of test errors, each with its 95 % interval"
    table = pd.DataFrame(rows, columns=[*columns, 'wrong', 'of'])
    error = table.wrong/table.of
    table['test error'] = error.map('{:.1%}'.format)
    table['95 % interval'] = (1.96 * (error * (1-error) / table.of)**.5).map('± {:.1%}'.format)
    return table

def save_figure(
    figure, # Of matplotlib
    file, # Path of the picture
):
    "Save `figure` and print where"
    figure.savefig(file, dpi=110)
    print(f'saved {file}')
