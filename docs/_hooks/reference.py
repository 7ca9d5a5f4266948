"""A hook of MkDocs: the reference, from the docments.

A line `::: NAME` in a page becomes what fastcore makes of that function or class: its signature, its docstring and the table of its
parameters."""
import importlib
import inspect
import re
from functools import cache
from textwrap import wrap

from fastai.callback.core import Callback
from fastcore.docments import DocmentTbl

LINE = re.compile(r'^::: ([\w.]+)$', re.MULTILINE)
# `NAME` is looked for in these, in order
MODULES = 'fastai_discrim.all', 'fastai_discrim.huggingface', 'fastai_discrim.recipes', 'fastai.learner'
# What objects are called in examples
CALLED = {'Learner': 'learn', 'Recorder': 'learn.recorder', 'Plan': 'plan', 'Recipe': 'recipe', 'HFTextLearner': 'learn'}
# Longer signatures are wrapped
MAX_COLUMNS = 88
WITH_MODULE = re.compile(r'\b(?:fastai_discrim|fastai|fastcore|pandas|pathlib|numpy|torch)(?:\.\w+)*\.(?=[A-Z])')

@cache
def modules(): return [importlib.import_module(o) for o in MODULES]

def find(name):
    "Return the object, and the name that a user calls it by"
    first,*rest = name.split('.')
    owner = next((getattr(m, first) for m in modules() if hasattr(m, first)), None)
    if owner is None: raise ValueError(f'::: {name}: expected a public name of {" or ".join(MODULES)}')
    o = owner
    for part in rest: o = inspect.getattr_static(o, part) if isinstance(inspect.getattr_static(o, part), property) else getattr(o, part)
    if not rest: return o,name
    is_static = inspect.ismethod(getattr(owner, rest[0]))
    return o,'.'.join([first if is_static else CALLED.get(first, first), *rest])

def short(text): return WITH_MODULE.sub('', text)

def takes_nothing(o):
    "Tell whether a class is a callback without arguments of its own: fastai's base class takes any event"
    return inspect.isclass(o) and issubclass(o, Callback) and o.__init__ is Callback.__init__

def signature(o, name):
    "Return the call as text: names and defaults, since types stand in the table"
    params = [] if takes_nothing(o) else [p for p in inspect.signature(o).parameters.values() if p.name != 'self']
    args,starred = [],False
    for p in params:
        if p.kind is p.KEYWORD_ONLY and not starred: args,starred = [*args, '*'],True
        if p.kind is p.VAR_POSITIONAL: starred = True
        mark = {p.VAR_POSITIONAL: '*', p.VAR_KEYWORD: '**'}.get(p.kind, '')
        args.append(f'{mark}{p.name}' + ('' if p.default is p.empty else f'={p.default!r}'))
    indent = ' '*(len(name)+1)
    lines = wrap(f'{name}({", ".join(args)})', MAX_COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return '\n'.join(lines)

def params_table(o):
    "Return the table of parameters, and of what a function itself returns: fastcore shows that of a function to which it delegates, too"
    # A class returns what it is
    returns = not inspect.isclass(o) and inspect.signature(o).return_annotation is not inspect.Signature.empty
    # Where there is no annotation, fastcore shows the type of the default
    return short(DocmentTbl(o, returns=returns)._repr_markdown_()).replace('| NoneType |', '|  |')

def shown(name):
    "Return an entry of the reference as Markdown"
    o,called = find(name)
    level = '###' if '.' in name and not name.startswith(('Learner.', 'Recorder.', 'HF')) else '##'
    parts = [f'{level} {called} {{ #{name} }}']
    if isinstance(o, property): return '\n\n'.join([*parts, inspect.getdoc(o) or ''])
    text,_,example = (inspect.getdoc(o) or '').partition('\n\n')
    call = f'```python {{ .signature }}\n{short(signature(o, called))}\n```'
    table = '' if takes_nothing(o) else params_table(o)
    if example: example = f'```pycon\n{example}\n```'
    return '\n\n'.join(filter(None, [*parts, call, text.replace('\n', ' '), table, example]))

def on_page_markdown(markdown, page, config, files):
    return LINE.sub(lambda m: shown(m[1]), markdown)
