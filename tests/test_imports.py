"Importing: any module alone, no side effects, imports that run one way"
import ast
import os
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from fastai.learner import Learner, Recorder
from stock.imports import ALONE
from stock.processes import Processes

forks = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')

PACKAGE = Path(find_spec('fastai_discrim').origin).parent
FILES = {'.'.join(p.relative_to(PACKAGE).with_suffix('').parts).removesuffix('.__init__'): p for p in sorted(PACKAGE.rglob('*.py'))}
FILES.pop('__init__')
# A script, and what it runs
SCRIPTS = '__main__',*(f'demo.{m}' for m in ('command', 'docstring_task', 'transformer_demo', 'ulmfit_demo'))
MODULES = [m for m in FILES if m not in SCRIPTS]
# What an extra needs: whoever imports it asks for texts, and for another's package
# transformers imports what a name needs only when the name is imported, and that may add filters of warnings
EXTRAS = {'huggingface': 'from fastai.text.all import *; import torch.utils.data; '
                         'from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding'}
EXTRA = [m for m in MODULES if m.split('.')[0] in EXTRAS]

# Imported only in functions: they build on fastai's callbacks, and importing these changes the default callbacks
LATE = {'callbacks.cycle_scheduler', 'run.callback_state', 'run.checkpointing', 'run.learner_state', 'run.phase_ending',
        'run.plan_callbacks', 'search.frozen_features', 'search.head_trials', 'search.miniature',
        'search.range_test'}

TORCH,BASICS = 'import torch','import fastai.basics'
# Of fastai, and of what is slow to import; each that is there
ALL_OF_FASTAI = """
import importlib
for name in ('text', 'vision', 'tabular', 'callback'): exec(f'from fastai.{name}.all import *')
for name in ('collab', 'distributed', 'callback.fp16', 'callback.rnn', 'callback.captum', 'callback.channelslast', 'medical.text'):
    try: importlib.import_module('fastai.'+name)
    except ImportError: pass
"""
# Packages that ours may bring, besides Python's own
ALLOWED = {'fastai_discrim', 'fastcore', 'fastprogress', 'numpy', 'pandas', 'matplotlib', 'torch', *sys.stdlib_module_names,
           # What these bring
           'mpl_toolkits', 'dateutil', 'pytz', 'tzdata', 'six', 'PIL', 'kiwisolver', 'cycler', 'pyparsing', 'packaging', 'contourpy',
           'numexpr', 'bottleneck', 'pyarrow', 'typing_extensions'}

@pytest.fixture(scope='module')
def processes():
    processes = Processes()
    yield processes
    processes.close()

# What importing does

@forks
@pytest.mark.parametrize('module', [m for m in MODULES if m not in EXTRA])
def test_a_module_imported_alone_changes_nothing(processes, module):
    loaded,changed = processes([TORCH, BASICS], 'stock.imports:import_alone', f'from fastai_discrim.{module} import *')
    of_fastai = [m for m in loaded if m.split('.')[0] == 'fastai']
    # All that fastai.basics has is there already, and whatever else fastai has changes how it behaves
    if module in LATE: assert changed == ['defaults'] and all(m.startswith(('fastai.callback.', 'fastai.fp16')) for m in of_fastai)
    else: assert changed == of_fastai == []
    assert {m.split('.')[0] for m in loaded} <= ALLOWED | {'fastai'}
    assert f'fastai_discrim.{module}' in loaded

@forks
@pytest.mark.parametrize('module', EXTRA)
def test_an_extra_changes_nothing_where_what_it_needs_is_there(processes, module):
    pytest.importorskip('transformers')
    first,statement = [TORCH, BASICS, EXTRAS[module.split('.')[0]]],f'from fastai_discrim.{module} import *'
    _,settings = processes(first, 'stock.imports:import_alone', statement)
    added,changed = processes(first, 'stock.imports:import_and_compare', statement)
    assert settings == changed == [] and {owner for owner,_ in added} <= {'fastai.learner.Learner', 'fastai.learner.Recorder'}

@forks
def test_an_extra_says_how_to_install_what_it_needs(processes):
    message = processes([TORCH, BASICS], 'stock.imports:import_without', 'transformers', 'from fastai_discrim.huggingface import *')
    assert "transformers isn't installed" in message and "pip install 'fastai_discrim[transformers]'" in message

@forks
@pytest.mark.parametrize('module', [m for m in MODULES if m.split('.')[0] == 'plan'])
def test_a_plan_is_known_without_a_learner(processes, module):
    loaded,_ = processes(['import torch, pandas, matplotlib.pyplot'], 'stock.loaded:import_alone', f'import fastai_discrim.{module}')
    assert f'fastai_discrim.{module}' in loaded
    assert [m for m in loaded if m.split('.')[0] == 'fastai' or m.split('.')[:2] in (['fastai_discrim', o] for o in ABOVE_PLANS)] == []

@forks
@pytest.mark.parametrize('name', ALONE)
def test_a_module_imported_alone_works(processes, name):
    added = processes([TORCH, BASICS], 'stock.imports:use_alone', name)
    assert set(ALONE[name][0]) <= set(added)

@forks
def test_nothing_is_loaded_to_divide_a_model(processes):
    assert processes([TORCH, BASICS], 'stock.imports:split_alone') == ([], True)

@forks
def test_neither_timm_nor_transformers_are_needed_to_divide_a_model(processes):
    assert processes([TORCH, BASICS], 'stock.imports:split_without', ('timm', 'transformers', 'accelerate')) == 10

def new_names(cls): return {k for k,v in vars(cls).items() if 'fastai_discrim' in str(getattr(getattr(v, 'fget', v), '__module__', ''))}

def test_each_method_of_ours_is_used_after_one_import():
    "All that we add to fastai's classes; a new method needs a use in `stock.imports.ALONE`"
    used = {name for names,_ in ALONE.values() for name in names}
    assert (new_names(Learner) | new_names(Recorder)) - {'fit', 'fine_tune'} <= used

@forks
@pytest.mark.parametrize('first', [BASICS, ALL_OF_FASTAI], ids=['basics', 'all_of_fastai'])
def test_only_fit_and_fine_tune_are_wrapped(processes, first):
    added,changed = processes([TORCH, BASICS, first], 'stock.imports:import_and_compare', 'from fastai_discrim.all import *')
    has_fine_tune = first != BASICS
    assert changed == [('fastai.learner.Learner', 'fine_tune')]*has_fine_tune + [('fastai.learner.Learner', 'fit')]
    assert {owner for owner,_ in added} <= {'fastai.learner.Learner', 'fastai.learner.Recorder'}
    assert not [name for _,name in added if name.startswith('_')]
    assert {name for _,name in added} == {name for names,_ in ALONE.values() for name in names}

# What the source says

@lru_cache
def parse(module): return ast.parse(FILES[module].read_text())

def full_name(module, level):
    "Return the package, within ours, that `level` dots mean in `module`"
    parts = ['fastai_discrim', *module.split('.')]
    if FILES[module].name == '__init__.py': level -= 1
    return parts[:len(parts)-level]

def imports(module, everywhere=True):
    "List the (module, name) pairs that `module` imports; the name is None where the module itself is"
    tree,res = parse(module),[]
    inside = {n for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if node in inside and not everywhere: continue
        if isinstance(node, ast.Import): res += [(a.name, None) for a in node.names]
        if isinstance(node, ast.ImportFrom):
            base = '.'.join([*(full_name(module, node.level) if node.level else []), *filter(None, [node.module])])
            for a in node.names:
                # `from . import x` imports a module
                ours = f'{base}.{a.name}'.removeprefix('fastai_discrim.')
                res.append((f'{base}.{a.name}', None) if ours in FILES else (base, a.name))
    return res

def ours(module, everywhere=True):
    "List the modules of ours that `module` imports"
    return [m.removeprefix('fastai_discrim.') for m,_ in imports(module, everywhere) if m.split('.')[0] == 'fastai_discrim' and '.' in m]

# Each may import those before it, and of its own folder; those on one line don't import each other
RANKS = [['autocast_state', 'checks', 'distributed', 'data_state', 'module_state', 'optional', 'portable', 'user_warning'],
         ['plan'], ['groups'], ['callbacks'], ['run'], ['search'],
         ['ulmfit_plan'], ['ulmfit', 'recipes', 'huggingface'], ['all', 'typed'], ['demo'], ['__main__']]
RANK = {folder: i for i,folders in enumerate(RANKS) for folder in folders}
# Depends on nothing of ours, though it lies in a higher folder
LOW = {'demo.docstrings'}
ABOVE_PLANS = [folder for folder,rank in RANK.items() if rank > RANK['plan']]

def test_every_folder_has_a_rank(): assert {m.split('.')[0] for m in FILES} == set(RANK)

@pytest.mark.parametrize('module', FILES)
def test_imports_run_one_way(module):
    folder = module.split('.')[0]
    for other in ours(module):
        top = other.split('.')[0]
        assert other in LOW or top == folder or RANK[top] < RANK[folder], f'{module} imports {other}'

def test_no_module_imports_itself_by_others():
    "Also within a folder, and of what is imported in functions: what is read first can be read first"
    below = {m: {o for o in ours(m) if o in FILES and o != m} for m in FILES}
    left = dict(below)
    while leaves := [m for m in left if not any(o in left for o in left[m])]:
        for m in leaves: del left[m]
    assert left == {}, {m: [o for o in os if o in left] for m,os in left.items()}

@pytest.mark.parametrize('module', [m for m in FILES if m.split('.')[0] == 'plan' or m in ('recipes.recipe', 'recipes.published')])
def test_data_knows_no_learner(module):
    reached,todo = {module},[module]
    while todo:
        m = todo.pop()
        todo += [o for o in ours(m) if o in FILES and o not in reached]
        reached |= set(todo)
    assert not {m for m in reached if m.split('.')[0] in ('groups', 'callbacks', 'run', 'search', 'ulmfit')}
    for m in reached:
        at_top = [o for o,_ in imports(m, everywhere=False)]
        assert not [o for o in at_top if o.startswith(('fastai.learner', 'fastai.callback', 'fastai.basics'))], m
        assert not [(o, name) for o,name in imports(m) if name in ('Learner', 'Recorder', 'Callback')], m

def test_late_modules_are_imported_in_functions_only():
    for m in FILES:
        if m in LATE: assert '__all__ = []' in FILES[m].read_text(), f'{m} has names for users'
        else: assert not LATE & set(ours(m, everywhere=False)), m

@pytest.mark.parametrize('module', MODULES)
def test_nothing_that_is_optional_is_imported_at_the_top(module):
    allowed = ALLOWED | {'fastai'} | ({'transformers', 'fasttransform'} if module in EXTRA else set())
    for name,_ in imports(module, everywhere=False): assert name.split('.')[0] in allowed, f'{module} imports {name}'

# Private names

def private(name): return name.startswith('_') and not name.startswith('__') and name != '_'

@lru_cache
def bound(module):
    "Return the private names that `module` binds: functions, classes, variables, methods, attributes"
    res = set()
    for node in ast.walk(parse(module)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): res.add(node.name)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): res.add(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store): res.add(node.attr)
        if isinstance(node, ast.keyword) and node.arg: res.add(node.arg)
        if isinstance(node, ast.arg): res.add(node.arg)
    return set(filter(private, res))

@pytest.mark.parametrize('module', FILES)
def test_no_private_name_is_imported(module):
    assert not [(m, name) for m,name in imports(module) if m.split('.')[0] == 'fastai_discrim' and private(name or m.split('.')[-1])]

@pytest.mark.parametrize('module', FILES)
def test_no_private_name_of_another_module_is_read(module):
    own,others = bound(module),set().union(*(bound(m) for m in FILES if m != module))
    read = {n.attr for n in ast.walk(parse(module)) if isinstance(n, ast.Attribute) and private(n.attr)}
    # By name, as in `getattr(learn, '_x')`
    read |= {n.value for n in ast.walk(parse(module)) if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value.isidentifier()
             and private(n.value)}
    of_fastai = {k for k in others if hasattr(Learner, k) or hasattr(Recorder, k) or k in OPTIMIZER}
    assert read & others - own - of_fastai == set()

OPTIMIZER = {'_set_hyper', '_stateattrs'}

# Attributes on the learner

def is_learner(node):
    "Tell whether an expression is a learner, by its name"
    return isinstance(node, ast.Name) and node.id == 'learn' or isinstance(node, ast.Attribute) and node.attr == 'learn'

def set_on_learner(module):
    "List the attributes that `module` sets on a learner"
    res = []
    for f in ast.walk(parse(module)):
        if not isinstance(f, ast.FunctionDef): continue
        patches = bool(f.args.args) and ast.unparse(f.args.args[0]) in ('self: Learner', 'self:Learner')
        for node in ast.walk(f):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
                if is_learner(node.value) or patches and ast.unparse(node.value) == 'self': res.append(node.attr)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == 'setattr' and is_learner(node.args[0]):
                res.append(ast.literal_eval(node.args[1]) if isinstance(node.args[1], ast.Constant) else ast.unparse(node.args[1]))
    return res

# What a learner of fastai's has
OF_LEARNER = {'cbs', 'create_mbar', 'dl', 'dls', 'epoch', 'final_record', 'iter', 'lock', 'logger', 'loss', 'loss_func', 'loss_grad', 'lr',
              'metrics', 'model', 'moms', 'n_epoch', 'n_iter', 'opt', 'opt_func', 'pct_train', 'pred', 'smooth_loss', 'splitter',
              'train_iter', 'training', 'wd', 'xb', 'yb'}

@pytest.mark.parametrize('module', FILES)
def test_no_attribute_of_ours_is_set_on_a_learner(module):
    names = set_on_learner(module)
    if module == 'run.learner_state':
        from fastai_discrim.run.learner_state import COUNTS
        names = [n for n in names if n != 'k'] + [*COUNTS]
    assert set(names) <= OF_LEARNER
