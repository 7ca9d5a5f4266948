"Write plans as JSON, and read them back, older versions too"
__all__ = []

import json
from dataclasses import asdict

from .json_text import json_number
from .phase import EarlyStop, Phase
from .schedules import Schedule

VERSION = 2
# Fields of a plan that JSON may leave out
OPTIONAL = 'lr', 'lr_from', 'body_lr', 'body_lr_from', 'tried', 'source', 'train_bn', 'passed_over', 'clip'

def plan_to_dict(plan) -> dict:
    "Convert a `Plan` to values that JSON can hold"
    phases = [{**asdict(p), 'sched': p.sched and {'name': type(p.sched).__name__, **asdict(p.sched)}} for p in plan.phases]
    about = dict(source=plan.source, lr=plan.lr, lr_from=plan.lr_from, tried=[(lr, json_number(loss)) for lr,loss in plan.tried])
    if plan.body_lr is not None: about |= dict(body_lr=plan.body_lr, body_lr_from=plan.body_lr_from)
    if plan.passed_over: about['passed_over'] = plan.passed_over
    if plan.train_bn is not None: about['train_bn'] = plan.train_bn
    if plan.clip is not None: about['clip'] = plan.clip
    return dict(fastai_discrim='Plan', version=VERSION, **about, names=plan.names, phases=phases)

def plan_fields(text:str) -> dict:
    """Read the arguments of `Plan` from the text of `Plan.to_json`, or from the record that `recorder.save_run` wrote. For text that isn't
    a plan it raises whatever `json`, a lookup or a constructor raises"""
    d = json.loads(text)
    if d['fastai_discrim'] == 'Run' and d['version'] == 1: d = d['plan']
    kind,version = d['fastai_discrim'],d['version']
    if kind != 'Plan' or version not in (1, VERSION):
        raise ValueError(f'a {kind} of version {version}, where this fastai_discrim reads version 1 and {VERSION}')
    phases = [_phase(p if version == VERSION else _from_version_1(p)) for p in d['phases']]
    return dict(phases=phases, names=d['names'], **{k: d[k] for k in OPTIONAL if d.get(k) not in (None, '')})

def _from_version_1(phase):
    "Rename the fields of a phase of version 1 to their current names"
    phase = dict(phase)
    phase['early_stop'] = phase.pop('ends', None)
    sched = phase['sched'] = phase['sched'] and dict(phase['sched'])
    if sched and 'warm' in sched: sched['hold'] = sched.pop('warm')
    return phase

def _phase(d):
    "Make the `Phase` that `plan_to_dict` wrote"
    stop = d.get('early_stop')
    return Phase(**{**d, 'sched': _schedule(d['sched']), 'early_stop': stop and EarlyStop(**stop)})

def _all_subclasses(cls):
    "Return the direct and indirect subclasses of `cls` by name"
    res = {}
    for sub in cls.__subclasses__(): res |= {sub.__name__: sub, **_all_subclasses(sub)}
    return res

def _schedule(d):
    "Make the schedule that `plan_to_dict` wrote"
    if d is None: return None
    args,known = dict(d),_all_subclasses(Schedule)
    name = args.pop('name')
    if name not in known:
        raise ValueError(f'there is no schedule {name!r}, only {", ".join(known)}: if it is your own, import it first')
    return known[name](**{k: tuple(v) if isinstance(v, list) else v for k,v in args.items()})
