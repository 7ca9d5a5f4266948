"What a run leaves behind: the plan that ran, where it ran, and what came of it, as one JSON file"
__all__ = []

import platform
from inspect import signature
from numbers import Real
from pathlib import Path

import fastai
import torch
from fastai.learner import Recorder
from fastcore.basics import patch

from . import __version__
from .as_json import dumps, jsonable, plain
from .checkpoint import func_name
from .checks import count_items
from .plan import Plan


def _given(cb):
    "The arguments that callback `cb` was made with, where they are numbers or text"
    return {k: vars(cb)[k] for k in signature(type(cb).__init__).parameters if isinstance(vars(cb).get(k), (bool, int, float, str))}

def _value(v):
    "`v`, of any metric, as JSON can hold it"
    try: return jsonable(v, 'a metric')
    except TypeError: return str(v)

@patch
def begin_run(self:Recorder,
    plan:Plan, # What is going to run
):
    "Keep what a record of the run tells and can't be asked for later: `validate` and `get_preds` begin the recorder's own anew"
    names = [n for n in self.metric_names[1:] if n != 'time']
    names = [n if n not in names[:i] else f'{n} {names[:i].count(n)+1}' for i,n in enumerate(names)]
    self.plan = plan
    self.ran = dict(torch_seed=torch.initial_seed(), callbacks={cb.name: _given(cb) for cb in self.learn.cbs}, names=names, epochs=[],
                    finished=False)

@patch
def add_epoch(self:Recorder):
    "Keep the losses and metrics of the epoch that ended; there are none of one that `start_epoch` left out"
    if len(self.values[-1]): self.ran['epochs'].append([self.epoch, [_value(v) for v in self.values[-1]]])

@patch
def end_run(self:Recorder):
    "Keep that the fit came to its end, and not to another"
    self.ran['finished'] = bool(self.ran['epochs'])

def _phases(plan, names, epochs):
    "What came of each phase, epoch by epoch; where part of an epoch was left out, fastai doesn't say which numbers are there"
    done,res = 0,[]
    for i,p in enumerate(plan.phases, 1):
        ran = [(e, v) for e,v in epochs if done <= e < done+p.epochs]
        rows = [dict(epoch=e, **(dict(zip(names, v)) if len(v) == len(names) else dict(incomplete=v))) for e,v in ran]
        res.append(dict(phase=i, epochs=rows))
        done += p.epochs
    return res

def _size(dl): return dict(items=count_items(dl), batches=len(dl), batch_size=getattr(dl, 'bs', None) or getattr(dl, 'batch_size', None))

def _optimiser(learn):
    opt = learn.opt
    hypers = {k: plain(v) for k,v in opt.hypers[-1].items() if k not in ('lr', 'mom') and isinstance(v, Real) and not isinstance(v, bool)}
    return dict(name=type(getattr(opt, 'opt', opt)).__name__, opt_func=func_name(learn.opt_func), moms=learn.moms, **hypers)

@patch
def run_record(self:Recorder,
    **notes, # What else is to be kept, such as `seed=42` or `data='imdb'`
) -> dict: # What JSON can hold
    "The last fit of a plan: the plan, η_L, versions, torch's seed, optimiser, sizes, callbacks, and losses and metrics epoch by epoch"
    if self.plan is None: raise ValueError('the last fit, if there was one, ran no plan: expected `learn.fit_plan`, `fit_ulmfit` or '
                                           '`apply_recipe` before this')
    plan,ran,loaders = self.plan,self.ran,self.learn.dls.loaders
    return dict(
        fastai_discrim='Run', version=1, notes={k: jsonable(v, k) for k,v in notes.items()},
        versions=dict(fastai_discrim=__version__, fastai=fastai.__version__, torch=str(torch.__version__),
                      python=platform.python_version()),
        torch_seed=ran['torch_seed'], finished=ran['finished'],
        lr=plan.lr, lr_from=plan.lr_from, optimiser=_optimiser(self.learn), callbacks=ran['callbacks'],
        train=_size(loaders[0]), valid=_size(loaders[1]) if len(loaders) > 1 else None,
        phases=_phases(plan, ran['names'], ran['epochs']), plan=plan.to_dict())

@patch
def save_run(self:Recorder,
    fname:str|Path='run.json', # Under `learn.path`
    **notes, # What else is to be kept, such as `seed=42` or `data='imdb'`
) -> Path: # The file
    "Write `run_record` to a JSON file, from which `Plan.from_json` reads the plan again"
    text,path = dumps(self.run_record(**notes)),self.learn.path/fname
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + '\n')
    return path
