"What trains when: gradual unfreezing (ULMFiT, section 3.3) and chain-thaw (Felbo et al. 2017)"
__all__ = ['GradualUnfreezing', 'ChainThaw']

from numbers import Integral, Number
from warnings import warn

from fastai.callback.core import TrainEvalCallback
from fastai.callback.fp16 import NonNativeMixedPrecision
from fastai.callback.schedule import LRFinder
from fastai.callback.training import bn_types
from fastai.learner import Learner
from fastai.torch_core import get_model
from fastcore.basics import patch
from fastcore.meta import delegates

from .checks import check_count, check_list, check_train_bn
from .groups import GroupCallback, check_alone, check_cbs, check_groups, group_trains, made, norm_ids
from .several import wrap_whole


def _frozen_names(learn): return {n for n,p in get_model(learn.model).named_parameters() if not p.requires_grad}

def _frozen_by_hand(learn):
    "Names of the parameters that are frozen in a group that otherwise trains, or were when `train_only` shut their group"
    names,norms = {p:n for n,p in get_model(learn.model).named_parameters()},norm_ids(learn.model)
    now = {names[p] for g in learn.opt.param_lists if group_trains(g, norms) for p in g if not p.requires_grad}
    # What fastai has unfrozen since is to train
    known = getattr(learn, '_by_hand', set()) & _frozen_names(learn)
    if new := now - known:
        warn(f'{len(new)} parameters are frozen in a layer group that otherwise trains, and stay so ({", ".join(sorted(new)[:3])}): '
             '`learn.unfreeze()` lets all of them train', stacklevel=2)
    return known | now

@patch
def freeze_to(self:Learner, n):
    "As in fastai; what it lets train is no longer frozen by hand"
    self._orig_freeze_to(n)
    if hasattr(self, '_by_hand'): self._by_hand = self._by_hand & _frozen_names(self)

def settle(
    opt, # An optimiser, perhaps fastai's Lookahead
    frozen:bool=False, # Only for the parameters that don't train?
):
    "Make what Lookahead pulls weights to what they are now"
    for slow,fast in zip(getattr(opt, 'slow_weights', None) or [], opt.param_lists):
        for s,f in zip(slow, fast):
            if not (frozen and f.requires_grad): s.data.copy_(f.data)

def train_only(
    learn:Learner, # A learner that has its optimiser
    groups, # Indices of the layer groups that are to train
    train_bn:bool=None, # Do norm layers of the others train? None for what the learner was made with
):
    "Let only `groups` train. The others are frozen bit for bit, but for norm layers under `train_bn`; the optimiser keeps its state"
    opt,by_hand,norms = learn.opt,_frozen_by_hand(learn),norm_ids(learn.model)
    def _trains_always(p): return opt.state.get(p, {}).get('force_train', False) if train_bn is None else train_bn and id(p) in norms
    names = {p:n for n,p in get_model(learn.model).named_parameters()}
    for i,g in enumerate(opt.param_lists):
        for p in g:
            p.requires_grad_(names[p] not in by_hand and (i in groups or _trains_always(p)))
            # fastai's optimisers step, and so decay, whatever has a gradient, also one of zeros
            if not p.requires_grad: p.grad = None
    # Lookahead pulls all weights to its slow ones, whether they have a gradient or not
    settle(opt, frozen=True)
    learn._by_hand = by_hand

def _keep_stats(model):
    "Batch norms that don't train leave their running statistics as they are"
    for m in model.modules():
        if isinstance(m, bn_types) and m.affine and not m.weight.requires_grad: m.eval()

class Unfreezing(GroupCallback):
    "Base of what decides which layer groups train: subclasses say it by `stages`, and it is a function of the epoch alone"
    # Before `BnFreeze` looks at what trains
    order,idle,head_only,train_bn = TrainEvalCallback.order+1,False,False,None

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
                             f'{n_groups} layer groups opens: fit for longer, give each group fewer epochs, or have fewer groups, '
                             '`learn.regroup(n_groups=...)`')
        return [*first, (n_epoch-done, groups)]

    def groups_at(self, epoch):
        n = len(self.opt.param_lists)
        if self.head_only: return (n-1,)
        for n_epoch,groups in self.spread(n, self.n_epoch):
            if epoch < n_epoch: return groups
            epoch -= n_epoch

    def check_fit(self, learn, n_epoch, lr, cbs, reset_opt):
        # `lr_find` is for what trains now
        self.idle = any(isinstance(cb, LRFinder) for cb in cbs)
        if self.idle: return
        super().check_fit(learn, n_epoch, lr, cbs, reset_opt)
        if any(isinstance(cb, NonNativeMixedPrecision) for cb in cbs):
            raise ValueError('NonNativeMixedPrecision trains copies of the parameters: expected none, or the native `learn.to_fp16()`')
        check_alone(Unfreezing, cbs)
        wrap_whole(learn)
        *body,_ = check_groups(learn, reset_opt)
        # Of the two fits of `fine_tune`, the one that is frozen
        self.head_only = hasattr(learn, '_fine_tuning') and not any(group_trains(g, norm_ids(learn.model)) for g in body)
        if not self.head_only: self.spread(len(body)+1, n_epoch)

    def before_train(self):
        if self.idle: return
        train_only(self.learn, self.groups_at(self.epoch), self.train_bn)
        if self.train_bn is False: _keep_stats(self.model)

@patch
@delegates(Learner.fine_tune)
def fine_tune(self:Learner, epochs, *args, cbs=None, **kwargs):
    "As in fastai; an `Unfreezing` leaves the frozen epochs to the head, and what can't be done is said before them"
    cbs = made(cbs)
    check_cbs(self, epochs, slice(self.lr), [*self.cbs, *cbs], kwargs.get('reset_opt', False))
    self._fine_tuning = True
    try: self._orig_fine_tune(epochs, *args, cbs=cbs, **kwargs)
    finally: del self._fine_tuning

def _norms(cb): return '' if cb.train_bn is None else f', train_bn={cb.train_bn}'

class GradualUnfreezing(Unfreezing):
    "The head alone, then one more layer group from the top every `epochs` epochs, then all to the end (ULMFiT, section 3.3)"
    def __init__(self,
        epochs=1, # Epochs before each next group opens: a number, or a list, head first
        down_to:int=0, # The lowest group that ever trains
        train_bn:bool=None, # Do norm layers of frozen groups train? False keeps their statistics too; None as in fastai: `learn.train_bn`
    ):
        several = [epochs] if isinstance(epochs, (Number, str)) else check_list(epochs, 'epochs', 'a number, or several')
        for n in several: check_count(n, 'epochs')
        if isinstance(down_to, bool) or not isinstance(down_to, Integral) or down_to < 0:
            raise ValueError(f'down_to={down_to!r}: expected the index of a layer group, 0 for the input')
        check_train_bn(train_bn)
        self.epochs,self.down_to,self.train_bn = epochs if isinstance(epochs, Number) else [int(n) for n in several],down_to,train_bn

    def __repr__(self): return f'GradualUnfreezing(epochs={self.epochs}, down_to={self.down_to}{_norms(self)})'

    def stages(self, n_groups):
        before = n_groups-1 - self.down_to
        if before < 0: raise ValueError(f'down_to={self.down_to}: expected at most {n_groups-1} for {n_groups} layer groups')
        epochs = [self.epochs]*before if isinstance(self.epochs, Number) else self.epochs
        if len(epochs) != before:
            raise ValueError(f'epochs={epochs} has {len(epochs)} values, expected {before}: one for each of {n_groups} layer groups from '
                             f'the head down to {self.down_to}, but for this last one, which trains to the end')
        return [(n, tuple(range(i, n_groups))) for n,i in zip([*epochs, 1], range(n_groups-1, self.down_to-1, -1))]

class ChainThaw(Unfreezing):
    "The head alone, then each other layer group alone from the input up, then all to the end (Felbo et al. 2017)"
    def __init__(self,
        epochs:int=1, # Epochs for each group
        train_bn:bool=None, # As in `GradualUnfreezing`
    ):
        check_count(epochs, 'epochs')
        check_train_bn(train_bn)
        self.epochs,self.train_bn = epochs,train_bn

    def __repr__(self): return f'ChainThaw(epochs={self.epochs}{_norms(self)})'

    def stages(self, n_groups):
        alone = [(n_groups-1,), *((i,) for i in range(n_groups-1))]
        return [*((self.epochs, g) for g in alone), (1, tuple(range(n_groups)))]
