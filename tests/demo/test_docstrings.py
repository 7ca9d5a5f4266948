"The corpus of docstrings: what is read, what is left out, and that it is the same each time"
import gc
import re
import sys
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

import pandas as pd
import pytest
from packaging.requirements import Requirement

from fastai_discrim.demo import docstrings as module
from fastai_discrim.demo.docstrings import PACKAGES, docstrings

LONG = 'has more than the five words that a text needs'

FILES = {
    '__init__.py': f'''"The package {LONG}"''',
    'alpha.py': f'''
"""The module alpha {LONG}.

    Indented by four
"""
raise RuntimeError('imported')
class A:
    """The class A {LONG}.

        Indented by eight
    """
    def method(self):
        r"The method \\d {LONG}"
        async def inner(): "The nested coroutine {LONG}"
    class B: "The nested class {LONG}"
    def short(self): "Too short"
    def none(self): return "The returned string {LONG}"
try: pass
except ImportError:
    def fallback(): "The function of an except block {LONG}"
else:
    if 1: pass
    else:
        async def last(): "The function of an else block {LONG}"
match 1:
    case 1:
        def matched(): "The function of a case {LONG}"
''',
    'beta.py': f'''
def late(): "The function of beta {LONG}"
def copy(): "The package {LONG}"
def copy_of_alpha(): "The nested class {LONG}"
''',
    'broken.py': f'def f(: "The function with a syntax error {LONG}"',
    'nulls.py': f'def f(): "The function with a null byte {LONG}"\0',
    'deep.py': f'"The module too deep to parse {LONG}"\nx = ' + '-'*100_000 + '1',
    'chain.py': f'"The module too deep to walk {LONG}"\nif 1: pass\n' + 'elif 1: pass\n'*1200,
    'escape.py': f'''"The invalid escape {LONG}"\nx = '\\d' ''',
    'latin.py': f'# coding: latin-1\n"The module in latin-1, \xe9t\xe9, {LONG}"'.encode('latin-1'),
    'sub/__init__.py': '',
    'sub/gamma.py': f'''def f(): "The function of a subpackage {LONG}"''',
    'tests/test_it.py': f'''def f(): "The test {LONG}"''',
    'sub/_vendor/other.py': f'''def f(): "The vendored copy {LONG}"''',
    'tests.py': f'''def f(): "The module that only bears the name {LONG}"''',
    'notes.txt': f'"The text file {LONG}"',
}

def write(folder, files):
    "Write `files`, contents by relative path, under `folder`"
    for name,src in files.items():
        path = folder/name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(src if isinstance(src, bytes) else src.encode())

@pytest.fixture
def fake(tmp_path, monkeypatch):
    "Packages `fakepkg`, `fakemod` (a single file) and `fakebig` (60 files of 5 docstrings) in a folder named `tests`; none may be imported"
    root = tmp_path/'tests'
    write(root/'fakepkg', FILES)
    write(root, {'fakemod.py': f'"The single file {LONG}"\ndef f(): "The package {LONG}"'})
    big = lambda i: ''.join(f'def f{j}(): "Function {j} of file {i} {LONG}"\n' for j in range(5))
    write(root/'fakebig', {'__init__.py': ''} | {f'm{i:02}.py': big(i) for i in range(60)})
    monkeypatch.syspath_prepend(root)
    yield root
    assert not {'fakepkg', 'fakemod', 'fakebig'} & {o.split('.')[0] for o in sys.modules}

def test_reads_every_kind_in_order(fake):
    df = docstrings(['fakepkg'], min_words=5)
    assert list(df.columns) == ['package', 'name', 'text'] and list(df.index) == list(range(len(df)))
    assert list(df.name) == ['fakepkg', 'fakepkg.alpha', 'fakepkg.alpha.A', 'fakepkg.alpha.A.method', 'fakepkg.alpha.A.method.inner',
                             'fakepkg.alpha.A.B', 'fakepkg.alpha.fallback', 'fakepkg.alpha.last', 'fakepkg.alpha.matched',
                             'fakepkg.beta.late', 'fakepkg.escape', 'fakepkg.latin', 'fakepkg.sub.gamma.f', 'fakepkg.tests.f']
    assert set(df.package) == {'fakepkg'}
    text = df.set_index('name').text
    assert text['fakepkg.alpha'] == f'The module alpha {LONG}.\n\nIndented by four'
    assert text['fakepkg.alpha.A'] == f'The class A {LONG}.\n\nIndented by eight'
    assert text['fakepkg.alpha.A.method'] == rf'The method \d {LONG}'
    assert text['fakepkg.latin'] == f'The module in latin-1, été, {LONG}'

def test_min_words_is_inclusive(fake):
    assert 'fakepkg.alpha.A.short' in set(docstrings('fakepkg', min_words=2).name)
    assert 'fakepkg.alpha.A.short' not in set(docstrings('fakepkg', min_words=3).name)

def test_no_warnings_of_the_sources(fake):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert 'fakepkg.escape' in set(docstrings('fakepkg', min_words=5).name)

def test_garbage_collection_is_left_as_it_was(fake):
    assert gc.isenabled()
    docstrings('fakepkg')
    assert gc.isenabled()
    gc.disable()
    try:
        docstrings('fakepkg')
        assert not gc.isenabled()
    finally: gc.enable()

def test_a_text_comes_once_over_all_packages(fake):
    names = lambda pkgs: list(docstrings(pkgs, min_words=5).name)
    assert names('fakemod') == ['fakemod', 'fakemod.f']
    assert names(['fakepkg', 'fakemod'])[-1:] == ['fakemod']
    assert names(['fakemod', 'fakepkg'])[:3] == ['fakemod', 'fakemod.f', 'fakepkg.alpha']
    assert names(['fakemod', 'fakemod']) == names('fakemod')

def test_n_max_is_a_fixed_sample_from_all_over(fake):
    every = docstrings('fakebig', min_words=5)
    assert len(every) == 300
    some = docstrings('fakebig', min_words=5, n_max=40)
    pd.testing.assert_frame_equal(some, docstrings('fakebig', min_words=5, n_max=40))
    assert len(some) == 40 and some.text.is_unique
    # A subset in the order of the whole
    assert list(some.name) == [o for o in every.name if o in set(some.name)]
    files = some.name.str.extract(r'm(\d+)')[0].astype(int)
    assert files.nunique() > 12 and files.min() < 15 and files.max() >= 45
    pd.testing.assert_frame_equal(docstrings('fakebig', min_words=5, n_max=1000), every)
    assert docstrings(['fakebig', 'fakemod'], min_words=5, n_max=40).package.value_counts().to_dict() == {'fakebig': 40, 'fakemod': 2}

def test_n_max_does_not_read_the_whole_package(fake, monkeypatch):
    read,seen = module._read,[]
    monkeypatch.setattr(module, '_read', lambda *args: seen.append(args) or read(*args))
    docstrings('fakebig', min_words=5, n_max=10)
    assert len(seen) <= 7

def test_copies_of_other_packages_and_tests_are_left_out():
    copies = {'array_api_compat', 'array_api_extra', 'cobyqa', 'pyprima', '_uarray', 'tests', 'externals'}
    modules = [name for package in ('scipy', 'sklearn') for name,_ in module._sources(package)]
    assert len(modules) > 500 and not [name for name in modules if copies & set(name.split('.'))]

@pytest.mark.parametrize('name', ['no_such_package', 'fakepkg.alpha', 'sys', '', 3])
def test_a_package_without_source_is_an_error(fake, name):
    with pytest.raises(ValueError, match=re.escape(f'packages has {name!r}: expected ')) as e: docstrings(['fakemod', name])
    assert len(e.value.args) == 1

@pytest.mark.parametrize('n', [0, -1])
def test_n_max_below_one_is_an_error(n):
    with pytest.raises(ValueError, match=f'n_max is {n}: expected 1 '): docstrings('fastcore', n_max=n)

def test_absent_packages_of_the_default_are_skipped(fake, monkeypatch):
    monkeypatch.setattr(module, 'PACKAGES', ('no_such_package', 'fakemod'))
    assert list(docstrings(min_words=5).package) == ['fakemod']*2

def test_no_packages_and_no_texts_keep_the_columns(fake):
    for df in docstrings([]), docstrings('fakemod', min_words=1000): assert list(df.columns) == ['package', 'name', 'text'] and not len(df)

def test_default_packages_come_with_fastai():
    norm = lambda o: re.sub('[-_.]+', '-', o).lower()
    closure,tops,todo = set(),set(),['fastai']
    while todo:
        name = norm(todo.pop())
        if name in closure: continue
        closure.add(name)
        try: dist = distribution(name)
        except PackageNotFoundError: continue # one for other platforms
        # Not `packages_distributions`, which Python 3.10 has for packages with a `top_level.txt` alone
        tops |= {f.parts[0] for f in dist.files}
        todo += [o.name for o in map(Requirement, dist.requires or []) if o.marker is None or o.marker.evaluate({'extra': ''})]
    assert set(PACKAGES) - tops == set()

def test_real_corpus():
    df = docstrings(['networkx', 'rich', 'PIL'])
    n = df.package.value_counts()
    assert n['networkx'] > 1000 and n['rich'] > 200 and n['PIL'] > 200
    words = df.text.str.split().str.len()
    assert words.min() == 20 and 200_000 < words.sum() < 1_000_000
    assert df.text.is_unique and not df.name.str.contains(r'\.tests\.').any()
    assert df.set_index('name').text['networkx.algorithms.link_analysis.pagerank_alg.pagerank'].startswith('Returns the PageRank')

def test_there_are_enough():
    "Each package of the default has the 200 texts that the list promises, of which no two are the same"
    df = docstrings(n_max=200)
    installed = [p for p in PACKAGES if find_spec(p)]
    assert len(installed) >= 15 and df.package.value_counts(sort=False).to_dict() == dict.fromkeys(installed, 200)
    assert df.text.is_unique and df.text.str.split().str.len().min() >= 20
