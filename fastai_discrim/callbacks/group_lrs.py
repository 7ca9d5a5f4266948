"Every layer group's rate, recorded at every step and drawn"
__all__ = ['GroupLRRecorder']

import numpy as np
from fastai.learner import Recorder
from fastcore.basics import patch

from ..groups.labels import group_labels
from ..groups.layer_groups import check_groups
from ..groups.norms import group_trains, norm_ids
from ..plan.plot import plot_lrs
from .base import FitCallback
from .discriminative import step_lrs


def record_on(
    recorder:Recorder, # The learner's recorder
    **values, # By name
):
    "Set attributes of `recorder` that `learn.export` leaves out"
    stateattrs = recorder._stateattrs
    recorder._stateattrs = (*stateattrs, *(k for k in values if k not in stateattrs))
    for k,v in values.items(): setattr(recorder, k, v)

class GroupLRRecorder(FitCallback):
    "Record the rate of every layer group at every step in `recorder.group_lrs`; our own fits add it by themselves"
    order,run_valid = Recorder.order+1,False

    def before_fit(self):
        # A fit of ours adds one, whether one was given or not: the first records
        recorders = [cb for cb in self.learn.cbs if isinstance(cb, GroupLRRecorder)]
        self.is_first = recorders[0] is self
        if hasattr(self.learn, 'recorder'): record_on(self.recorder, group_lr_steps=[])

    def before_train(self): self.norms = norm_ids(self.model)

    def after_batch(self):
        # By `self.learn`, as fastai's look-up in the learner takes longer than the rest of this
        learn = self.learn
        if not self.is_first or len(learn.yb) == 0 or not hasattr(learn, 'recorder'): return
        lrs = zip(step_lrs(learn), learn.opt.param_lists)
        learn.recorder.group_lr_steps.append([lr if group_trains(g, self.norms) else 0. for lr,g in lrs])

@patch(as_prop=True)
def group_lrs(self:Recorder) -> np.ndarray: # Shape [steps, groups], 0 where a group was frozen
    "Return the rate of every layer group at every step of the last fit that recorded them: one with a plan, schedule or callback of ours"
    steps = vars(self).get('group_lr_steps')
    if not steps:
        raise ValueError('no rates are recorded: expected a fit of at least one batch before this, with a plan, schedule or callback of '
                         'fastai_discrim; for any other fit add `cbs=GroupLRRecorder()`')
    return np.array(steps)

@patch
def plot_group_lrs(self:Recorder,
    axs=None, # Two axes, for the rates and for what trains
    figsize:tuple=None, # Inches
):
    "Plot the rate of every layer group over the steps of the last fit, and which of them trained when"
    lrs,groups = self.group_lrs,check_groups(self.learn, at_least=1)
    # After `regroup` the groups are others than those of the last fit
    names = group_labels(self.learn, groups) if len(groups) == lrs.shape[1] else None
    return plot_lrs(lrs, names, axs=axs, figsize=figsize)
