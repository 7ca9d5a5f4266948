"Plot what a search for a rate tried and chose"
__all__ = []

import matplotlib.pyplot as plt
import numpy as np

from ..plan.origin import BodyLR, HeadLR

# Beside each other, the points of more rates are a thick line
MAX_MARKERS = 50
# All of so few rates are shown
FEW = 2


def plot_search(
    res:HeadLR|BodyLR, # What the search found
    of:str, # Whose rate it is
    ylabel:str='validation loss', # Which loss it is
):
    "Plot the losses against the rates on a log scale; mark the rates that are about as good as the best, and the one that was chosen"
    _,ax = plt.subplots(figsize=(6, 3.5), layout='constrained')
    ax.plot(res.lrs, res.losses, marker='o' if len(res.lrs) < MAX_MARKERS else None, ms=4)
    if len(res.accepted) > 1: ax.axvspan(res.accepted[0], res.accepted[-1], color='C1', alpha=.15, label='about as good')
    ax.axvline(res.lr, color='C1', ls='--', label=f'chosen: {res.lr:.2e}')
    if np.isfinite(res.untrained): ax.axhline(res.untrained, color='grey', ls=':', label=f'untrained: {res.untrained:.3g}')
    ax.set(xscale='log', xlabel=f'learning rate of the {of}', ylabel=ylabel, title=f'Search for the rate of the {of}')
    # Where the loss diverges says little, and would flatten the rest
    at_low_rates = [*res.losses[:len(res.losses)//2], res.untrained]
    if np.isfinite(res.losses).any() and np.isfinite(at_low_rates).any():
        lowest = np.nanmin(res.losses)
        top = min(ax.get_ylim()[1], lowest + 2*(np.nanmax(at_low_rates)-lowest))
        if top > lowest and len(res.lrs) > FEW: ax.set_ylim(lowest - 0.1*(top-lowest), top)
    ax.legend()
