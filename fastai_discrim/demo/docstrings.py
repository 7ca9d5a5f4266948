"Docstrings of the packages installed with fastai: a text corpus that needs no download"

__all__ = ['docstrings']

import ast
import gc
import warnings
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pandas as pd
from fastcore.foundation import L

# fastai or its requirements need them on every platform, and each has 200 texts or more; most texts first. fastai's own are too short
PACKAGES = ('torch', 'sympy', 'scipy', 'pandas', 'sklearn', 'matplotlib', 'beartype', 'networkx', 'numpy', 'fontTools', 'torchvision',
            'pydantic', 'pygments', 'spacy', 'rich', 'mpmath', 'PIL', 'fsspec', 'jinja2')

# Tests, and copies of other packages, which would put one text under two labels. The last line is for scipy and torch
_SKIPPED_FOLDERS = {
    'test', 'tests', 'testing', '_testing', '_vendor', '_vendored', 'vendor', 'vendored', 'externals', '_externals', 'extern',
    'third_party', 'array_api_compat', 'array_api_extra', 'cobyqa', 'pyprima', '_uarray', 'vendored_templates'}

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Lists of statements are all that can hold a definition. Leaving expressions alone is ten times as fast as `ast.walk`
_STATEMENT_LISTS = ('body', 'handlers', 'cases', 'orelse', 'finalbody')

# A sample of `n_max` is drawn from this many times as many docstrings
_OVERSAMPLING = 3

def _sources(
    package:str, # Top-level import name
) -> list: # (dotted module name, path) of each file, in order of path; empty where there is no Python source
    "Find the source files of `package` without importing it"
    # `find_spec` imports the parents of a dotted name
    spec = find_spec(package) if isinstance(package, str) and package.isidentifier() else None
    if spec is None: return []
    if spec.submodule_search_locations is None: return [(package, Path(spec.origin))] if str(spec.origin).endswith('.py') else []
    res = []
    for root in spec.submodule_search_locations:
        for path in sorted(Path(root).rglob('*.py')):
            parts = path.relative_to(root).with_suffix('').parts
            if _SKIPPED_FOLDERS.isdisjoint(parts[:-1]): res.append(('.'.join((package, *parts)).removesuffix('.__init__'), path))
    return res

def _definitions(
    node:ast.AST, # A module, or any statement in it
    name:str, # Dotted name of what holds `node`
):
    "Yield each module, class and function in `node`, itself included, with its dotted name, in the order of the source"
    if isinstance(node, _DOCUMENTED):
        if not isinstance(node, ast.Module): name = f'{name}.{node.name}'
        yield name,node
    for field in _STATEMENT_LISTS:
        for child in getattr(node, field, []): yield from _definitions(child, name)

def _read(
    module:str, # Dotted name of the module
    path:Path, # Its file
) -> list: # (dotted name, docstring) in the order of the file; empty where it does not parse
    "Read the docstrings of one file from its source; nothing is executed"
    gc_was_on = gc.isenabled()
    # A syntax tree has no cycles, and with fastai in memory the search for them takes two fifths of the time
    gc.disable()
    with warnings.catch_warnings():
        # Invalid escapes in other people's packages
        warnings.simplefilter('ignore')
        try: return [(name, ast.get_docstring(node) or '') for name,node in _definitions(ast.parse(path.read_bytes()), module)]
        # The last two: code that is nested too deep
        except (SyntaxError, ValueError, RecursionError, MemoryError): return []
        finally:
            if gc_was_on: gc.enable()

def _texts(
    sources:list, # (dotted module name, path) of each file, as `_sources` gives them
    min_words:int, # Least words of a docstring
    n_max:int|None, # Docstrings at most; None for all
    seen:set, # Texts of other packages
) -> list: # (dotted name, docstring), in order of file and place in the file
    "Read the docstrings of one package, each once, or a fixed sample of them"
    # A draw from all docstrings would parse the whole package, and the first `n_max` would come from few files. So files are read
    # in a fixed random order until three times as many are found, and a fixed third of those is drawn
    files = list(enumerate(sources))
    if n_max is not None: Random(0).shuffle(files)
    found = {} # (file, place in all that was found, dotted name) by text
    for i,(module,path) in files:
        if n_max is not None and len(found) >= _OVERSAMPLING*n_max: break
        for name,text in _read(module, path):
            if len(text.split()) >= min_words and text not in seen: found.setdefault(text, (i, len(found), name))
    drawn = list(found.items())
    if n_max is not None: drawn = Random(0).sample(drawn, min(n_max, len(drawn)))
    def _place(item): return item[1]
    return [(name, text) for text,(_,_,name) in sorted(drawn, key=_place)]

def docstrings(
    packages:str|list|None=None, # Top-level import names; None for those of `PACKAGES` that are installed
    min_words:int=20, # Least words, split at white space, of a docstring
    n_max:int|None=None, # Docstrings a package at most, a fixed sample from all over it; None for all, which takes seconds a large package
) -> pd.DataFrame: # Columns `package`, `name` and `text`; rows in order of package, file and place in the file
    "Collect the docstrings of installed `packages`, each text once. Raises for a package without Python source"
    if n_max is not None and n_max < 1: raise ValueError(f'n_max is {n_max!r}: expected 1 docstring a package or more; omit it for all')
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
