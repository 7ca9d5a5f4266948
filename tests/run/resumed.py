"Runs that are stopped and go on, as the tests of checkpoints compare them with runs that are not"
import random
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from conftest import StopAt, everything, make_clas, make_lm, make_mlp
from fastai.torch_core import set_seed

# Enough steps an epoch for stops around phases that end within it
MAKERS = dict(mlp=make_mlp, clas=partial(make_clas, n=48), lm=partial(make_lm, n=16))

def outcome(learn):
    "All that has to be the same in the end"
    e,rec = everything(learn),learn.recorder
    return {**{k: e[k] for k in ('params', 'buffers', 'opt', 'hypers', 'rg', 'grad', 'rng', 'py', 'np', 'torch', 'modes')},
            'lrs': list(map(float, rec.lrs)), 'losses': [l.item() for l in rec.losses], 'values': [list(v) for v in rec.values],
            'groups': rec.group_lrs.tolist(), 'hps': {k: list(map(float, v)) for k,v in rec.hps.items()}, 'iters': list(rec.iters),
            'smooth': rec.smooth_loss.value.item(), 'count': (learn.train_iter, learn.pct_train)}

def ranger_outcome(learn):
    "`outcome`, and the slow weights"
    return {**outcome(learn), 'slow': [[p.tolist() for p in g] for g in learn.opt.slow_weights], 'k': learn.opt.count}

def torch_opt_outcome(learn):
    "`outcome`, with the state of torch's optimiser"
    state = {k: {n: v.tolist() for n,v in s.items()} for k,s in learn.opt.opt.state_dict()['state'].items()}
    return {**{k:v for k,v in outcome(learn).items() if k != 'opt'}, 'state': state}

def strange(i):
    "Set the random states of another process"
    set_seed(1000+i)
    torch.rand(i), random.random(), np.random.rand(2)

def plan_of(learn): return learn.ulmfit_plan(6, 1e-2, epochs=1, gradual=True)

def run(make, plan=plan_of, seed=0, cbs=(), **kwargs):
    "Run the plan with a new learner, to the end or to Ctrl-C; return the learner, and whether it was Ctrl-C"
    learn = make()
    strange(seed) if seed else set_seed(3)
    try:
        with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan(learn), cbs=list(cbs), **kwargs)
    except KeyboardInterrupt: return learn,True
    return learn,False

def go_on(make, stops, plan=plan_of, every=None, cbs=list, compare=outcome, how=StopAt):
    "Run with stops, each time with a new learner in what could be a new process, and return what comes of it"
    kwargs = dict(plan=plan, checkpoint='r', checkpoint_every=every)
    for i,stop in enumerate(stops):
        learn,stopped = run(make, seed=i, cbs=[*cbs(), how(*stop)], **kwargs)
        assert stopped, 'it was not stopped'
        assert stop in ((learn.epoch, learn.iter), (learn.epoch, None)), 'it was stopped elsewhere'
    learn,stopped = run(make, seed=len(stops), cbs=cbs(), **kwargs)
    assert not stopped
    return compare(learn)

def assert_equal(want, got):
    assert want.keys() == got.keys()
    for k in want: assert want[k] == got[k], k

def check(make, stops, plan=plan_of, every=None, cbs=list, compare=outcome, how=StopAt):
    "Run without a stop, and with some; the ends must be equal"
    want = compare(run(make, plan, cbs=cbs())[0])
    assert_equal(want, go_on(make, stops, plan, every, cbs, compare, how))

@cache
def uninterrupted(name, plan=plan_of):
    "Run without a stop, once for all tests, and return what comes of it"
    with TemporaryDirectory() as path: return outcome(run(lambda: MAKERS[name](Path(path)), plan)[0])

def check_maker(path, name, stops, plan=plan_of, every=None, how=StopAt):
    "Do as `check` does, with a learner that is made as it stands in `MAKERS`"
    assert_equal(uninterrupted(name, plan), go_on(lambda: MAKERS[name](path), stops, plan, every, how=how))

def around(plan, n_iter):
    "Return the steps before, at and after each boundary between phases, as pairs of epoch and batch"
    ends = plan.timeline(n_iter).ends
    steps = {step for end in ends[:-1] for step in (end-1, end, end+1) if 0 <= step < ends[-1]}
    return [divmod(step, n_iter) for step in sorted(steps)]
