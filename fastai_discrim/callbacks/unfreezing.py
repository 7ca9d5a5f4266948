"What trains when: gradual unfreezing (ULMFiT, section 3.3) and chain-thaw (Felbo et al. 2017)"
__all__ = ['GradualUnfreezing', 'ChainThaw']

from numbers import Integral, Number

from fastai.callback.core import TrainEvalCallback

from ..checks import check_list, check_number, check_train_bn, plain_number
from ..groups.by_hand import check_some_train, say_frozen
from ..groups.norms import group_trains, norm_ids
from ..optional import if_loaded
from ..plan.opening import chain_thaw, fill, gradual, with_own_steps
from ..plan.passed_over import pass_over
from ..plan.position import as_epochs, phase_at, phase_ends
from .base import GroupCallback, check_only_one, is_kind
from .checked_fine_tune import wrap_fine_tune
from .freezing import BATCH_NORMS, freeze_all_but, frozen_norms, keep_norm_stats


class Unfreezing(GroupCallback):
    "Base of strategies that decide which layer groups train: a subclass says it by `schedule`, as a function of the position in the fit"
    # Before `BnFreeze` looks at what trains
    order = TrainEvalCallback.order+1
    # Do norm layers of frozen groups train? None as in fastai: `learn.train_bn`
    train_bn = None
    # Stands aside, as under `lr_find`; leaves the fit to the head, as in the frozen epochs of `fine_tune`
    idle = head_only = False
    # Are its phases shares of the fit, in which several groups open at once where there are too few steps?
    in_shares = False
    # Layer groups with nothing left to train
    dead = ()
    # The epoch that is being fitted
    fit_epoch = 0

    def __new__(cls, *args, **kwargs):
        # Where fastai's callbacks were imported after this package, there was no `fine_tune` to wrap before
        wrap_fine_tune()
        return super().__new__(cls)

    def schedule(self,
        n_groups:int, # Layer groups of the learner
        n_epoch:int, # Epochs of the fit
    ) -> list: # Pairs of epochs, perhaps fractions, and the groups that train in them; the last one's epochs are the fewest it may have
        "List which groups train in which epochs"
        raise NotImplementedError(f'{type(self).__name__} has no `schedule`')

    def fill(self,
        n_groups:int, # Layer groups of the learner
        n_epoch:int, # Epochs of the fit
        dead:tuple=(), # Groups with nothing left to train, which are passed over
    ) -> list: # Pairs of epochs and the groups that train in them, `n_epoch` epochs in all
        "Give the last phase of the schedule all the epochs that are left; raise `ValueError` if these are too few"
        return fill(pass_over(self.schedule(n_groups, n_epoch), dead), n_epoch, repr(self))

    def check_fit(self, fit):
        # `lr_find` is for what trains now
        self.idle = any(is_kind(cb, if_loaded('fastai.callback.schedule', 'LRFinder')) for cb in fit.cbs)
        if self.idle: return
        groups = super().check_fit(fit)
        self.check_callbacks(fit.cbs)
        self.dead,body = check_some_train(fit.learn, groups),list(groups)[:-1]
        norms = norm_ids(fit.learn.model)
        # Of the two fits of `fine_tune`, the one that is frozen
        self.head_only = self.fine_tuning and not any(group_trains(g, norms) for g in body)
        if not self.head_only: self._steps(len(body)+1, fit.n_epoch, len(fit.learn.dls.train))

    def check_callbacks(self, cbs):
        "Raise if one of the other callbacks doesn't go with this one"
        if any(is_kind(cb, if_loaded('fastai.callback.fp16', 'NonNativeMixedPrecision')) for cb in cbs):
            raise ValueError('NonNativeMixedPrecision trains copies of the parameters: expected none, or the native `learn.to_fp16()`')
        check_only_one(Unfreezing, cbs)

    def _steps(self, n_groups, n_epoch, n_iter):
        "Return the groups of each phase, and the step at which it ends"
        phases = [(n_epoch, (n_groups-1,))] if self.head_only else self.fill(n_groups, n_epoch, self.dead)
        if self.in_shares: phases = with_own_steps(phases, n_iter)
        return [groups for _,groups in phases],phase_ends([epochs for epochs,_ in phases], n_iter)

    def before_epoch(self):
        # Another callback may validate in the middle of the epoch; fastai counts from 0 for that, and leaves it so
        self.fit_epoch = self.epoch

    def before_train(self):
        super().before_train()
        if self.idle: return
        self.steps_an_epoch = len(self.dls.train)
        self.phase_groups,self.ends = self._steps(len(self.opt.param_lists), self.n_epoch, self.steps_an_epoch)
        self.enter(phase_at(self.fit_epoch*self.steps_an_epoch, self.ends))
        if self.train_bn is False: keep_norm_stats(self.model)

    def before_batch(self):
        if self.idle: return
        phase = phase_at(self.fit_epoch*self.steps_an_epoch + self.learn.iter, self.ends)
        if phase != self.current: self._enter_within_epoch(phase)

    def enter(self, phase:int):
        "Freeze and unfreeze as phase number `phase` has it"
        say_frozen(self.learn)
        freeze_all_but(self.learn, self.phase_groups[phase], self.train_bn)
        self.current = phase

    def _enter_within_epoch(self, phase):
        "Enter a phase where fastai has set the mode of each module already, as it does when an epoch begins"
        before = frozen_norms(self.model)
        self.enter(phase)
        after = frozen_norms(self.model)
        # `BnFreeze` acts when an epoch begins, and only then; batch norms are all that it knows
        if self.train_bn is not False:
            if not any(isinstance(cb, if_loaded('fastai.callback.training', 'BnFreeze')) for cb in self.learn.cbs): return
            before,after = ({m for m in norms if isinstance(m, BATCH_NORMS)} for norms in (before, after))
        for m in before - after: m.train()
        for m in after: m.eval()

def _train_bn_text(cb): return '' if cb.train_bn is None else f', train_bn={cb.train_bn}'

class GradualUnfreezing(Unfreezing):
    """Train the head alone, then one more layer group from the top every `epochs` epochs, then all to the end (ULMFiT, section 3.3)

    >>> learn.fit_one_cycle(4, 1e-2, cbs=GradualUnfreezing(epochs=1))
    >>> (learn.recorder.group_lrs > 0).sum(axis=0)   # steps in which each group trained, 8 an epoch
    array([16, 24, 32])
    """
    def __init__(self,
        epochs=None, # Epochs before each next group opens: a number, perhaps a fraction, or a list, head first; None for the paper's share
        down_to:int=0, # The lowest group that ever trains
        train_bn:bool|None=None, # Do norm layers of frozen groups train? False keeps their statistics too; None for `learn.train_bn`
    ):
        epochs = plain_number(epochs)
        if epochs is not None:
            single = isinstance(epochs, (Number, str))
            lengths = [epochs] if single else check_list(epochs, 'epochs', 'a number, or several')
            for n in lengths: check_number(n, 'epochs')
            lengths = [as_epochs(n) for n in lengths]
            epochs = lengths[0] if single else lengths
        if isinstance(down_to, bool) or not isinstance(down_to, Integral) or down_to < 0:
            raise ValueError(f'down_to={down_to!r}: expected the index of a layer group, 0 for the input')
        check_train_bn(train_bn)
        self.epochs,self.down_to,self.train_bn,self.in_shares = epochs,int(down_to),train_bn,epochs is None

    def __repr__(self): return f'GradualUnfreezing(epochs={self.epochs}, down_to={self.down_to}{_train_bn_text(self)})'

    def schedule(self, n_groups, n_epoch): return gradual(n_groups, self.epochs, self.down_to, n_epoch)

class ChainThaw(Unfreezing):
    "Train the head alone, then each other layer group alone from the input up, then all to the end (Felbo et al. 2017)"
    def __init__(self,
        epochs=1, # Epochs for each group, which may be fractional
        train_bn:bool|None=None, # As in `GradualUnfreezing`
    ):
        epochs = check_number(epochs, 'epochs')
        check_train_bn(train_bn)
        self.epochs,self.train_bn = as_epochs(epochs),train_bn

    def __repr__(self): return f'ChainThaw(epochs={self.epochs}{_train_bn_text(self)})'

    def schedule(self, n_groups, n_epoch): return chain_thaw(n_groups, self.epochs)
