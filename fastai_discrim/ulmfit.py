"The whole sequence: planned, and in one line"
__all__ = []

from functools import partial
from warnings import warn

from fastai.learner import Learner
from fastcore.basics import defaults, patch
from fastcore.meta import delegates

from .checks import check_count, check_train_bn
from .fit_plan import check_plan
from .groups import check_groups, group_labels, is_lm, made, norm_ids, own_lr
from .head import HeadLR, eta
from .plan import Phase, Plan, Plateau
from .rates import discriminative_lrs
from .resume import check_checkpoint, find
from .schedule import STLR
from .several import say
from .unfreeze import GradualUnfreezing


@patch
def ulmfit_plan(self:Learner,
    n_epoch:int, # Epochs in all; the last phase has what the others leave
    lr:float|HeadLR=None, # Peak rate of the head, η_L, or what `head_lr_find` gave, which the plan then says; None for `learn.lr`
    factor:float=2.6, # Each group's rate is its upper neighbour's divided by this
    cut_frac:float=0.1, # Fraction of each phase in which the rate rises
    ratio:float=32, # Each phase starts and ends at its peak rates divided by this
    epochs=1, # Epochs before each next group opens: a number, or a list, head first
    down_to:int=0, # The lowest group that ever trains
    gradual:bool=None, # Open one group after the other? None: yes, but for a language model (section 3.2). In few epochs try False
    moms:tuple=None, # Momentum: start, at the peak rate, end; None for `learn.moms`
    ends:Plateau=None, # What may end a phase before its last epoch; None for nothing
    min_scale:float=0., # For deep models: no group's rate is lower than the head's times this
    span:float=None, # Instead of `factor`: how many times lower than the head's the lowest rate is, however many groups
    decay:float=None, # Instead of `factor`: each group's rate is its upper neighbour's times this, for transformers 0.65 to 0.95
    train_bn:bool=None, # Do norm layers of frozen groups train? False also keeps their running statistics; None for `learn.train_bn`
) -> Plan: # Made, not run: `learn.fit_plan(plan)` does that
    "Plan gradual unfreezing, discriminative rates and slanted triangles, one a phase (ULMFiT, sections 3.2 and 3.3)"
    check_count(n_epoch)
    check_train_bn(train_bn)
    groups = check_groups(self)
    n,opening = len(groups),GradualUnfreezing(epochs, down_to)
    if gradual is None: gradual = not is_lm(self)
    if not gradual:
        if opening.epochs != 1: warn(f'epochs={opening.epochs} is ignored: with `gradual=True` there would be several phases', stacklevel=2)
        opening = GradualUnfreezing(down_to=down_to)
    lr,origin = (own_lr(self), dict(lr=own_lr(self), lr_from='learn.lr')) if lr is None else eta(lr)
    lrs = discriminative_lrs(lr, n, factor, min_scale, span, decay)
    stages = opening.spread(n, n_epoch) if gradual else [(n_epoch, opening.stages(n)[-1][1])]
    norms = norm_ids(self.model)
    # Where no norm layer is ever in a frozen group there is nothing to say
    if not any(id(p) in norms for _,gs in stages for i in set(range(n))-set(gs) for p in groups[i]): train_bn = None
    elif train_bn is None: train_bn = self.train_bn
    phases = [Phase(e, g, lrs, STLR(cut_frac, ratio), moms, ends) for e,g in stages]
    return Plan(phases, group_labels(self, groups), **origin, train_bn=train_bn)

@patch
@delegates(Learner.ulmfit_plan)
def fit_ulmfit(self:Learner,
    n_epoch:int, # Epochs in all
    lr:float|HeadLR=None, # Peak rate of the head, η_L, or what `head_lr_find` gave; None to find it by that, as in the head's phase
    cbs=None, # One callback, many, or a class
    wd:float=None, # Weight decay, as in `fit`
    checkpoint:str=None, # Name of the file that the same call goes on from, as in `fit_plan`; η_L is then not looked for again
    *,
    checkpoint_every:int=None, # As in `fit_plan`
    reset_opt:bool=False, # As in `fit`
    **kwargs
):
    "Fine-tune as ULMFiT does: find η_L, open one layer group after the other, each at its own rate, each phase a slanted triangle"
    make,cbs = partial(self.ulmfit_plan, n_epoch, **kwargs),made(cbs)
    # Whatever is wrong is said before η_L is looked for
    check_checkpoint(checkpoint, checkpoint_every)
    plan = make(defaults.lr if lr is None else lr)
    check_plan(self, plan, cbs, reset_opt)
    if lr is None and checkpoint and (state := find(self, checkpoint)):
        lr = Plan.from_json(state['facts']['plan']).phases[0].lrs[-1]
    if lr is None:
        p = plan.phases[0]
        alone = p.groups == (plan.n_groups-1,)
        # They may be needed to make a prediction of what the model gives
        with self.added_cbs(cbs):
            lr = self.head_lr_find(n_epoch=p.epochs if alone else 1, sched=p.sched, moms=p.moms, wd=wd, show_plot=False)
        say(self, f'head_lr_find: η_L = {lr.lr:.2e}, {lr.how}')
    self.fit_plan(make(lr), cbs=cbs, wd=wd, checkpoint=checkpoint, checkpoint_every=checkpoint_every, reset_opt=reset_opt)
