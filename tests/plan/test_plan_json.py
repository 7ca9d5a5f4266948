"Plans as JSON: both versions are read, people can read it, and what is no plan is refused by name"
import json

import numpy as np
import pytest
from hypothesis import given
from plan.strategies import plans, quick

from fastai_discrim.plan.origin import HeadLR, lr_origin
from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import STLR, CLRBeta, Cos, Flat, OneCycle

LRS = (1e-4, 1e-3, 1e-2)

PLAN = Plan([Phase(1, (2,), LRS), Phase(2, (1, 2), LRS, CLRBeta()), Phase(2, (0, 1, 2), LRS, OneCycle()),
             Phase(1, (0,), LRS, Cos()), Phase(1, (0, 2), LRS, Flat())], 'abc')

def test_json_round_trip():
    plan = Plan([*PLAN.phases, Phase(1, (2,), LRS, STLR(.2, 20), moms=(.8, .7, .8))], 'abc')
    back = Plan.from_json(plan.to_json())
    assert back == plan and back.names == plan.names
    assert json.loads(plan.to_json())['phases'][0]['sched'] == {'name': 'STLR', 'cut_frac': .1, 'ratio': 32}

# As the first version of the format was written: what reads it must not change
VERSION_1 = '''{"fastai_discrim": "Plan", "version": 1, "names": ["a", "b", "c"], "lr_from": "given", "phases": [
 {"epochs": 1, "groups": [2], "lrs": [0.0001, 0.001, 0.01], "sched": {"name": "STLR", "cut_frac": 0.1, "ratio": 32}, "moms": null},
 {"epochs": 2, "groups": [1, 2], "lrs": [0.0001, 0.001, 0.01], "sched": {"name": "CLRBeta", "div": 10, "pct": 10}, "moms": null},
 {"epochs": 2, "groups": [0, 1, 2], "lrs": [0.0001, 0.001, 0.01],
  "sched": {"name": "OneCycle", "div": 25.0, "div_final": 100000.0, "pct_start": 0.25}, "moms": null},
 {"epochs": 1, "groups": [0], "lrs": [0.0001, 0.001, 0.01], "sched": {"name": "Cos"}, "moms": null},
 {"epochs": 1, "groups": [0, 2], "lrs": [0.0001, 0.001, 0.01], "sched": {"name": "Flat"}, "moms": [0.9, 0.8, 0.9]}]}'''

def test_json_of_the_first_version():
    plan = Plan.from_json(VERSION_1)
    assert plan == Plan([*PLAN.phases[:-1], Phase(1, (0, 2), LRS, Flat(), (.9, .8, .9))]) and plan.names == ('a', 'b', 'c')

def test_json_that_a_person_can_read():
    tried = [(1e-3, .5), (1e-2, float('nan')), (1e-1, float('inf'))]
    plan = Plan(PLAN.phases, ['[', '{ ,', '"\\n'], 1e-2, 'head_lr_find', tried, 'paper, §4')
    text = plan.to_json()
    assert '   "lrs": [0.0001, 0.001, 0.01],\n   "sched": {"name": "CLRBeta", "div": 10, "pct": 10},\n' in text
    assert len(text.splitlines()) < 60
    back = Plan.from_json(text)
    assert back == plan and back.names == plan.names and back.source == plan.source and repr(back.tried) == repr(plan.tried)
    json.loads(text, parse_constant=lambda s: pytest.fail(f'{s} is no JSON'))

# Later plans of version 1: fields that have other names now, and a cycle that goes on
VERSION_1_ENDS = '''{"fastai_discrim": "Plan", "version": 1, "source": "somewhere", "lr": 0.01, "lr_from": "given", "tried": [],
 "train_bn": false, "names": ["a", "b", "c"], "phases": [
 {"epochs": 3, "groups": [2], "lrs": [0.0001, 0.001, 0.01], "sched": {"name": "Cos", "warm": 0.05}, "moms": null,
  "ends": {"patience": 2, "monitor": "accuracy", "min_delta": 0.01, "best": true, "lower": null}},
 {"epochs": 2, "groups": [1, 2], "lrs": [0.0001, 0.001, 0.01], "sched": {"name": "Cos", "warm": 0.0}, "moms": null, "ends": null},
 {"epochs": 1, "groups": [0, 1, 2], "lrs": [0.0001, 0.001, 0.01], "sched": null, "moms": null, "ends": null}]}'''

def test_json_of_the_first_version_with_the_names_that_fields_had():
    plan = Plan.from_json(VERSION_1_ENDS)
    assert plan == Plan([Phase(3, (2,), LRS, Cos(.05), early_stop=EarlyStop(2, 'accuracy', .01, True)), Phase(2, (1, 2), LRS, Cos()),
                         Phase(1, (0, 1, 2), LRS, None)], train_bn=False)
    assert plan.names == ('a', 'b', 'c') and plan.lr == .01 and plan.lr_from == 'given' and plan.source == 'somewhere'
    now = plan.to_json()
    assert '"version": 2' in now and '"hold": 0.05' in now and '"early_stop": null' in now and 'warm' not in now and '"ends"' not in now
    assert Plan.from_json(now) == plan

def test_names_of_the_first_version_are_none_of_the_second():
    for old,new in (('"early_stop"', '"ends"'), ('"hold"', '"warm"')):
        with pytest.raises(ValueError, match='is not a plan .TypeError'): Plan.from_json(PLAN.to_json().replace(old, new))

@quick
@given(plans())
def test_any_plan_is_read_as_it_was_written(plan):
    text = plan.to_json()
    back = Plan.from_json(text)
    assert back == plan and hash(back) == hash(plan) and back.to_json() == text and repr(back) == repr(plan)
    assert [p.epochs for p in back.phases] == [p.epochs for p in plan.phases]
    json.loads(text, parse_constant=lambda s: pytest.fail(f'{s} is no JSON'))

@pytest.mark.parametrize('kind,version', [('Plan', 3), ('Plan', 0), ('Plan', '2'), ('Run', 2), ('Checkpoint', 1)])
def test_a_version_to_come_is_refused_by_name(kind, version):
    text = PLAN.to_json().replace('"Plan"', f'"{kind}"').replace('"version": 2', f'"version": {json.dumps(version)}')
    match = f'a {kind} of version {version}, where this fastai_discrim reads version 1 and 2'
    with pytest.raises(ValueError, match=match): Plan.from_json(text)

def test_the_plan_of_a_recorded_run():
    run = dict(fastai_discrim='Run', version=1, plan=PLAN.to_dict())
    assert Plan.from_json(json.dumps(run)) == PLAN
    # As one was recorded when plans were of version 1
    assert Plan.from_json(json.dumps({**run, 'plan': json.loads(VERSION_1_ENDS)})) == Plan.from_json(VERSION_1_ENDS)

def doctored(**kw):
    d = json.loads(PLAN.to_json())
    d['phases'][0].update(kw)
    return json.dumps(d)

@pytest.mark.parametrize('text', ['', '{', '[]', '{}', 'null', '3', '{"fastai_discrim": "Plan"}', None, b'\xff',
                                  PLAN.to_json().replace('"version": 2', '"version": 3'), PLAN.to_json()[:-5],
                                  doctored(epochs=0), doctored(groups=[7]), doctored(lrs=[1, 2]), doctored(lrs='abc'),
                                  doctored(sched={'name': 'Nope'}), doctored(sched=3), doctored(sched=0),
                                  doctored(sched={}), doctored(sched=None), doctored(extra=1),
                                  doctored(sched={'name': 'STLR', 'cut_frac': 2}), doctored(lrs=[1e-3, 0, 1]), doctored(epochs=True),
                                  doctored(epochs=.5), doctored(epochs='1'), doctored(early_stop=3), doctored(early_stop={'patience': 0})])
def test_json_that_is_no_plan(text):
    with pytest.raises(ValueError, match='is not a plan .*: expected the text from `plan.to_json'): Plan.from_json(text)

def test_a_path_is_no_text(tmp_path):
    (path := tmp_path/'plan.json').write_text(PLAN.to_json())
    with pytest.raises(TypeError, match=r'expected the text of a plan; give `path.read_text\(\)`'): Plan.from_json(path)
    assert Plan.from_json(path.read_text()) == PLAN

def test_numpy_in_a_schedule_is_written():
    plan = Plan([Phase(1, (2,), LRS, STLR(ratio=np.int64(20)))])
    assert Plan.from_json(plan.to_json()) == plan

def test_numbers_of_numpy():
    plan = Plan([Phase(np.float32(.25), (2,), LRS, early_stop=None), Phase(.75, np.array([2]), np.array(LRS), early_stop=EarlyStop(
        np.int64(2), 'accuracy', np.float32(.5), np.True_, np.False_))], train_bn=np.False_)
    assert plan.train_bn is False
    assert Plan.from_json(plan.to_json()) == plan

def test_where_the_heads_rate_came_from_is_written():
    origin = lr_origin(HeadLR(1e-2, [1e-2, 1e-1], [.5, float('inf')], 'as told'))
    plan = Plan(PLAN.phases, **origin, body_lr=1e-3, body_lr_from='given')
    assert plan.lr == 1e-2 and plan.lr_from == 'head_lr_find, as told' and plan.tried == ((1e-2, .5), (1e-1, float('inf')))
    back = Plan.from_json(plan.to_json())
    for k in ('lr', 'lr_from', 'tried', 'body_lr', 'body_lr_from', 'source'): assert getattr(back, k) == getattr(plan, k)
    assert lr_origin(3e-3) == dict(lr=3e-3, lr_from='given')
