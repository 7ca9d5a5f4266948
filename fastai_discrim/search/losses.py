"Compare the losses of several candidates on the same items, item by item: pure arithmetic"
__all__ = []

from dataclasses import dataclass
from functools import reduce

import numpy as np


@dataclass(frozen=True, eq=False)
class Losses:
    "Validation losses of candidates on the same items, split into parts: their paired differences show what is chance"
    parts: np.ndarray # Shape [candidates, parts]: the mean loss over the items of each part
    sizes: np.ndarray # Shape [parts]: the number of items in each part

    @property
    def mean(self) -> np.ndarray:
        "Return the loss of each candidate over all items, shape [candidates]; nan where it is not finite"
        means = self.parts @ (self.sizes/self.sizes.sum())
        return np.where(np.isfinite(means), means, np.nan)

    def difference(self, a:int, b:int) -> tuple:
        """Return by how much the loss of candidate `a` is higher than that of `b`, with the standard error of this paired difference, which
        is 0 for a single part; inf and 0 if the loss of `a` is not finite"""
        if not np.isfinite(self.mean[a]): return np.inf,0.
        each,share = self.parts[a]-self.parts[b],self.sizes/self.sizes.sum()
        mean,n = each@share,len(each)
        variance = share**2 @ (each-mean)**2 * n/max(n-1, 1)
        return mean,variance**0.5

    def is_clearly_lower(self, a:int, b:int) -> bool:
        "Tell whether the loss of candidate `a` is lower than that of `b` by more than a standard error of the difference"
        if not np.isfinite(self.mean[a]): return False
        mean,error = self.difference(b, a)
        return bool(mean > error)

    def joined(self, other):
        "Return these candidates, followed by those of `other` on the same items"
        a,b = on_common_parts([self, other])
        return Losses(np.concatenate([a.parts, b.parts]), a.sizes)

    def merged(self, ends:np.ndarray):
        "Return the same losses, averaged over larger parts, which end after `ends` items"
        starts = np.searchsorted(self.sizes.cumsum(), [0, *ends[:-1]], side='right')
        sizes = np.add.reduceat(self.sizes, starts)
        return Losses(np.add.reduceat(self.parts*self.sizes, starts, axis=1)/sizes, sizes)

    def at(self, order):
        "Return the candidates at the indices `order`"
        return Losses(self.parts[order], self.sizes)

def on_common_parts(several:list) -> list:
    "Merge parts until all `Losses` have the same ones: not every loss can be computed for part of a batch (`part_losses`)"
    if all(np.array_equal(l.sizes, several[0].sizes) for l in several): return several
    ends = reduce(np.intersect1d, [l.sizes.cumsum() for l in several])
    return [l.merged(ends) for l in several]

def joined_parts(several:list) -> Losses:
    "Join `Losses` of the same candidates on different items"
    return Losses(np.concatenate([l.parts for l in several], axis=1), np.concatenate([l.sizes for l in several]))

def mean_losses(runs:list) -> Losses:
    "Return the mean of `Losses` of the same candidates on the same items, from several trainings"
    runs = on_common_parts(runs)
    return Losses(np.mean([l.parts for l in runs], axis=0), runs[0].sizes)
