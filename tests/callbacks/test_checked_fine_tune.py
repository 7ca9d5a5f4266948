"`fine_tune` under a strategy: its frozen fit is for the head alone, and what can't be done is said before it"
import pytest
from callbacks.watch import Opened, Steps, names
from conftest import GroupAnEpoch, in_groups, make_mlp, moved, pairs, trains, weights
from fastai.callback.core import Callback
from fastai.learner import Learner
from plan.restated import phase_ends

from fastai_discrim.callbacks.checked_fine_tune import wrap_fine_tune
from fastai_discrim.callbacks.discriminative import DiscriminativeLR
from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing

STRATEGIES = {'class': GroupAnEpoch, 'instance': GradualUnfreezing(1)}

@pytest.mark.parametrize('freeze_epochs,cb,added', pairs({'1': 1, '2': 2, '4': 4}, STRATEGIES, {'cbs': False, 'add_cb': True}))
def test_fine_tune(mlp, cb, freeze_epochs, added):
    opened = Opened()
    if added: mlp.add_cb(cb)
    with mlp.no_bar(): mlp.fine_tune(4, 1e-2, freeze_epochs=freeze_epochs, cbs=[opened] if added else [cb, opened])
    assert opened.seen == [(2,)]*freeze_epochs + [(2,), (1, 2), (0, 1, 2), (0, 1, 2)]

def test_fine_tune_without_frozen_epochs(mlp):
    opened = Opened()
    with mlp.no_bar(): mlp.fine_tune(4, 1e-2, freeze_epochs=0, cbs=[GroupAnEpoch, opened])
    assert opened.seen == [(2,), (1, 2), (0, 1, 2), (0, 1, 2)]

def test_fine_tune_is_refused_before_it_begins(mlp):
    mlp.create_opt()
    before,now = weights(mlp),trains(mlp)
    for cb,match in [(GradualUnfreezing(1), 'n_epoch=2: expected at least 3'), (DiscriminativeLR, 'one rate per layer group already')]:
        with pytest.raises(ValueError, match=match), mlp.no_bar(): mlp.fine_tune(2, cbs=cb)
        assert not moved(mlp, before) and trains(mlp) == now and len(mlp.cbs) == 4

def test_a_learner_frozen_after_fine_tune_unfreezes_as_any_other(mlp):
    with mlp.no_bar(): mlp.fine_tune(1)
    mlp.freeze()
    with pytest.raises(ValueError, match='n_epoch=1: expected at least 3'), mlp.no_bar(): mlp.fit(1, cbs=GradualUnfreezing(1))

@pytest.mark.parametrize('cb,epochs,groups', [
    (GradualUnfreezing(.25), [.25, .25, 1.5], [(2,), (1, 2), (0, 1, 2)]),
    (GradualUnfreezing([.8, .7]), [.8, .7, .5], [(2,), (1, 2), (0, 1, 2)]),
    (ChainThaw(.5), [.5]*4, [(2,), (0,), (1,), (0, 1, 2)])], ids=str)
@pytest.mark.parametrize('freeze_epochs', [0, 1, 2])
def test_groups_open_in_the_middle_of_an_epoch_of_the_second_fit(mlp, cb, epochs, groups, freeze_epochs):
    steps,ends = Steps(),phase_ends(epochs, 8)
    with mlp.no_bar(): mlp.fine_tune(2, 1e-2, freeze_epochs=freeze_epochs, cbs=[cb, steps])
    second = [g for start,end,g in zip([0, *ends], ends, groups) for _ in range(start, end)]
    want = [(2,)]*8*freeze_epochs + second
    assert steps.opened == want and steps.moved == names(mlp, want)

@pytest.mark.parametrize('call', [lambda l, cb: l.fine_tune(4, cbs=cb), lambda l, cb: l.fine_tune(epochs=4, cbs=cb),
                                  lambda l, cb: l.fine_tune(4, 1e-2, 1, 100, 0.3, 5.0, cbs=cb)], ids=['position', 'name', 'all positions'])
def test_arguments_by_position_and_by_name(mlp, call):
    opened = Opened()
    with mlp.no_bar(): call(mlp, [GroupAnEpoch, opened])
    assert opened.seen == [(2,), (2,), (1, 2), (0, 1, 2), (0, 1, 2)]

def test_without_epochs_it_fails_as_in_stock(mlp):
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'epochs'"): mlp.fine_tune(cbs=GradualUnfreezing)

def test_other_classes_are_instantiated_for_each_fit_and_ours_once(mlp):
    made = []
    class Other(Callback):
        def __init__(self): made.append(self)
    class Ours(GradualUnfreezing):
        def __init__(self):
            super().__init__()
            made.append(self)
    with mlp.no_bar(): mlp.fine_tune(3, cbs=[Other, Ours])
    assert sorted(type(o).__name__ for o in made) == ['Other', 'Other', 'Ours'] and len(mlp.cbs) == 4

def test_a_callback_works_after_a_refused_call(mlp):
    cb,opened = GradualUnfreezing(1),Opened()
    with pytest.raises(ValueError, match='n_epoch=2'), mlp.no_bar(): mlp.fine_tune(2, cbs=cb)
    assert not cb.fine_tuning and not cb.checked
    with mlp.no_bar():
        mlp.fine_tune(3, cbs=[cb, opened])
        assert not cb.fine_tuning and not cb.checked
        mlp.fit(3, cbs=[cb, opened])
    assert opened.seen == [(2,)] + [(2,), (1, 2), (0, 1, 2)]*2

def test_too_few_epochs_are_refused_before_a_frozen_learner_trains(mlp):
    mlp.freeze()
    before = weights(mlp)
    with pytest.raises(ValueError, match='n_epoch=2: expected at least 3'), mlp.no_bar(): mlp.fine_tune(2, cbs=GradualUnfreezing(1))
    assert not moved(mlp, before)

def test_zero_epochs_are_refused_except_frozen_ones(mlp):
    with pytest.raises(ValueError, match='n_epoch=0: expected at least 1'), mlp.no_bar(): mlp.fine_tune(0, cbs=GroupAnEpoch)
    with pytest.raises(ValueError, match='n_epoch=0: expected at least 1'), mlp.no_bar(): mlp.fit(0, cbs=GradualUnfreezing)

def test_by_hand_in_both_fits(tmp_path):
    learn,steps = make_mlp(tmp_path),Steps()
    learn.create_opt()
    learn.model[4].bias.requires_grad_(False)
    # `fine_tune` calls `unfreeze`, which lets everything train
    with learn.no_bar(): learn.fine_tune(1, 1e-2, cbs=[GradualUnfreezing(.25), steps])
    assert steps.moved[-1] == in_groups(learn, range(3)) and trains(learn) == [True]*3

def test_it_is_wrapped_once():
    before = Learner.fine_tune
    wrap_fine_tune()
    GradualUnfreezing(1)
    assert Learner.fine_tune is before and before.knows_groups

def test_a_stock_call_changes_nothing_of_ours(tmp_path):
    a,b = make_mlp(tmp_path),make_mlp(tmp_path)
    with a.no_bar(): a.fine_tune(2, 1e-2)
    with b.no_bar(): Learner.fine_tune.__wrapped__(b, 2, 1e-2)
    assert not moved(a, weights(b))
