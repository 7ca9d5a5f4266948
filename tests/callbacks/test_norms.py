"Norm layers of frozen groups train as in fastai, or are frozen with their running statistics, by `train_bn`"
import pytest
import torch
from conftest import in_turn, make_mlp, pairs
from fastai.callback.core import Callback
from fastai.callback.training import BnFreeze
from fastai.learner import Learner
from fastai.torch_core import set_seed
from plan.restated import phase_ends
from torch import nn

from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing, Unfreezing
from fastai_discrim.groups.norms import norm_ids
from fastai_discrim.groups.split import layerwise_split
from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan


class Norms(Callback):
    "Note what changes in the norm layer in each epoch, and whether the head's input needs a gradient"
    run_valid,order = False,100
    def __init__(self): self.seen = []
    def _now(self): return [self.model[3].weight.detach().clone(), self.model[3].running_mean.clone()]
    def before_train(self):
        self.was = self._now()
        self.hook = self.model[-1].register_forward_pre_hook(lambda m, x: setattr(self, 'through', x[0].requires_grad))
    def after_train(self):
        self.hook.remove()
        self.seen.append((*(not torch.equal(a, b) for a,b in zip(self.was, self._now())), self.through))

def moves(learn, fit):
    "For each epoch: does the weight of the norm in the middle group move, do its statistics, and does the backward pass go into the body?"
    learn.add_cb(cb := Norms())
    with learn.no_bar(),learn.no_logging(): fit(learn)
    return cb.seen

FITS = {
    'callback': lambda train_bn: lambda learn: learn.fit_one_cycle(
        3, 1e-2, cbs=[GradualUnfreezing(1, train_bn=train_bn), DiscriminativeLR()]),
    'plan': lambda train_bn: lambda learn: learn.fit_plan(learn.ulmfit_plan(3, 1e-2, epochs=1, train_bn=train_bn)),
    'fit_ulmfit': lambda train_bn: lambda learn: learn.fit_ulmfit(3, 1e-2, epochs=1, train_bn=train_bn),
}

WHOLE = (True,)*3

@pytest.mark.parametrize('fit', FITS.values(), ids=FITS)
@pytest.mark.parametrize('made', [True, False])
def test_train_bn_false_freezes_them_and_skips_their_backward_pass(tmp_path, fit, made):
    assert moves(make_mlp(tmp_path, norm=True, train_bn=made), fit(False)) == [(False,)*3, WHOLE, WHOLE]

@pytest.mark.parametrize('fit', FITS.values(), ids=FITS)
@pytest.mark.parametrize('made', [True, False])
def test_train_bn_true_trains_them_in_any_learner(tmp_path, fit, made):
    assert moves(make_mlp(tmp_path, norm=True, train_bn=made), fit(True)) == [WHOLE]*3

@pytest.mark.parametrize('made', [True, False])
def test_callbacks_treat_them_as_fastai_does_by_default(tmp_path, made):
    first,*rest = moves(make_mlp(tmp_path, norm=True, train_bn=made), FITS['callback'](None))
    assert first == (made, True, made) and rest == [WHOLE]*2
    stock = make_mlp(tmp_path, norm=True, train_bn=made)
    stock.freeze()
    assert moves(stock, lambda learn: learn.fit(1, 1e-2)) == [first]

@pytest.mark.parametrize('made', [True, False])
def test_a_plan_takes_train_bn_from_the_learner_by_default(tmp_path, made):
    learn = make_mlp(tmp_path, norm=True, train_bn=made)
    plan = learn.ulmfit_plan(3, 1e-2)
    assert plan.train_bn is made and plan == learn.ulmfit_plan(3, 1e-2, train_bn=made) != learn.ulmfit_plan(3, 1e-2, train_bn=not made)
    assert f'; norm layers of frozen groups {"train" if made else "stay as they are"} (`train_bn`)' in repr(plan).splitlines()[0]
    assert Plan.from_json(plan.to_json()) == plan

def test_a_plan_without_frozen_norms_has_no_train_bn(tmp_path, clas):
    # The norms of a text classifier are in its head, and without unfreezing no group is frozen
    for plan in (clas.ulmfit_plan(5, 1e-2, train_bn=False), make_mlp(tmp_path, norm=True).ulmfit_plan(3, 1e-2, gradual=False)):
        assert plan.train_bn is None and 'norm' not in repr(plan) and 'train_bn' not in plan.to_json()

def test_chain_thaw_updates_the_statistics_of_the_unfrozen_group(tmp_path):
    seen = moves(make_mlp(tmp_path, norm=True), lambda learn: learn.fit(4, 1e-2, cbs=ChainThaw(train_bn=False)))
    # The head, the input, the middle with its norm, all
    assert [s[:2] for s in seen] == [(False, False), (False, False), (True, True), (True, True)]

def test_it_ends_as_stock_fastai_does_with_a_frozen_norm_in_eval_mode(tmp_path):
    a,b = make_mlp(tmp_path, norm=True),make_mlp(tmp_path, norm=True, train_bn=False)
    class Eval(Callback):
        def before_train(self): self.model[3].eval()
    set_seed(5)
    with a.no_bar(),a.no_logging(): a.fit_plan(Plan(a.ulmfit_plan(3, 1e-2, epochs=1, train_bn=False).phases[:1], train_bn=False))
    set_seed(5)
    b.freeze()
    with b.no_bar(),b.no_logging(): b.fit_stlr(1, 1e-2, cbs=Eval())
    assert all(map(torch.equal, a.model.state_dict().values(), b.model.state_dict().values()))

class Stop(Callback):
    "Ctrl-C in epoch `at`"
    run_valid = False
    def __init__(self, at): self.at = at
    def after_batch(self):
        if self.epoch == self.at and self.iter == 3: raise KeyboardInterrupt

@pytest.mark.parametrize('at', [0, 1, 2])
def test_a_resumed_run_keeps_train_bn(tmp_path, at):
    def _run(name, *stops):
        for stop in (*stops, None):
            learn = make_mlp(tmp_path, norm=True)
            set_seed(5)
            with learn.no_bar(),learn.no_logging():
                cbs = [] if stop is None else Stop(stop)
                try: learn.fit_ulmfit(3, 1e-2, cbs=cbs, train_bn=False, checkpoint=name, checkpoint_every=2)
                except KeyboardInterrupt: pass
        return learn.model.state_dict().values()
    assert all(map(torch.equal, _run('whole'), _run('stopped', at)))

CALLS = {'GradualUnfreezing': lambda learn, v: GradualUnfreezing(1, train_bn=v), 'ChainThaw': lambda learn, v: ChainThaw(train_bn=v),
         'plan': lambda learn, v: learn.ulmfit_plan(3, 1e-2, train_bn=v), 'fit_ulmfit': lambda learn, v: learn.fit_ulmfit(3, train_bn=v)}

@pytest.mark.parametrize('v', [1, 'no', 0.])
@pytest.mark.parametrize('call', CALLS.values(), ids=CALLS)
def test_bad_values_are_refused(mlp, call, v):
    with pytest.raises(TypeError, match='train_bn=.*: expected True, False, or None for `learn.train_bn`'): call(mlp, v)

def test_it_is_in_the_repr_if_it_was_given():
    assert repr(GradualUnfreezing(2, 1, train_bn=False)) == 'GradualUnfreezing(epochs=2, down_to=1, train_bn=False)'
    assert repr(ChainThaw()) == 'ChainThaw(epochs=1)'

class NormSteps(Callback):
    "Note for each step which weights and statistics of the norm layer change, and whether it is in training mode"
    run_valid,order = False,100
    def __init__(self): self.seen = []
    def _now(self):
        norm = self.model[3]
        return [o.detach().clone() for o in (norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked)]
    def before_fit(self): self.was = self._now()
    def after_batch(self):
        now = self._now()
        moved = [not torch.equal(a, b) for a,b in zip(self.was, now)]
        # Either all weights change or none; the same holds for the statistics
        assert len(set(moved[:2])) == len(set(moved[2:])) == 1 and self.model[3].training == moved[2], moved
        self.seen.append((moved[0], moved[2]))
        self.was = now

class Blink(Unfreezing):
    "Unfreeze and freeze the middle group in the middle of an epoch, as no strategy of ours does"
    def __init__(self, train_bn=None): self.train_bn = train_bn
    def schedule(self, n_groups, n_epoch): return [(.25, (1, 2)), (.25, (2,)), (.25, (1,)), (.75, (0, 2)), (0, (0, 1))]

# Strategies, and the phases in which the middle group, which has the norm layer, trains
STRATEGIES = {
    'gradual': (lambda **kw: GradualUnfreezing(.25, **kw), [.25, .25, 1.5], [False, True, True]),
    'chain': (lambda **kw: ChainThaw(.3, **kw), [.3, .3, .3, 1.1], [False, False, True, True]),
    'blink': (Blink, [.25, .25, .25, .75, .5], [True, False, True, False, True])}

def open_steps(epochs, opens):
    ends = phase_ends(epochs, 8)
    return [o for start,end,o in zip([0, *ends], ends, opens) for _ in range(start, end)]

def as_plan(cb, train_bn): return Plan([Phase(n, g, (1e-2,)*3) for n,g in cb.fill(3, 2)], train_bn=train_bn)

STEP_FITS = {
    'one_cycle': lambda learn, cb, train_bn, cbs: learn.fit_one_cycle(2, 1e-2, cbs=[cb(train_bn=train_bn), *cbs]),
    'stlr': lambda learn, cb, train_bn, cbs: learn.fit_stlr(2, 1e-2, cbs=[cb(train_bn=train_bn), *cbs]),
    'plan': lambda learn, cb, train_bn, cbs: learn.fit_plan(as_plan(cb(), train_bn), cbs=cbs)}

# `train_bn` of the callback or plan, and of the learner
TRAIN_BN = {f'{train_bn}-{made}': (train_bn, made) for train_bn in (False, True, None) for made in (True, False)}

@pytest.mark.parametrize('train_bn,strategy,fit', pairs(TRAIN_BN, STRATEGIES, STEP_FITS))
def test_a_norm_layer_that_is_unfrozen_in_the_middle_of_an_epoch(tmp_path, train_bn, strategy, fit):
    "It is frozen with its statistics up to this step and trains from there on, or behaves as in fastai"
    (cb,epochs,opens),(train_bn,made) = strategy,train_bn
    learn,steps = make_mlp(tmp_path, norm=True, train_bn=made),NormSteps()
    with learn.no_bar(),learn.no_logging(): fit(learn, cb, train_bn, [steps])
    weights_always,stats_always = made if train_bn is None else train_bn,train_bn is not False
    assert steps.seen == [(o or weights_always, o or stats_always) for o in open_steps(epochs, opens)]

@pytest.mark.parametrize('strategy,fit', in_turn(STRATEGIES, STEP_FITS))
def test_bn_freeze_in_the_middle_of_an_epoch(tmp_path, strategy, fit):
    "Only norm layers that train update their statistics, whenever these are frozen and unfrozen"
    cb,epochs,opens = strategy
    learn,steps = make_mlp(tmp_path, norm=True, train_bn=False),NormSteps()
    with learn.no_bar(),learn.no_logging(): fit(learn, cb, None, [BnFreeze(), steps])
    assert steps.seen == [(o, o) for o in open_steps(epochs, opens)]

def test_fine_tune_in_the_middle_of_an_epoch(tmp_path):
    learn,steps = make_mlp(tmp_path, norm=True),NormSteps()
    with learn.no_bar(),learn.no_logging(): learn.fine_tune(2, 1e-2, freeze_epochs=1, cbs=[GradualUnfreezing(.25, train_bn=False), steps])
    assert steps.seen == [(False, False)]*8 + [(o, o) for o in open_steps([.25, .25, 1.5], [False, True, True])]

@pytest.mark.parametrize('train_bn', [True, None])
def test_a_mode_that_another_callback_set_is_kept_when_a_group_is_unfrozen(tmp_path, train_bn):
    class Eval(Callback):
        def before_train(self): self.model[3].eval()
    learn,seen = make_mlp(tmp_path, norm=True),[]
    class Mode(Callback):
        run_valid,order = False,100
        def before_batch(self): seen.append(self.model[3].training)
    with learn.no_bar(),learn.no_logging(): learn.fit(1, 1e-2, cbs=[GradualUnfreezing(.25, train_bn=train_bn), Eval(), Mode()])
    assert seen == [False]*8

class Stats(nn.Module):
    "A custom norm layer"
    def __init__(self):
        super().__init__()
        self.register_buffer('running_power', torch.ones(8))
    def forward(self, x):
        if self.training: self.running_power.lerp_(x.detach().pow(2).mean((0, 2)), .1)
        return x/self.running_power.sqrt()[:,None]

KINDS = {'batch': lambda: nn.BatchNorm1d(8), 'without weights': lambda: nn.BatchNorm1d(8, affine=False),
         'instance': lambda: nn.InstanceNorm1d(8, affine=True, track_running_stats=True),
         'instance without weights': lambda: nn.InstanceNorm1d(8, track_running_stats=True), 'own': Stats}

def with_norm(tmp_path, kind):
    norm = KINDS[kind]()
    layers = nn.Unflatten(1, (2, 2)),nn.Conv1d(2, 8, 1),norm,nn.ReLU(),nn.Conv1d(8, 8, 1),nn.Flatten(),nn.Linear(16, 2)
    learn = make_mlp(tmp_path)
    return Learner(learn.dls, nn.Sequential(*layers), loss_func=learn.loss_func, splitter=layerwise_split, path=tmp_path),norm

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('fit', [lambda learn: learn.fit(2, 1e-2, cbs=GradualUnfreezing(down_to=1, train_bn=False)),
                                 lambda learn: learn.fit_ulmfit(2, 1e-2, down_to=1, train_bn=False)], ids=['callback', 'plan'])
def test_statistics_of_any_kind_are_kept(tmp_path, kind, fit):
    learn,norm = with_norm(tmp_path, kind)
    before = [b.clone() for b in norm.buffers()]
    with learn.no_bar(),learn.no_logging(): fit(learn)
    assert before and all(map(torch.equal, before, norm.buffers()))

@pytest.mark.parametrize('kind', KINDS)
def test_statistics_of_any_kind_are_updated_once_their_layer_is_unfrozen_within_an_epoch(tmp_path, kind):
    learn,norm = with_norm(tmp_path, kind)
    seen = []
    class Mode(Callback):
        run_valid,order = False,100
        def before_batch(self): seen.append(norm.training)
    with learn.no_bar(),learn.no_logging(): learn.fit(1, 1e-2, cbs=[GradualUnfreezing(.25, train_bn=False), Mode()])
    assert seen == [False]*4 + [True]*4

def test_synced_batch_norms_are_norm_layers():
    m = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert norm_ids(m) == {id(m[1].weight), id(m[1].bias)}
