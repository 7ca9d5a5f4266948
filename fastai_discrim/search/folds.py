"Training and validation sets for the heads: those of the learner, or with few labels the folds of a cross-validation"
__all__ = []

from math import ceil

from fastai.torch_core import find_bs

from .frozen_head import has_items_first, items, items_in, part_bounds

# With fewer items, a validation set of a fifth of them is too noisy to choose by
FEW_ITEMS,N_FOLDS = 500,5


def folds(train:list, valid:list) -> list:
    "Return pairs of batches to train on and to validate on: these two, or with fewer than 500 items the folds of a cross-validation"
    if items_in(train) + items_in(valid) >= FEW_ITEMS: return [(train, valid)]
    size = max(find_bs(targets) for _,*targets in train)
    held_out = [_cut(valid, size), *(train[i::N_FOLDS-1] for i in range(N_FOLDS-1))]
    # A batch norm can't train on a batch of one item, such as the last batch of a validation set
    can_train = [[b for b in fold if items_in([b]) >= min(size, 2)] for fold in held_out]
    sets = []
    for i,fold in enumerate(held_out):
        others = sum(can_train[:i] + can_train[i+1:], [])
        if others and fold: sets.append((others, fold))
    return sets

def _cut(batches, size):
    "Split batches into batches of at most `size` items and about the same size"
    res = []
    for batch in batches:
        _,*targets = batch
        n = find_bs(targets)
        if n <= size or not has_items_first(batch, n): res.append(batch)
        else: res += [items(batch, *part) for part in part_bounds(n, ceil(n/size))]
    return res
