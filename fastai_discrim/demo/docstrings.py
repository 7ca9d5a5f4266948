"A text corpus that needs no download: docstrings of packages that are installed with fastai"

__all__ = ['docstrings']

import ast
import gc
import warnings
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from random import Random

import pandas as pd
from fastcore.foundation import L

# Packages that fastai or its requirements install on every platform, with 200 texts or more; most texts first. fastai's own are too short
PACKAGES = ('torch', 'sympy', 'scipy', 'pandas', 'sklearn', 'matplotlib', 'beartype', 'networkx', 'numpy', 'fontTools', 'torchvision',
            'pydantic', 'pygments', 'spacy', 'rich', 'mpmath', 'PIL', 'fsspec', 'jinja2')

# Tests, and copies of other packages, which would put one text under two labels. The folders in the last line are scipy's and torch's
_SKIPPED_FOLDERS = {
    'test', 'tests', 'testing', '_testing', '_vendor', '_vendored', 'vendor', 'vendored', 'externals', '_externals', 'extern',
    'third_party', 'array_api_compat', 'array_api_extra', 'cobyqa', 'pyprima', '_uarray', 'vendored_templates'}

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Fields of a syntax tree that can hold a definition. Skipping expressions is ten times as fast as `ast.walk`
_STATEMENT_LISTS = ('body', 'handlers', 'cases', 'orelse', 'finalbody')

# `n_max` docstrings are drawn from this many times as many
_OVERSAMPLING = 3

def _sources(package):
    "List (dotted module name, path) of the source files of `package`, in order of path, without importing it; none if it has no source"
    # Refuse dotted names, as `find_spec` imports their parents
    spec = find_spec(package) if isinstance(package, str) and package.isidentifier() else None
    if spec is None: return []
    if spec.submodule_search_locations is None: return [(package, Path(spec.origin))] if str(spec.origin).endswith('.py') else []
    res = []
    for root in spec.submodule_search_locations:
        for path in sorted(Path(root).rglob('*.py')):
            parts = path.relative_to(root).with_suffix('').parts
            if _SKIPPED_FOLDERS.isdisjoint(parts[:-1]): res.append(('.'.join((package, *parts)).removesuffix('.__init__'), path))
    return res

def _definitions(node, name):
    "Yield dotted name and node of each module, class and function in `node`, itself included; `name` is that of what contains `node`"
    if isinstance(node, _DOCUMENTED):
        if not isinstance(node, ast.Module): name = f'{name}.{node.name}'
        yield name,node
    for field in _STATEMENT_LISTS:
        for child in getattr(node, field, []): yield from _definitions(child, name)

def _read(module, path):
    "List (dotted name, docstring) of each definition in the file of a module, without executing it; none if the file doesn't parse"
    gc_was_on = gc.isenabled()
    # Collecting cycles, of which a syntax tree has none, would take two fifths of the time with fastai in memory
    gc.disable()
    with warnings.catch_warnings():
        # Ignore invalid escapes in other people's packages
        warnings.simplefilter('ignore')
        try: return [(name, ast.get_docstring(node) or '') for name,node in _definitions(ast.parse(path.read_bytes()), module)]
        # Code that is nested too deep raises one of the last two
        except (SyntaxError, ValueError, RecursionError, MemoryError): return []
        finally:
            if gc_was_on: gc.enable()

def _texts(sources, min_words, n_max, seen):
    """List (dotted name, docstring), in order of file and position, from `sources` of one package: each text once that isn't in `seen`, or
    a fixed sample of them"""
    # To draw from all docstrings, the whole package would have to be parsed; the first `n_max` would come from few files. So read files
    # in a fixed random order until three times as many docstrings are found, and draw a fixed third of these
    files = list(enumerate(sources))
    if n_max is not None: Random(0).shuffle(files)
    found = {} # (index of the file, number of texts found before, dotted name) by text
    for i,(module,path) in files:
        if n_max is not None and len(found) >= _OVERSAMPLING*n_max: break
        for name,text in _read(module, path):
            if len(text.split()) >= min_words and text not in seen: found.setdefault(text, (i, len(found), name))
    drawn = list(found.items())
    if n_max is not None: drawn = Random(0).sample(drawn, min(n_max, len(drawn)))
    return [(name, text) for text,(_,_,name) in sorted(drawn, key=itemgetter(1))]

def docstrings(
    packages:str|list|None=None, # Top-level import names; None for those of `PACKAGES` that are installed
    min_words:int=20, # Fewest words of a docstring, split at white space
    n_max:int|None=None, # Most docstrings per package, a fixed sample; None for all, which takes seconds for a large package
) -> pd.DataFrame: # Columns `package`, `name` and `text`; rows in order of package, file and position in the file
    "Collect the docstrings of installed `packages`, each text once. Raise `ValueError` for a package without Python source"
    if n_max is not None and n_max < 1: raise ValueError(f'n_max is {n_max!r}: expected 1 docstring per package or more; omit it for all')
    rows,seen = [],set()
    for package in L(PACKAGES if packages is None else packages):
        sources = _sources(package)
        if not sources and packages is not None:
            raise ValueError(f'packages has {package!r}: expected the top-level import name of an installed package with Python source; '
                             'install it or leave it out')
        texts = _texts(sources, min_words, n_max, seen)
        seen.update(text for _,text in texts)
        rows += [(package, name, text) for name,text in texts]
    return pd.DataFrame(rows, columns=['package', 'name', 'text'])
