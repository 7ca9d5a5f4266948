"Unfreeze layer groups during a fit: gradual unfreezing (ULMFiT, section 3.3) and chain-thaw (Felbo et al. 2017)"
__all__ = ['GradualUnfreezing', 'ChainThaw']

from numbers import Integral, Number

from fastai.callback.core import TrainEvalCallback
from torch import nn

from ..checks import check_list, check_number, check_train_bn, plain_number
from ..groups.by_hand import check_some_train, warn_frozen_by_hand
from ..groups.norms import group_trains, norm_ids
from ..optional import if_loaded
from ..plan.opening import chain_thaw, fill, gradual, with_own_steps
from ..plan.passed_over import pass_over
from ..plan.position import as_epochs, phase_at, phase_ends
from .base import GroupCallback, check_only_one, is_kind
from .checked_fine_tune import wrap_fine_tune
from .freezing import freeze_all_but, frozen_norms


class Unfreezing(GroupCallback):
    "Base of strategies that unfreeze layer groups; a subclass defines `schedule`"
    # `BnFreeze` runs later, and finds the groups frozen
    order = TrainEvalCallback.order+1
    # Do norm layers of frozen groups train? None for `learn.train_bn`
    train_bn = None
    # Does the callback do nothing in this fit, as in `lr_find`? Does only the head train, as in the frozen epochs of `fine_tune`?
    idle = head_only = False
    # Are the phases shares of the fit? In a fit with too few steps several groups then open at once
    in_shares = False
    # Indices of the layer groups in which the user froze all parameters
    dead = ()
    # The current epoch of the fit
    fit_epoch = 0

    def __new__(cls, *args, **kwargs):
        # `fine_tune` isn't wrapped yet if fastai's callbacks were imported after this package
        wrap_fine_tune()
        return super().__new__(cls)

    def schedule(self,
        n_groups:int, # Number of layer groups
        n_epoch:int, # Number of epochs
    ) -> list: # Pairs of a phase's epochs, perhaps fractional, and the groups that train in it; `fill` adds what is left to the last phase
        "List the phases of the fit, with the layer groups that train in each"
        raise NotImplementedError(f'{type(self).__name__} has no `schedule`')

    def fill(self,
        n_groups:int, # Number of layer groups
        n_epoch:int, # Number of epochs
        dead:tuple=(), # Indices of the groups in which the user froze all parameters, which are passed over
    ) -> list: # Pairs of epochs and groups, with `n_epoch` epochs in all
        "List the phases of `schedule`, and give the last one all remaining epochs; raise `ValueError` if these are too few"
        return fill(pass_over(self.schedule(n_groups, n_epoch), dead), n_epoch, repr(self))

    def check_fit(self, fit):
        # `lr_find` leaves layer groups as they are
        self.idle = any(is_kind(cb, if_loaded('fastai.callback.schedule', 'LRFinder')) for cb in fit.cbs)
        if self.idle: return
        groups = super().check_fit(fit)
        self.check_callbacks(fit.cbs)
        self.dead = check_some_train(fit.learn, groups)
        norms,body = norm_ids(fit.learn.model),groups[:-1]
        # In the first fit of `fine_tune` the body is frozen
        self.head_only = self.fine_tuning and not any(group_trains(g, norms) for g in body)
        # Raise if the fit has too few epochs or steps
        if not self.head_only: self._phases(len(groups), fit.n_epoch, len(fit.learn.dls.train))

    def check_callbacks(self, cbs):
        "Raise if this callback doesn't work with one of `cbs`"
        if any(is_kind(cb, if_loaded('fastai.callback.fp16', 'NonNativeMixedPrecision')) for cb in cbs):
            raise ValueError('NonNativeMixedPrecision trains copies of the parameters, which unfreezing does not reach: expected no such '
                             'callback; use native mixed precision, `learn.to_fp16()`')
        check_only_one(Unfreezing, cbs)

    def _phases(self, n_groups, n_epoch, n_iter):
        "Return the groups of each phase, and the steps at which the phases end"
        phases = [(n_epoch, (n_groups-1,))] if self.head_only else self.fill(n_groups, n_epoch, self.dead)
        if self.in_shares: phases = with_own_steps(phases, n_iter)
        return [groups for _,groups in phases],phase_ends([epochs for epochs,_ in phases], n_iter)

    def before_epoch(self):
        # Keep the epoch, because a validation in the middle of an epoch resets the learner's `epoch` to 0
        self.fit_epoch = self.epoch

    def before_train(self):
        super().before_train()
        if self.idle: return
        self.steps_per_epoch = len(self.dls.train)
        self.phase_groups,self.ends = self._phases(len(self.opt.param_lists), self.n_epoch, self.steps_per_epoch)
        self.enter(phase_at(self.fit_epoch*self.steps_per_epoch, self.ends))
        if self.train_bn is False:
            for m in frozen_norms(self.model): m.eval()

    def before_batch(self):
        if self.idle: return
        phase = phase_at(self.fit_epoch*self.steps_per_epoch + self.learn.iter, self.ends)
        if phase != self.current: self._enter_within_epoch(phase)

    def enter(self, phase:int):
        "Train only the groups of phase number `phase`"
        warn_frozen_by_hand(self.learn)
        freeze_all_but(self.learn, self.phase_groups[phase], self.train_bn)
        self.current = phase

    def _enter_within_epoch(self, phase):
        "Enter a phase in the middle of an epoch, and update the modes of norm layers, which fastai sets when the epoch begins"
        frozen_before = frozen_norms(self.model)
        self.enter(phase)
        frozen = frozen_norms(self.model)
        kinds = nn.Module
        if self.train_bn is not False:
            # Do the work of `BnFreeze`, which acts only when an epoch begins
            if not any(isinstance(cb, if_loaded('fastai.callback.training', 'BnFreeze')) for cb in self.learn.cbs): return
            kinds = if_loaded('fastai.callback.training', 'bn_types')
        for m in frozen_before | frozen:
            if isinstance(m, kinds): m.train(m not in frozen)

def _train_bn_text(cb):
    "Return `train_bn` for the `repr` of a strategy"
    return '' if cb.train_bn is None else f', train_bn={cb.train_bn}'

class GradualUnfreezing(Unfreezing):
    """Train the head alone, unfreeze the next lower layer group every `epochs` epochs, then train all groups (ULMFiT, section 3.3)

    >>> learn.fit_one_cycle(4, 1e-2, cbs=GradualUnfreezing(epochs=1))
    >>> (learn.recorder.group_lrs > 0).sum(axis=0)   # steps in which each group trained, 8 an epoch
    array([16, 24, 32])
    """
    def __init__(self,
        epochs=None, # Epochs before each next group opens, perhaps fractional: a number, or a list, head first; None for the paper's share
        down_to:int=0, # Index of the lowest group that trains
        train_bn:bool|None=None, # Do norm layers of frozen groups train? False also keeps their statistics; None for `learn.train_bn`
    ):
        epochs = plain_number(epochs)
        if epochs is not None:
            single = isinstance(epochs, (Number, str))
            lengths = [epochs] if single else check_list(epochs, 'epochs', 'a number, or several')
            lengths = [as_epochs(check_number(n, 'epochs')) for n in lengths]
            epochs = lengths[0] if single else lengths
        if isinstance(down_to, bool) or not isinstance(down_to, Integral) or down_to < 0:
            raise ValueError(f'down_to={down_to!r}: expected the index of a layer group, 0 for the input')
        self.epochs,self.down_to,self.train_bn,self.in_shares = epochs,int(down_to),check_train_bn(train_bn),epochs is None

    def __repr__(self): return f'GradualUnfreezing(epochs={self.epochs}, down_to={self.down_to}{_train_bn_text(self)})'

    def schedule(self, n_groups, n_epoch): return gradual(n_groups, self.epochs, self.down_to, n_epoch)

class ChainThaw(Unfreezing):
    "Train the head alone, then each other layer group alone from the input up, then all groups (Felbo et al. 2017)"
    def __init__(self,
        epochs=1, # Epochs for each group, perhaps fractional
        train_bn:bool|None=None, # As in `GradualUnfreezing`
    ):
        self.epochs,self.train_bn = as_epochs(check_number(epochs, 'epochs')),check_train_bn(train_bn)

    def __repr__(self): return f'ChainThaw(epochs={self.epochs}{_train_bn_text(self)})'

    def schedule(self, n_groups, n_epoch): return chain_thaw(n_groups, self.epochs)
