"Plot what `head_lr_find` tried and chose"
__all__ = []

import matplotlib.pyplot as plt
import numpy as np

from ..plan.origin import HeadLR

# Beside each other, the points of more rates are a thick line
MAX_MARKERS = 50


def plot_head_lr(
    res:HeadLR, # What `head_lr_find` found
    ylabel:str, # Which loss it is
):
    "Plot the losses against the rates on a log scale, and mark the rate that was chosen"
    _,ax = plt.subplots(figsize=(6, 3.5), layout='constrained')
    ax.plot(res.lrs, res.losses, marker='o' if len(res.lrs) < MAX_MARKERS else None, ms=4)
    ax.axvline(res.lr, color='C1', ls='--', label=f'chosen: {res.lr:.2e}')
    ax.set(xscale='log', xlabel='learning rate of the head', ylabel=ylabel)
    # Where the loss diverges says little, and would flatten the rest
    lowest,at_low_rates = np.nanmin(res.losses),np.nanmax(res.losses[:len(res.losses)//2])
    top = min(ax.get_ylim()[1], lowest + 2*(at_low_rates-lowest))
    if top > lowest: ax.set_ylim(lowest - 0.1*(top-lowest), top)
    ax.legend()
