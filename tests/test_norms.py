"Norm layers of frozen groups: as fastai has them, or frozen with their running statistics; the plan says which"
import pytest
import torch
from conftest import make_mlp
from fastai.callback.core import Callback
from fastai.torch_core import set_seed

from fastai_discrim.plan.plan import Plan
from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing


class Norms(Callback):
    "What moves of the norm layer in each epoch, and whether the head's input needs a gradient"
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
    'callback': lambda train_bn: lambda learn: learn.fit_one_cycle(3, 1e-2, cbs=[GradualUnfreezing(train_bn=train_bn), DiscriminativeLR()]),
    'plan': lambda train_bn: lambda learn: learn.fit_plan(learn.ulmfit_plan(3, 1e-2, train_bn=train_bn)),
    'fit_ulmfit': lambda train_bn: lambda learn: learn.fit_ulmfit(3, 1e-2, train_bn=train_bn),
}
WHOLE = (True,)*3

@pytest.mark.parametrize('fit', FITS.values(), ids=FITS)
@pytest.mark.parametrize('made', [True, False])
def test_off_they_stay_as_they_are_and_nothing_is_computed_for_them(tmp_path, fit, made):
    assert moves(make_mlp(tmp_path, norm=True, train_bn=made), fit(False)) == [(False,)*3, WHOLE, WHOLE]

@pytest.mark.parametrize('fit', FITS.values(), ids=FITS)
@pytest.mark.parametrize('made', [True, False])
def test_on_they_train_whatever_the_learner_was_made_with(tmp_path, fit, made):
    assert moves(make_mlp(tmp_path, norm=True, train_bn=made), fit(True)) == [WHOLE]*3

@pytest.mark.parametrize('made', [True, False])
def test_by_default_callbacks_do_as_fastai_does(tmp_path, made):
    first,*rest = moves(make_mlp(tmp_path, norm=True, train_bn=made), FITS['callback'](None))
    assert first == (made, True, made) and rest == [WHOLE]*2
    stock = make_mlp(tmp_path, norm=True, train_bn=made)
    stock.freeze()
    assert moves(stock, lambda learn: learn.fit(1, 1e-2)) == [first]

@pytest.mark.parametrize('made', [True, False])
def test_by_default_a_plan_takes_it_from_the_learner(tmp_path, made):
    learn = make_mlp(tmp_path, norm=True, train_bn=made)
    plan = learn.ulmfit_plan(3, 1e-2)
    assert plan.train_bn is made and plan == learn.ulmfit_plan(3, 1e-2, train_bn=made) != learn.ulmfit_plan(3, 1e-2, train_bn=not made)
    assert f'; norm layers of frozen groups {"train" if made else "stay as they are"} (`train_bn`)' in repr(plan).splitlines()[0]
    assert Plan.from_json(plan.to_json()) == plan

def test_a_plan_says_nothing_where_there_is_nothing_to_say(tmp_path, clas):
    # The norms of a text classifier are in its head; without unfreezing nothing is frozen
    for plan in (clas.ulmfit_plan(5, 1e-2, train_bn=False), make_mlp(tmp_path, norm=True).ulmfit_plan(3, 1e-2, gradual=False)):
        assert plan.train_bn is None and 'norm' not in repr(plan) and 'train_bn' not in plan.to_json()

def test_chain_thaw_lets_the_statistics_of_the_group_that_is_open_go_on(tmp_path):
    seen = moves(make_mlp(tmp_path, norm=True), lambda learn: learn.fit(4, 1e-2, cbs=ChainThaw(train_bn=False)))
    # The head, the input, the middle with its norm, all
    assert [s[:2] for s in seen] == [(False, False), (False, False), (True, True), (True, True)]

def test_it_ends_as_stock_fastai_does_with_everything_frozen_by_hand(tmp_path):
    a,b = make_mlp(tmp_path, norm=True),make_mlp(tmp_path, norm=True, train_bn=False)
    class Eval(Callback):
        def before_train(self): self.model[3].eval()
    set_seed(5)
    with a.no_bar(),a.no_logging(): a.fit_plan(Plan(a.ulmfit_plan(3, 1e-2, train_bn=False).phases[:1], train_bn=False))
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
def test_a_stopped_run_goes_on_with_them(tmp_path, at):
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

CALLS = {'GradualUnfreezing': lambda learn, v: GradualUnfreezing(train_bn=v), 'ChainThaw': lambda learn, v: ChainThaw(train_bn=v),
         'plan': lambda learn, v: learn.ulmfit_plan(3, 1e-2, train_bn=v), 'fit_ulmfit': lambda learn, v: learn.fit_ulmfit(3, train_bn=v)}

@pytest.mark.parametrize('v', [1, 'no', 0.])
@pytest.mark.parametrize('call', CALLS.values(), ids=CALLS)
def test_odd_values_are_refused(mlp, call, v):
    with pytest.raises(TypeError, match='train_bn=.*: expected True, False, or None for `learn.train_bn`'): call(mlp, v)

def test_it_is_in_the_repr_where_it_was_said():
    assert repr(GradualUnfreezing(2, 1, train_bn=False)) == 'GradualUnfreezing(epochs=2, down_to=1, train_bn=False)'
    assert repr(ChainThaw()) == 'ChainThaw(epochs=1)'
