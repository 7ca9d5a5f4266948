"Plan a fit as ULMFiT does it"
__all__ = []

from itertools import accumulate
from math import inf

from fastai.learner import Learner
from fastcore.basics import ifnone, patch

from .callbacks.unfreezing import GradualUnfreezing, Unfreezing
from .checks import check_count, check_data, check_flag, check_names, check_number, check_train_bn, plain_number
from .groups.by_hand import check_some_train
from .groups.labels import group_labels
from .groups.layer_groups import check_groups
from .groups.modules import own_params
from .groups.norms import keeps_stats, norm_ids
from .groups.text_models import is_language_model
from .plan.opening import check_down_to, with_own_steps
from .plan.origin import BodyLR, HeadLR
from .plan.passed_over import pass_over
from .plan.phase import EarlyStop, Phase
from .plan.plan import Plan
from .plan.schedules import STLR, Schedule
from .search.accumulation import fit_steps
from .search.body_prior import body_prior, usual_clip
from .search.plan_rates import plan_rates


def _strategy(unfreezing, epochs, down_to):
    "Return the unfreezing strategy"
    if unfreezing is None: return GradualUnfreezing(epochs, down_to)
    if isinstance(unfreezing, type) or not isinstance(unfreezing, Unfreezing):
        raise TypeError(f'unfreezing={unfreezing!r}: expected a strategy, such as GradualUnfreezing() or ChainThaw()')
    given = [f'epochs={epochs}'] if epochs is not None else []
    if down_to: given.append(f'down_to={down_to}')
    if given: raise _two_ways(given, f'unfreezing={unfreezing!r}', 'give them to the strategy')
    return unfreezing

def _two_ways(given, other, advice):
    "Return the error for arguments that `other` replaces"
    return ValueError(f'{" and ".join(given)} with {other}: expected one of the two ways; {advice}')

def _shape(sched, cut_frac, ratio, usual_cut_frac):
    "Return the schedule of each cycle"
    if sched is None: return STLR(ifnone(cut_frac, usual_cut_frac), ratio)
    if not isinstance(sched, Schedule): raise TypeError(f'sched={sched!r}: expected a Schedule, such as STLR() or OneCycle()')
    given = [f'cut_frac={cut_frac}'] if cut_frac is not None else []
    if ratio != STLR.ratio: given.append(f'ratio={ratio}')
    if given: raise _two_ways(given, f'sched={sched}', 'leave them out, or set the shape in `sched`')
    return sched

def _is_gradual(learn, gradual, epochs, unfreezing):
    "Tell whether to unfreeze the groups one after another; raise if other arguments contradict `gradual=False`"
    if gradual is None: gradual = unfreezing is not None or not is_language_model(learn)
    if gradual: return True
    given = [f'{k}={v}' for k,v in dict(epochs=epochs, unfreezing=unfreezing).items() if v is not None]
    if given:
        raise ValueError(f'{given[0]} with gradual=False, the default for a language model: expected one of the two; leave it out, or give '
                         '`gradual=True`')
    return False

def _norms_freeze(model, groups, phases):
    "Tell whether any norm layer is frozen in a phase; one without parameters may be as soon as any group is frozen"
    norms = norm_ids(model)
    frozen = {i for _,training in phases for i in range(len(groups)) if i not in training}
    if frozen and any(keeps_stats(m) and not own_params(m) for m in model.modules()): return True
    return any(id(p) in norms for i in frozen for p in groups[i])

def _early_stops(early_stop, phases, is_one_cycle):
    """Return for each phase `early_stop`, or None. Only a phase that ends with an epoch can stop early, as the loss is measured there; if
    the fit `is_one_cycle`, only the last phase can"""
    ends = accumulate(n for n,_ in phases)
    stops = [early_stop if float(round(end, 6)).is_integer() else None for end in ends]
    return [None]*(len(stops)-1) + stops[-1:] if is_one_cycle else stops

def _phases(learn, n_groups, dead, n_epoch, strategy, gradual, down_to):
    "List pairs of epochs and groups, without groups in which the user froze all parameters"
    if not gradual:
        check_down_to(down_to, n_groups)
        return pass_over([(n_epoch, tuple(range(down_to, n_groups)))], dead)
    phases = strategy.fill(n_groups, n_epoch, dead)
    return with_own_steps(phases, len(learn.dls.train)) if strategy.in_shares else phases

def _clip(learn, groups, clip):
    "Return the largest norm of the gradients, or None for no clipping"
    if clip is None: return usual_clip(learn, groups)
    return None if clip == inf else check_number(clip, 'clip')

@patch
@check_names
def ulmfit_plan(self:Learner,
    n_epoch:int, # Number of epochs in all
    lr:float|HeadLR|None=None, # Peak rate of the head, η_L, or the result of `head_lr_find`; None for `learn.lr`
    body_lr:float|BodyLR|None=None, # Peak rate of the group below the head, from which the lower ones fall; None for a rule
    factor:float|None=None, # Each group's rate is that of the group above divided by this; None for 2.6, in some bodies less (below)
    cut_frac:float|None=None, # Fraction of each cycle in which the rate rises; None for 0.1, in some fits up to 0.5 (below)
    ratio:float=32, # Each cycle starts and ends at the peak rate divided by this
    epochs=None, # Epochs before each next group opens, each a cycle: a number, or a list, head first; None for 8 % of the fit, in one cycle
    down_to:int=0, # Index of the lowest group that trains
    gradual:bool|None=None, # Unfreeze one group after another? None: yes, except for a language model (section 3.2)
    moms:tuple|None=None, # Momentum: start, at the peak rate, end; None for `learn.moms`
    early_stop:EarlyStop|None=None, # When to end a phase early, if it would end with an epoch; None for never
    min_scale:float=0., # Lower bound of the rates, as a fraction of the body's highest rate if it has one of its own, else of the head's
    span:float|None=None, # Instead of `factor`: the same rate divided by that of the lowest group
    decay:float|None=None, # Instead of `factor`: each group's rate is that of the group above times this
    train_bn:bool|None=None, # Do norm layers of frozen groups train? False also keeps their running statistics; None for `learn.train_bn`
    sched:Schedule|None=None, # Shape of the rate in each cycle; None for an `STLR` with `cut_frac` and `ratio`
    unfreezing:Unfreezing|None=None, # Strategy that unfreezes the groups; None for `GradualUnfreezing(epochs, down_to)`
    clip:float|None=None, # Largest norm of the gradients, `inf` for no clipping; None for 1 if the body has layer norms
) -> Plan: # The plan, which `learn.fit_plan(plan)` runs
    """Plan gradual unfreezing, discriminative rates and slanted triangular schedules (ULMFiT, sections 3.2 and 3.3). In a network of over 5
    groups, each rate of the body is 0.9 times the rate above it, unless you give `factor`, `span` or `decay`. More rules hold if `lr` was
    found. In a recurrent classifier of up to 5 groups, all rates of the body are equal, and in any recurrent classifier, all rates rise in
    the first half of each cycle. In a network with layer norms and a fit of fewer than 60 steps, they rise for 10 steps, or for half of the
    cycle if that is less

    >>> learn.ulmfit_plan(3, 1e-2, epochs=1)
    Plan: 3 epochs, 3 phases, 3 groups; peak rates; η_L = 0.01, given
           epochs         0         2      head                      schedule
    phase
    1           1    frozen    frozen  1.00e-02  STLR(cut_frac=0.1, ratio=32)
    2           1    frozen  3.85e-03  1.00e-02  STLR(cut_frac=0.1, ratio=32)
    3           1  1.48e-03  3.85e-03  1.00e-02  STLR(cut_frac=0.1, ratio=32)
    """
    n_epoch,epochs,factor = check_count(n_epoch),plain_number(epochs),plain_number(factor)
    check_data(self)
    train_bn = check_train_bn(train_bn)
    check_flag(gradual, 'gradual', 'to open a language model whole')
    groups,strategy = check_groups(self),_strategy(unfreezing, epochs, down_to)
    n,dead,prior = len(groups),check_some_train(self, groups),body_prior(self, groups)
    n_steps = fit_steps(self, n_epoch)
    def _sched(n_cycle):
        usual_cut_frac = prior.cut_frac_in(n_steps, n_cycle) if isinstance(lr, HeadLR) else STLR.cut_frac
        return _shape(sched, cut_frac, ratio, usual_cut_frac)
    whole_sched = _sched(n_steps)
    gradual = _is_gradual(self, gradual, epochs, unfreezing)
    phases,clip = _phases(self, n, dead, n_epoch, strategy, gradual, down_to),_clip(self, groups, clip)
    body_trains = any(i < n-1 for _,training in phases for i in training)
    rates,lrs = plan_rates(self, prior, n, lr, body_lr, n_steps, body_trains, factor, min_scale, span, decay)
    # Leave `train_bn` out of the plan if no norm layer is ever frozen
    if not _norms_freeze(self.model, groups, phases): train_bn = None
    elif train_bn is None: train_bn = self.train_bn
    stops = _early_stops(early_stop, phases, strategy.in_shares)
    scheds = [whole_sched if strategy.in_shares else _sched(fit_steps(self, length)) for length,_ in phases]
    phases = [Phase(length, training, lrs, s, moms, stop) for (length,training),s,stop in zip(phases, scheds, stops)]
    names = group_labels(self, groups)
    plan = Plan(phases, names, **rates, passed_over=[names[i] for i in dead], train_bn=train_bn, clip=clip)
    return plan.under(whole_sched, whole=True) if strategy.in_shares else plan
