"Importing the package changes nothing that stock fastai, or another package's patches of it, do"
import os
from itertools import product

import pytest
from conftest import StopAt, make_mlp
from fastai.callback.core import Callback, CancelFitException
from stock.fits import FITS, Named
from stock.ours import ENDS, KINDS
from stock.processes import Processes

from fastai_discrim.all import Flat, Phase, Plan

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')

BASICS,OURS = 'import torch, fastai.basics','from fastai_discrim.all import *'
# The modules of these tests import nothing else
CALLBACKS = 'from fastai.callback.all import *; import stock.fits, stock.ours, stock.patches'
STOCK = [BASICS, CALLBACKS]
IMPORTED = [*STOCK, OURS]
# When else the package is imported, or what it did before
OTHERWISE = dict(first=[BASICS, OURS, CALLBACKS], used=[*IMPORTED, 'from stock.ours import fit_some; fit_some()'])

@pytest.fixture(scope='module')
def processes():
    processes = Processes()
    yield processes
    processes.close()

def assert_same(a, b):
    "Assert that two dictionaries are equal, and say where not"
    assert list(a) == list(b)
    for k in a: assert a[k] == b[k], k

# Fits in which nothing of ours takes part

_stock = {}

def stock(processes, function, *args):
    "Call `function` where only fastai was imported"
    if (function, args) not in _stock: _stock[function, args] = processes(STOCK, function, *args)
    return _stock[function, args]

@pytest.mark.parametrize('name', FITS)
def test_import_only_is_stock(processes, name):
    assert_same(processes(IMPORTED, 'stock.fits:run', name), stock(processes, 'stock.fits:run', name))

# Fits that between them go through all that could be changed
FEW = ['fit_with_a_progress_bar', 'fine_tune_with_all_arguments', 'frozen', 'lr_find', 'odd_arguments', 'signatures', 'a_fit_in_a_fit',
       'fine_tune_makes_a_callback_for_each_of_its_fits', 'validation_in_a_fit', 'KeyboardInterrupt_in_before_step', 'a_recorder_put_back',
       'a_learner_with_a_loop_of_its_own', 'a_model_with_a_phase', 'export']

@pytest.mark.parametrize('name', FEW)
@pytest.mark.parametrize('how', OTHERWISE)
def test_so_it_is_whenever_it_is_imported_and_when_it_was_used(processes, name, how):
    assert_same(processes(OTHERWISE[how], 'stock.fits:run', name), stock(processes, 'stock.fits:run', name))

@pytest.mark.parametrize('name', ['fit', 'epoch_set_in_before_epoch'])
def test_stock_itself_is_the_same_twice(processes, name):
    "Without this the comparisons could fail by chance"
    assert_same(processes(STOCK, 'stock.fits:run', name), stock(processes, 'stock.fits:run', name))

def test_the_comparison_sees_a_difference(processes):
    a,b = (stock(processes, 'stock.fits:run', name) for name in ('fit', 'fit_with_rates'))
    assert a['weights'] != b['weights'] and a['recorder'] != b['recorder']
    assert stock(processes, 'stock.fits:run', 'fit')['rng'] != stock(processes, 'stock.fits:run', 'no_epochs')['rng']

# What our own fits leave behind

# A search is called off before the fit; where no metric was measured fastai's trackers, and so `EarlyStop`, have none to look at
ENDINGS = [(kind, end) for kind,end in product(KINDS, ENDS)
           if (kind, end) != ('early_stop', 'cancel_epoch') and (kind != 'fit_ulmfit_that_finds_its_rate' or end == 'ended')]

@pytest.mark.parametrize('kind,end', ENDINGS, ids=map('-'.join, ENDINGS))
def test_nothing_is_left_after_a_fit_of_ours(processes, kind, end):
    ours,like = processes(IMPORTED, 'stock.ours:do', kind, end),stock(processes, 'stock.ours:do', 'fit_one_cycle', end)
    assert ours['seen'] == like['seen'], 'it ended otherwise'
    assert set(ours['left']) <= set(like['left']) and not ours['lost'] and ours['own'] == []
    assert ours['cbs'] and not ours['grads'] and ours['hooks'] == 0
    # The next fit is stock's, from the same state
    assert_same(ours['next'], processes(STOCK, 'stock.ours:go_on', ours['start']))

def test_our_fits_change_no_class_of_fastais(processes):
    added,changed = processes(IMPORTED, 'stock.imports:import_and_compare', 'from stock.ours import fit_some; fit_some()')
    assert added == changed == []

def test_going_on_is_the_fit_that_follows(processes):
    "Whether `go_on` does in another process what stock fastai does in the same one"
    for end in ('ended', 'ctrl_c'):
        o = stock(processes, 'stock.ours:do', 'fit_one_cycle', end)
        assert_same(o['next'], processes(STOCK, 'stock.ours:go_on', o['start']))

# Other packages' patches

def patches(package, how): return f"import stock.patches; stock.patches.apply('{package}', '{how}')"

A_PATCH,A_ASSIGN,B_PATCH,B_ASSIGN = (patches(*o) for o in product('AB', ('patch', 'assign')))
ORDERS = dict(patch_ours=[A_PATCH, OURS], assign_ours=[A_ASSIGN, OURS], ours_patch=[OURS, B_PATCH], ours_assign=[OURS, B_ASSIGN],
              patch_ours_patch=[A_PATCH, OURS, B_PATCH], patch_ours_assign=[A_PATCH, OURS, B_ASSIGN],
              assign_ours_patch=[A_ASSIGN, OURS, B_PATCH], assign_ours_assign=[A_ASSIGN, OURS, B_ASSIGN],
              ours_patch_assign=[OURS, A_PATCH, B_ASSIGN], ours_patch_patch=[OURS, A_PATCH, B_PATCH])

_patched = {}

def patched(processes, order):
    "Fit where the same patches were made without our package"
    imports = tuple([*STOCK, *(o for o in ORDERS[order] if o is not OURS)])
    if imports not in _patched: _patched[imports] = processes(imports, 'stock.patches:plain_fits')
    return _patched[imports]

@pytest.mark.parametrize('order', ORDERS)
def test_others_patches_run_as_in_stock(processes, order):
    ours,*counts = processes([*STOCK, *ORDERS[order]], 'stock.patches:plain_fits')
    like,*want = patched(processes, order)
    assert counts == want and sum(want[-1].values()) > 20
    assert_same(ours, like)

# Epochs, steps an epoch, and each group's rate; frozen at first, then opened from the head down, and four times lower a group
def restated():
    rates = [[0., 0., 1.], [0., 1/4, 1.], [1/16, 1/4, 1.], [1/16, 1/4, 1.]]
    return [(epoch, i, rates[epoch]) for epoch in range(4) for i in range(3)]

def assert_rates(seen):
    assert [o[:2] for o in seen] == [o[:2] for o in restated()]
    for (*at,got),(_,_,want) in zip(seen, restated()): assert got == pytest.approx(want, rel=1e-4, abs=0), at

@pytest.mark.parametrize('order', [*ORDERS, 'alone'])
def test_our_callbacks_work_whatever_others_patch(processes, order):
    imports = [*STOCK, *ORDERS.get(order, [OURS])]
    (seen,attrs),ran = processes(imports, 'stock.patches:counted', 'watched', 'callbacks')
    assert_rates(seen)
    assert '_step' not in attrs
    if order == 'alone': return
    # Each patch that stock fastcore would run in such a fit
    *_,want = patched(processes, order)
    assert set(ran) == {(who, name) for who,name in want if name not in ('fine_tune', 'freeze_to')}
    steps,batches = 12,20
    counts = dict(fit=1, _do_fit=1, _step=steps, one_batch=batches, after_batch=batches)
    assert all(n == counts[name] for (_,name),n in ran.items()), ran

@pytest.mark.parametrize('order', [*ORDERS, 'alone'])
def test_plans_work_whatever_others_patch(processes, order):
    imports = [*STOCK, *ORDERS.get(order, [OURS])]
    (seen,attrs),ran = processes(imports, 'stock.patches:counted', 'watched', 'plan')
    assert_rates(seen)
    assert not {'_step', 'one_batch', '_do_fit', 'phase'} & set(attrs)
    if order == 'alone': return
    # A plan has its own loop over epochs
    *_,want = patched(processes, order)
    assert {(who, name) for who,name in want if name in ('fit', '_step', 'one_batch', 'after_batch')} <= set(ran)

@pytest.mark.parametrize('cls', ['OwnLoop', 'WholeFit'])
def test_our_callbacks_work_in_a_learner_with_methods_of_its_own(processes, cls):
    seen,attrs = processes(IMPORTED, 'stock.ours:watched', 'callbacks', cls)
    rates = {0: [0., 0., 1.], 1: [0., 1/4, 1.], 2: [1/16, 1/4, 1.], 3: [1/16, 1/4, 1.]}
    epochs = [3, 2, 1, 0] if cls == 'OwnLoop' else [0, 1, 2, 3]
    assert [o[:2] for o in seen] == [(e, i) for e in epochs for i in range(3)]
    for epoch,i,got in seen: assert got == pytest.approx(rates[epoch], rel=1e-4, abs=0), (epoch, i)
    assert '_step' not in attrs

@pytest.mark.parametrize('order', ORDERS)
def test_ctrl_c_leaves_nothing_whatever_others_patch(processes, order):
    ours = processes([*STOCK, *ORDERS[order]], 'stock.ours:do', 'callbacks', 'ctrl_c')
    assert ours['own_in_the_end'] == []
    assert_same(ours['next'], processes(STOCK, 'stock.ours:go_on', ours['start']))

# A model that has attributes of the same names

class Look(Callback):
    def __init__(self): self.seen = []
    def after_batch(self): self.seen.append(self.learn.phase)

def named_mlp(path):
    learn = make_mlp(path)
    learn.model = Named(*learn.model)
    learn.model.layer_groups,learn.model.regroup,learn.model.fit_plan = 'noon',['evening'],None
    return learn

PLAN = Plan([Phase(1, (2,), [1e-3]*3, Flat()), Phase(1, (0, 1, 2), [1e-3]*3, Flat())])

class End(Callback):
    def __init__(self, ex): self.ex = ex
    def before_step(self):
        if self.epoch == 1: raise self.ex('stop')

@pytest.mark.parametrize('end', [None, StopAt(1, 2), StopAt(0, 0), End(ZeroDivisionError), End(CancelFitException)])
def test_the_phase_is_ours_only_while_a_plan_runs(tmp_path, end):
    learn,look = named_mlp(tmp_path),Look()
    with learn.no_bar(): learn.fit(1, cbs=look)
    assert set(look.seen) == {'morning'} and learn.phase == 'morning'
    before,look.seen = set(vars(learn)),[]
    with learn.no_bar():
        try: learn.fit_plan(PLAN, cbs=[look, *([end] if end else [])])
        except (KeyboardInterrupt, ZeroDivisionError): assert end
    assert set(look.seen) <= set(PLAN.phases)
    if not end: assert look.seen[0] == PLAN.phases[0] and look.seen[-1] == PLAN.phases[1]
    assert learn.phase == 'morning' and learn.recorder.phase == 'morning' and set(vars(learn)) - {'logger'} <= before
    with learn.no_bar(): learn.fit(1, cbs=Look())
    assert learn.phase == 'morning'

def test_a_learner_has_no_phase_where_its_model_has_none(mlp):
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    assert not hasattr(mlp, 'phase')
    mlp.phase = 'mine'
    with mlp.no_bar(): mlp.fit_plan(PLAN)
    assert mlp.phase == 'mine'

def test_methods_of_ours_leave_the_models_attributes_alone(tmp_path):
    learn = named_mlp(tmp_path)
    assert len(learn.layer_groups()) == 3 and len(learn.regroup(n_groups=2).layer_groups()) == 2
    assert (learn.model.layer_groups, learn.model.regroup, learn.model.fit_plan) == ('noon', ['evening'], None)
