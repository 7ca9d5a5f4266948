"The whole sequence of ULMFiT: planned, and in one line"
__all__ = []

from functools import partial
from numbers import Number

from fastai.learner import Learner
from fastcore.basics import defaults, patch
from fastcore.foundation import L
from fastcore.meta import delegates

from .callbacks.unfreezing import GradualUnfreezing, Unfreezing
from .checks import as_rate, check_count, check_flag, check_names, check_train_bn, plain_number
from .distributed import log_rank0
from .groups.by_hand import check_some_train
from .groups.labels import group_labels
from .groups.layer_groups import check_groups, own_lr
from .groups.modules import own_params
from .groups.norms import keeps_stats, norm_ids
from .groups.text_models import is_language_model
from .plan.origin import HeadLR, lr_and_origin
from .plan.passed_over import pass_over
from .plan.phase import EarlyStop, Phase
from .plan.plan import Plan
from .plan.rates import FACTOR, discriminative_lrs
from .plan.schedules import STLR, Schedule
from .run.checkpoint_file import check_checkpoint
from .run.fit_plan import check_plan
from .search import head_lr  # noqa: F401, for `learn.head_lr_find`
from .user_warning import warn_user


def _is_given(epochs):
    "Tell whether `epochs` is another than the default; it may be an array"
    return not isinstance(epochs, Number) or epochs != 1

def _strategy(unfreezing, epochs, down_to):
    "Return the strategy that decides what trains when"
    if unfreezing is None: return GradualUnfreezing(epochs, down_to)
    if isinstance(unfreezing, type) or not isinstance(unfreezing, Unfreezing):
        raise TypeError(f'unfreezing={unfreezing!r}: expected a strategy, such as GradualUnfreezing() or ChainThaw()')
    if _is_given(epochs) or down_to:
        raise ValueError(f'epochs={epochs} and down_to={down_to} with unfreezing={unfreezing!r}: expected one of the two ways; '
                         'give them to the strategy')
    return unfreezing

def _shape(sched, cut_frac, ratio):
    "Return the schedule of each phase"
    if sched is None: return STLR(cut_frac, ratio)
    if not isinstance(sched, Schedule): raise TypeError(f'sched={sched!r}: expected a Schedule, such as STLR() or OneCycle()')
    if STLR(cut_frac, ratio) != STLR():
        raise ValueError(f'cut_frac={cut_frac} and ratio={ratio} with sched={sched}: expected one of the two ways; give them to `sched`')
    return sched

def _norms_freeze(model, groups, phases):
    "Tell whether a norm layer is ever in a frozen group; one without weights may be, where any group is"
    norms = norm_ids(model)
    frozen = {i for _,training in phases for i in range(len(groups)) if i not in training}
    if frozen and any(keeps_stats(m) and not own_params(m) for m in model.modules()): return True
    return any(id(p) in norms for i in frozen for p in groups[i])

def _rate_and_origin(lr):
    "Return η_L, and where it came from, also where that is `learn.lr_find`"
    if isinstance(lr, HeadLR): return lr_and_origin(lr)
    res,origin = lr_and_origin(as_rate(lr))
    if hasattr(lr, '_fields'): origin['lr_from'] = f'lr_find, {"valley" if "valley" in lr._fields else lr._fields[0]}'
    return res,origin

def _early_stops(early_stop, phases):
    "Return what may end each phase early: nothing where it ends in the middle of an epoch, as losses are measured at its end"
    ends = [sum(n for n,_ in phases[:i+1]) for i in range(len(phases))]
    return [early_stop if float(round(end, 6)).is_integer() else None for end in ends]

@patch
@check_names
def ulmfit_plan(self:Learner,
    n_epoch:int, # Epochs in all; the last phase has what the others leave
    lr:float|HeadLR=None, # Peak rate of the head, η_L, or what `head_lr_find` gave, which the plan then says; None for `learn.lr`
    body_lr:float=None, # Peak rate of the group below the head, from which those below it fall; None for the paper's, `lr/factor`
    factor:float=FACTOR, # Each group's rate is that of the group above divided by this
    cut_frac:float=0.1, # Fraction of each phase in which the rate rises
    ratio:float=32, # Each phase starts and ends at its peak rates divided by this
    epochs=1, # Epochs before each next group opens: a number, perhaps a fraction, or a list, head first; None for the paper's share
    down_to:int=0, # The lowest group that ever trains
    gradual:bool=None, # Open one group after the other? None: yes, but for a language model (section 3.2). In few epochs try False
    moms:tuple=None, # Momentum: start, at the peak rate, end; None for `learn.moms`
    early_stop:EarlyStop=None, # What may end a phase that ends with an epoch early; None for nothing
    min_scale:float=0., # For deep models: no group's rate is lower than the head's times this
    span:float=None, # Instead of `factor`: the head's rate divided by the lowest group's, for any number of groups
    decay:float=None, # Instead of `factor`: each group's rate is that of the group above times this
    train_bn:bool=None, # Do norm layers of frozen groups train? False also keeps their running statistics; None for `learn.train_bn`
    sched:Schedule=None, # Shape of the rate in each phase, any of our schedules; None for `STLR(cut_frac, ratio)`
    unfreezing:Unfreezing=None, # Which groups train when, any strategy; None for `GradualUnfreezing(epochs, down_to)`
) -> Plan: # Made, not run: `learn.fit_plan(plan)` does that
    "Plan gradual unfreezing, discriminative rates and slanted triangles, one a phase (ULMFiT, sections 3.2 and 3.3)"
    n_epoch,epochs = check_count(n_epoch),plain_number(epochs)
    check_train_bn(train_bn)
    check_flag(gradual, 'gradual', 'to open a language model whole')
    groups,strategy,sched = check_groups(self),_strategy(unfreezing, epochs, down_to),_shape(sched, cut_frac, ratio)
    n,dead = len(groups),check_some_train(self, groups)
    if gradual is None: gradual = unfreezing is not None or not is_language_model(self)
    if gradual: phases = strategy.fill(n, n_epoch, dead)
    else:
        if _is_given(epochs):
            warn_user(f'epochs={epochs} is ignored, as there is one phase: leave it out, or open the groups one by one by `gradual=True`')
        if unfreezing is not None: raise ValueError(f'gradual=False with unfreezing={unfreezing!r}: expected one of the two')
        phases = [(n_epoch, pass_over(GradualUnfreezing(down_to=down_to).schedule(n, n_epoch), dead)[-1][1])]
    lr,origin = (own_lr(self), dict(lr=own_lr(self), lr_from='learn.lr')) if lr is None else _rate_and_origin(lr)
    if body_lr is not None: body_lr = as_rate(body_lr, 'body_lr')
    lrs = discriminative_lrs(lr, n, factor, min_scale, span, decay, body_lr)
    if body_lr is not None: origin |= dict(body_lr=body_lr, body_lr_from='given')
    # Where no norm layer is ever in a frozen group there is nothing to say
    if not _norms_freeze(self.model, groups, phases): train_bn = None
    elif train_bn is None: train_bn = self.train_bn
    stops = _early_stops(early_stop, phases)
    phases = [Phase(length, training, lrs, sched, moms, stop) for (length,training),stop in zip(phases, stops)]
    names = group_labels(self, groups)
    return Plan(phases, names, **origin, passed_over=[names[i] for i in dead], train_bn=train_bn)

@patch
@check_names
@delegates(Learner.ulmfit_plan)
def fit_ulmfit(self:Learner,
    n_epoch:int, # Epochs in all
    lr:float|HeadLR=None, # Peak rate of the head, η_L, or what `head_lr_find` gave; None to find it by that, as in the head's phase
    cbs=None, # One callback, many, or a class
    wd:float=None, # Weight decay, as in `fit`
    checkpoint:str=None, # Name of the file that the same call goes on from, as in `fit_plan`; η_L is then not searched for again
    *,
    checkpoint_every:int=None, # As in `fit_plan`
    reset_opt:bool=False, # As in `fit`
    **kwargs
):
    "Fine-tune as ULMFiT does: find η_L, open one layer group after the other, each at its own rate, each phase a slanted triangle"
    make_plan = partial(self.ulmfit_plan, n_epoch, **kwargs)
    # Classes would be instances twice, in the search and in the fit
    cbs = L(cbs).map(lambda cb: cb() if isinstance(cb, type) else cb)
    if lr is None:
        # Whatever is wrong is said before the search; rates are not known yet
        check_checkpoint(checkpoint, checkpoint_every)
        plan = make_plan(defaults.lr)
        check_plan(self, plan, cbs, reset_opt)
        if checkpoint: lr = _checkpoint_lr(self, checkpoint)
        if lr is None: lr = _search(self, plan, cbs, wd)
    self.fit_plan(make_plan(lr), cbs=cbs, wd=wd, checkpoint=checkpoint, checkpoint_every=checkpoint_every, reset_opt=reset_opt)

def _checkpoint_lr(learn, checkpoint):
    "Return η_L of the run that goes on; None if there is none"
    from .run.checkpointing import checkpoint_plan
    plan = checkpoint_plan(learn, checkpoint)
    return plan and plan.phases[0].lrs[-1]

def _search(learn, plan, cbs, wd):
    "Find η_L, for as long and under the schedule that the head has in the first phase of `plan`"
    phase = plan.phases[0]
    alone = phase.groups == (plan.n_groups-1,)
    n_epoch = max(1, round(phase.epochs)) if alone else 1
    # The callbacks may be needed to make a prediction of what the model gives
    with learn.added_cbs(cbs): lr = learn.head_lr_find(n_epoch=n_epoch, sched=phase.sched, moms=phase.moms, wd=wd, show_plot=False)
    log_rank0(learn, f'head_lr_find: η_L = {lr.lr:.2e}, {lr.how}')
    return lr
