"Two processes that train one model on the CPU, by gloo: they must stay bit-equal"
import os
import pickle
import re
import socket
import time
import traceback
from dataclasses import replace

import numpy as np
import pytest
import torch

# Import it before forking, as `DistributedDataParallel` would import it in every process
import torch._dynamo
from conftest import StopAt, make_clas, make_mlp
from fastai.callback.core import Callback
from fastai.metrics import ValueMetric, accuracy
from fastai.torch_core import get_model, set_seed

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing
from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import OneCycle
from fastai_discrim.run.checkpoint_file import checkpoint_file, read

pytest.importorskip('accelerate')
pytestmark = [pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork'),
              pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')]

def _port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def _process(f, rank, port, path):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                      MASTER_PORT=str(port), ACCELERATE_USE_CPU='true', CUDA_VISIBLE_DEVICES='')
    try:
        import fastai.distributed  # noqa: F401, for `distrib_ctx`
        res = f(path)
    except BaseException as e: res = dict(error=f'{type(e).__name__}: {e}', trace=traceback.format_exc())
    (path/f'rank{rank}.pkl').write_bytes(pickle.dumps(res))
    os._exit(0)

def both(f, path, seconds=120):
    "What `f` gives in each of two processes"
    path.mkdir(exist_ok=True)
    port,pids = _port(),[]
    for rank in range(2):
        if (pid := os.fork()) == 0: _process(f, rank, port, path)
        pids.append(pid)
    end = time.time()+seconds
    while pids and time.time() < end:
        pids = [p for p in pids if os.waitpid(p, os.WNOHANG)[0] == 0]
        time.sleep(.05)
    for p in pids: os.kill(p, 9); os.waitpid(p, 0)
    assert not pids, 'a process hangs'
    return [pickle.loads((path/f'rank{r}.pkl').read_bytes()) for r in range(2)]

def rank(): return int(os.environ['RANK'])

class Weights(Callback):
    "What the weights are after every epoch, and which of them moved in it"
    order = 900
    def before_fit(self): self.after,self.moved = [],[]
    def _now(self): return {n.removeprefix('module.'): p.detach().clone() for n,p in self.model.named_parameters()}
    def before_train(self): self.before = self._now()
    def after_train(self):
        now = self._now()
        self.after.append({n: p.tolist() for n,p in now.items()})
        self.moved.append({n for n,p in now.items() if not torch.equal(p, self.before[n])})

def trained(learn, fit, watch=Weights, **kw):
    "Run `fit` under `distrib_ctx`, with a random state of each process's own"
    set_seed(100+rank())
    watch = watch()
    with learn.no_logging(), learn.distrib_ctx(sync_bn=False):
        learn.add_cb(watch)
        fit(learn)
        learn.remove_cb(watch)
    return dict(after=watch.after, moved=watch.moved, values=[list(map(float, v)) for v in learn.recorder.values],
                rg=[p.requires_grad for p in learn.model.parameters()], lrs=learn.recorder.group_lrs.tolist(), **kw)

def check_equal(a, b, times):
    for r in (a, b): assert 'error' not in r, r['trace']
    assert len(a['after']) == times and all(x == y for x,y in zip(a['after'], b['after'])), 'the processes have drifted apart'
    assert a['moved'] == b['moved'] and a['rg'] == b['rg'] and a['lrs'] == b['lrs']

@pytest.mark.parametrize('make', [make_mlp, make_clas])
def test_a_plan(tmp_path, make):
    def run(path):
        learn = make(path)
        plan = learn.ulmfit_plan(6, 1e-2, epochs=1)
        names = {p: n for n,p in learn.model.named_parameters()}
        return trained(learn, lambda l: l.fit_plan(plan), plan=plan, names=[{names[p] for p in g} for g in learn.splitter(learn.model)])
    a,b = both(run, tmp_path)
    check_equal(a, b, 6)
    # What is frozen stays as it is, and all that is open moves
    opened = [set().union(*(a['names'][g] for g in p.groups)) for p in a['plan'].phases for _ in range(p.epochs)]
    assert a['moved'] == opened and np.array(a['lrs']).shape[1] == a['plan'].n_groups

@pytest.mark.parametrize('cbs', [[GradualUnfreezing(1)], [ChainThaw()], [GradualUnfreezing(1), DiscriminativeLR()]], ids=str)
def test_callbacks(tmp_path, cbs):
    a,b = both(lambda path: trained(make_mlp(path), lambda l: l.fit_one_cycle(5, 1e-2, cbs=cbs)), tmp_path)
    check_equal(a, b, 5)

def test_it_needs_all_that(tmp_path):
    "Without it they drift apart or fail, and so this test can tell"
    def run(path):
        from fastai_discrim.callbacks import checked_fit
        distributed_fit = checked_fit.distributed_fit
        checked_fit.distributed_fit = lambda learn, opens_groups: distributed_fit(learn, False)
        learn = make_mlp(path)
        learn.create_opt()
        learn.freeze()
        return trained(learn, lambda l: l.fit_plan(l.ulmfit_plan(4, 1e-2)))
    a,b = both(run, tmp_path)
    assert 'Expected to have finished reduction' in a['error'] if 'error' in a else a['after'] != b['after'], a

def test_eta_and_a_phase_that_ends(tmp_path):
    def run(path):
        learn = make_clas(path)
        learn.metrics = [accuracy]
        # Each process would choose another
        set_seed(5+rank())
        res = trained(learn, lambda l: l.fit_ulmfit(15, epochs=3, early_stop=EarlyStop(1, min_delta=.05)))
        return {**res, 'lr': learn.recorder.plan.lr, 'epochs': [e for e,_ in learn.recorder.ran['epochs']]}
    a,b = both(run, tmp_path)
    check_equal(a, b, len(a['epochs']))
    assert a['lr'] == b['lr'] and a['epochs'] == b['epochs'] and len(a['epochs']) < 15

@pytest.mark.parametrize('every', [None, 2])
def test_one_writes_the_checkpoint_and_all_go_on(tmp_path, every):
    def run(stop, seed, **kw):
        def f(path):
            learn = make_clas(path)
            plan = learn.ulmfit_plan(6, 1e-2)
            set_seed(seed+rank())
            try:
                with learn.no_logging(), learn.distrib_ctx(sync_bn=False): learn.fit_plan(plan, cbs=StopAt(*stop) if stop else None, **kw)
            except KeyboardInterrupt: assert stop
            return dict(params={n: p.tolist() for n,p in learn.model.named_parameters()}, losses=[x.item() for x in learn.recorder.losses])
        return f
    kw = dict(checkpoint='r', checkpoint_every=every)
    want = both(run(None, 3), tmp_path/'a')
    both(run((3, 2), 3, **kw), tmp_path/'b')
    assert sorted(p.name for p in (tmp_path/'b'/'models').iterdir()) == ['r.ckpt', 'r.ckpt.previous']
    got = both(run(None, 77, **kw), tmp_path/'b')
    for a,b in zip(want, got): assert 'error' not in b and a == b, b.get('trace')
    assert want[0]['params'] == want[1]['params']
    learn = make_clas(tmp_path/'b')
    assert read(checkpoint_file(learn, 'r'))['finished']
    with pytest.raises(ValueError, match='processes: 2 there, 1 here'): learn.fit_plan(learn.ulmfit_plan(6, 1e-2), checkpoint='r')

def test_an_error_in_one_is_an_error_in_all(tmp_path):
    def run(path):
        learn = make_mlp(path)
        (path/'models').mkdir(exist_ok=True)
        (path/'models'/'r.ckpt').write_bytes(b'junk')
        with learn.no_logging(), learn.distrib_ctx(sync_bn=False): learn.fit_plan(learn.ulmfit_plan(4, 1e-2), checkpoint='r')
    for res in both(run, tmp_path): assert 'ValueError' in res['error'] and 'is damaged' in res['error']

def test_one_phase_at_a_fixed_rate_is_as_with_stock_fastai(tmp_path):
    "Nothing is changed where nothing is frozen"
    plan = Plan([Phase(2, (0, 1, 2), (1e-3, 1e-3, 1e-3))])
    ours = both(lambda path: trained(make_mlp(path), lambda l: l.fit_plan(plan)), tmp_path/'a')
    def stock(path): return trained(make_mlp(path), lambda l: l.fit_stlr(2, 1e-3))
    theirs = both(stock, tmp_path/'b')
    for a,b in zip(ours, theirs):
        for x,y in zip(a['after'], b['after']):
            for n in x: np.testing.assert_allclose(x[n], y[n], rtol=1e-4, atol=1e-6)

# Groups that open in the middle of an epoch

class Steps(Weights):
    "What the weights are after every step, and which of them moved in it"
    run_valid = False
    def before_train(self): pass
    def after_train(self): pass
    def before_batch(self): super().before_train()
    def after_batch(self): super().after_train()

def quarters():
    "Phases of 1, 1, 2 and 4 of the 4 steps that an epoch has in each of two processes; the lowest group is closed in between"
    lrs = (1e-3, 3e-3, 1e-2)
    return Plan([Phase(.25, (2,), lrs), Phase(.25, (0, 2), lrs, OneCycle()), Phase(.5, (1, 2), lrs), Phase(1, (0, 1, 2), lrs)])

OPENINGS = dict(plan=(quarters, [(2,), (0, 2), (1, 2), (1, 2), *[(0, 1, 2)]*4]),
                gradual=(lambda: [GradualUnfreezing([.25, .75])], [(2,), *[(1, 2)]*3, *[(0, 1, 2)]*4]),
                share=(lambda: [GradualUnfreezing(None), DiscriminativeLR()], [(2,), *[(0, 1, 2)]*7]),
                chain=(lambda: [ChainThaw(.5)], [(2,), (2,), (0,), (0,), (1,), (1,), (0, 1, 2), (0, 1, 2)]))

@pytest.mark.parametrize('make_fit,opened', OPENINGS.values(), ids=OPENINGS)
def test_openings_within_an_epoch(tmp_path, make_fit, opened):
    def run(path):
        learn,what = make_mlp(path),make_fit()
        def fit(learn): learn.fit_plan(what) if isinstance(what, Plan) else learn.fit_one_cycle(2, 1e-2, cbs=what)
        names = {p: n for n,p in learn.model.named_parameters()}
        # `DistributedDataParallel` looks at what trains when the fit begins
        learn.create_opt()
        learn.freeze()
        return trained(learn, fit, Steps, names=[{names[p] for p in g} for g in learn.splitter(learn.model)])
    a,b = both(run, tmp_path)
    check_equal(a, b, 8)
    assert a['moved'] == [set().union(*(a['names'][g] for g in groups)) for groups in opened]

def test_all_go_on_within_an_epoch(tmp_path):
    def plan(): return replace(quarters(), train_bn=False)
    def run(seed, *cbs, **kw):
        def f(path):
            learn = make_mlp(path, norm=True)
            set_seed(seed+rank())
            try:
                with learn.no_logging(), learn.distrib_ctx(sync_bn=False): learn.fit_plan(plan(), cbs=cbs, **kw)
            except KeyboardInterrupt: assert cbs
            state = {n: v.tolist() for n,v in get_model(learn.model).state_dict().items()}
            return dict(state=state, losses=[x.item() for x in learn.recorder.losses], lrs=learn.recorder.group_lrs.tolist())
        return f
    kw = dict(checkpoint='r', checkpoint_every=1)
    want = both(run(3), tmp_path/'a')
    for seed,n in ((3, 1), (20, 3)):
        for res in both(run(seed, StopAt(0, n), **kw), tmp_path/'b'): assert 'error' not in res and len(res['losses']) == n
    got = both(run(77, **kw), tmp_path/'b')
    for a,b in zip(want, got): assert 'error' not in b and a == b, b.get('trace')
    params = [n for n,_ in make_mlp(tmp_path, norm=True).model.named_parameters()]
    assert params and all(want[0]['state'][n] == want[1]['state'][n] for n in params)

# What is overridden, and where

def _attrs(o): return {k: id(v) for k,v in vars(o).items()}

ENDS = dict(ended=None, ctrl_c=KeyboardInterrupt, error=ZeroDivisionError)

@pytest.mark.parametrize('end', ENDS.values(), ids=ENDS)
def test_what_is_overridden_is_so_for_one_fit(tmp_path, end):
    "And for one trainer: the classes are fastai's, in the middle of a fit, too"
    def run(path):
        from fastai.distributed import DistributedDL, DistributedTrainer
        learn,seen = make_mlp(path),[]
        with learn.no_logging(), learn.distrib_ctx(sync_bn=False):
            trainer = learn.distributed_trainer
            accelerator = trainer.accelerator
            class Looks(Callback):
                def before_step(self):
                    seen.append((sorted(k for k in vars(trainer) if callable(vars(trainer)[k]) and k != 'learn'),
                                 accelerator.ddp_handler.find_unused_parameters, classes()))
                    if end and self.epoch == 1: raise end('stop')
            def classes(): return {**_attrs(DistributedTrainer), **_attrs(DistributedDL)}
            before,own,handler = classes(),set(vars(trainer)),accelerator.ddp_handler
            if end:
                with pytest.raises(end): learn.fit_plan(quarters(), cbs=Looks)
            else: learn.fit_plan(quarters(), cbs=Looks)
            res = dict(overridden={tuple(names) for names,*_ in seen}, unused={unused for _,unused,_ in seen},
                       classes=all(c == before for *_,c in seen) and classes() == before,
                       left=sorted(set(vars(trainer)) - own), lost=sorted(own - set(vars(trainer))),
                       handler=accelerator.ddp_handler is handler is None)
        return res
    for res in both(run, tmp_path):
        assert 'error' not in res, res['trace']
        # fastai's trainer keeps the loaders that it wrapped, and any callback whether it runs
        left = ['old_dls'] if end else ['old_dls', 'run']
        assert res == dict(overridden={('_wrap_dl', 'before_fit')}, unused={True}, classes=True, left=left, lost=[], handler=True)

def test_the_users_own_settings_are_kept(tmp_path):
    def run(path):
        from accelerate import DistributedDataParallelKwargs
        handler = DistributedDataParallelKwargs(bucket_cap_mb=7)
        learn,seen = make_mlp(path),[]
        class Looks(Callback):
            def before_step(self):
                now = self.distributed_trainer.accelerator.ddp_handler
                seen.append((now is handler, now.bucket_cap_mb, now.find_unused_parameters))
        with learn.no_logging(), learn.distrib_ctx(sync_bn=False, kwargs_handlers=[handler]):
            learn.fit_plan(quarters(), cbs=Looks)
            now = learn.distributed_trainer.accelerator.ddp_handler
            return dict(seen=set(seen), after=(now is handler, now.bucket_cap_mb, now.find_unused_parameters))
    for res in both(run, tmp_path):
        assert 'error' not in res, res['trace']
        assert res == dict(seen={(True, 7, True)}, after=(True, 7, False))

def test_fits_without_anything_of_ours_are_those_of_fastai(tmp_path):
    "Which needs GPUs, before and after a fit of ours"
    def run(path):
        learn,errors = make_mlp(path),[]
        def fit():
            try: learn.fit(1)
            except Exception as e: errors.append(str(e))
        for ours in (False, True):
            with learn.no_logging(), learn.distrib_ctx(sync_bn=False):
                if ours: learn.fit_plan(quarters())
                fit()
            learn = make_mlp(path)
        return errors
    for errors in both(run, tmp_path):
        assert len(errors) == 2 and all(re.search('cuda|CUDA|NVIDIA', e) for e in errors), errors

def test_nothing_is_said_without_logging(clas, lm, capsys):
    with clas.no_bar(), clas.no_logging():
        clas.fit_ulmfit(5, checkpoint='r')
        clas.fit_ulmfit(5, checkpoint='r')
    with lm.no_bar(), lm.no_logging(): lm.head_lr_find(show_plot=False)
    assert not any(c.isalpha() for c in capsys.readouterr().out)
    with clas.no_bar(): clas.fit_ulmfit(5, checkpoint='r')
    assert 'belongs to a finished run' in capsys.readouterr().out

def test_rates_alone_and_what_is_left(tmp_path):
    "Nothing of ours freezes here; and the learner can be used, and pickled, after"
    def run(path):
        learn = make_mlp(path)
        res = trained(learn, lambda l: l.fit_one_cycle(2, 1e-2, cbs=DiscriminativeLR()))
        with learn.no_logging(), learn.distrib_ctx(sync_bn=False):
            learn.fit_plan(learn.ulmfit_plan(3, 1e-2))
            cb = learn.distributed_trainer
            methods = {k for k in vars(cb) if callable(vars(cb)[k]) and k != 'learn'}
        return {**res, 'methods': methods, 'model': type(learn.model).__name__}
    a,b = both(run, tmp_path)
    check_equal(a, b, 2)
    assert not a['methods'] and a['model'] == 'Sequential'

def test_stopped_and_gone_on_with_in_one_context(tmp_path):
    def run(path):
        learn = make_mlp(path)
        plan = learn.ulmfit_plan(5, 1e-2)
        with learn.no_logging(), learn.distrib_ctx(sync_bn=False):
            try: learn.fit_plan(plan, checkpoint='r', cbs=StopAt(2, 1))
            except KeyboardInterrupt: pass
            learn.fit_plan(plan, checkpoint='r')
        return dict(params={n.removeprefix('module.'): p.tolist() for n,p in learn.model.named_parameters()})
    a,b = both(run, tmp_path)
    assert 'error' not in a and a == b, a.get('trace')

def test_an_error_that_can_not_be_sent(tmp_path):
    def run(path):
        from fastai_discrim.distributed import on_rank0
        class Local(Exception): pass
        def f(): raise Local('here')
        learn = make_mlp(path)
        with learn.distrib_ctx(sync_bn=False): on_rank0(f)
    for res in both(run, tmp_path): assert 'Local' in res['error'] and 'here' in res['error']

def test_processes_that_measure_differently_end_a_phase_together(tmp_path):
    def run(path):
        learn = make_mlp(path)
        values = iter([5, 1, 1, 1, 1, 1, 1, 1] if rank() else range(9))
        learn.metrics = [ValueMetric(lambda: next(values), 'score')]
        plan = Plan([Phase(3, (2,), (1e-3,)*3, early_stop=EarlyStop(1, 'score')), Phase(2, (0, 1, 2), (1e-3,)*3)])
        return trained(learn, lambda l: l.fit_plan(plan))
    a,b = both(run, tmp_path)
    check_equal(a, b, 5)
