"Record and plot the rate of each layer group"
__all__ = ['GroupLRRecorder']

import numpy as np
from fastai.learner import Recorder
from fastcore.basics import patch

from ..groups.labels import group_labels
from ..groups.layer_groups import check_groups
from ..groups.norms import group_trains, norm_ids
from ..plan.plot import plot_lrs
from .base import FitCallback, is_first
from .discriminative import step_lrs


def record_on(recorder:Recorder, **values):
    "Set attributes of `recorder` that `learn.export` doesn't save"
    stateattrs = recorder._stateattrs
    recorder._stateattrs = (*stateattrs, *(k for k in values if k not in stateattrs))
    for k,v in values.items(): setattr(recorder, k, v)

class GroupLRRecorder(FitCallback):
    """Record the rate of each layer group at each step in `recorder.group_lrs`. Fits with a plan or schedule of this package, or with its
    callbacks for layer groups, add it"""
    order,run_valid = Recorder.order+1,False

    def before_fit(self):
        self.is_first = is_first(self)
        if not hasattr(self.learn, 'recorder'): return
        record_on(self.recorder, group_lr_steps=[], group_lr_at=[], group_lr_fit=(self.n_epoch, len(self.dls.train)), group_lr_phases=[])

    def before_train(self):
        self.norms = norm_ids(self.model)
        # Count steps from here, because a validation in the middle of an epoch changes the learner's `epoch` and `n_iter`
        self.epoch_began,self.lr_step = self.epoch*len(self.dls.train),None

    def after_batch(self):
        # Use `self.learn`, as an attribute look-up through fastai's callback takes longer than the rest of this method
        learn = self.learn
        if not self.is_first or len(learn.yb) == 0 or not hasattr(learn, 'recorder'): return
        lrs = zip(step_lrs(learn), learn.opt.param_lists)
        learn.recorder.group_lr_steps.append([lr if group_trains(g, self.norms) else 0. for lr,g in lrs])
        # A run that resumes from a checkpoint may start in the middle of an epoch
        self.lr_step = self.epoch_began+learn.iter if self.lr_step is None else self.lr_step+1
        learn.recorder.group_lr_at.append(self.lr_step)

@patch(as_prop=True)
def group_lrs(self:Recorder) -> np.ndarray: # Shape [steps, groups], 0 where a group was frozen; [0, 0] if no fit recorded its rates
    "Return the rate of each layer group at each step of the last fit that recorded it, as fits with a plan or schedule of ours do"
    # An error here would break code that looks at all attributes of a recorder, such as `inspect.getmembers`
    return np.array(vars(self).get('group_lr_steps') or np.empty((0, 0)))

def _phase_ends(lrs, at, n_steps):
    "Return the steps at which groups are frozen or unfrozen, and the number of steps"
    changes = np.flatnonzero((np.diff(lrs > 0, axis=0)).any(1)) + 1
    return [*(int(at[i]) for i in changes), n_steps]

@patch
def plot_group_lrs(self:Recorder,
    axs=None, # Two axes, for the rates and for the groups that train
    figsize:tuple|None=None, # Size of the figure in inches
    yscale:str='log', # 'log' or 'linear'; a slanted triangle looks like one on the linear scale
):
    "Plot the rate of each layer group over the last fit, and when each group trained, as `Plan.plot` does"
    lrs = self.group_lrs
    if not len(lrs):
        raise ValueError('no rates are recorded: expected a fit of at least one batch before this, with a plan or schedule of '
                         'fastai_discrim, or its callbacks for layer groups; for any other fit add `cbs=GroupLRRecorder()`')
    groups = check_groups(self.learn, at_least=1)
    # After `learn.regroup()` the names don't belong to the groups of the last fit
    names = group_labels(self.learn, groups) if len(groups) == lrs.shape[1] else None
    at,(n_epoch,n_iter) = np.array(self.group_lr_at),self.group_lr_fit
    n_steps = n_epoch*n_iter
    ends = self.group_lr_phases or _phase_ends(lrs, at, n_steps)
    title = f'Run: {n_epoch} epoch{"s" * (n_epoch != 1)}, {len(ends)} phase{"s" * (len(ends) != 1)}, {lrs.shape[1]} groups'
    return plot_lrs(lrs, names, n_iter, steps=at, n_steps=n_steps, phase_ends=ends, title=title, yscale=yscale, axs=axs, figsize=figsize)
