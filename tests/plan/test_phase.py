"Phases as data, and what is refused"
import re
from dataclasses import dataclass

import numpy as np
import pytest

from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.schedules import STLR, CLRBeta, Schedule

LRS = (1e-4, 1e-3, 1e-2)

def test_equal_by_value():
    a,b = Phase(1, (2,), LRS),Phase(np.int64(1), [2], np.array(LRS), STLR())
    assert a == b and hash(a) == hash(b) and a != Phase(1, (2,), LRS, STLR(.2)) and a != Phase(1, (1,), LRS)
    with pytest.raises(AttributeError): a.epochs = 2
    assert repr(a) == ('Phase(epochs=1, groups=(2,), lrs=(0.0001, 0.001, 0.01), sched=STLR(cut_frac=0.1, ratio=32), moms=None, '
                       'early_stop=None)')

def test_fractions_of_an_epoch():
    assert Phase(1.5, (2,), LRS).epochs == 1.5 and Phase(np.float32(.25), (2,), LRS) == Phase(.25, (2,), LRS)
    # A whole number is one, whatever its type, and so are equal plans written alike
    for n in (2, 2., np.float64(2)): assert type(Phase(n, (2,), LRS).epochs) is int
    assert repr(Phase(2., (2,), LRS)) == repr(Phase(2, (2,), LRS))

@pytest.mark.parametrize('kw,match', [
    *((dict(epochs=n), f'epochs={n!r}') for n in (0, -1, -.5, float('nan'), float('inf'), '1', True, None, [1])),
    (dict(groups=()), r'groups=\(\)'),
    (dict(groups=(3,)), r'groups=\(3,\)'),
    (dict(groups=(1, 1)), 'groups'),
    (dict(groups=(-1,)), r'groups=\(-1,\)'),
    (dict(lrs=(1e-3, -1, 1)), 'lrs=-1'),
    (dict(lrs=(1e-3, float('nan'), 1)), 'lrs=nan'),
    (dict(lrs=()), 'groups'),
    (dict(sched='stlr'), "sched='stlr'"),
    (dict(sched=0), 'sched=0'),
    (dict(sched=STLR), 'sched=')])
def test_bad_phases(kw, match):
    with pytest.raises((ValueError, TypeError), match=f'{re.escape(match) if "epochs" in kw else match}.*: expected'):
        Phase(**{**dict(epochs=1, groups=(2,), lrs=LRS), **kw})

@pytest.mark.parametrize('kw,match', [
    (dict(lrs=1e-3), 'lrs=0.001: expected a rate for each layer group'), (dict(lrs='abc'), 'lrs='),
    (dict(groups=2), 'groups=2: expected'), (dict(groups=None), 'groups=None: expected'), (dict(groups=[0, 'a']), 'groups='),
    (dict(moms=(.9, .8)), 'moms has 2 values, expected 3'), (dict(moms='abc'), "moms='abc': expected 3 numbers"),
    (dict(moms=(.9, float('nan'), .9)), 'moms=nan'), (dict(moms=(.9, 1, .9)), 'moms=1')])
def test_phases_of_the_wrong_kind(kw, match):
    with pytest.raises((ValueError, TypeError), match=match): Phase(**{**dict(epochs=1, groups=(2,), lrs=LRS), **kw})

def test_numbers_of_numpy():
    stop = EarlyStop(np.int64(2), 'accuracy', np.float32(.5), np.True_, np.False_)
    assert stop == EarlyStop(2, 'accuracy', .5, True, False) and repr(stop) == repr(EarlyStop(2, 'accuracy', .5, True, False))

@pytest.mark.parametrize('make,match', [
    (lambda: EarlyStop(0), 'patience=0: expected at least 1'), (lambda: EarlyStop(1.5), 'patience=1.5: expected a whole number'),
    (lambda: EarlyStop(1, 3), 'monitor=3: expected the name'), (lambda: EarlyStop(1, best='no'), "best='no': expected True or False"),
    (lambda: EarlyStop(1, best=None), 'best=None: expected True or False'),
    (lambda: EarlyStop(1, lower='higher'), "lower='higher': expected"), (lambda: EarlyStop(1, min_delta=-1), 'min_delta=-1: expected'),
    (lambda: Phase(1, (2,), LRS, early_stop=3), 'early_stop=3: expected an EarlyStop')])
def test_early_stops_that_are_none(make, match):
    with pytest.raises((ValueError, TypeError), match=match): make()

def test_an_early_stop_says_what_it_waits_for():
    assert str(EarlyStop()) == 'until valid_loss stalls for 1 epoch'
    assert str(EarlyStop(2, 'accuracy', .01, True)) == 'until accuracy stalls within 0.01 for 2 epochs, on from the best'
    for lower,word in ((True, 'lower'), (False, 'higher')):
        assert str(EarlyStop(lower=lower)) == f'until valid_loss ({word} is better) stalls for 1 epoch'

def test_a_cycle_that_goes_on_has_no_momentum_of_its_own():
    assert Phase(1, (2,), LRS, None).sched is None
    with pytest.raises(ValueError, match='moms=.*expected None where `sched` is None'): Phase(1, (2,), LRS, None, (.9, .8, .9))
    assert Phase(1, (2,), LRS, CLRBeta(), (.9, .8)).moms == (.9, .8)

def test_schedules_that_are_no_plain_data():
    @dataclass
    class Loose(Schedule): pass
    class Bare(Schedule): pass
    for sched in (Loose(), Bare()):
        with pytest.raises(TypeError, match='is not a frozen dataclass: expected one'): Phase(1, (2,), LRS, sched)
