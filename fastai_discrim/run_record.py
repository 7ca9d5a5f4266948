"What a run leaves behind: the plan that ran, where it ran, and what came of it, as one JSON file"
__all__ = []

import platform
from pathlib import Path

import fastai
import torch
from fastai.learner import Recorder
from fastcore.basics import patch

from . import __version__
from .plan import dumps, plain


def _epoch(names, epoch, values):
    "Loss and metrics of one epoch by name; where part of it was left out, fastai doesn't say which numbers these are"
    values = [None if v is None else plain(v) for v in values]
    return dict(epoch=epoch, **dict(zip(names, values))) if len(values) == len(names) else dict(epoch=epoch, incomplete=values)

def _phases(recorder):
    "What came of each phase, epoch by epoch; an epoch that `start_epoch` left out has no values"
    names,done,res = [n for n in recorder.metric_names[1:] if n != 'time'],0,[]
    for p in recorder.plan.phases:
        ran = [(e, v) for e,v in enumerate(recorder.values) if done <= e < done+p.epochs and len(v)]
        res.append([_epoch(names, e, v) for e,v in ran])
        done += p.epochs
    return [dict(phase=i, epochs=rows) for i,rows in enumerate(res, 1)]

def _size(dl): return dict(items=len(dl.dataset), batches=len(dl), batch_size=getattr(dl, 'bs', None) or getattr(dl, 'batch_size', None))

def _name(f):
    f = getattr(f, 'func', f)
    return getattr(f, '__name__', type(f).__name__)

@patch
def run_record(self:Recorder,
    **notes, # What else is to be kept, such as `seed=42` or `data='imdb'`
) -> dict: # What JSON can hold
    "The last fit of a plan: the plan, η_L, versions, torch's seed, optimiser, sizes, callbacks, and losses and metrics epoch by epoch"
    if self.plan is None: raise ValueError('the last fit, if there was one, ran no plan: expected `learn.fit_plan`, `fit_ulmfit` or '
                                           '`apply_recipe` before this')
    learn,plan = self.learn,self.plan
    hypers = {k:plain(v) for k,v in learn.opt.hypers[-1].items() if k not in ('lr', 'mom')}
    return dict(
        fastai_discrim='Run', version=1, notes=notes,
        versions=dict(fastai_discrim=__version__, fastai=fastai.__version__, torch=str(torch.__version__),
                      python=platform.python_version()),
        torch_seed=self.torch_seed, finished=len(self.values) == plan.n_epoch,
        eta_L=plan.phases[0].lrs[-1], eta_L_from=plan.lr_from,
        optimiser=dict(name=type(learn.opt).__name__, opt_func=_name(learn.opt_func), moms=learn.moms, **hypers),
        train=_size(learn.dls.train), valid=_size(learn.dls.valid) if len(learn.dls.loaders) > 1 else None,
        callbacks=self.callbacks, phases=_phases(self), plan=plan.to_dict())

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
