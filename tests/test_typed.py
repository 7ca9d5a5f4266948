"The stubs in `typed` have the same parameters as the patched methods"
import ast
import inspect
from pathlib import Path

import pytest
from fastai.learner import Learner, Recorder

import fastai_discrim.all  # noqa: F401, for the methods
from fastai_discrim import typed

TREE = ast.parse(Path(typed.__file__).read_text())
CLASSES = {node.name: node for node in ast.walk(TREE) if isinstance(node, ast.ClassDef)}
STUBS = {(owner, f.name): f for owner,name in ((Learner, 'PatchedLearner'), (Recorder, 'PatchedRecorder'))
         for f in CLASSES[name].body if isinstance(f, ast.FunctionDef)}
PLAN_ARGS = [o.target.id for o in CLASSES['PlanArgs'].body if isinstance(o, ast.AnnAssign)]

def is_ours(f): return 'fastai_discrim' in str(getattr(getattr(f, 'fget', f), '__module__', ''))

def test_each_method_has_its_types():
    ours = {(owner, name) for owner in (Learner, Recorder) for name,f in vars(owner).items() if is_ours(f)}
    assert set(STUBS) == {(owner, name) for owner,name in ours if name not in ('fit', 'fine_tune')}

def parameters(f):
    "Return the names of a stub's parameters with their defaults as text; those of `ulmfit_plan` where it takes these"
    args,kwonly = f.args.args,f.args.kwonlyargs
    defaults = [None]*(len(args)-len(f.args.defaults)) + f.args.defaults + f.args.kw_defaults
    res = {a.arg: d and ast.unparse(d) for a,d in zip([*args, *kwonly], defaults)}
    kwarg = f.args.kwarg
    if kwarg and 'PlanArgs' in ast.unparse(kwarg.annotation): return res | {name: '...' for name in PLAN_ARGS}
    return res | ({kwarg.arg: None} if kwarg else {})

def default(p):
    if p.default is inspect.Parameter.empty: return None
    # The text of a function can't be compared
    return '...' if callable(p.default) else repr(p.default)

@pytest.mark.parametrize('owner,name', STUBS, ids=[name for _,name in STUBS])
def test_parameters_are_those_of_the_method(owner, name):
    f = vars(owner)[name]
    real = inspect.signature(getattr(f, 'fget', f)).parameters
    stub = parameters(STUBS[owner,name])
    assert list(stub) == list(real)
    same = {k: v for k,v in stub.items() if v != '...'}
    assert {k: v and ast.literal_eval(v) for k,v in same.items()} == {k: (d := default(real[k])) and ast.literal_eval(d) for k in same}

def test_nothing_changes_when_it_runs(): assert typed.PatchedLearner is Learner and typed.PatchedRecorder is Recorder

def test_the_package_says_that_it_is_typed(): assert (Path(typed.__file__).parent/'py.typed').exists()
