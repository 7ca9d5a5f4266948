"What trains when: gradual unfreezing (ULMFiT, section 3.3) and chain-thaw (Felbo et al. 2017)"
__all__ = ['GradualUnfreezing', 'ChainThaw']

import numpy as np
from fastai.callback.core import TrainEvalCallback
from fastai.learner import Learner
from fastai.torch_core import get_model

from .checks import check_epochs
from .groups import GroupCallback, group_trains


def _frozen_names(learn): return {n for n,p in get_model(learn.model).named_parameters() if not p.requires_grad}

def _frozen_by_hand(learn):
    "Names of the parameters that are frozen in a group that otherwise trains, or were when `train_only` shut their group"
    by_hand,left = getattr(learn, '_by_hand', (set(), None))
    frozen = _frozen_names(learn)
    # Only while nothing else has touched `requires_grad`: `learn.unfreeze()` says that all is to train
    if frozen == left: return by_hand
    names = {p:n for n,p in get_model(learn.model).named_parameters()}
    return {names[p] for g in learn.opt.param_lists if group_trains(learn.opt, g) for p in g if not p.requires_grad}

def train_only(
    learn:Learner, # A learner that has its optimiser
    groups, # Indices of the layer groups that are to train
):
    "Let only `groups` train. The others are frozen bit for bit, but for norm layers under `train_bn`; the optimiser keeps its state"
    opt,by_hand = learn.opt,_frozen_by_hand(learn)
    names = {p:n for n,p in get_model(learn.model).named_parameters()}
    for i,g in enumerate(opt.param_lists):
        for p in g:
            p.requires_grad_(names[p] not in by_hand and (i in groups or opt.state.get(p, {}).get('force_train', False)))
            # fastai's optimisers step, and so decay, whatever has a gradient, also one of zeros
            if not p.requires_grad: p.grad = None
    # Lookahead pulls all weights to its slow ones, whether they have a gradient or not
    for slow,fast in zip(getattr(opt, 'slow_weights', None) or [], opt.param_lists):
        for s,f in zip(slow, fast):
            if not f.requires_grad: s.data.copy_(f.data)
    learn._by_hand = by_hand,_frozen_names(learn)

class Unfreezing(GroupCallback):
    "Base of what decides which layer groups train: subclasses say it by `stages`, and it is a function of the epoch alone"
    # Before `BnFreeze` looks at what trains
    order,idle = TrainEvalCallback.order+1,False

    def stages(self,
        n_groups:int, # Layer groups of the learner
    ) -> list: # Pairs of epochs and the groups that train in them; the last one's epochs are the fewest it may have
        raise NotImplementedError(f'{type(self).__name__} has no `stages`')

    def spread(self,
        n_groups:int, # Layer groups of the learner
        n_epoch:int, # Epochs of the fit
    ) -> list: # Pairs of epochs and the groups that train in them, `n_epoch` in all
        "The stages of a fit, the last with all the epochs that are left; `ValueError` if these are too few"
        *first,(least,groups) = self.stages(n_groups)
        done = sum(n for n,_ in first)
        if n_epoch < done+least:
            raise ValueError(f'n_epoch={n_epoch}: expected at least {done+least}, as {self!r} takes {done} epochs before the last of '
                             f'{n_groups} layer groups opens: fit for longer, or give each group fewer epochs')
        return [*first, (n_epoch-done, groups)]

    def groups_at(self, epoch):
        for n,groups in self.spread(len(self.opt.param_lists), self.n_epoch):
            if epoch < n: return groups
            epoch -= n

    def check_fit(self):
        # `lr_find` is for what trains now
        self.idle = hasattr(self.learn, 'lr_finder')
        if self.idle: return
        super().check_fit()
        self.groups_at(0)

    def before_train(self):
        if not self.idle: train_only(self.learn, self.groups_at(self.epoch))

class GradualUnfreezing(Unfreezing):
    "The head alone, then one more layer group from the top every `epochs` epochs, then all to the end (ULMFiT, section 3.3)"
    def __init__(self,
        epochs=1, # Epochs before each next group opens: a number, or a list, head first
        down_to:int=0, # The lowest group that ever trains
    ):
        for n in np.atleast_1d(epochs).tolist(): check_epochs(n, 'epochs')
        if isinstance(down_to, bool) or not isinstance(down_to, int) or down_to < 0:
            raise ValueError(f'down_to={down_to!r}: expected the index of a layer group, 0 for the input')
        self.epochs,self.down_to = epochs,down_to

    def __repr__(self): return f'GradualUnfreezing(epochs={self.epochs}, down_to={self.down_to})'

    def stages(self, n_groups):
        before = n_groups-1 - self.down_to
        if before < 0: raise ValueError(f'down_to={self.down_to}: expected at most {n_groups-1} for {n_groups} layer groups')
        epochs = [self.epochs]*before if np.ndim(self.epochs) == 0 else list(self.epochs)
        if len(epochs) != before:
            raise ValueError(f'epochs={epochs} has {len(epochs)} values, expected {before}: one for each of {n_groups} layer groups from '
                             f'the head down to {self.down_to}, but for this last one, which trains to the end')
        return [(n, tuple(range(i, n_groups))) for n,i in zip([*epochs, 1], range(n_groups-1, self.down_to-1, -1))]

    def groups_at(self, epoch):
        *body,_ = self.opt.param_lists
        (head,groups),*_ = self.stages(len(body)+1)
        # `fine_tune` fits a frozen learner first: those epochs are the head's, too few or not
        if self.n_epoch <= head and not any(group_trains(self.opt, g) for g in body): return groups
        return super().groups_at(epoch)

class ChainThaw(Unfreezing):
    "The head alone, then each other layer group alone from the input up, then all to the end (Felbo et al. 2017)"
    def __init__(self,
        epochs:int=1, # Epochs for each group
    ):
        check_epochs(epochs, 'epochs')
        self.epochs = epochs

    def __repr__(self): return f'ChainThaw(epochs={self.epochs})'

    def stages(self, n_groups):
        alone = [(n_groups-1,), *((i,) for i in range(n_groups-1))]
        return [*((self.epochs, g) for g in alone), (1, tuple(range(n_groups)))]
