"Training that leaves no trace on the learner"
__all__ = []

from contextlib import ExitStack, contextmanager
from copy import deepcopy
from itertools import chain

from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.torch_core import get_model

from ..data_state import loader_state, own_attrs, random_states, set_loader, set_random
from ..module_state import COLLECTIONS, GENERATORS, containers, content, set_content


# By its list: in older fastcore an `L` takes no slices
def _set_cbs(learn, cbs): learn.cbs.items[:] = cbs

def _contents(tensors):
    "List tensors and their content"
    return [(t, old) for t in tensors if (old := content(t)) is not None]

def _set_tensors(tensors):
    for t,old in tensors: set_content(t, old)

def _set_attrs(o, attrs):
    vars(o).clear()
    vars(o).update(attrs)

def _grads(model):
    "List each parameter, whether it trains, and a copy of its gradient"
    return [(p, p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]

def _set_grads(grads):
    for p,trains,grad in grads:
        p.requires_grad_(trains)
        p.grad = grad

def _set_modes(modes):
    for m,training in modes: m.training = training

@contextmanager
def restored_weights(
    learn:Learner, # The learner that is trained inside
):
    "Put back at the end the model, with buffers and what else it has, gradients, and the optimiser"
    model,opt = get_model(learn.model),learn.opt
    with ExitStack() as stack:
        if opt is not None:
            stack.callback(opt.load_state_dict, deepcopy(opt.state_dict()))
            stack.callback(_set_attrs, opt, dict(vars(opt)))
        tensors = [*model.parameters(), *model.buffers()]
        # What hooks gather is for those who set them
        for v in containers(model, set(map(id, tensors)), functions=False): _keep(stack, v)
        # Of a scripted model it is no attribute
        stack.callback(_set_modes, [(m, m.training) for m in model.modules()])
        stack.callback(_set_grads, _grads(model))
        stack.callback(_set_tensors, _contents(tensors))
        yield

def _keep(stack, v):
    "Have `stack` put back the content of `v`, unless that can't be changed"
    if (old := content(v)) is not None: stack.callback(set_content, v, old)

@contextmanager
def restored(
    learn:Learner, # The learner that is trained inside
):
    """Put back at the end what training inside changes: weights, `requires_grad`, gradients, optimiser, callbacks, recorder, metrics, loss,
    random states, and the order of the batches. Put back each part whatever happens to the others, and raise the error after all of them"""
    rec = getattr(learn, 'recorder', None)
    with ExitStack() as stack:
        # What is saved last is put back first: all other parts may draw random numbers
        stack.callback(set_random, random_states())
        for dl in learn.dls.loaders: stack.callback(set_loader, dl, loader_state(dl))
        if hasattr(model := get_model(learn.model), 'reset'): stack.callback(model.reset)
        # `no_bar` leaves another progress bar
        stack.callback(_set_cbs, learn, list(learn.cbs))
        for v in _held_containers(learn, rec): _keep(stack, v)
        if rec is not None: stack.callback(_set_attrs, rec, {k: v if k == 'learn' else deepcopy(v) for k,v in vars(rec).items()})
        stack.callback(_set_attrs, learn, dict(vars(learn)))
        stack.enter_context(restored_weights(learn))
        yield

def _loader_parts(dl):
    "List the loader `dl`, unless it is fastai's, which `set_loader` knows, and what it draws from"
    samplers = getattr(dl, 'sampler', None),(batches := getattr(dl, 'batch_sampler', None)),getattr(batches, 'sampler', None)
    return [*([] if isinstance(dl, DataLoader) else [dl]), *samplers, getattr(dl, 'dataset', None)]

def _own_state(o, seen):
    "Yield the attributes of `o`, as a dictionary, and what sets an order: generators of random numbers, and lists. The data are left alone"
    attrs = own_attrs(o)
    def _sets_order(v): return v is attrs or isinstance(v, (*COLLECTIONS, *GENERATORS)) or getattr(v, 'ndim', 0) == 1
    for v in filter(_sets_order, (attrs, *attrs.values())):
        if id(v) not in seen: yield v
        seen.add(id(v))

def _held_containers(learn, rec):
    "Yield what callbacks, metrics and the loss hold, and what sets the order of loaders; not parts of `learn` that are put back as a whole"
    seen = set(map(id, [learn, learn.dls, *learn.dls.loaders, learn.opt, learn.cbs, *learn.cbs]))
    # The model is put back as a whole
    list(containers(get_model(learn.model), seen, functions=False))
    holders = [vars(cb) for cb in learn.cbs if cb is not rec] + [vars(m) for m in learn.metrics]
    for o in (*holders, learn.loss_func, getattr(learn.loss_func, '__dict__', {})): yield from containers(o, seen)
    for o in chain.from_iterable(map(_loader_parts, learn.dls.loaders)): yield from _own_state(o, seen)
