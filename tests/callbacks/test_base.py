"Base classes of our callbacks"
import pickle
from copy import deepcopy

import numpy as np
import pytest
from conftest import make_mlp, same, snapshot, weights
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.callback.schedule import ParamScheduler
from fastai.learner import Learner
from fastai.optimizer import SGD

from fastai_discrim.callbacks.base import (
    FitArgs,
    FitCallback,
    GroupCallback,
    check_only_one,
    group_callbacks,
    in_validation,
    instantiate_ours,
    is_kind,
    overridden,
)
from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing, Unfreezing


class Thing:
    "A class with a method and attributes, one of them on the object"
    shared = 1
    def __init__(self): self.own = 2
    def method(self): return 'of the class'

@pytest.mark.parametrize('error', [None, KeyboardInterrupt])
def test_overridden_leaves_nothing_behind(error):
    o = Thing()
    try:
        with overridden(o, shared=10, own=20, method=lambda: 'mine', new=30):
            assert (o.shared, o.own, o.method(), o.new) == (10, 20, 'mine', 30)
            if error: raise error
    except KeyboardInterrupt: pass
    assert vars(o) == {'own': 2} and o.shared == 1 and o.method() == 'of the class'

def test_overridden_within_overridden():
    o = Thing()
    with overridden(o, own=3):
        with overridden(o, own=4, shared=5): assert (o.own, o.shared) == (4, 5)
        assert vars(o) == {'own': 3}
        # An attribute that is already gone at the end is no error
        with overridden(o, new=1): del o.new
    assert vars(o) == {'own': 2}

def test_kinds_of_callbacks_and_of_classes_of_them():
    assert is_kind(ChainThaw, Unfreezing) and is_kind(ChainThaw(), (DiscriminativeLR, Unfreezing))
    assert not is_kind(DiscriminativeLR, Unfreezing)
    # `if_loaded` gives `()` for a class that was never imported
    assert not is_kind(ChainThaw, ()) and not is_kind(ChainThaw(), ())

def test_our_classes_are_instantiated_and_others_left_to_fastai():
    given = DiscriminativeLR()
    made = instantiate_ours([GradualUnfreezing, given, TrainEvalCallback])
    assert isinstance(made[0], GradualUnfreezing) and made[1] is given and made[2] is TrainEvalCallback
    assert group_callbacks([*made, Callback()]) == [made[0], given]
    assert list(instantiate_ours(None)) == [] and isinstance(instantiate_ours(ChainThaw)[0], ChainThaw)
    # An iterator can be read only once
    once = iter([GradualUnfreezing])
    assert list(instantiate_ours(once)) == [] and list(once) == [GradualUnfreezing]

def test_only_one_of_a_kind():
    check_only_one(Unfreezing, [ChainThaw(), DiscriminativeLR()])
    with pytest.raises(ValueError, match=r'GradualUnfreezing\(.*\) and ChainThaw\(.*\) in one fit: expected one of them'):
        check_only_one(Unfreezing, [GradualUnfreezing(1), DiscriminativeLR(), ChainThaw()])

def test_the_rate_that_a_fit_is_given(mlp):
    def lr_max(lr, *cbs): return FitArgs(mlp, 3, lr, list(cbs)).lr_max()
    sched = ParamScheduler({'lr': lambda pos: 3e-2*(1-pos)})
    assert lr_max(None) == mlp.lr and lr_max(1e-2) == 1e-2 and lr_max(slice(1e-2)) == slice(1e-2)
    assert lr_max(1e-2, sched) == 3e-2 and lr_max(1e-2, ParamScheduler({'mom': None})) == 1e-2
    # The last scheduler wins, as in fastai
    assert lr_max(1e-2, ParamScheduler({'lr': lambda pos: 1.}), sched) == 3e-2
    # A class has no schedule yet
    assert lr_max(1e-2, ParamScheduler) == 1e-2
    seen = []
    class Ask(GroupCallback):
        def check_fit(self, fit): seen.append(fit.lr_max())
    with mlp.no_bar():
        mlp.fit_stlr(1, [1e-4, 1e-3, 1e-2], cbs=Ask())
        mlp.fit(1, slice(1e-3, 1e-2), cbs=Ask())
        mlp.fit_one_cycle(1, 1e-2, cbs=Ask)
    assert seen[:2] == [[1e-4, 1e-3, 1e-2], slice(1e-3, 1e-2)] and np.allclose(seen[2], 1e-2/25)

class Events(FitCallback):
    "Note the events, and whether each comes from a validation"
    def __init__(self): self.seen = []
    def before_fit(self): self.seen.append(('before_fit', in_validation(self.learn)))
    def before_epoch(self): self.seen.append(('before_epoch', in_validation(self.learn)))
    def after_epoch(self): self.seen.append(('after_epoch', in_validation(self.learn)))
    def after_fit(self): self.seen.append(('after_fit', in_validation(self.learn)))

def test_events_of_a_validation_in_the_middle_of_a_fit_are_ignored(mlp):
    events = Events()
    class Look(Callback):
        def after_train(self): self.learn.validate(); self.learn.get_preds()
    mlp.add_cb(events)
    with mlp.no_bar():
        mlp.validate()
        assert events.seen == []
        mlp.fit(2, cbs=Look())
        mlp.get_preds()
    want = ['before_fit', *['before_epoch', 'after_epoch']*2, 'after_fit']
    assert events.seen == [(event, False) for event in want]

def stock_fit(learn, *args, **kw):
    "fastai's own `fit`, as where another package has replaced ours"
    return Learner.fit.__wrapped__(learn, *args, **kw)

@pytest.mark.parametrize('cbs,match', [([GradualUnfreezing(1)], 'n_epoch=2: expected at least 3'),
                                       ([GroupCallback(), ChainThaw(2)], 'n_epoch=2'),
                                       ([GradualUnfreezing(1), ChainThaw()], 'in one fit: expected one of them'),
                                       ([DiscriminativeLR(), DiscriminativeLR()], 'in one fit: expected one of them')], ids=str)
def test_callbacks_check_the_fit_if_another_package_replaced_fit(mlp, cbs, match):
    before = weights(mlp)
    with pytest.raises(ValueError, match=match), mlp.no_bar(): stock_fit(mlp, 2, 1e-2, cbs=cbs)
    assert same([list(weights(mlp).values())], [list(before.values())]) and not any(cb.checked for cb in cbs)

def test_callbacks_work_if_another_package_replaced_fit(mlp, tmp_path):
    other = make_mlp(tmp_path)
    cb = GradualUnfreezing(1)
    with mlp.no_bar(), other.no_bar():
        for _ in range(2):
            stock_fit(mlp, 3, 1e-2, cbs=[cb, DiscriminativeLR])
            other.fit(3, 1e-2, cbs=[GradualUnfreezing(1), DiscriminativeLR])
            assert not cb.checked and '_step' not in vars(mlp)
    assert same([list(weights(mlp).values())], [list(weights(other).values())])

def test_fine_tune_opens_the_body_if_another_package_replaced_fit(mlp, monkeypatch):
    monkeypatch.setattr(Learner, 'fit', Learner.fit.__wrapped__)
    trained = []
    class Trains(Callback):
        order = 900
        def after_train(self): trained.append([all(p.requires_grad for p in g) for g in self.opt.param_lists])
    with mlp.no_bar(): mlp.fine_tune(3, cbs=[GradualUnfreezing(1), Trains()])
    assert trained == [[False, False, True], [False, False, True], [False, True, True], [True, True, True]]

def test_a_fit_is_checked_once(mlp):
    seen = []
    class Count(GroupCallback):
        def check_fit(self, fit):
            seen.append(fit)
            return super().check_fit(fit)
    cb = Count()
    with mlp.no_bar(): mlp.fit(2, 1e-2, cbs=cb)
    assert len(seen) == 1 and (seen[0].learn, seen[0].n_epoch, seen[0].lr, seen[0].reset_opt) == (mlp, 2, 1e-2, False) and cb in seen[0].cbs
    with pytest.raises(KeyboardInterrupt), mlp.no_bar(): mlp.fit(1, 1e-2, cbs=[cb, Stop()], reset_opt=True)
    assert len(seen) == 2 and seen[1].reset_opt and not cb.checked
    with mlp.no_bar(): mlp.fit(1, cbs=cb)
    assert len(seen) == 3

class Stop(Callback):
    def before_step(self): raise KeyboardInterrupt

@pytest.mark.parametrize('n,error', [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ('1', TypeError)])
def test_epochs_are_refused_before_anything_changes(mlp, n, error):
    mlp.create_opt()
    before = snapshot(mlp)
    with pytest.raises(error, match=f'n_epoch={n!r}: expected'): mlp.fit(n, 1e-2, cbs=GroupCallback())
    assert same(before, snapshot(mlp)) and not hasattr(mlp, 'loss')

def test_groups_and_data_are_checked(tmp_path, mlp):
    whole = make_mlp(tmp_path, splitter=lambda m: [list(m.parameters())], opt_func=SGD)
    with pytest.raises(ValueError, match='gives 1 layer group, expected at least 2'): whole.fit(1, cbs=GroupCallback())
    mlp.dls.train.dataset,mlp.dls.train.n = [],0
    with pytest.raises(ValueError, match='0 items and makes 0 batches'): mlp.fit(1, cbs=GroupCallback())

def test_overrides_are_undone_however_a_fit_ends(mlp):
    undone = []
    class Undo(GroupCallback):
        def undo(self, learn):
            super().undo(learn)
            undone.append(learn)
    class Fail(Callback):
        def after_epoch(self): raise ZeroDivisionError('stop')
    with mlp.no_bar():
        mlp.fit(1, cbs=Undo)
        for cb,ex in ((Stop, KeyboardInterrupt), (Fail, ZeroDivisionError)):
            with pytest.raises(ex): mlp.fit(1, cbs=[Undo, cb])
            assert all(p.grad is None for p in mlp.model.parameters())
    assert undone == [mlp]*3

@pytest.mark.parametrize('copy', [deepcopy, lambda cb: pickle.loads(pickle.dumps(cb))], ids=['copy', 'pickle'])
def test_a_copy_that_is_made_in_a_fit_is_in_none(mlp, copy):
    copies = []
    class Copies(Callback):
        def after_batch(self):
            cb = self.gradual_unfreezing
            cb.learn,learn = None,cb.learn
            copies.append(copy(cb))
            cb.learn = learn
    with mlp.no_bar(): mlp.fit(3, cbs=[GradualUnfreezing(1), Copies()])
    assert copies and not any(cb.checked for cb in copies)
    # It works in a fit
    with mlp.no_bar(): mlp.fit(3, cbs=copies[-1])
    assert (mlp.recorder.group_lrs > 0).sum(0).tolist() == [8, 16, 24]
