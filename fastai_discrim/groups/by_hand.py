"Recognise parameters that the user froze by hand, which stay frozen, among those that are frozen as layer groups"
__all__ = []

from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import get_model
from torch import nn

from ..user_warning import warn_user
from .labels import group_labels

# Key of a frozen parameter's mark in the optimiser's state: True if the user froze it by hand, False if its group is frozen. The state is
# the right place because `learn.freeze_to`, and with it `learn.unfreeze`, clears it
BY_HAND = 'frozen_by_hand'

def param_names(learn:Learner) -> dict:
    "Return the names of the model's parameters, by parameter; a tied parameter has its first name"
    return {p:n for n,p in get_model(learn.model).named_parameters()}

def frozen_marks(learn:Learner) -> dict:
    "Return the marks of frozen parameters, by name: True if the user froze it, False if its group is frozen"
    opt = learn.opt
    if opt is None: return {}
    # torch's optimisers take a parameter with any state for one that has had a step, so these marks have a key of their own
    if isinstance(opt, OptimWrapper): return dict(opt.opt.state.get(BY_HAND, {}))
    return {n: opt.state[p][BY_HAND] for p,n in param_names(learn).items() if BY_HAND in opt.state.get(p, {})}

def mark_frozen(learn:Learner, marks:dict):
    "Mark the frozen parameters among `marks`, a dictionary like that of `frozen_marks`, and remove all other marks"
    opt,names = learn.opt,param_names(learn)
    marks = {n: marks[n] for p,n in names.items() if n in marks and not p.requires_grad}
    if isinstance(opt, OptimWrapper):
        if marks: opt.opt.state[BY_HAND] = marks
        else: opt.opt.state.pop(BY_HAND, None)
        return
    for p,n in names.items():
        if n in marks: opt.state[p] = {**opt.state.get(p, {}), BY_HAND: marks[n]}
        else: opt.state.get(p, {}).pop(BY_HAND, None)

def frozen_by_hand(learn:Learner) -> dict:
    "Tell for each frozen parameter, by name, whether the user froze it; without an optimiser, all were frozen by the user"
    names,opt = param_names(learn),learn.opt
    frozen = {p:n for p,n in names.items() if not p.requires_grad}
    if opt is None: return dict.fromkeys(frozen.values(), True)
    n_frozen = max(getattr(opt, 'frozen_idx', 0), 0)
    # fastai doesn't freeze parameters with `force_train`, such as norm layers under `train_bn`
    by_fastai = {p for g in opt.param_lists[:n_frozen] for p in g if not opt.state.get(p, {}).get('force_train', False)}
    marks = frozen_marks(learn)
    return {n: marks.get(n, p not in by_fastai) for p,n in frozen.items()}

def dead_groups(learn:Learner, groups) -> tuple:
    "Return the indices of the layer groups in which the user froze all parameters"
    names,by_hand = param_names(learn),frozen_by_hand(learn)
    return tuple(i for i,g in enumerate(groups) if all(by_hand.get(names.get(p)) for p in g))

def check_made(groups):
    "Raise `ValueError` if a lazy layer has no weights yet, as these can't be frozen"
    n = sum(nn.parameter.is_lazy(p) for g in groups for p in g)
    if n:
        raise ValueError(f'{n} parameters of lazy layers have no weights yet: expected initialised layers; run a batch through the model '
                         'first, as in `learn.model(*learn.dls.one_batch()[:1])`, then call `learn.create_opt()`')

def check_some_train(learn:Learner, groups) -> tuple:
    "Return `dead_groups`; raise `ValueError` if these are all groups, or if `check_made` does"
    check_made(groups)
    dead = dead_groups(learn, groups)
    if len(dead) < len(groups): return dead
    raise ValueError(f'all parameters of the {len(groups)} layer groups are frozen by hand: expected some that train; `learn.unfreeze()` '
                     'lets all of them train')

def warn_frozen_by_hand(learn:Learner):
    "Warn once that parameters are frozen by hand and stay frozen"
    marks = frozen_marks(learn)
    new = sorted(n for n,hand in frozen_by_hand(learn).items() if hand and not marks.get(n))
    if not new: return
    text = f'{len(new)} parameters are frozen by hand, and stay so ({", ".join(new[:3])}{", ..." if len(new) > 3 else ""})'
    if learn.opt is not None and (dead := dead_groups(learn, learn.opt.param_lists)):
        labels = group_labels(learn, learn.opt.param_lists)
        text += f'; layer groups with no other parameters are passed over: {", ".join(labels[i] for i in dead)}'
    warn_user(f'{text}. `learn.unfreeze()` lets all of them train')

def renew_opt(learn:Learner):
    "Call `learn.create_opt`, for the first time or again, and mark in the new optimiser what is frozen by hand and what with its group"
    by_hand,marks = frozen_by_hand(learn),frozen_marks(learn)
    learn.create_opt()
    # Don't mark what the user wasn't warned of yet: without a mark it still counts as frozen by hand
    mark_frozen(learn, {n: hand for n,hand in by_hand.items() if not hand or marks.get(n)})
