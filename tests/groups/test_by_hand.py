"Parameters that the user froze stay frozen, frozen groups are unfrozen, and `learn.unfreeze()` unfreezes everything"
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from callbacks.watch import watched
from conftest import StopAt, in_turn, make_clas, make_mlp, moved, pairs, weights
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.optimizer import Adam, OptimWrapper, ranger
from torch import nn

from fastai_discrim.callbacks.unfreezing import ChainThaw, GradualUnfreezing
from fastai_discrim.groups.by_hand import BY_HAND, dead_groups, frozen_by_hand, renew_opt
from fastai_discrim.plan.phase import Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.recipes.published import recipes

# The marks of SGD are kept in the same way as those of Adam
OPTS = dict(adam=Adam, ranger=ranger, torch=partial(OptimWrapper, opt=torch.optim.AdamW))
# A scale at which every parameter that trains moves, even a bias before a norm layer
DECAY = dict(wd=.1, wd_bn_bias=True)
MIDDLE,NORM = {'2.weight', '2.bias'},{'3.weight', '3.bias'}

@pytest.fixture(params=OPTS)
def opt_func(request): return OPTS[request.param]

def freeze(learn, *names):
    for n,p in learn.model.named_parameters():
        if n in names: p.requires_grad_(False)

def stays(learn, fit, names):
    "Tell whether exactly the parameters `names` keep their values in `fit`"
    before = weights(learn)
    with learn.no_bar(),learn.no_logging(): fit(learn)
    return set(before) - moved(learn, before) == set(names)

def export(learn):
    learn.dls.new_empty = partial(DataLoaders, [], [])
    learn.export('a.pkl')

# Fits that unfreeze all groups of a learner of three groups in five epochs
FITS = {
    'plan': lambda learn, **kw: learn.fit_plan(learn.ulmfit_plan(5, 1e-2), **kw),
    'fit_ulmfit': lambda learn, **kw: learn.fit_ulmfit(5, 1e-2, **kw),
    'not gradual': lambda learn, **kw: learn.fit_ulmfit(5, 1e-2, gradual=False, **kw),
    'a plan of its own': lambda learn, **kw: learn.fit_plan(Plan([Phase(1, (0,), [1e-2]*3), Phase(4, (0, 1, 2), [1e-2]*3)]), **kw),
    'callback': lambda learn, **kw: learn.fit_one_cycle(5, 1e-2, cbs=GradualUnfreezing(1), **kw),
    'chain': lambda learn, **kw: learn.fit(5, 1e-2, cbs=ChainThaw(), **kw),
    'search': lambda learn, **kw: (learn.head_lr_find(lrs=[1e-3, 1e-2], runs=1, show_plot=False), learn.fit_ulmfit(5, 1e-2, **kw))}

class TestBeforeThereIsAnOptimiser:
    "Without an optimiser, everything that is frozen was frozen by the user"
    @pytest.mark.parametrize('fit,opt_func', in_turn(FITS, OPTS))
    def test_a_whole_group(self, tmp_path, opt_func, fit):
        learn = make_mlp(tmp_path, opt_func=opt_func, norm=True, **DECAY)
        freeze(learn, '0.weight', '0.bias')
        said = r'2 parameters are frozen by hand, and stay so \(0.bias, 0.weight\); .* with no other parameters are passed over: 0\.'
        with pytest.warns(UserWarning, match=said): assert stays(learn, fit, ['0.weight', '0.bias'])
        assert stays(learn, fit, ['0.weight', '0.bias'])

    @pytest.mark.parametrize('fit,opt_func', in_turn(FITS, OPTS, skip=1))
    def test_parts_of_groups_norms_among_them(self, tmp_path, opt_func, fit):
        learn = make_mlp(tmp_path, opt_func=opt_func, norm=True, **DECAY)
        freeze(learn, '0.weight', '2.bias', *NORM)
        assert stays(learn, fit, ['0.weight', '2.bias', *NORM])

    @pytest.mark.parametrize('reset_opt', [False, True])
    def test_all_but_the_head(self, tmp_path, reset_opt):
        learn = make_mlp(tmp_path, norm=True)
        body = [n for n in weights(learn) if not n.startswith('5')]
        freeze(learn, *body)
        assert stays(learn, lambda learn: learn.fit_ulmfit(2, 1e-2, reset_opt=reset_opt), body)
        assert len(learn.recorder.plan.phases) == 1 and learn.recorder.plan.phases[0].groups == (2,)

    def test_the_head(self, tmp_path):
        learn = make_mlp(tmp_path)
        freeze(learn, '4.weight', '4.bias')
        assert stays(learn, lambda learn: learn.fit_ulmfit(2, 1e-2), ['4.weight', '4.bias'])
        assert [p.groups for p in learn.recorder.plan.phases] == [(1,), (0, 1)]

    @pytest.mark.parametrize('call', [lambda learn: learn.ulmfit_plan(3, 1e-2), lambda learn: learn.fit_ulmfit(3, 1e-2),
                                      lambda learn: learn.fit(3, 1e-2, cbs=GradualUnfreezing(1)),
                                      lambda learn: learn.fit_plan(Plan([Phase(3, (0, 1, 2), [1e-2]*3)]))])
    def test_everything(self, mlp, call):
        mlp.model.requires_grad_(False)
        with pytest.raises(ValueError, match='all parameters of the 3 layer groups are frozen by hand: expected some that train'): call(mlp)
        assert mlp.opt is None

class TestInAGroupThatFastaiFroze:
    @pytest.mark.parametrize('fit,opt_func,reset_opt', pairs(FITS, OPTS, {'kept': False, 'reset': True}))
    def test_norms_that_would_train_all_the_same(self, tmp_path, opt_func, fit, reset_opt):
        learn = make_mlp(tmp_path, opt_func=opt_func, norm=True, **DECAY)
        learn.freeze()
        freeze(learn, *NORM)
        assert frozen_by_hand(learn) == {**dict.fromkeys(['0.weight', '0.bias', *MIDDLE], False), **dict.fromkeys(NORM, True)}
        assert stays(learn, partial(fit, reset_opt=reset_opt), NORM)

    def test_nothing_else(self, tmp_path, opt_func):
        learn = make_mlp(tmp_path, opt_func=opt_func, norm=True, **DECAY)
        learn.freeze()
        assert stays(learn, FITS['fit_ulmfit'], [])

    def test_whichever_was_frozen_last(self, tmp_path, opt_func):
        learn = make_mlp(tmp_path, opt_func=opt_func, **DECAY)
        for n in (-1, -2, -1): learn.freeze_to(n)
        freeze(learn, '4.bias')
        assert stays(learn, FITS['fit_ulmfit'], ['4.bias'])
        assert stays(learn, FITS['chain'], ['4.bias'])

@pytest.mark.parametrize('n', [-9, 0])
def test_freezing_nothing(mlp, n):
    mlp.freeze_to(n)
    freeze(mlp, '0.weight', '0.bias')
    assert stays(mlp, FITS['fit_ulmfit'], ['0.weight', '0.bias'])

def test_what_is_frozen_after_a_fit_of_ours_is_frozen_by_hand(tmp_path, opt_func):
    "fastai's index is of a freezing that is long gone"
    learn = make_mlp(tmp_path, opt_func=opt_func, norm=True, **DECAY)
    learn.freeze()
    assert stays(learn, FITS['fit_ulmfit'], [])
    freeze(learn, '0.weight', '0.bias')
    assert stays(learn, FITS['fit_ulmfit'], ['0.weight', '0.bias'])
    learn.model[0].requires_grad_(True)
    assert stays(learn, FITS['fit_ulmfit'], [])

@pytest.mark.parametrize('then,opt_func,at', pairs(FITS, OPTS, {'0': 0, '1': 1, '2': 2}))
def test_after_an_interrupted_fit(tmp_path, opt_func, at, then):
    "Groups that the plan froze are unfrozen, parameters that the user froze are not"
    learn = make_mlp(tmp_path, opt_func=opt_func, norm=True, **DECAY)
    freeze(learn, '2.bias', '3.weight')
    with learn.no_bar(),learn.no_logging(),pytest.raises(KeyboardInterrupt):
        learn.fit(5, 1e-2, cbs=[ChainThaw(train_bn=False), StopAt(at, 3)])
    assert stays(learn, then, ['2.bias', '3.weight'])

def test_unfreeze_unfreezes_everything(tmp_path, opt_func):
    learn = make_mlp(tmp_path, opt_func=opt_func, norm=True, **DECAY)
    freeze(learn, '0.weight', '0.bias', *NORM)
    assert stays(learn, FITS['fit_ulmfit'], ['0.weight', '0.bias', *NORM])
    learn.unfreeze()
    assert BY_HAND not in str(learn.opt.state_dict()) and stays(learn, FITS['fit_ulmfit'], [])

def test_fine_tune_unfreezes_everything_as_fastai_does(tmp_path):
    learn = make_mlp(tmp_path)
    freeze(learn, '0.weight', '0.bias')
    assert stays(learn, lambda learn: learn.fine_tune(5, 1e-2, cbs=GradualUnfreezing(1)), [])

def test_the_warning_is_given_once(tmp_path, opt_func):
    learn = make_mlp(tmp_path, opt_func=opt_func)
    freeze(learn, '0.weight', '0.bias')
    with pytest.warns(UserWarning, match='frozen by hand') as said, learn.no_bar(), learn.no_logging():
        learn.fit_ulmfit(1)
        learn.fit_ulmfit(1, 1e-2)
        learn.regroup(n_groups=2)
        learn.fit_ulmfit(1, 1e-2, reset_opt=True)
    said = [w for w in said if 'by hand' in str(w.message)]
    assert len(said) == 1 and said[0].filename == __file__

def test_a_plan_says_what_it_passes_over(tmp_path):
    learn = make_clas(tmp_path)
    learn.model[0].module.encoder.requires_grad_(False)
    learn.model[0].module.encoder_dp.requires_grad_(False)
    plan = learn.ulmfit_plan(5, 1e-2, epochs=1)
    assert [(p.epochs, p.groups) for p in plan.phases] == [(1, (4,)), (1, (3, 4)), (1, (2, 3, 4)), (2, (1, 2, 3, 4))]
    assert plan.passed_over == ('encoder',) and '; passed over, as frozen by hand: encoder' in repr(plan)
    assert Plan.from_json(plan.to_json()).passed_over == ('encoder',) and learn.opt is None
    with learn.no_bar(),learn.no_logging(): learn.apply_recipe(recipes.table7_chain_thaw, 6)
    assert [(p.epochs, p.groups) for p in learn.recorder.plan.phases] == [(1, (4,)), (2, (1,)), (1, (2,)), (1, (3,)), (1, (1, 2, 3, 4))]
    assert (learn.recorder.group_lrs[:,0] == 0).all()

def test_regroup_keeps_the_marks(tmp_path, opt_func):
    learn = make_mlp(tmp_path, opt_func=opt_func, norm=True, **DECAY)
    learn.opt_func = opt_func
    freeze(learn, '0.weight', '0.bias')
    learn.regroup(n_groups=2).regroup()
    assert dead_groups(learn, learn.opt.param_lists) == (0,)
    assert stays(learn, FITS['fit_ulmfit'], ['0.weight', '0.bias'])
    learn.unfreeze()
    learn.freeze()
    learn.regroup(n_groups=2).regroup()
    assert stays(learn, FITS['fit_ulmfit'], [])

def test_saved_and_loaded(tmp_path, opt_func):
    "The marks are saved and loaded with the optimiser's state"
    learn = make_mlp(tmp_path, opt_func=opt_func, norm=True, **DECAY)
    freeze(learn, '0.weight')
    assert stays(learn, FITS['fit_ulmfit'], ['0.weight'])
    learn.save('a')
    other = make_mlp(tmp_path, opt_func=opt_func, norm=True, **DECAY)
    freeze(other, '0.weight')
    other.load('a')
    assert stays(other, FITS['fit_ulmfit'], ['0.weight'])
    learn.load('a')
    assert stays(learn, FITS['fit_ulmfit'], ['0.weight'])
    export(learn)
    assert stays(learn, FITS['fit_ulmfit'], ['0.weight'])

def test_exported_in_the_middle_of_a_plan(tmp_path, opt_func):
    "fastai creates the optimiser again, and gives it its state"
    learn = make_mlp(tmp_path, opt_func=opt_func, **DECAY)
    freeze(learn, '2.bias')
    with learn.no_bar(),learn.no_logging(),pytest.raises(KeyboardInterrupt): learn.fit_ulmfit(5, 1e-2, cbs=StopAt(0, 3))
    export(learn)
    assert stays(learn, FITS['fit_ulmfit'], ['2.bias'])

def run_with_checkpoint(path, opt_func, frozen_first, *stops):
    "Run with stops, each time with a new learner, and return the last one"
    for stop in (*stops, None):
        learn = make_mlp(path, opt_func=opt_func, norm=True, **DECAY)
        if frozen_first: learn.freeze()
        freeze(learn, *NORM, *([] if frozen_first else ['2.bias', '0.weight', '0.bias']))
        with learn.no_bar(),learn.no_logging():
            cbs = [] if stop is None else StopAt(*stop)
            try: learn.fit_ulmfit(5, 1e-2, cbs=cbs, checkpoint='r', checkpoint_every=2)
            except KeyboardInterrupt: pass
    return learn

@cache
def run_without_a_stop(opt_func, frozen_first):
    with TemporaryDirectory() as path: return run_with_checkpoint(Path(path), opt_func, frozen_first)

@pytest.mark.parametrize('at', [(0, 3), (1, 3), (3, 3)])
@pytest.mark.parametrize('frozen_first', [False, True], ids=['new', 'frozen'])
def test_a_run_resumes_from_a_checkpoint_with_its_frozen_parameters(tmp_path, opt_func, at, frozen_first):
    whole,resumed = run_without_a_stop(opt_func, frozen_first),run_with_checkpoint(tmp_path, opt_func, frozen_first, at)
    assert all(map(torch.equal, whole.model.state_dict().values(), resumed.model.state_dict().values()))
    assert frozen_by_hand(whole) == frozen_by_hand(resumed) and all(frozen_by_hand(whole).values())
    assert set(frozen_by_hand(whole)) == {*NORM} | ({*()} if frozen_first else {'2.bias', '0.weight', '0.bias'})

def test_a_callback_that_freezes_by_hand_within_the_fit(mlp):
    class Freeze(Callback):
        def before_train(self):
            if self.epoch == 3: self.model[0].requires_grad_(False)
    watch = watched(mlp, GradualUnfreezing(1), 5, cbs=[Freeze()])
    assert '0.weight' in watch.moved[2] and '0.weight' not in watch.moved[4]

def test_a_new_optimiser_has_the_marks_of_the_old_one(tmp_path, opt_func):
    learn = make_mlp(tmp_path, opt_func=opt_func)
    learn.freeze()
    freeze(learn, '4.bias')
    before = frozen_by_hand(learn)
    renew_opt(learn)
    assert learn.opt.frozen_idx == 0 and frozen_by_hand(learn) == before
    assert before == {**dict.fromkeys(['0.weight', '0.bias', *MIDDLE], False), '4.bias': True}

class TestLora:
    "A model as peft makes it: the original parameters are frozen, and small matrices beside them train"
    class Lora(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base.requires_grad_(False)
            self.down,self.up = nn.Linear(base.in_features, 2, bias=False),nn.Linear(2, base.out_features)
        def forward(self, x): return self.base(x) + self.up(self.down(x))

    @pytest.mark.parametrize('fit', FITS.values(), ids=FITS)
    def test_what_it_froze_stays(self, tmp_path, fit):
        learn = make_mlp(tmp_path, norm=True)
        learn.model[2] = self.Lora(learn.model[2])
        for i in (0, 3): learn.model[i].requires_grad_(False)
        assert stays(learn, fit, [n for n,p in learn.model.named_parameters() if not p.requires_grad])

def test_lazy_layers_without_weights_are_refused(tmp_path):
    learn = make_mlp(tmp_path)
    learn.model[4] = nn.LazyLinear(2)
    match = r'2 parameters of lazy layers have no weights yet: expected initialised layers; run a batch through the model first'
    for f in (lambda: learn.ulmfit_plan(3, 1e-2), lambda: learn.head_lr_find(show_plot=False), lambda: learn.fit_ulmfit(3),
              lambda: learn.fit(3, cbs=GradualUnfreezing(1))):
        with pytest.raises(ValueError, match=match), learn.no_bar(): f()
    learn.model(*learn.dls.one_batch()[:1])
    learn.create_opt()
    with learn.no_bar(): learn.fit_ulmfit(3, 1e-2)
