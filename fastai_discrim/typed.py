"""Declare the methods that this package adds to `Learner` and `Recorder`, for type checkers and editors.

Use `learn = cast(PatchedLearner, learn)`; at run time it does nothing."""
__all__ = ['PatchedLearner', 'PatchedRecorder']

from typing import TYPE_CHECKING

from fastai.learner import Learner, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any, TypedDict

    import numpy as np
    import pandas as pd
    from typing_extensions import Unpack

    from .callbacks.unfreezing import Unfreezing
    from .plan.origin import BodyLR, HeadLR
    from .plan.phase import EarlyStop
    from .plan.plan import Plan
    from .plan.schedules import Schedule
    from .recipes.recipe import Recipe

    # A number, a `slice`, or one number per layer group
    Rates = float | slice | Sequence[float] | np.ndarray | None

    class PlanArgs(TypedDict, total=False):
        "Arguments that `fit_ulmfit` and `body_lr_find` pass on to `ulmfit_plan`"
        factor: float | None
        cut_frac: float | None
        ratio: float
        epochs: float | Sequence[float] | None
        down_to: int
        gradual: bool | None
        moms: Sequence[float] | None
        early_stop: EarlyStop | None
        min_scale: float
        span: float | None
        decay: float | None
        train_bn: bool | None
        sched: Schedule | None
        unfreezing: Unfreezing | None
        clip: float | None

    class PatchedRecorder(Recorder):
        "fastai's `Recorder` with the methods of this package"
        @property
        def group_lrs(self) -> np.ndarray: ...
        def plot_group_lrs(self, axs:Any=None, figsize:tuple[float, float]|None=None, yscale:str='log') -> Any: ...
        def run_record(self, **notes:Any) -> dict[str, Any]: ...
        def save_run(self, fname:str|Path='run.json', **notes:Any) -> Path: ...

    class PatchedLearner(Learner):
        "fastai's `Learner` with the methods of this package"
        recorder: PatchedRecorder
        def layer_groups(self) -> pd.DataFrame: ...
        def regroup(self, splitter:Callable=..., n_groups:int|None=None) -> 'PatchedLearner': ...
        def head_lr_find(self, lrs:Sequence[float]|np.ndarray|None=None, n_epoch:int=1, show_plot:bool=True, *, n_batch:int=50, runs:int=2,
                         sched:Schedule|None=None, moms:Sequence[float]|None=None, wd:float|None=None) -> HeadLR: ...
        def body_lr_find(self, n_epoch:int, lr:float|HeadLR, show_plot:bool=True, *, wd:float|None=None,
                         **kwargs:Unpack[PlanArgs]) -> BodyLR: ...
        def ulmfit_plan(self, n_epoch:int, lr:float|HeadLR|None=None, body_lr:float|BodyLR|None=None,
                        **kwargs:Unpack[PlanArgs]) -> Plan: ...
        def fit_ulmfit(self, n_epoch:int, lr:float|HeadLR|None=None, cbs:Any=None, wd:float|None=None, checkpoint:str|None=None, *,
                       body_lr:float|BodyLR|None=None, checkpoint_every:int|None=None, reset_opt:bool=False,
                       **kwargs:Unpack[PlanArgs]) -> None: ...
        def fit_plan(self, plan:Plan, cbs:Any=None, wd:float|None=None, checkpoint:str|None=None, *, checkpoint_every:int|None=None,
                     reset_opt:bool=False, start_epoch:int=0) -> None: ...
        def load_checkpoint(self, name:str) -> 'PatchedLearner': ...
        def apply_recipe(self, recipe:Recipe, n_epoch:int|None=None, lr:float|HeadLR|None=None, cbs:Any=None, checkpoint:str|None=None, *,
                         checkpoint_every:int|None=None, reset_opt:bool=False, start_epoch:int=0) -> None: ...
        def fit_stlr(self, n_epoch:int, lr_max:Rates=None, cut_frac:float=0.1, ratio:float=32, wd:float|None=None,
                     moms:Sequence[float]|None=None, cbs:Any=None, reset_opt:bool=False, start_epoch:int=0) -> None: ...
        def fit_clr_beta(self, n_epoch:int, lr_max:Rates=None, div:float=10, pct:float=10, moms:Sequence[float]=(0.95, 0.85),
                         wd:float|None=None, cbs:Any=None, reset_opt:bool=False, start_epoch:int=0) -> None: ...

else: PatchedLearner,PatchedRecorder = Learner,Recorder
