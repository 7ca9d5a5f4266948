"Close what an error or Ctrl-C leaves open of mixed precision"
__all__ = []

from contextlib import contextmanager

import torch

DEVICES = 'cpu','cuda'

def _n_open():
    "Return how many `autocast` contexts are open"
    n = torch.autocast_increment_nesting()-1
    torch.autocast_decrement_nesting()
    return n

@contextmanager
def autocast_closed():
    """Close at the end each `autocast` that was opened inside. fastai's `MixedPrecision` opens one before a batch, and closes it after the
    loss only. While one is open, torch caches half-precision copies of the weights, so later fits would compute with outdated ones"""
    before,states = _n_open(),[(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in DEVICES]
    try: yield
    finally:
        if n := max(_n_open()-before, 0):
            for _ in range(n): torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
            for device,enabled,dtype in states:
                torch.set_autocast_enabled(device, enabled)
                torch.set_autocast_dtype(device, dtype)
