"What importing a module of ours changes in a process that has imported fastai.basics, and whether the module works there"
import io
import os
import sys
import tempfile
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from fastai.basics import Learner, Recorder, defaults, nn

from .learner import make, randomness


def modules(): return {k for k,v in sys.modules.items() if v is not None}

def settings():
    "Return what is set for the whole process"
    return dict(randomness(), defaults={k: list(v) if isinstance(v, list) else v for k,v in vars(defaults).items()},
                environ=dict(os.environ), warnings=list(warnings.filters), rc=dict(mpl.rcParams), backend=mpl.get_backend(),
                torch_dtype=torch.get_default_dtype(), threads=torch.get_num_threads(), grad=torch.is_grad_enabled(),
                deterministic=torch.are_deterministic_algorithms_enabled(), numpy=np.geterr(), print=np.get_printoptions(),
                columns=pd.get_option('display.max_columns'), path=list(sys.path), hook=sys.excepthook, cwd=os.getcwd())

def import_alone(statement):
    "Import, and return the modules that came, and which settings changed"
    loaded,before = modules(),settings()
    exec(statement, {})
    after = settings()
    return sorted(modules() - loaded),[k for k in before if before[k] != after[k]]

def import_without(package, statement):
    "Import as if `package` weren't installed, and return what is said"
    from importlib import machinery
    find = machinery.PathFinder.find_spec
    machinery.PathFinder.find_spec = lambda name, *args: None if name == package else find(name, *args)
    try: exec(statement, {})
    except ImportError as e: return str(e)

def attributes(prefixes=('fastai', 'fastcore', 'fasttransform')):
    "Return the attributes of all classes and modules of fastai's that are loaded"
    res = {}
    for name,module in list(sys.modules.items()):
        if name.split('.')[0] not in prefixes: continue
        res[name] = dict(vars(module))
        for cls in list(vars(module).values()):
            if not isinstance(cls, type) or cls.__module__.split('.')[0] not in prefixes: continue
            res[f'{cls.__module__}.{cls.__qualname__}'] = dict(vars(cls))
    for cls in (nn.Module, nn.Sequential, torch.Tensor, torch.optim.Optimizer, torch.utils.data.DataLoader, pd.DataFrame):
        res[cls.__qualname__] = dict(vars(cls))
    return res

def split_alone():
    "Import what divides models, and divide one; return what that loads of packages that models are made with, and whether callbacks stay"
    before,callbacks = modules(),list(defaults.callbacks)
    from fastai_discrim.groups import (  # noqa: F401, for what they load
        blocks,
        labels,
        layer_groups,
        norms,
        parallel,
        repeats,
        split,
        text_models,
        timm_models,
    )
    m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert len(split.layerwise_split(m)) == 2 and text_models.text_splitter(m) is None
    loaded = [n for n in modules() - before if n.split('.')[0] in ('fastai', 'timm', 'torchvision', 'transformers')]
    return loaded,list(defaults.callbacks) == callbacks

def split_without(packages):
    "Divide a model of torchvision where `packages` can't be imported, and return the number of its layers"
    for n in packages: sys.modules[n] = None
    from torchvision.models import resnet18

    from fastai_discrim.all import layerwise_split
    return len(layerwise_split(resnet18()))

# What Python adds to a package that a module of is imported, and to a class that has a subclass or is copied
OF_PYTHON = ('__doc__', '__abstractmethods__', '_abc_impl', '__annotations__', '__annotations_cache__', '__static_attributes__',
             '__slotnames__')

def import_and_compare(statement):
    "Import, and return the attributes that were added to classes and modules, and those that were changed"
    before = attributes()
    lists = {k: {a: repr(v) for a,v in attrs.items() if isinstance(v, (list, dict, set, tuple))} for k,attrs in before.items()}
    exec(statement, {})
    after,added,changed = attributes(),[],[]
    for owner,old in before.items():
        new = after[owner]
        added += [(owner, k) for k in new if k not in old and k not in OF_PYTHON]
        changed += [(owner, k) for k in old if k not in OF_PYTHON and new.get(k) is not old[k]]
        if owner not in sys.modules: changed += [(owner, k) for k,v in lists[owner].items() if k in new and repr(new[k]) != v]
    return sorted(added),sorted(set(changed))

def _plan():
    from fastai_discrim.plan.phase import Phase
    from fastai_discrim.plan.plan import Plan
    from fastai_discrim.plan.schedules import STLR
    return Plan([Phase(1, (2,), [1e-3, 3e-3, 1e-2], STLR()), Phase(2, (0, 1, 2), [1e-3, 3e-3, 1e-2], STLR())])

def _check_trained(learn, epochs):
    assert len(learn.recorder.values) == epochs and len(learn.recorder.losses) == 3*epochs and not learn.recorder.losses[-1].isnan()

def _fit_plan(learn, **kwargs):
    learn.fit_plan(_plan(), **kwargs)
    _check_trained(learn, 3)

def _load_checkpoint(learn):
    from fastai_discrim.run.fit_plan import fit_plan  # noqa: F401, for `learn.fit_plan`
    learn.fit_plan(_plan(), checkpoint='run')
    assert learn.load_checkpoint('run') is learn

def _early_stop(learn):
    from dataclasses import replace

    from fastai_discrim.plan.phase import EarlyStop
    plan = _plan()
    *first,last = plan.phases
    learn.fit_plan(replace(plan, phases=[*first, replace(last, early_stop=EarlyStop(1, min_delta=10.))]))
    assert len(learn.recorder.values) == 3

def _ulmfit(learn):
    assert learn.ulmfit_plan(3).n_epoch == 3
    learn.fit_ulmfit(3)
    _check_trained(learn, 3)

def _head_lr_find(learn):
    cbs,has_bar = list(learn.cbs),hasattr(learn, 'progress')
    with redirect_stdout(out := io.StringIO()): res = learn.head_lr_find(show_plot=False)
    assert 1e-4 < res.lr < 10 and len(res.lrs) == len(res.losses) > 5 and res.how.startswith('validation loss')
    # What the search imports for its own bar gives the learner none
    assert learn.cbs == cbs and hasattr(learn, 'progress') == has_bar and (has_bar or not out.getvalue().strip())

def _range_test(learn):
    # The body is at work after the head
    class Body(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers,self.head = layers[:-1],layers[-1]
        def forward(self, x): return self.head(self.layers(x)) + self.layers(x).mean()
    learn.model = Body(learn.model)
    learn.splitter = lambda m: [list(m.layers.parameters()), list(m.head.parameters())]
    assert learn.head_lr_find(show_plot=False).how.startswith('range test')

def _fit_sched(learn):
    learn.fit_stlr(2, 1e-2)
    _check_trained(learn, 2)
    learn.fit_clr_beta(2, slice(1e-3, 1e-2))
    _check_trained(learn, 2)
    assert learn.recorder.lrs[0] < learn.recorder.lrs[1]

def _recipe(learn):
    from fastai_discrim.plan.schedules import STLR
    from fastai_discrim.recipes.recipe import Recipe, Step
    learn = make(learn.path, sizes=(4, 8, 8, 8, 8, 2))
    steps = tuple(Step(1, groups, 2.6, STLR()) for groups in ((4,), (0, 1, 2, 3, 4)))
    recipe = Recipe('a recipe', 'classifier', 'nowhere', 1e-2, steps, clip=0.1)
    learn.apply_recipe(recipe)
    _check_trained(learn, 2)

def _layer_groups(learn):
    assert len(learn.layer_groups()) == 3 and len(learn.regroup(n_groups=2).layer_groups()) == 2

def _unfreezing(learn):
    from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing
    learn.fit(4, cbs=GradualUnfreezing(1))
    _check_trained(learn, 4)
    learn.fit(4, cbs=ChainThaw)
    _check_trained(learn, 4)

def _discriminative(learn):
    from fastai_discrim.callbacks.discriminative import DiscriminativeLR
    learn.fit(2, cbs=DiscriminativeLR)
    _check_trained(learn, 2)

def _group_lrs(learn):
    from fastai_discrim.callbacks.group_lrs import GroupLRRecorder
    learn.fit(1, slice(1e-3, 1e-2), cbs=GroupLRRecorder())
    assert learn.recorder.group_lrs.shape == (3, 3)
    learn.recorder.plot_group_lrs()

def _records_rates(f):
    "Return a function that calls `f`, and expects the rates of its fit to be recorded"
    def _f(learn):
        f(learn)
        assert learn.recorder.group_lrs.shape[1] >= 2
    return _f

def _run_record(learn):
    import fastai_discrim.run.fit_plan  # noqa: F401
    learn.fit_plan(_plan())
    assert learn.recorder.run_record()
    assert Path(learn.path/'run.json') == learn.recorder.save_run()

def _json(learn):
    from fastai_discrim.plan.plan import Plan
    plan = _plan()
    assert Plan.from_json(plan.to_json()) == plan and plan.lrs(3).shape == (9, 3) and plan._repr_html_()
    plan.plot()

def _compare(learn):
    from fastai_discrim.plan.compare import compare_plans
    assert len(compare_plans(_plan(), _plan(), show_plot=False)) == 0

def _published(learn):
    from fastai_discrim.recipes import recipes
    assert recipes.paper_clas.plan().n_groups == 5 and recipes.paper_clas.learner_kwargs

def _split(learn):
    from fastai_discrim.groups.split import layerwise_split
    assert len(layerwise_split(learn.model)) == 3

# For each module, imported alone: what it adds to Learner and Recorder, and a use of it
ALONE = {
    'run.fit_plan': (['fit_plan'], _fit_plan), 'run.fit_plan that records rates': ([], _records_rates(_fit_plan)),
    'run.fit_plan with a checkpoint': ([], lambda learn: _fit_plan(learn, checkpoint='run')),
    'run.fit_plan with early stopping': ([], _early_stop),
    'run.load_checkpoint': (['load_checkpoint'], _load_checkpoint),
    'run.run_record': (['run_record', 'save_run'], _run_record),
    'ulmfit': (['ulmfit_plan', 'fit_ulmfit', 'body_lr_find'], _ulmfit),
    'search.head_lr': (['head_lr_find'], _head_lr_find), 'search.head_lr by a range test': ([], _range_test),
    'callbacks.fit_sched': (['fit_stlr', 'fit_clr_beta'], _fit_sched),
    'callbacks.fit_sched that records rates': ([], _records_rates(_fit_sched)),
    'callbacks.unfreezing': ([], _unfreezing), 'callbacks.unfreezing that records rates': ([], _records_rates(_unfreezing)),
    'callbacks.discriminative': ([], _discriminative), 'callbacks.group_lrs': (['group_lrs', 'plot_group_lrs'], _group_lrs),
    'callbacks': ([], lambda learn: (_unfreezing(learn), _discriminative(learn), _group_lrs(learn))),
    'recipes.apply': (['apply_recipe'], _recipe), 'recipes': ([], _published), 'recipes.published': ([], _published),
    'groups.layer_groups': (['layer_groups', 'regroup'], _layer_groups), 'groups.split': ([], _split),
    'plan.plan': ([], _json), 'plan.compare': ([], _compare),
    'all': ([], lambda learn: [f(learn) for f in (_fit_plan, _head_lr_find, _fit_sched, _unfreezing, _group_lrs, _recipe, _run_record)]),
}

def use_alone(name):
    "Import one module, and use it; return the names that it added to Learner and Recorder"
    before = {cls: set(vars(cls)) for cls in (Learner, Recorder)}
    exec(f'from fastai_discrim.{name.split()[0]} import *', {})
    names = sorted(k for cls in before for k in set(vars(cls)) - before[cls])
    with tempfile.TemporaryDirectory() as path: ALONE[name][1](make(Path(path)))
    return names
