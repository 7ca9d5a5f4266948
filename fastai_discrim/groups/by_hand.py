"What the user froze, told apart from what was frozen as a layer group: it stays frozen"
__all__ = []

from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import get_model
from torch import nn

from ..user_warning import warn_user
from .labels import group_labels

# Mark of a parameter that doesn't train: True where the user froze it by hand, False where its group is frozen. It is kept where
# `learn.freeze_to`, and so `learn.unfreeze`, clears it: in the optimiser's state
BY_HAND = 'frozen_by_hand'

def param_names(
    learn:Learner, # The learner
) -> dict: # By parameter
    "Return the names of the model's parameters, of a tied one the first"
    return {p:n for n,p in get_model(learn.model).named_parameters()}

def frozen_marks(
    learn:Learner, # The learner
) -> dict: # By name of a parameter, as in `mark_frozen`
    "Return the marks of the parameters that don't train"
    opt = learn.opt
    if opt is None: return {}
    # torch's optimisers take a parameter with a state of any kind for one that has been stepped
    if isinstance(opt, OptimWrapper): return dict(opt.opt.state.get(BY_HAND, {}))
    return {n: opt.state[p][BY_HAND] for p,n in param_names(learn).items() if BY_HAND in opt.state.get(p, {})}

def mark_frozen(
    learn:Learner, # A learner that has its optimiser
    marks:dict, # By name of a parameter: True if the user froze it, False if its group is frozen
):
    "Mark those of the parameters named in `marks` that don't train, and no others"
    opt,names = learn.opt,param_names(learn)
    marks = {n: marks[n] for p,n in names.items() if n in marks and not p.requires_grad}
    if isinstance(opt, OptimWrapper):
        if marks: opt.opt.state[BY_HAND] = marks
        else: opt.opt.state.pop(BY_HAND, None)
        return
    for p,n in names.items():
        if n in marks: opt.state[p] = {**opt.state.get(p, {}), BY_HAND: marks[n]}
        else: opt.state.get(p, {}).pop(BY_HAND, None)

def frozen_by_hand(
    learn:Learner, # The learner
) -> dict: # By name of the parameters that don't train: True if the user froze it, False if its group is frozen
    "Tell apart what the user froze from what fastai, or this package, froze as a group. Before there is an optimiser, it was the user"
    names,opt = param_names(learn),learn.opt
    frozen = {p:n for p,n in names.items() if not p.requires_grad}
    if opt is None: return dict.fromkeys(frozen.values(), True)
    # fastai leaves norm layers of frozen groups training where `train_bn` asks for it
    n_shut = max(getattr(opt, 'frozen_idx', 0), 0)
    shut = {p for g in list(opt.param_lists)[:n_shut] for p in g if not opt.state.get(p, {}).get('force_train', False)}
    marks = frozen_marks(learn)
    return {n: marks.get(n, p not in shut) for p,n in frozen.items()}

def dead_groups(
    learn:Learner, # The learner
    groups, # Its layer groups
) -> tuple: # Indices
    "List the layer groups with nothing left to train, as the user froze all of their parameters"
    names,by_hand = param_names(learn),frozen_by_hand(learn)
    return tuple(i for i,g in enumerate(groups) if all(by_hand.get(names.get(p)) for p in g))

def check_made(
    groups, # Layer groups
):
    "Raise `ValueError` where a lazy layer has no weights yet: nothing without weights can be frozen"
    n = sum(nn.parameter.is_lazy(p) for g in groups for p in g)
    if n:
        raise ValueError(f'{n} parameters of lazy layers are not made yet: expected all of them; run a batch through the model first, as '
                         'by `learn.model(*learn.dls.one_batch()[:1])`, then `learn.create_opt()`')

def check_some_train(
    learn:Learner, # The learner
    groups, # Its layer groups
) -> tuple: # Indices of the groups with nothing left to train
    "Return `dead_groups`; raise `ValueError` if these are all groups, or as `check_made` does"
    check_made(groups)
    dead = dead_groups(learn, groups)
    if len(dead) < len(groups): return dead
    raise ValueError(f'all parameters of the {len(groups)} layer groups are frozen by hand: expected some that train; `learn.unfreeze()` '
                     'lets all of them train')

def say_frozen(
    learn:Learner, # The learner
):
    "Warn of what is frozen by hand, and stays so; not of what this was said of before"
    known = frozen_marks(learn)
    new = sorted(n for n,hand in frozen_by_hand(learn).items() if hand and not known.get(n))
    if not new: return
    text = f'{len(new)} parameters are frozen by hand, and stay so ({", ".join(new[:3])}{", ..." if len(new) > 3 else ""})'
    if learn.opt is not None and (dead := dead_groups(learn, learn.opt.param_lists)):
        labels = group_labels(learn, learn.opt.param_lists)
        text += f'; layer groups with nothing else are passed over: {", ".join(labels[i] for i in dead)}'
    warn_user(f'{text}. `learn.unfreeze()` lets all of them train')

def renew_opt(
    learn:Learner, # The learner, with an optimiser or without
):
    "Create the optimiser again, as `learn.create_opt` does; the new one knows what is frozen by hand, and what with its group"
    by_hand,known = frozen_by_hand(learn),frozen_marks(learn)
    learn.create_opt()
    # What was not said yet has no mark, and is found again
    mark_frozen(learn, {n: hand for n,hand in by_hand.items() if not hand or known.get(n)})
