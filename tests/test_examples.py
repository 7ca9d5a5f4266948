"Examples in docstrings, run as they stand there: those of the most used functions, and any other"
import doctest
import inspect

import numpy as np
import pytest
from conftest import make_mlp
from fastai.learner import Learner, Recorder
from torch import nn

from fastai_discrim import all as everything

MOST_USED = ['discriminative_lrs', 'layerwise_split', 'SchedSTLR', 'Plan', 'compare_plans', 'GradualUnfreezing', 'DiscriminativeLR',
             'Learner.layer_groups', 'Learner.head_lr_find', 'Learner.ulmfit_plan', 'Learner.fit_plan', 'Learner.fit_ulmfit',
             'Learner.fit_stlr']

def is_ours(o): return 'fastai_discrim' in str(getattr(o, '__module__', ''))

OBJECTS = {name: o for name,o in vars(everything).items() if is_ours(o)}
OBJECTS |= {f'{owner.__name__}.{name}': o for owner in (Learner, Recorder) for name,o in vars(owner).items()
            if is_ours(getattr(o, 'fget', o))}
EXAMPLES = {name: doc for name,o in OBJECTS.items() if '>>> ' in (doc := inspect.getdoc(o) or '')}

def test_the_most_used_have_an_example(): assert set(MOST_USED) <= set(EXAMPLES)

@pytest.mark.all_rates
@pytest.mark.parametrize('name', EXAMPLES)
def test_an_example_gives_what_it_says(tmp_path, name):
    "`learn` is a small learner of three layer groups with eight steps an epoch"
    learn = make_mlp(tmp_path)
    names = {**vars(everything), 'np': np, 'nn': nn, 'learn': learn}
    test = doctest.DocTestParser().get_doctest(EXAMPLES[name], names, name, None, 0)
    with learn.no_bar(), learn.no_logging():
        failed,tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test)
    assert tried and not failed

@pytest.mark.parametrize('name', EXAMPLES)
def test_an_example_stands_below_the_text(name):
    "The reference of the site shows it as code: all that follows the first empty line"
    text,example = EXAMPLES[name].split('\n\n', 1)
    assert '>>>' not in text and example.startswith('>>> ') and '\n\n' not in example
