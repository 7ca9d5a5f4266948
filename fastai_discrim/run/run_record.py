"Record a run in one JSON file: the plan, the environment, and the results"
__all__ = []

import platform
from inspect import signature
from numbers import Real
from pathlib import Path

import fastai
import torch
from fastai.learner import Recorder
from fastcore.basics import patch

from .. import __version__
from ..callbacks.base import FitCallback
from ..callbacks.group_lrs import record_on
from ..checks import batch_size, count_items
from ..plan.json_text import dumps, json_number, jsonable
from ..plan.plan import Plan
from .run_identity import func_name


def _simple_args(cb):
    "Return the arguments of callback `cb` that are numbers or text"
    return {k: vars(cb)[k] for k in signature(type(cb).__init__).parameters if isinstance(vars(cb).get(k), (bool, int, float, str))}

def _value(v):
    "Return the value `v` of a metric as JSON can hold it"
    try: return jsonable(v, 'a metric')
    except TypeError: return str(v)

def _unique(names):
    "Number the repeated names"
    return [n if n not in names[:i] else f'{n} {names[:i].count(n)+1}' for i,n in enumerate(names)]

class RunRecorder(FitCallback):
    "Keep the facts that a record of the run needs: `validate` and `get_preds` reset those of the recorder"
    order = Recorder.order+2
    def __init__(self, plan:Plan): self.plan = plan

    def before_fit(self):
        self.cancelled = False
        names = _unique([n for n in self.recorder.metric_names[1:] if n != 'time'])
        callbacks = {cb.name: _simple_args(cb) for cb in self.learn.cbs}
        ran = dict(torch_seed=torch.initial_seed(), callbacks=callbacks, names=names, epochs=[], finished=False,
                   n_iter=len(self.dls.train))
        phase_ends = self.plan.timeline(ran['n_iter']).ends
        record_on(self.recorder, plan=self.plan, ran=ran, group_lr_phases=phase_ends)

    def after_epoch(self):
        values = self.recorder.values[-1]
        # There are none for an epoch that `start_epoch` skips
        if len(values): self.recorder.ran['epochs'].append([self.epoch, [_value(v) for v in values]])

    def after_cancel_fit(self): self.cancelled = True
    def after_fit(self):
        if not self.cancelled: self.recorder.ran['finished'] = bool(self.recorder.ran['epochs'])

def _phases(plan, ran):
    "Return the results by phase and epoch; an epoch belongs to the phase of its last step"
    timeline,n_iter = plan.timeline(ran['n_iter']),ran['n_iter']
    res = [dict(phase=i, epochs=[]) for i in range(1, len(plan.phases)+1)]
    for epoch,values in ran['epochs']:
        last_step = (epoch+1)*n_iter - 1
        res[timeline.phase(last_step)]['epochs'].append(dict(epoch=epoch, **_named(ran['names'], values)))
    return res

def _named(names, values):
    "Name the values of an epoch; after a cancelled training or validation it is unknown which values these are"
    return dict(zip(names, values)) if len(values) == len(names) else dict(incomplete=values)

def _size(dl): return dict(items=count_items(dl), batches=len(dl), batch_size=batch_size(dl))

def _optimiser(learn):
    "Return the name of the optimiser and its hyper-parameters that no schedule changes"
    opt = learn.opt
    fixed = {k:v for k,v in opt.hypers[-1].items() if k not in ('lr', 'mom') and isinstance(v, Real) and not isinstance(v, bool)}
    return dict(name=type(getattr(opt, 'opt', opt)).__name__, opt_func=func_name(learn.opt_func), moms=learn.moms,
                **{k: json_number(v) for k,v in fixed.items()})

@patch
def run_record(self:Recorder,
    **notes, # Anything else to record, such as `seed=42` or `data='imdb'`
) -> dict: # Values that JSON can hold
    "Record the last fit of a plan: the plan, η_L, versions, torch's seed, optimiser, sizes, callbacks, and losses and metrics by epoch"
    # The model may have an attribute of this name, to which fastai's recorder leads
    if 'plan' not in vars(self): raise ValueError('no fit of this learner ran a plan: expected `learn.fit_plan`, `fit_ulmfit` or '
                                           '`apply_recipe` before this')
    plan,ran,loaders = self.plan,self.ran,self.learn.dls.loaders
    return dict(
        fastai_discrim='Run', version=1, notes={k: jsonable(v, k) for k,v in notes.items()},
        versions=dict(fastai_discrim=__version__, fastai=fastai.__version__, torch=str(torch.__version__),
                      python=platform.python_version()),
        torch_seed=ran['torch_seed'], finished=ran['finished'],
        lr=plan.lr, lr_from=plan.lr_from, optimiser=_optimiser(self.learn), callbacks=ran['callbacks'],
        train=_size(loaders[0]), valid=_size(loaders[1]) if len(loaders) > 1 else None,
        phases=_phases(plan, ran), plan=plan.to_dict())

@patch
def save_run(self:Recorder,
    fname:str|Path='run.json', # Name of the file, in `learn.path`
    **notes, # Anything else to record, such as `seed=42` or `data='imdb'`
) -> Path: # The file
    "Write `run_record` to a JSON file; `Plan.from_json` reads the plan from it"
    path = self.learn.path/fname
    path.mk_write(dumps(self.run_record(**notes)) + '\n')
    return path
