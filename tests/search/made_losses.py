"Losses that are made by hand"
import numpy as np

from fastai_discrim.search.losses import Losses


def losses_of(means, sizes=(16,)):
    "`Losses` whose candidates have the same loss in all parts, so that none of their differences is chance"
    return Losses(np.repeat(np.array(means, dtype=float)[:,None], len(sizes), axis=1), np.array(sizes, dtype=float))
