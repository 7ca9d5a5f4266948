"Fits of ours, ended in every way, and what they leave to the next fit"
import pickle
import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from fastai.basics import *
from fastai.callback.all import *

from .fits import At, error
from .learner import make, state

# Learners of these tests have three groups
LRS = [1e-3, 3e-3, 1e-2]

def _plan(early_stop=None):
    from fastai_discrim.all import STLR, Phase, Plan
    kwargs = dict(early_stop=early_stop) if early_stop else {}
    return Plan([Phase(n, groups, LRS, STLR(), **kwargs) for n,groups in ((1, (2,)), (1, (1, 2)), (2, (0, 1, 2)))])

def _early_stop(learn, cbs):
    from fastai_discrim.all import EarlyStop
    # Nothing improves that much: every phase ends early
    learn.fit_plan(_plan(EarlyStop(1, min_delta=10.)), cbs=cbs)

def _callbacks(learn, cbs):
    from fastai_discrim.all import DiscriminativeLR, GradualUnfreezing
    learn.fit_one_cycle(3, 1e-2, cbs=[GradualUnfreezing(1), DiscriminativeLR(), *cbs])

def _on_the_learner(learn, cbs):
    from fastai_discrim.all import DiscriminativeLR, GradualUnfreezing
    with learn.added_cbs([GradualUnfreezing(1), DiscriminativeLR()]): learn.fit(3, 1e-2, cbs=cbs)

def _fine_tune(learn, cbs):
    from fastai_discrim.all import GradualUnfreezing
    learn.fine_tune(3, 1e-2, cbs=[GradualUnfreezing(1), *cbs])

KINDS = dict(
    fit_plan=lambda learn, cbs: learn.fit_plan(_plan(), cbs=cbs),
    checkpoint=lambda learn, cbs: learn.fit_plan(_plan(), cbs=cbs, checkpoint='run', checkpoint_every=1),
    early_stop=_early_stop,
    fit_ulmfit=lambda learn, cbs: learn.fit_ulmfit(3, 1e-2, cbs=cbs),
    fit_ulmfit_that_finds_its_rate=lambda learn, cbs: learn.fit_ulmfit(3, cbs=cbs),
    fit_stlr=lambda learn, cbs: learn.fit_stlr(3, 1e-2, cbs=cbs),
    fit_clr_beta=lambda learn, cbs: learn.fit_clr_beta(3, slice(1e-3, 1e-2), cbs=cbs),
    callbacks=_callbacks, on_the_learner=_on_the_learner, fine_tune=_fine_tune)

STOCK = dict(fit_one_cycle=lambda learn, cbs: learn.fit_one_cycle(3, 1e-2, cbs=cbs))

def _raise(ex): raise ex('stop')

ENDS = dict(ended=[], ctrl_c=KeyboardInterrupt, error=ValueError, cancel_fit=CancelFitException, cancel_epoch=CancelEpochException)

def _ending(end): return [At('before_step', lambda learn: _raise(ENDS[end]))] if ENDS[end] else []

METHODS = '_do_fit', 'one_batch', '_step', 'fit', 'fine_tune', 'freeze_to', 'all_batches', '_do_epoch', '_with_events', 'create_opt'

def do(kind, end):
    "Fit, be ended by `end`, and fit once more as in stock fastai; return what was left in between, and how it ended"
    with tempfile.TemporaryDirectory() as path:
        learn,seen = make(Path(path)),[]
        learn.remove_cb(ProgressCallback)
        learn.fit(1, cbs=At('before_step', lambda learn: None))
        before,cbs,recorder = set(vars(learn)),[type(cb).__name__ for cb in learn.cbs],set(vars(learn.recorder))
        with error(seen): {**KINDS, **STOCK}[kind](learn, _ending(end))
        res = dict(seen=seen, left=sorted(set(vars(learn)) - before), lost=sorted(before - set(vars(learn))),
                   own=[k for k in METHODS if k in vars(learn)], cbs=[type(cb).__name__ for cb in learn.cbs] == cbs,
                   grads=sorted(n for n,p in learn.model.named_parameters() if p.grad is not None and p.grad.any()),
                   recorder=sorted(set(vars(learn.recorder)) - recorder), hooks=sum(map(_n_hooks, learn.model.modules())),
                   start=_pack(learn))
        res['next'] = _next(learn)
        return dict(res, own_in_the_end=[k for k in METHODS if k in vars(learn)])

def _n_hooks(m): return len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)

def _pack(learn):
    "Pack what a fit begins from, to go on in another process"
    ps = list(learn.model.parameters())
    return pickle.dumps(dict(model=learn.model.state_dict(), opt=learn.opt.state_dict(), trains=[p.requires_grad for p in ps],
                             grads=[p.grad for p in ps], rng=learn.dls.train.rng.getstate(), python=random.getstate(),
                             numpy=np.random.get_state(), torch=torch.get_rng_state()))

def _next(learn):
    learn.fit(1, 3e-3)
    res = state(learn)
    res.pop('frozen_idx')
    res['recorder'] = {k: res['recorder'][k] for k in ('lrs', 'losses', 'iters', 'values', 'log')}
    return {k: res[k] for k in res if k not in ('attributes', 'cbs')}

def go_on(start):
    "Fit as in stock fastai, from what `_pack` gave"
    o = pickle.loads(start)
    with tempfile.TemporaryDirectory() as path:
        learn = make(Path(path))
        learn.remove_cb(ProgressCallback)
        learn.create_opt()
        learn.model.load_state_dict(o['model'])
        learn.opt.load_state_dict(o['opt'])
        for p,trains,grad in zip(learn.model.parameters(), o['trains'], o['grads']):
            p.requires_grad_(trains)
            p.grad = grad
        learn.dls.train.rng.setstate(o['rng'])
        random.setstate(o['python'])
        np.random.set_state(o['numpy'])
        torch.set_rng_state(o['torch'])
        return _next(learn)

def fit_some():
    "Fit in all of our ways, some of them broken off, for what this may leave in the process"
    before = random.getstate(),np.random.get_state(),torch.get_rng_state()
    for kind,end in (('fit_plan', 'ctrl_c'), ('checkpoint', 'ended'), ('callbacks', 'error'), ('fine_tune', 'ended')): do(kind, end)
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])

# What a fit with our callbacks does at every step

class Watch(Callback):
    "Note how every layer group moves at every step, as a multiple of its gradient; plain SGD is expected"
    order = 400
    def __init__(self): self.seen = []
    def before_step(self): self.old = [[(p.detach().clone(), p.grad) for p in g] for g in self.opt.param_lists]
    def after_step(self): self.seen.append((self.epoch, self.iter, [self._rate(g, old) for g,old in zip(self.opt.param_lists, self.old)]))
    def _rate(self, group, old):
        if all(torch.equal(p, o) for p,(o,_) in zip(group, old)): return 0.
        step,grad = [torch.cat([t.double().flatten() for t in ts]) for ts in zip(*((o-p.detach(), g) for p,(o,g) in zip(group, old)))]
        rate = (step @ grad) / (grad @ grad)
        assert torch.allclose(step, rate*grad, atol=2e-6), 'this is no step along the gradient'
        return float(rate)

def watched(kind, cls=None):
    "Fit with `GradualUnfreezing` and `DiscriminativeLR`, by itself or a plan, and return what `Watch` noted"
    from fastai_discrim.all import DiscriminativeLR, Flat, GradualUnfreezing, Phase, Plan

    from . import fits
    watch = Watch()
    with tempfile.TemporaryDirectory() as path:
        learn = make(Path(path), cls=getattr(fits, cls) if cls else Learner, norm=False, opt_func=partial(SGD, wd=0.))
        learn.remove_cb(ProgressCallback)
        if kind == 'callbacks': learn.fit(4, 1., cbs=[GradualUnfreezing(1), DiscriminativeLR(factor=4.), watch])
        if kind == 'plan':
            phases = [Phase(n, gs, [1/16, 1/4, 1.], Flat()) for n,gs in ((1, (2,)), (1, (1, 2)), (2, (0, 1, 2)))]
            learn.fit_plan(Plan(phases), cbs=watch)
        return watch.seen,sorted(vars(learn))
