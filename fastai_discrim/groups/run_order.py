"Run a model to find the order in which its modules run, and leave no trace on it"
__all__ = []

from contextlib import ExitStack, contextmanager

import torch
from fastai.learner import Learner
from fastai.torch_core import to_device
from torch import Tensor, nn

from ..data_state import data_state, first_batch, own_attrs, random_states, set_data_state, set_random
from ..module_state import modules_kept
from .modules import own_params


class RunOrder:
    "The order in which the modules of a model run"
    def __init__(self,
        model:nn.Module, # The model
        names:list, # Names of its modules, in the order in which they first ran
        x:tuple=None, # Arguments of the model, with which `follow` tests whether one part takes the output of another; None to skip that
    ):
        self.model,self.names,self.x = model,list(names),x
        place_of = {n: i for i,n in enumerate(self.names)}
        self.places = {m: place_of[n] for n,m in model.named_modules() if n in place_of}

    def span(self, m:nn.Module) -> tuple|None:
        "Return the places of the modules in `m` that ran first and last, or None if no module in `m` ran"
        places = [self.places[o] for o in m.modules() if o in self.places and own_params(o)]
        return (min(places), max(places)) if places else None

    def sort(self, children:dict) -> dict:
        "Sort a dictionary of modules by when they ran; a module that didn't run stays behind the one before it"
        place,last = {},-1
        for n,c in children.items():
            span = self.span(c)
            if span is not None: last = span[0]
            place[n] = last
        return {n: children[n] for n in sorted(children, key=place.get)}

    def feeds(self, a:nn.Module, b:nn.Module) -> bool:
        "Tell whether `b`, which starts after `a`, runs after all of it, and takes its output, directly or through other modules"
        span_a,span_b = self.span(a),self.span(b)
        if span_a is None or span_b is None: return True
        if span_a[1] > span_b[0]: return False
        if self.x is None: return True
        plain,_ = run_outputs(self.model, self.x, _leaves(b))
        other,_ = run_outputs(self.model, self.x, _leaves(b), disturbed=_leaves(a))
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
    "Apply `f` to each tensor in `o`, a tensor or nested tuples and lists of tensors"
    if isinstance(o, Tensor): return f(o)
    if not isinstance(o, (tuple, list)): return o
    res = [_map(f, v) for v in o]
    return type(o)(*res) if hasattr(o, '_fields') else type(o)(res)

def _disturbed(t):
    "Add a different number to each value of `t`, as a norm layer would undo a constant shift"
    if not t.is_floating_point(): return t
    return t + torch.linspace(1, 2, t.numel(), dtype=t.dtype, device=t.device).view(t.shape)

def _leaves(m):
    "List the modules in `m` that have parameters of their own"
    return [o for o in m.modules() if own_params(o)]

def run_outputs(
    model:nn.Module, # The model, which runs once in evaluation mode
    x:tuple, # Its arguments
    watched:list, # Modules whose outputs are returned
    disturbed=(), # Modules whose outputs are changed during the run
) -> tuple: # List of the output tensors of `watched`, and list of those of `model`
    "Run `model` and return the outputs of some of its modules, and its own; leave no trace on it"
    given,pred = [],[]
    def _keep(m, args, out): _map(lambda t: given.append(t.clone()), out)
    def _disturb(m, args, out): return _map(_disturbed, out)
    with ExitStack() as stack:
        stack.enter_context(_unchanged(model))
        for o in watched: stack.enter_context(o.register_forward_hook(_keep))
        for o in disturbed: stack.enter_context(o.register_forward_hook(_disturb))
        torch.manual_seed(0)
        out = model(*x)
    # Models of transformers return a dictionary
    _map(pred.append, list(out.values()) if isinstance(out, dict) else out)
    return given,pred

def run_order(model:nn.Module, x) -> RunOrder:
    """Run `model` once in evaluation mode on `x`, a tensor or a tuple of arguments, to find the order in which its modules run. Leave no
    trace on it, and raise any error that it raises"""
    x = x if isinstance(x, tuple) else (x,)
    ran,names = {},{m: n for n,m in model.named_modules()}
    def _note(m, args): ran.setdefault(names[m])
    with ExitStack() as stack:
        stack.enter_context(_unchanged(model))
        for m in names: stack.enter_context(m.register_forward_pre_hook(_note))
        model(*x)
    return RunOrder(model, ran, x)

def learner_input(learn:Learner) -> tuple:
    "Return the inputs of one training batch, on the model's device; restore the loaders and the random states"
    train,state = learn.dls.train,data_state(learn)
    # A fastai loader sets attributes when it draws its first item
    attrs = dict(own_attrs(train))
    try:
        batch = first_batch(train)
        n = getattr(learn.dls, 'n_inp', 1 if len(batch) == 1 else len(batch)-1)
    finally:
        own_attrs(train).clear()
        own_attrs(train).update(attrs)
        set_data_state(learn, state)
    device = next(learn.model.parameters()).device
    return to_device(tuple(batch[:n]), device)
