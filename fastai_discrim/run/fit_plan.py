"Fit a learner by a plan"
__all__ = []

from dataclasses import replace

from fastai.learner import Learner
from fastcore.basics import patch
from fastcore.foundation import L

from ..callbacks.base import is_kind
from ..callbacks.batch_norms import DebiasBatchNorm, biased_norms, n_updates
from ..callbacks.discriminative import DiscriminativeLR
from ..callbacks.unfreezing import Unfreezing
from ..checks import check_data, check_names, has_valid
from ..distributed import log_rank0
from ..groups.by_hand import check_some_train
from ..groups.labels import group_labels
from ..groups.layer_groups import check_groups
from ..optional import if_loaded
from ..plan.passed_over import pass_over_in_plan
from ..plan.phase import EarlyStop
from ..plan.plan import Plan
from ..user_warning import warn_user
from .checkpoint_file import check_checkpoint
from .loss_guard import LossGuard
from .plan_loop import plan_loop
from .run_record import RunRecorder

# A phase of a single step at less than this share of its peak rates trains next to nothing
LOW_SHARE = 0.5

def _names_to_record(learn):
    "Return the names of the values that the recorder will have"
    recorder,metrics = learn.recorder,list(L(learn.metrics).attrgot('name'))
    train = ['loss', *metrics] if recorder.train_metrics else ['loss']
    valid = ['loss', *metrics] if recorder.valid_metrics and has_valid(learn) else []
    # fastai names a metric alone unless it measures it on both sets
    both = recorder.train_metrics and recorder.valid_metrics
    def _names(part, values): return [v if v in metrics and not both else f'{part}_{v}' for v in values]
    return _names('train', train) + _names('valid', valid)

def check_plan(learn:Learner, plan:Plan, cbs, reset_opt:bool):
    "Raise `TypeError` or `ValueError` unless `learn` can run `plan` with these arguments of `fit`; change nothing"
    if not isinstance(plan, Plan):
        raise TypeError(f'plan={str(plan)[:60]}: expected a Plan, such as `learn.ulmfit_plan(6, 1e-2)` or `recipes.paper_clas.plan()`')
    if any(is_kind(cb, if_loaded('fastai_discrim.run.plan_callbacks', 'PlanUnfreezing')) for cb in learn.cbs):
        raise ValueError('a plan runs on this learner already: expected one at a time; start this one after the fit, or on a copy')
    groups = check_groups(learn, reset_opt)
    if len(groups) != plan.n_groups:
        raise ValueError(f'the plan is for {plan.n_groups} layer groups ({", ".join(plan.names)}), the learner has {len(groups)} '
                         f'({", ".join(group_labels(learn, groups))}): make the plan from this learner, or give it the plan\'s splitter')
    for cb in [*learn.cbs, *L(cbs)]:
        if isinstance(cb, EarlyStop):
            raise TypeError(f'{cb!r} in `cbs`: expected callbacks; give it to the plan, `ulmfit_plan(..., early_stop={cb!r})`, or use '
                            "fastai's EarlyStoppingCallback")
        if _sets_what_plans_set(cb):
            name = cb.__name__ if isinstance(cb, type) else type(cb).__name__
            raise ValueError(f'{name} together with a plan, which sets rates, momentum and what trains: expected none; leave it out, '
                             'remove it with `learn.remove_cb`, or wait until the fit that added it has ended')
    _check_monitors(learn, plan)
    check_data(learn)
    _check_valid(learn)
    plan.timeline(len(learn.dls.train))

def _check_valid(learn):
    "Raise `ValueError` if there is no validation loader at all: fastai would fail at the end of the first epoch"
    if len(learn.dls.loaders) > 1: return
    raise ValueError('the learner has a training loader only: expected one for validation, too; give it `DataLoaders(train, valid)`, where '
                     'the data set of `valid` may be empty')

def _sets_what_plans_set(cb):
    "Tell whether a callback sets rates, momentum or what trains, as a plan does"
    if is_kind(cb, (DiscriminativeLR, Unfreezing, if_loaded('fastai.callback.tracker', 'ReduceLROnPlateau'))): return True
    if not is_kind(cb, if_loaded('fastai.callback.schedule', 'ParamScheduler')): return False
    # A plan leaves other hyper-parameters, such as weight decay, to other schedulers. Without `scheds`, a scheduler may set any of them
    return not {'lr', 'mom'}.isdisjoint(getattr(cb, 'scheds', {'lr'}))

def _check_monitors(learn, plan):
    "Raise `ValueError` unless the learner measures what the phases monitor"
    monitors = [p.early_stop.monitor for p in plan.phases if p.early_stop]
    if monitors and not hasattr(learn, 'recorder'):
        raise ValueError('early_stop on a learner without a recorder, which measures what it monitors: expected one; leave `early_stop` '
                         'out, or `learn.add_cb(Recorder())`')
    names = _names_to_record(learn) if monitors else []
    for monitor in monitors:
        if monitor not in names:
            raise ValueError(f'monitor={monitor!r}: expected what the learner measures, {", ".join(names)}; give it that metric')

def _warn_of_one_step(plan, n_iter):
    "Warn of phases with a single step that is the low start of a cycle"
    timeline,low = plan.timeline(n_iter),{}
    for i,(start,end) in enumerate(zip(timeline.starts, timeline.ends)):
        whole_cycle = timeline.leader.count(i) == 1
        if end-start > 1 or not whole_cycle: continue
        share = (plan.phase_lrs(i, timeline)/plan.phases[i].lrs).max()
        if share < LOW_SHARE: low[i+1] = share
    if low:
        share = f'{100*min(low.values()):.0f} %'
        advice = 'give the phases more epochs, such as `epochs=5`' if len(plan.phases) > 1 else 'fit for more epochs'
        warn_user(f'a single step in phase{"s" * (len(low) > 1)} {", ".join(map(str, low))}, at {share} of the peak rates: expected more '
                  f'steps; use smaller batches, or {advice}')

def _debias(learn, plan, cbs, saving):
    """Return a list with a `DebiasBatchNorm` if the fit is too short for a batch norm to forget its statistics, else an empty list. A
    resumed run has one if it had one before, as its batch norms have changed since it began"""
    if saving is not None and saving.state:
        ours,n_of_user = DebiasBatchNorm(),sum(is_kind(cb, DebiasBatchNorm) for cb in [*learn.cbs, *cbs])
        return [ours] if saving.callbacks_before()[ours.name] > n_of_user else []
    n = len(biased_norms(learn.model, n_updates(learn, plan.n_epoch)))
    if not n: return []
    log_rank0(learn, f'DebiasBatchNorm: the fit is too short for {n} batch norm{"s" * (n != 1)} to forget the earlier running statistics, '
              'which are corrected where they change')
    return [DebiasBatchNorm()]

def has_clip(learn:Learner, cbs) -> bool:
    "Tell whether a callback of the user, on the learner or in `cbs`, clips gradients"
    return any(is_kind(cb, if_loaded('fastai.callback.training', 'GradientClip')) for cb in [*learn.cbs, *L(cbs)])

@patch
@check_names
def fit_plan(self:Learner,
    plan:Plan, # The plan to run
    cbs=None, # One callback, many, or a class
    wd:float|None=None, # Weight decay, as in `fit`
    checkpoint:str|None=None, # Name of a file beside the learner's models from which the same call resumes if it is stopped
    *,
    checkpoint_every:int|None=None, # Steps between checkpoints within an epoch; None for one at the end of each epoch only
    reset_opt:bool=False, # As in `fit`
    start_epoch:int=0, # As in `fit`
):
    """Fit as `plan` says, with one progress bar and one recorder; `learn.phase` is the current phase, for other callbacks. Add
    `GradientClip` if the plan clips and no callback of yours does, and `DebiasBatchNorm` if the fit is too short for batch norms to forget
    their pretrained statistics

    >>> plan = learn.ulmfit_plan(3, 1e-2)
    >>> learn.fit_plan(plan)
    >>> np.array_equal(learn.recorder.group_lrs, plan.lrs(len(learn.dls.train)))   # it ran as planned
    True
    """
    # An iterator can be read only once
    cbs = L(cbs)
    check_checkpoint(checkpoint, checkpoint_every, start_epoch)
    check_plan(self, plan, cbs, reset_opt)
    run_checked(self, plan, cbs, wd, checkpoint, checkpoint_every, reset_opt, start_epoch)

def run_checked(learn:Learner, plan:Plan, cbs, wd, checkpoint, checkpoint_every, reset_opt=False, start_epoch=0, state:dict|None=None):
    "Fit as `fit_plan` does, after `check_plan`; `state` is the content of the checkpoint, if it was read before"
    # Imported here, as these import callbacks of fastai that change the default callbacks of every learner
    from fastai.callback.training import GradientClip

    from .checkpointing import checkpointing
    from .phase_ending import PhaseEnding
    from .plan_callbacks import PlanScheduler, PlanUnfreezing
    plan = pass_over_in_plan(plan, check_some_train(learn, check_groups(learn, reset_opt)))
    if has_clip(learn, cbs): plan = replace(plan, clip=None)
    _warn_of_one_step(plan, len(learn.dls.train))
    saving,begin = None,(start_epoch, 0)
    if checkpoint is not None:
        plan,saving = checkpointing(learn, plan, checkpoint, checkpoint_every, wd, reset_opt, state)
        # The run is finished
        if saving is None: return
        begin = saving.begin
    with plan_loop(learn, plan, *begin) as loop:
        ours = [PlanUnfreezing(plan), PlanScheduler(plan, loop), LossGuard(plan, checkpoint, checkpoint_every)]
        if hasattr(learn, 'recorder'): ours.append(RunRecorder(plan))
        if any(p.early_stop for p in plan.phases): ours.append(PhaseEnding(plan, loop))
        if plan.clip is not None: ours.append(GradientClip(plan.clip))
        cbs = [*ours, *_debias(learn, plan, L(cbs), saving), *L(cbs)]
        if saving is not None:
            saving.loop = loop
            cbs.append(saving)
        learn.fit(plan.n_epoch, lr=list(plan.phases[0].lrs), wd=wd, cbs=cbs, reset_opt=reset_opt, start_epoch=start_epoch)
