"The order in which the modules of a model run, found by running it: nothing is left of that"
__all__ = []

from contextlib import ExitStack, contextmanager

import torch
from fastai.learner import Learner
from torch import Tensor, nn

from ..data_state import data_state, own_attrs, random_states, set_data_state, set_random
from ..module_state import modules_kept
from .modules import own_params


class RunOrder:
    "Where in a run each module of a model comes"
    def __init__(self,
        model:nn.Module, # The model
        names:list, # Names of its modules, in the order in which they first ran
        x:tuple=None, # What it runs on, to tell whether one part takes what another gives; None if that has been told before
    ):
        self.model,self.names,self.x = model,list(names),x
        at = {n: i for i,n in enumerate(self.names)}
        self.places = {m: at[n] for n,m in model.named_modules() if n in at}

    def span(self,
        m:nn.Module, # A module
    ) -> tuple|None: # None if nothing of it ran
        "Return when the first and the last of what `m` holds first ran"
        places = [self.places[o] for o in m.modules() if o in self.places and own_params(o)]
        return (min(places), max(places)) if places else None

    def sort(self,
        children:dict, # Modules by name
    ) -> dict: # The same, in the order in which they ran
        "Order modules; one that didn't run stays behind the one before it"
        keys,last = {},-1
        for n,c in children.items(): last = keys[n] = (self.span(c) or (last,))[0]
        return {n: children[n] for n in sorted(children, key=keys.get)}

    def follow(self,
        a:nn.Module, # A part of the model
        b:nn.Module, # Another one, which first ran later
    ) -> bool:
        "Tell whether `b` ran after all of `a`, and takes what it gives, directly or not"
        first,then = self.span(a),self.span(b)
        if first is None or then is None: return True
        if first[1] > then[0]: return False
        if self.x is None: return True
        plain,other = (run_outputs(self.model, self.x, _leaves(b), disturbed)[0] for disturbed in ((), _leaves(a)))
        return any(o.shape != p.shape or not torch.equal(o, p) for o,p in zip(other, plain))

@contextmanager
def _unchanged(model):
    "Run `model` inside in evaluation mode, and leave no trace on it or in random states"
    states = random_states()
    try:
        with modules_kept(model),torch.no_grad():
            for m in model.modules(): m.training = False
            yield
    finally: set_random(states)

def _map(f, o):
    "Return `o`, a tensor or a nest of tuples and lists of them, with `f` of each tensor"
    if isinstance(o, Tensor): return f(o)
    if not isinstance(o, (tuple, list)): return o
    res = [_map(f, v) for v in o]
    return type(o)(*res) if hasattr(o, '_fields') else type(o)(res)

def _disturbed(t):
    "Return other values for those of `t`, not all by the same number"
    return t + torch.linspace(1, 2, t.numel(), dtype=t.dtype, device=t.device).view(t.shape) if t.is_floating_point() else t

def _leaves(m):
    "List the modules in `m` that have parameters themselves"
    return [o for o in m.modules() if own_params(o)]

def run_outputs(
    model:nn.Module, # It is run once, in evaluation mode; nothing is left of that
    x:tuple, # Its arguments
    watched:list, # Modules in it
    disturbed=(), # Modules that are to give something else
) -> tuple: # The tensors that `watched` give, and those that `model` does
    "Run `model` and return what some of its modules give"
    given,pred = [],[]
    def _keep(m, args, out): _map(lambda t: given.append(t.clone()), out)
    def _disturb(m, args, out): return _map(_disturbed, out)
    with ExitStack() as stack:
        stack.enter_context(_unchanged(model))
        for o in watched: stack.enter_context(o.register_forward_hook(_keep))
        for o in disturbed: stack.enter_context(o.register_forward_hook(_disturb))
        torch.manual_seed(0)
        out = model(*x)
    # Models of transformers give a dictionary
    _map(pred.append, list(out.values()) if isinstance(out, dict) else out)
    return given,pred

def run_order(
    model:nn.Module, # It is run once, in evaluation mode; nothing is left of that
    x, # What it takes: a tensor, or a tuple of its arguments
) -> RunOrder:
    "Run `model` on `x` to find in which order its modules run; raise whatever `model` raises"
    x = x if isinstance(x, tuple) else (x,)
    ran,names = {},{m: n for n,m in model.named_modules()}
    def _note(m, args): ran.setdefault(names[m])
    with ExitStack() as stack:
        stack.enter_context(_unchanged(model))
        for m in names: stack.enter_context(m.register_forward_pre_hook(_note))
        model(*x)
    return RunOrder(model, ran, x)

def learner_input(
    learn:Learner, # Its loaders and random states are left as they were
) -> tuple: # Arguments of its model, on the model's device
    "Return what the model of `learn` takes, of one batch of the training set"
    train,state = learn.dls.train,data_state(learn)
    # fastai's loaders note what their items are made of when they first draw one
    noted = dict(own_attrs(train))
    try:
        # Without worker processes, where the loader is fastai's
        batch = train.one_batch() if hasattr(train, 'one_batch') else next(iter(train))
        n = getattr(learn.dls, 'n_inp', 1 if len(batch) == 1 else len(batch)-1)
    finally:
        own_attrs(train).clear()
        own_attrs(train).update(noted)
        set_data_state(learn, state)
    device = next(learn.model.parameters()).device
    return tuple(_map(lambda t: t.to(device), o) for o in batch[:n])
