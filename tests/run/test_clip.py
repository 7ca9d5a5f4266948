"A plan clips gradients as fastai's `GradientClip` does, once"
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import everything, make_mlp
from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from run.resumed import check
from torch import nn

from fastai_discrim.groups.split import layerwise_split
from fastai_discrim.search.miniature import miniature

# Below the norm of the gradients in every step of `make_mlp`
CLIP = 0.02


class Norms(Callback):
    "Record the norm of the gradients that the optimiser gets"
    order = GradientClip.order+1
    def before_fit(self): self.norms = []
    def before_step(self):
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norms.append(torch.stack([g.norm() for g in grads]).norm().item())

def make_transformer(path, **kwargs):
    "A learner of three groups, the body with a layer norm"
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    return Learner(make_mlp(path).dls, model, splitter=layerwise_split, loss_func=CrossEntropyLossFlat(), path=path, **kwargs)

def fitted(path, clip=None, cbs=(), learner_cbs=None):
    "Run a plan with `clip`; return the learner and the norms of its gradients"
    learn,norms = make_mlp(path, cbs=learner_cbs),Norms()
    plan = replace(learn.ulmfit_plan(3, 1e-2), clip=clip)
    with learn.no_bar(),learn.no_logging(): learn.fit_plan(plan, cbs=[*cbs, norms])
    return learn,norms.norms

def test_gradients_are_clipped_as_by_fastai(tmp_path):
    learn,norms = fitted(tmp_path, CLIP)
    assert max(norms) <= CLIP*(1+1e-4) and min(fitted(tmp_path)[1]) > CLIP
    by_fastai,same_norms = fitted(tmp_path, cbs=[GradientClip(CLIP)])
    assert norms == same_norms and everything(learn)['params'] == everything(by_fastai)['params']
    assert learn.recorder.plan.clip == CLIP and not any(isinstance(cb, GradientClip) for cb in learn.cbs)

@pytest.mark.parametrize('own', ['of the fit', 'a class', 'of the learner'])
def test_the_users_own_clipping_counts(tmp_path, own):
    mine = GradientClip if own == 'a class' else GradientClip(2*CLIP)
    where = dict(learner_cbs=mine) if own == 'of the learner' else dict(cbs=[mine])
    learn,norms = fitted(tmp_path, CLIP, **where)
    assert norms == fitted(tmp_path, **where)[1] and max(norms) > CLIP*1.5
    assert learn.recorder.plan.clip is None

def test_a_run_that_is_resumed_is_clipped(tmp_path):
    def _plan(learn): return learn.ulmfit_plan(3, 1e-2, clip=CLIP)
    check(lambda: make_mlp(tmp_path), [(1, 3)], plan=_plan, every=2)

def test_a_plan_for_a_transformer_clips(tmp_path):
    learn = make_transformer(tmp_path)
    plan_at = partial(learn.ulmfit_plan, 3, 1e-2)
    assert plan_at().clip == plan_at(gradual=False).clip == 1. and plan_at(clip=float('inf')).clip is None and plan_at(clip=.3).clip == .3
    assert miniature(plan_at(clip=.3), 10).clip == .3
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(3, 1e-2)
    assert learn.recorder.plan.clip == 1. and '; gradients clipped to a norm of 1' in repr(learn.recorder.plan)
    assert make_mlp(tmp_path, norm=True).ulmfit_plan(3, 1e-2).clip is None

def test_a_bad_norm_changes_nothing(mlp):
    for v in (0, -1., float('nan')):
        with pytest.raises(ValueError, match='clip=.*: expected a number above 0'): mlp.fit_ulmfit(3, 1e-2, clip=v)
    with pytest.raises(TypeError, match="clip='1': expected a number above 0"): mlp.ulmfit_plan(3, 1e-2, clip='1')
    assert mlp.opt is None
