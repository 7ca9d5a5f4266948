"Run a recipe on a learner: `learn.apply_recipe`"
__all__ = []

from dataclasses import replace

from fastai.learner import Learner
from fastcore.basics import patch
from fastcore.foundation import L

from ..checks import check_names
from ..groups.by_hand import check_some_train, renew_opt
from ..groups.labels import group_labels
from ..groups.layer_groups import check_groups
from ..groups.text_models import is_language_model
from ..plan.origin import HeadLR
from ..plan.passed_over import pass_over_in_plan
from ..run.checkpoint_file import check_checkpoint
from ..run.fit_plan import check_plan, has_clip, run_checked
from ..run.run_identity import check_run
from ..user_warning import warn_user
from .recipe import LM, Recipe


def _check_kind(learn, recipe):
    "Raise unless `recipe` is for the kind of model that `learn` has"
    has_lm = is_language_model(learn)
    if has_lm != (recipe.kind == LM):
        raise ValueError(f'{recipe.name} is for a {recipe.kind}, and the learner has {"a" if has_lm else "no"} language model: '
                         'expected a recipe for what it has; `recipes` lists them')

def _check_clipping(learn, recipe, cbs):
    "Raise if both `recipe` and a callback clip gradients"
    if recipe.clip is not None and has_clip(learn, cbs):
        raise ValueError(f'GradientClip together with {recipe.name}, which clips at {recipe.clip:g}: expected none; leave it out, or '
                         '`learn.remove_cb(GradientClip)`')

def _set_betas(opt, recipe):
    "Set β2, and warn of β1 or β2 if the optimiser lacks it; the plan itself sets β1"
    for hyper,name,value in (('mom', 'β1', recipe.moms), ('sqr_mom', 'β2', recipe.sqr_mom)):
        if value is not None and hyper not in opt.hypers[0]:
            warn_user(f'{name}={value} is ignored, as the optimiser has none: the recipe is for Adam, `opt_func=Adam`')
        elif value is not None and hyper == 'sqr_mom': opt.set_hyper(hyper, value)

@patch
@check_names
def apply_recipe(self:Learner,
    recipe:Recipe, # The recipe to run, such as `recipes.paper_clas`
    n_epoch:int|None=None, # Epochs in all; None for the published number
    lr:float|HeadLR|None=None, # The rate that all others follow, or a result of `head_lr_find`; None for the published rate
    cbs=None, # One callback, several, or a class
    checkpoint:str|None=None, # Name of the checkpoint that the same call resumes from, as in `fit_plan`
    *,
    checkpoint_every:int|None=None, # Steps between checkpoints within an epoch, as in `fit_plan`
    reset_opt:bool=False, # As in `fit`
    start_epoch:int=0, # As in `fit`
):
    """Fit by `recipe`: with its plan, gradient clipping, β1, β2 and weight decay. The optimiser keeps these values. Batch size, dropout and
    the like are not applied, as model and data exist already"""
    if not isinstance(recipe, Recipe): raise TypeError(f'recipe={recipe!r}: expected a Recipe, such as `recipes.paper_clas`')
    cbs = L(cbs)
    check_checkpoint(checkpoint, checkpoint_every, start_epoch)
    plan = recipe.plan(n_epoch, lr)
    _check_kind(self, recipe)
    check_plan(self, plan, cbs, reset_opt)
    _check_clipping(self, recipe, cbs)
    groups = check_groups(self, reset_opt)
    plan = pass_over_in_plan(replace(plan, names=group_labels(self, groups)), check_some_train(self, groups))
    state = None if checkpoint is None else check_run(self, plan, checkpoint, recipe.wd, reset_opt)[1]
    if self.opt is None or reset_opt: renew_opt(self)
    _set_betas(self.opt, recipe)
    run_checked(self, plan, cbs, recipe.wd, checkpoint, checkpoint_every, start_epoch=start_epoch, state=state)
