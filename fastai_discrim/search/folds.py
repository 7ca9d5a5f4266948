"What trains and what validates the heads: the learner's own sets, or with few labels each fifth of them in turn"
__all__ = []

from fastai.torch_core import find_bs

from .frozen_head import has_items_first, items, items_in, part_bounds

# With fewer items a validation set of a fifth decides by chance
FEW_ITEMS,N_FOLDS = 500,5


def folds(
    train:list, # Batches to train on: features and targets
    valid:list, # Batches to validate on
) -> list: # Pairs of batches to train on and batches to validate on
    "Return the sets as they are, or with fewer than 500 items the folds of a cross-validation over all of them"
    if items_in(train) + items_in(valid) >= FEW_ITEMS: return [(train, valid)]
    size = max(find_bs(targets) for _,*targets in train)
    held_out = [_cut_all(valid, size), *_dealt(_cut_all(train, size), N_FOLDS-1)]
    # A batch norm can't train on a single item, such as the last of a validation set
    can_train = [[b for b in fold if items_in([b]) >= min(size, 2)] for fold in held_out]
    sets = [([b for j,other in enumerate(can_train) if j != i for b in other], fold) for i,fold in enumerate(held_out)]
    return [(train, valid) for train,valid in sets if train and valid]

def _dealt(batches, n):
    "Deal batches out to `n` lists"
    return [batches[i::n] for i in range(n)]

def _cut_all(batches, size):
    "Cut batches into ones of at most `size` items, about equally large"
    return [part for batch in batches for part in _cut(batch, size)]

def _cut(batch, size):
    features,*targets = batch
    n = find_bs(targets)
    if n <= size or not has_items_first(batch, n): return [batch]
    return [items(batch, *part) for part in part_bounds(n, -(-n//size))]
