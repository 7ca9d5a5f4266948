"Rates over time as a picture"
__all__ = []

import matplotlib.pyplot as plt
import numpy as np


def plot_lrs(
    lrs:np.ndarray, # Rates, shape [steps, groups], 0 where frozen
    names=None, # A name for each layer group, input first
    n_iter:int=None, # Steps an epoch: the axis then counts epochs
    axs=None, # Two axes, for the rates and for what trains
    figsize:tuple=None, # Inches
):
    "Plot rates on a log scale, above a strip a layer group: coloured where it trains, grey where it is frozen"
    steps,n = lrs.shape
    names = [f'{i} {o}' for i,o in enumerate(names)] if names else [str(i) for i in range(n)]
    if axs is None:
        _,axs = plt.subplots(2, 1, figsize=figsize or (7, 3.2 + 0.28*n), sharex=True, layout='constrained', height_ratios=[10, 1 + n])
    x = np.arange(steps+1) / (n_iter or 1)
    for i in range(n):
        color = plt.cm.viridis(0.9 * i/max(n-1, 1))
        axs[0].plot(x[:-1], np.where(lrs[:,i] > 0, lrs[:,i], np.nan), color=color, lw=1.8)
        axs[1].barh(i, x[-1], color='0.9', height=0.8)
        axs[1].broken_barh(_training_spans(x, lrs[:,i]), (i-0.4, 0.8), color=color)
    axs[0].set(yscale='log', ylabel='learning rate')
    axs[1].set(yticks=range(n), yticklabels=names, xlabel='epoch' if n_iter else 'iteration', xlim=(0, x[-1]))
    axs[1].set_title('trains (coloured) or frozen (grey)', fontsize='medium', loc='left')
    return axs

def _training_spans(x, lrs):
    "Return start and length of each stretch in which the rate is above 0"
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lrs > 0, [0]])))
    return [(x[start], x[end]-x[start]) for start,end in zip(edges[::2], edges[1::2])]
