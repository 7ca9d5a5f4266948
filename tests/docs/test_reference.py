"The reference has every public name, and shows what fastcore makes of it"
import importlib
import pkgutil
import re
import sys

import pytest
from fastai.learner import Learner, Recorder
from fastcore import docments
from pages import TOP

import fastai_discrim
from fastai_discrim.all import *

REFERENCE = '\n'.join(p.read_text(encoding='utf-8') for p in (TOP/'docs/reference').glob('*.md'))
SHOWN = set(re.findall(r'^::: (\S+)$', REFERENCE, re.MULTILINE))
# Shown in words: named tuples, what holds the recipes, and what is for type checkers
IN_WORDS = {'HeadLR', 'BodyLR', 'recipes', 'PatchedLearner', 'PatchedRecorder'}

def public_names():
    "Return the names in `__all__` of the modules that users import from"
    for m in pkgutil.walk_packages(fastai_discrim.__path__, 'fastai_discrim.'):
        if '.demo.' in m.name or m.name.endswith('__main__'): continue
        if m.name.startswith('fastai_discrim.huggingface'): pytest.importorskip('transformers')
        yield from getattr(importlib.import_module(m.name), '__all__', [])

def patched_names():
    "Return the methods and properties that the package adds to learners and recorders"
    for cls in (Learner, Recorder):
        for name,o in vars(cls).items():
            f = getattr(o, 'fget', o)
            if getattr(f, '__module__', '').startswith('fastai_discrim') and not name.startswith('_'): yield f'{cls.__name__}.{name}'

def test_every_public_name_is_there():
    assert IN_WORDS < set(public_names()) and all(f'`{o}`' in REFERENCE or f' {o}' in REFERENCE for o in IN_WORDS)
    assert set(public_names()) | {'docstrings'} <= SHOWN | IN_WORDS
    wrapped = {'Learner.fit', 'Learner.fine_tune'}
    assert set(patched_names()) - wrapped <= SHOWN

def test_entries_are_rendered(monkeypatch):
    pytest.importorskip('transformers')
    if not hasattr(docments, 'DocmentTbl'): pytest.skip('this fastcore has no renderer of docments')
    monkeypatch.syspath_prepend(TOP/'docs/_hooks')
    from reference import shown
    try:
        for name in SHOWN: assert shown(name).count(f'{{ #{name} }}') == 1
        text = shown('Learner.fit_ulmfit')
        assert text.startswith('## learn.fit_ulmfit {') and 'learn.fit_ulmfit(n_epoch, lr=None, cbs=None' in text
        assert '| lr | float \\| HeadLR \\| None | None | Peak rate of the head' in text and '| train_bn | bool \\| None | None |' in text
        assert '```pycon\n>>> ' in text
        # It delegates to `ulmfit_plan`, which returns a plan, and itself returns nothing
        assert '**Returns**' not in text and '**Returns**' in shown('Learner.ulmfit_plan') and '| epochs |  | None |' in text
        assert 'GroupLRRecorder()\n' in shown('GroupLRRecorder') and 'NoneType' not in ''.join(map(shown, SHOWN))
        assert 'plan.lrs(n_iter)' in shown('Plan.lrs') and 'Plan.from_json(text)' in shown('Plan.from_json')
        with pytest.raises(ValueError, match='::: nothing: expected a public name'): shown('nothing')
    finally: sys.modules.pop('reference', None)
