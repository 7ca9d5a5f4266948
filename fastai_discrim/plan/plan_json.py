"Plans as JSON: what is written, and what is read, older versions too"
__all__ = []

import json
from dataclasses import asdict

from .json_text import json_number
from .phase import EarlyStop, Phase
from .schedules import Schedule

VERSION = 2
# Fields of a plan that may be left out
OPTIONAL = 'lr', 'lr_from', 'body_lr', 'body_lr_from', 'tried', 'source', 'train_bn', 'passed_over'

def plan_to_dict(
    plan, # A `Plan`
) -> dict: # What JSON can hold
    "Write `plan` as plain values"
    phases = [{**asdict(p), 'sched': p.sched and {'name': type(p.sched).__name__, **asdict(p.sched)}} for p in plan.phases]
    about = dict(source=plan.source, lr=plan.lr, lr_from=plan.lr_from, tried=[(lr, json_number(loss)) for lr,loss in plan.tried])
    if plan.body_lr is not None: about |= dict(body_lr=plan.body_lr, body_lr_from=plan.body_lr_from)
    if plan.passed_over: about['passed_over'] = plan.passed_over
    if plan.train_bn is not None: about['train_bn'] = plan.train_bn
    return dict(fastai_discrim='Plan', version=VERSION, **about, names=plan.names, phases=phases)

def plan_fields(
    text:str, # What `Plan.to_json` gave, or the record that `recorder.save_run` wrote
) -> dict: # Arguments of `Plan`
    "Read the fields of a plan from JSON; raise `ValueError` if `text` holds no plan"
    try:
        d = json.loads(text)
        if d['fastai_discrim'] == 'Run' and d['version'] == 1: d = d['plan']
        kind,version = d['fastai_discrim'],d['version']
        if kind != 'Plan' or version not in (1, VERSION):
            raise ValueError(f'a {kind} of version {version}, where this fastai_discrim reads version 1 and {VERSION}')
        phases = [_phase(p if version == VERSION else _from_version_1(p)) for p in d['phases']]
        return dict(phases=phases, names=d['names'], **{k: d[k] for k in OPTIONAL if d.get(k) not in (None, '')})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise ValueError(f'{str(text)[:60]!r} is no plan ({type(e).__name__}: {e}), expected `plan.to_json()`') from e

def _from_version_1(phase):
    "Give the fields of a phase the names that they have now"
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
    "Return `cls`'s subclasses, and theirs, by name"
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
