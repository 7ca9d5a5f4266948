"Plot the rates that a search tried, their losses, and the rate that it chose"
__all__ = []

import matplotlib.pyplot as plt
import numpy as np

from ..plan.origin import BodyLR, HeadLR

# With more rates, the markers merge into a thick line
MAX_MARKERS = 50
# Up to 2 rates, all losses are shown; up to 6 rates, each has a tick of its own
FEW,NAMED = 2,6


def plot_search(
    res:HeadLR|BodyLR, # The result of the search
    of:str, # What has this rate, for labels
    ylabel:str='validation loss', # Label of the loss axis
):
    """Plot the losses against the rates on a log scale. Mark the rates that are about as good as the best, the chosen rate, and the loss of
    an untrained head"""
    _,ax = plt.subplots(figsize=(7, 3.2), layout='constrained')
    loss, = ax.plot(res.lrs, res.losses, marker='o' if len(res.lrs) < MAX_MARKERS else None, ms=4, label=ylabel)
    handles = [loss]
    if np.isfinite(res.untrained):
        untrained = ax.axhline(res.untrained, color='grey', ls=':', label=f'untrained: {res.untrained:.3g}')
        # The legend lists the two in the order in which they are drawn, from the top
        is_on_top = res.untrained > np.interp(res.lr, res.lrs, res.losses)
        handles.insert(0 if is_on_top else 1, untrained)
    if len(res.accepted) > 1: handles.append(ax.axvspan(res.accepted[0], res.accepted[-1], color='C1', alpha=.15, label='about as good'))
    handles.append(ax.axvline(res.lr, color='C1', ls='--', label=f'chosen: {res.lr:.2e}'))
    ax.set(xscale='log', xlabel=f'learning rate of the {of}', ylabel=ylabel)
    ax.set_title(f'Search for the rate of the {of}', fontsize='medium', loc='left')
    if len(res.lrs) <= NAMED:
        ax.set_xticks(res.lrs, [f'{lr:.1e}' for lr in res.lrs])
        ax.minorticks_off()
    _limit_losses(ax, res)
    # Beside the axes, the legend covers no curve
    ax.legend(handles=handles, loc='upper left', bbox_to_anchor=(1, 1), frameon=False)

def _limit_losses(ax, res):
    "Limit the loss axis: diverging losses would flatten the rest of the curve"
    at_low_rates = [*res.losses[:len(res.losses)//2], res.untrained]
    if len(res.lrs) <= FEW or not np.isfinite(res.losses).any() or not np.isfinite(at_low_rates).any(): return
    lowest,usual = np.nanmin(res.losses),np.nanmax(at_low_rates)
    top = min(ax.get_ylim()[1], lowest + max(2*(usual-lowest), abs(usual)))
    if top > lowest: ax.set_ylim(lowest - 0.1*(top-lowest), top)
