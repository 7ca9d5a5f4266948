"Plot what a search for a rate tried and chose"
__all__ = []

import matplotlib.pyplot as plt
import numpy as np

from ..plan.origin import BodyLR, HeadLR

# Beside each other, the points of more rates are a thick line
MAX_MARKERS = 50
# All losses of so few rates are shown; the axis names each of so few
FEW,NAMED = 2,6


def plot_search(
    res:HeadLR|BodyLR, # What the search found
    of:str, # Whose rate it is
    ylabel:str='validation loss', # Which loss it is
):
    """Plot the losses against the rates on a log scale. Mark the rates that are about as good as the best, the one that was chosen, and the
    loss of an untrained head"""
    _,ax = plt.subplots(figsize=(7, 3.2), layout='constrained')
    loss, = ax.plot(res.lrs, res.losses, marker='o' if len(res.lrs) < MAX_MARKERS else None, ms=4, label=ylabel)
    handles = [loss]
    if np.isfinite(res.untrained):
        untrained = ax.axhline(res.untrained, color='grey', ls=':', label=f'untrained: {res.untrained:.3g}')
        # In the order of the curves, from the top
        handles.insert(int(not res.untrained > np.interp(res.lr, res.lrs, res.losses)), untrained)
    if len(res.accepted) > 1: handles.append(ax.axvspan(res.accepted[0], res.accepted[-1], color='C1', alpha=.15, label='about as good'))
    handles.append(ax.axvline(res.lr, color='C1', ls='--', label=f'chosen: {res.lr:.2e}'))
    ax.set(xscale='log', xlabel=f'learning rate of the {of}', ylabel=ylabel)
    ax.set_title(f'Search for the rate of the {of}', fontsize='medium', loc='left')
    if len(res.lrs) <= NAMED:
        ax.set_xticks(res.lrs, [f'{lr:.1e}' for lr in res.lrs])
        ax.minorticks_off()
    _limit_losses(ax, res)
    # Beside the axes it covers no curve
    ax.legend(handles=handles, loc='upper left', bbox_to_anchor=(1, 1), frameon=False)

def _limit_losses(ax, res):
    "Leave out where the loss diverges: it says little, and would flatten the rest"
    at_low_rates = [*res.losses[:len(res.losses)//2], res.untrained]
    if len(res.lrs) <= FEW or not np.isfinite(res.losses).any() or not np.isfinite(at_low_rates).any(): return
    lowest,usual = np.nanmin(res.losses),np.nanmax(at_low_rates)
    top = min(ax.get_ylim()[1], lowest + max(2*(usual-lowest), abs(usual)))
    if top > lowest: ax.set_ylim(lowest - 0.1*(top-lowest), top)
