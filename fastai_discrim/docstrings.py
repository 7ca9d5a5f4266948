"Docstrings of the packages installed with fastai: a text corpus that needs no download"

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

# Required by fastai, or by what it requires, on every platform, and with 200 texts or more; most texts first. fastai's own are too short
PACKAGES = ('torch', 'sympy', 'scipy', 'pandas', 'sklearn', 'matplotlib', 'beartype', 'networkx', 'numpy', 'fontTools', 'torchvision',
            'pydantic', 'pygments', 'spacy', 'rich', 'mpmath', 'PIL', 'fsspec', 'jinja2')

# Folders of tests, and of copies of other packages, which would put one text under two labels. The last line is for scipy and torch
_SKIPPED = {'test', 'tests', 'testing', '_testing', '_vendor', '_vendored', 'vendor', 'vendored', 'externals', '_externals', 'extern',
            'third_party', 'array_api_compat', 'array_api_extra', 'cobyqa', 'pyprima', '_uarray', 'vendored_templates'}

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Definitions stand only in these lists of statements: to leave expressions alone is ten times as fast as `ast.walk`
_BLOCKS = ('body', 'handlers', 'cases', 'orelse', 'finalbody')

def _sources(
    package:str, # Top-level import name
) -> list: # (dotted module name, path) of each file, in order of path; empty where there is no Python source
    "The source files of `package`, found without importing it"
    # `find_spec` imports the parents of a dotted name, so only a plain name may reach it
    spec = find_spec(package) if isinstance(package, str) and package.isidentifier() else None
    if spec is None: return []
    if spec.submodule_search_locations is None: return [(package, Path(spec.origin))] if str(spec.origin).endswith('.py') else []
    res = []
    for root in spec.submodule_search_locations:
        for path in sorted(Path(root).rglob('*.py')):
            parts = path.relative_to(root).with_suffix('').parts
            if _SKIPPED.isdisjoint(parts[:-1]): res.append(('.'.join((package,) + parts).removesuffix('.__init__'), path))
    return res

def _definitions(
    node:ast.AST, # A module, or any statement in it
    name:str, # Dotted name of what holds `node`
):
    "Each module, class and function in `node`, itself included, with its dotted name, in the order of the source"
    if isinstance(node, _DOCUMENTED):
        if not isinstance(node, ast.Module): name = f'{name}.{node.name}'
        yield name,node
    for block in _BLOCKS:
        for child in getattr(node, block, []): yield from _definitions(child, name)

def _read(
    module:str, # Dotted name of the module
    path:Path, # Its file
) -> list: # (dotted name, docstring) in the order of the file; empty where it does not parse
    "The docstrings of one file, from its source: nothing is executed"
    collects = gc.isenabled()
    gc.disable() # a syntax tree has no cycles, and with fastai in memory the search for them is two fifths of the time
    with warnings.catch_warnings():
        warnings.simplefilter('ignore') # invalid escapes are for the package's authors to mend
        try: return [(name, ast.get_docstring(node) or '') for name,node in _definitions(ast.parse(path.read_bytes()), module)]
        except (SyntaxError, ValueError, RecursionError, MemoryError): return [] # the last two are for code nested too deep
        finally:
            if collects: gc.enable()

def docstrings(
    packages:str|list=None, # Top-level import names; all of `PACKAGES` that are installed, if None
    min_words:int=20, # Words, split at white space, that a docstring needs to be kept
    n_max:int=None, # Docstrings a package at most, a fixed sample from all over it; all of them if None, some seconds a large package
) -> pd.DataFrame: # Columns `package`, `name` and `text`; rows in order of package, file and place in the file
    "Docstrings of installed `packages`, each of `min_words` words or more and kept once, at most `n_max` a package"
    if n_max is not None and n_max < 1: raise ValueError(f'n_max is {n_max!r}: expected 1 docstring a package or more; omit it for all')
    rows,seen = [],set()
    for package in L(PACKAGES if packages is None else packages):
        sources = list(enumerate(_sources(package)))
        if not sources and packages is not None:
            raise ValueError(f'packages has {package!r}: expected the top-level import name of an installed package with Python source; '
                             'install it or leave it out')
        # A draw from all docstrings would parse the whole package, and the first `n_max` of whole files would come from few of them.
        # So files in a fixed shuffled order until three times as many are found, and a fixed random third of those
        if n_max is not None: Random(0).shuffle(sources)
        found = {} # by text, (file, place, name): the first two are the sort key
        for i,(module,path) in sources:
            if n_max is not None and len(found) >= 3*n_max: break
            for name,text in _read(module, path):
                if len(text.split()) >= min_words and text not in seen: found.setdefault(text, (i, len(found), name))
        kept = list(found.items())
        if n_max is not None: kept = Random(0).sample(kept, min(n_max, len(kept)))
        kept.sort(key=itemgetter(1))
        seen.update(text for text,_ in kept)
        rows += [(package, name, text) for text,(_,_,name) in kept]
    return pd.DataFrame(rows, columns=['package', 'name', 'text'])
