"A plan, run: what ran is what was planned"
__all__ = []

from warnings import warn

import numpy as np
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import TrackerCallback
from fastai.learner import Learner
from fastai.torch_core import get_model
from fastcore.basics import patch
from fastcore.foundation import L

from .checks import check_data
from .groups import check_groups, group_labels
from .plan import Phase, Plan
from .rates import DiscriminativeLR
from .resume import OfTheFit, check_checkpoint, checkpointing
from .schedule import fit_scheds
from .several import by_first, say
from .unfreeze import Unfreezing, settle


class PlanUnfreezing(Unfreezing):
    "Let train what the plan says"
    def __init__(self, plan:Plan): self.plan,self.train_bn = plan,plan.train_bn
    def stages(self, n_groups): return [(p.epochs, p.groups) for p in self.plan.phases]

class PlanScheduler(OfTheFit, ParamScheduler):
    "Set the rates and momentum that the plan says"
    def __init__(self, plan:Plan): self.plan,self.scheds = plan,{'lr': None}

    def before_fit(self):
        super().before_fit()
        self.called_off = False
        if hasattr(self, 'recorder'): self.recorder.begin_run(self.plan)

    def after_epoch(self):
        if hasattr(self, 'recorder'): self.recorder.add_epoch()

    def after_cancel_fit(self): self.called_off = True
    def after_fit(self):
        super().after_fit()
        if hasattr(self, 'recorder') and not self.called_off: self.recorder.end_run()

    def before_train(self):
        phase,(self.first,self.n_epochs,begun) = self.plan.at(self.epoch)[1],self.plan.cycle_at(self.epoch)
        self.scheds = fit_scheds(self.opt, begun.sched, np.array(phase.lrs), begun.moms or self.moms)
        for k in self.scheds: self.hps.setdefault(k, [])

    def before_batch(self):
        # In whole steps, as `Plan.lrs` has it: `pct_train` gathers rounding
        self._update_val(((self.epoch-self.first)*self.n_iter + self.iter) / (self.n_epochs*self.n_iter))

class PhaseEnding(OfTheFit, TrackerCallback):
    "End a phase when what it watches has stopped improving, and go on with the next; each phase begins to count anew"
    order,_stateattrs = TrackerCallback.order+3,('kept',)
    def __init__(self, plan:Plan): self.plan,self.ends,self.kept,self.wait,self.best = plan,None,None,0,None
    def before_fit(self): self.ends,self.wait,self.best = None,0,None

    def before_train(self):
        start,phase = self.plan.at(self.epoch)
        if (ends := phase.ends) is None or self.epoch == start: self.ends = self.kept = None
        if ends is None or self.ends: return
        self.ends,wait,best = ends,self.wait,self.best
        super().__init__(ends.monitor, None if ends.lower is None else np.less if ends.lower else np.greater, ends.min_delta)
        super().before_fit()
        # Where a checkpoint is gone on from, it has counted already
        self.wait,self.best = (0, self.best) if self.epoch == start or best is None else (wait, best)

    def after_epoch(self):
        if not self.ends: return
        start,phase = self.plan.at(self.epoch)
        end = start+phase.epochs
        super().after_epoch()
        # A metric that is not gathered may differ, and the processes have to stay together
        self.new_best = by_first(lambda: bool(self.new_best))
        self.wait = 0 if self.new_best else self.wait+1
        if self.wait >= self.ends.patience and self.epoch+1 < end:
            self.learn._next_epoch = end
            say(self.learn, f'{self.ends.monitor} has not improved since epoch {self.epoch-self.wait}: the phase ends')
        if not self.ends.best: return
        model = get_model(self.learn.model)
        if self.new_best: self.kept = {k: v.clone() for k,v in model.state_dict().items()}
        if max(self._next_epoch, self.epoch+1) != end or not self.kept: return
        model.load_state_dict(self.kept)
        settle(self.opt)

@patch(as_prop=True)
def phase(self:Learner) -> Phase: # None where no plan is running
    "The phase of the plan that is being fitted"
    for cb in self._grab_cbs(PlanUnfreezing): return cb.plan.at(self.epoch)[1]

def _measured(learn):
    "The names under which the recorder will have numbers"
    rec,names,loaders = learn.recorder,list(L(learn.metrics).attrgot('name')),learn.dls.loaders
    if not rec.valid_metrics or len(loaders) < 2 or not len(loaders[1]): return ['train_loss']
    if not rec.train_metrics: return ['train_loss', 'valid_loss', *names]
    return [f'{part}_{n}' for part in ('train', 'valid') for n in ('loss', *names)]

def check_plan(
    learn:Learner, # The learner that is to run it
    plan:Plan, # The plan
    cbs=None, # The callbacks that are to run with it
    reset_opt:bool=False, # Will the optimiser be created anew?
):
    "Raise unless `learn` can run `plan`; nothing is changed"
    if not isinstance(plan, Plan):
        raise TypeError(f'the plan is a {type(plan).__name__}: expected a Plan, such as `learn.ulmfit_plan(6, 1e-2)` or '
                        '`recipes.paper_clas.plan()`')
    groups = check_groups(learn, reset_opt)
    if len(groups) != plan.n_groups:
        raise ValueError(f'the plan is for {plan.n_groups} layer groups ({", ".join(plan.names)}), the learner has {len(groups)} '
                         f'({", ".join(group_labels(learn, groups))}): make the plan from this learner, or give it the plan\'s splitter')
    for cb in [*learn.cbs, *L(cbs)]:
        kind = cb if isinstance(cb, type) else type(cb)
        if issubclass(kind, (DiscriminativeLR, Unfreezing, ParamScheduler)):
            raise ValueError(f'{kind.__name__} together with a plan, which says every rate and what trains: expected none; '
                             'leave it out, or `learn.remove_cb` it')
    names = _measured(learn) if any(p.ends for p in plan.phases) else []
    for p in plan.phases:
        if p.ends and p.ends.monitor not in names:
            raise ValueError(f'monitor={p.ends.monitor!r}: expected what the learner measures, {", ".join(names)}; give it that metric')
    check_data(learn)

def _warn_of_one_step(plan, n_iter):
    "Warn of phases that have one step, and that where their cycle begins"
    if n_iter > 1: return
    rates,low,start = plan.lrs(n_iter),{},0
    for i,p in enumerate(plan.phases, 1):
        share = (rates[start]/p.lrs).max()
        if plan.cycle_at(start)[1] == 1 and share < 0.5: low[i] = share
        start += p.epochs
    if low:
        warn(f'phases {", ".join(map(str, low))}: each has one step, at {100*min(low.values()):.0f} % of its peak rates, as its cycle only '
             'begins: give the learner smaller batches, or the phases more epochs, as by `epochs=5`', stacklevel=3)

@patch
def fit_plan(self:Learner,
    plan:Plan, # What to do
    cbs=None, # One callback, many, or a class
    wd:float=None, # Weight decay, as in `fit`
    checkpoint:str=None, # Name of the file, beside the learner's models, that the same call goes on from if it is stopped
    *,
    checkpoint_every:int=None, # Steps between checkpoints within an epoch; None for those at its end alone
    reset_opt:bool=False, # As in `fit`
    start_epoch:int=0, # As in `fit`
):
    "Fit as `plan` says, in one go: one progress bar, one recorder; `learn.phase` tells other callbacks where they are"
    check_checkpoint(checkpoint, checkpoint_every, start_epoch)
    check_plan(self, plan, cbs, reset_opt)
    _warn_of_one_step(plan, len(self.dls.train))
    if checkpoint is not None:
        plan,point = checkpointing(self, plan, checkpoint, checkpoint_every, wd, reset_opt)
        if point is None: return
        cbs = L(cbs) + point
    ending = [PhaseEnding(plan)] if any(p.ends for p in plan.phases) else []
    try: self.fit(plan.n_epoch, lr=list(plan.phases[0].lrs), wd=wd, cbs=[PlanUnfreezing(plan), PlanScheduler(plan), *ending]+L(cbs),
                  reset_opt=reset_opt, start_epoch=start_epoch)
    finally: self._first_epoch = self._done_batches = self._next_epoch = self._fit_epoch = 0
