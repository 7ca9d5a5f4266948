"What every layer group's rate was: recorded in any fit, and drawn"
__all__ = []

import matplotlib.pyplot as plt
import numpy as np
from fastai.learner import Recorder
from fastcore.basics import patch

from .groups import check_groups, group_labels, group_trains
from .rates import step_lrs

# The plan of the last fit, if it had one, and what `run_record` tells of it
Recorder.plan = Recorder.ran = None
# Part of the recorder's state, which `export` leaves out
Recorder._stateattrs = (*Recorder._stateattrs, '_group_lrs', '_norms', 'plan', 'ran')

@patch
def after_batch(self:Recorder):
    "As in fastai, and the rate of every layer group is recorded, from where the patched `fit` begins the record"
    self._orig_after_batch()
    learn = self.learn
    if not learn.training or len(learn.yb) == 0: return
    self._group_lrs.append([lr if group_trains(g, self._norms) else 0. for lr,g in zip(step_lrs(learn), learn.opt.param_lists)])

@patch(as_prop=True)
def group_lrs(self:Recorder) -> np.ndarray: # Shape [steps, groups], 0 where a group was frozen
    "Rate of every layer group at every step of the last fit"
    if not vars(self).get('_group_lrs'): raise ValueError('no rates are recorded: expected a fit of at least one batch before this')
    return np.array(self._group_lrs)

@patch
def plot_group_lrs(self:Recorder,
    axs=None, # Two axes, for the rates and for what trains
    figsize:tuple=None, # Inches
):
    "Plot the rate of every layer group over the steps of the last fit, and which of them trained when"
    lrs,groups = self.group_lrs,check_groups(self.learn, at_least=1)
    # After `regroup` the groups are others than those of the last fit
    return plot_lrs(lrs, group_labels(self.learn, groups) if len(groups) == lrs.shape[1] else None, axs=axs, figsize=figsize)

def plot_lrs(
    lrs:np.ndarray, # Rates, shape [steps, groups], 0 where frozen
    names=None, # A name for each layer group, input first
    n_iter:int=None, # Steps an epoch: the axis then counts epochs
    axs=None, # Two axes, for the rates and for what trains
    figsize:tuple=None, # Inches
):
    "Plot rates over time, on a log scale, above a strip a layer group: coloured where it trains, grey where it is frozen"
    steps,n = lrs.shape
    names = [str(i) for i in range(n)] if not names else [f'{i} {o}' for i,o in enumerate(names)]
    if axs is None:
        figsize = figsize or (7, 3.2 + 0.28*n)
        _,axs = plt.subplots(2, 1, figsize=figsize, sharex=True, layout='constrained', height_ratios=[10, 1 + n])
    x = np.arange(steps+1) / (n_iter or 1)
    for i in range(n):
        color = plt.cm.viridis(0.9 * i/max(n-1, 1))
        axs[0].plot(x[:-1], np.where(lrs[:,i] > 0, lrs[:,i], np.nan), color=color, lw=1.8)
        axs[1].barh(i, x[-1], color='0.9', height=0.8)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], lrs[:,i] > 0, [0]])))
        spans = [(x[a], x[b]-x[a]) for a,b in zip(edges[::2], edges[1::2])]
        axs[1].broken_barh(spans, (i-0.4, 0.8), color=color)
    axs[0].set(yscale='log', ylabel='learning rate')
    axs[1].set(yticks=range(n), yticklabels=names, xlabel='epoch' if n_iter else 'iteration', xlim=(0, x[-1]))
    axs[1].set_title('trains (coloured) or frozen (grey)', fontsize='medium', loc='left')
    return axs
