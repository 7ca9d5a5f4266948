"Train without a trace on the learner"
__all__ = []

from contextlib import ExitStack, contextmanager
from copy import deepcopy

from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.torch_core import get_model

from ..autocast_state import autocast_closed
from ..data_state import loader_state, own_attrs, random_states, set_loader, set_random
from ..module_state import COLLECTIONS, GENERATORS, containers, content, keep, set_content


# In older fastcore an `L` doesn't support slice assignment, but its list does
def _set_cbs(learn, cbs): learn.cbs.items[:] = cbs

def _set_tensors(contents):
    for t,old in contents:
        if old is not None: set_content(t, old)

def _set_attrs(o, attrs):
    vars(o).clear()
    vars(o).update(attrs)

def _grads(model):
    "List each parameter with its `requires_grad` and a copy of its gradient"
    return [(p, p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]

def _set_grads(grads):
    for p,trains,grad in grads:
        p.requires_grad_(trains)
        p.grad = grad

def _set_modes(modes):
    for m,training in modes: m.training = training

@contextmanager
def restored_weights(learn:Learner):
    "Restore the model with its buffers and attributes, the gradients, and the optimiser at the end of the context"
    model,opt = get_model(learn.model),learn.opt
    with ExitStack() as stack:
        if opt is not None:
            stack.callback(opt.load_state_dict, deepcopy(opt.state_dict()))
            stack.callback(_set_attrs, opt, dict(vars(opt)))
        tensors = [*model.parameters(), *model.buffers()]
        # Leave alone what hooks collect: it belongs to whoever registered them
        for v in containers(model, set(map(id, tensors)), functions=False): keep(stack, v)
        # In a scripted model, `training` is not among the attributes above
        stack.callback(_set_modes, [(m, m.training) for m in model.modules()])
        stack.callback(_set_grads, _grads(model))
        stack.callback(_set_tensors, [(t, content(t)) for t in tensors])
        yield

@contextmanager
def restored(learn:Learner):
    """Restore at the end of the context what training changes: weights, `requires_grad`, gradients, optimiser, callbacks, recorder,
    metrics, loss, random states, `autocast`, and the order of the batches. If one part fails, restore the other parts, then raise the
    error"""
    rec = getattr(learn, 'recorder', None)
    with ExitStack() as stack:
        # The stack restores in reverse order: the random states come last, as restoring other parts may draw random numbers
        stack.callback(set_random, random_states())
        for dl in learn.dls.loaders: stack.callback(set_loader, dl, loader_state(dl))
        model = get_model(learn.model)
        if hasattr(model, 'reset'): stack.callback(model.reset)
        # `no_bar` replaces the progress bar
        stack.callback(_set_cbs, learn, list(learn.cbs))
        for v in _held_containers(learn, rec): keep(stack, v)
        if rec is not None: stack.callback(_set_attrs, rec, {k: v if k == 'learn' else deepcopy(v) for k,v in vars(rec).items()})
        stack.callback(_set_attrs, learn, dict(vars(learn)))
        stack.enter_context(restored_weights(learn))
        stack.enter_context(autocast_closed())
        yield

def _loader_parts(dl):
    "List the samplers and the data set of loader `dl`, and `dl` itself unless it is fastai's, which `set_loader` restores"
    batch_sampler = getattr(dl, 'batch_sampler', None)
    parts = [getattr(dl, 'sampler', None), batch_sampler, getattr(batch_sampler, 'sampler', None), getattr(dl, 'dataset', None)]
    return parts if isinstance(dl, DataLoader) else [dl, *parts]

def _own_state(o, seen):
    "Yield the `__dict__` of `o`, and in it what may set an order: random generators, collections and one-dimensional arrays"
    attrs = own_attrs(o)
    for v in (attrs, *attrs.values()):
        sets_order = v is attrs or isinstance(v, (*COLLECTIONS, *GENERATORS)) or getattr(v, 'ndim', 0) == 1
        if not sets_order or id(v) in seen: continue
        seen.add(id(v))
        yield v

def _held_containers(learn, rec):
    "Yield the containers in callbacks, metrics and the loss, and those that set the order of the batches"
    # `restored` and `restored_weights` restore these parts themselves
    seen = set(map(id, [learn, learn.dls, *learn.dls.loaders, learn.opt, learn.cbs, *learn.cbs]))
    # Reading all containers of the model adds them to `seen`
    list(containers(get_model(learn.model), seen, functions=False))
    holders = [vars(cb) for cb in learn.cbs if cb is not rec] + [vars(m) for m in learn.metrics]
    for o in (*holders, learn.loss_func, getattr(learn.loss_func, '__dict__', {})): yield from containers(o, seen)
    for dl in learn.dls.loaders:
        for o in _loader_parts(dl): yield from _own_state(o, seen)
