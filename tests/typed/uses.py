"Uses of the public API that a type checker has to accept, and to know the results of; `mypy` reads this, nothing runs it"
from typing import Any, cast

import numpy as np
from typing_extensions import assert_type  # noqa: UP035, as typing has it from 3.11 on

from fastai_discrim.plan.compare import compare_plans
from fastai_discrim.plan.origin import BodyLR, HeadLR
from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.rates import discriminative_lrs
from fastai_discrim.plan.schedules import STLR, Cos, SchedSTLR
from fastai_discrim.recipes import Recipe, Step, recipes
from fastai_discrim.typed import PatchedLearner


def plans() -> None:
    lrs = discriminative_lrs(1e-2, 3, span=None)
    assert_type(lrs, np.ndarray)
    head = Phase(1, (2,), lrs)
    # Lists, arrays and None where the documentation says so
    whole = Phase(2, [0, 1, 2], [1e-4, 1e-3, 1e-2], sched=None)
    plan = Plan([head, whole], names=['a', 'b', 'c'], lr=None)
    assert_type(plan.n_epoch, int)
    assert_type(plan.lrs(10), np.ndarray)
    assert_type(plan.under(Cos(), whole=True), Plan)
    assert_type(Plan.from_json(plan.to_json()), Plan)
    plan.plot(yscale='linear', figsize=(4, 3))
    compare_plans(plan, plan, show_plot=False, other=plan)
    Phase(1, (2,), lrs, STLR(0.2), moms=(0.9, 0.8, 0.9), early_stop=EarlyStop(2, lower=None))
    SchedSTLR(1e-2)(0.5)

def published() -> None:
    assert_type(recipes.paper_clas.plan(7, lr=None), Plan)
    assert_type([r.n_epoch for r in recipes.values()], list[int])
    Recipe('mine', 'classifier', 'here', 1e-2, [Step(3, (4,), (1., 2., 3., 4., 5.), STLR()), Step(3, [4], 2.6, Cos())], wd=None)

def learners(untyped: Any) -> None:
    learn = cast(PatchedLearner, untyped)
    found = learn.head_lr_find(n_epoch=4)
    assert_type(found, HeadLR)
    assert_type(found.lr, float)
    body = learn.body_lr_find(4, found, gradual=False)
    assert_type(body, BodyLR)
    plan = learn.ulmfit_plan(4, found, body, epochs=[1, 0.5], sched=Cos())
    assert_type(plan, Plan)
    learn.fit_plan(plan, checkpoint='run')
    learn.fit_ulmfit(4)
    learn.fit_ulmfit(4, 1e-2, body_lr=1e-3, decay=0.9)
    learn.fit_stlr(2, slice(1e-4, 1e-2))
    learn.apply_recipe(recipes.paper_clas, 7)
    assert_type(learn.recorder.group_lrs, np.ndarray)
    learn.regroup(n_groups=3).layer_groups()

def mistakes(untyped: Any) -> None:
    "Each is told; where mypy finds no mistake it says that the comment is unused"
    learn = cast(PatchedLearner, untyped)
    learn.fit_ulmfit('4')  # type: ignore[arg-type]
    learn.fit_ulmfit(4, epoch=1)  # type: ignore[call-arg]
    learn.ulmfit_plan(4, sched='cos')  # type: ignore[arg-type]
    learn.head_lr_find(n_epochs=4)  # type: ignore[call-arg]
    Plan([1])  # type: ignore[list-item]
    Phase(1, 2, [1e-2])  # type: ignore[arg-type]
