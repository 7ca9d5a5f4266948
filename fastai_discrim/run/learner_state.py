"Save and restore what the rest of a run depends on: weights, what trains, optimiser, callbacks, metrics, random states"
__all__ = []

from copy import deepcopy

from fastai.learner import Learner
from fastai.torch_core import get_model, to_cpu, to_device

from ..data_state import random_states, set_random
from .callback_state import callback_state, in_checkpoint, plain_attrs, set_attrs, set_callback_state

# Attributes of the learner that count the batches of a fit
COUNTS = 'train_iter','pct_train','smooth_loss'

def _resettable(model):
    "Return the modules with a hidden state, by name"
    return {n:m for n,m in model.named_modules() if hasattr(m, 'reset')}

def _memory(m):
    "Return the hidden state of a module; the state dict of the model has torch's own attributes"
    return {k:v for k,v in plain_attrs(m).items() if k != 'training' and not k.startswith('_')}

def _grad(p):
    "Return the gradient of `p`, or 0 if it is all zeros, which saves space"
    return p.grad if p.grad is None or p.grad.any() else 0

def learner_state(learn:Learner, args:dict, lost:set) -> dict:
    """Return the state that the rest of the run depends on, as plain data. `args` has the `init_args` of each callback by its `id`; `lost`
    is as in `callback_state`"""
    model,params = get_model(learn.model),list(get_model(learn.model).parameters())
    scaler = getattr(learn, 'scaler', None)
    return dict(
        model=to_cpu(model.state_dict()), opt=to_cpu(learn.opt.state_dict()), random=random_states(),
        frozen_idx=getattr(learn.opt, 'frozen_idx', 0), trains=[p.requires_grad for p in params],
        grads=[_grad(p) for p in params], modes=[m.training for m in model.modules()],
        memory={n: _memory(m) for n,m in _resettable(model).items()}, scaler=scaler.state_dict() if scaler else None,
        callbacks=[[cb.name, callback_state(cb, args.get(id(cb), {}), lost)] for cb in learn.cbs if in_checkpoint(cb)],
        metrics=[plain_attrs(m) for m in learn.metrics], **{k: getattr(learn, k, None) for k in COUNTS})

def set_learner_state(learn:Learner, state:dict):
    "Restore the result of `learner_state`, as read from a checkpoint"
    model = get_model(learn.model)
    device = next(model.parameters()).device
    model.load_state_dict(state['model'])
    for p,trains,grad in zip(model.parameters(), state['trains'], state['grads']):
        p.requires_grad_(trains)
        if isinstance(grad, int): grad = p.new_zeros(p.shape)
        p.grad = None if grad is None else grad.to(p)
    for m,mode in zip(model.modules(), state['modes']): m.training = mode
    # A copy, as the optimiser changes its tensors in place, and a state is restored twice if batches are skipped
    learn.opt.load_state_dict(to_device(deepcopy(state['opt']), device))
    learn.opt.frozen_idx = state['frozen_idx']
    for n,m in _resettable(model).items(): set_attrs(m, to_device(state['memory'].get(n, {}), device))
    _set_callbacks(learn, state['callbacks'])
    if state['scaler'] and getattr(learn, 'scaler', None): learn.scaler.load_state_dict(state['scaler'])
    for m,attrs in zip(learn.metrics, state['metrics']): set_attrs(m, attrs)
    for k in COUNTS: setattr(learn, k, state[k])
    set_random(state['random'])

def _set_callbacks(learn, states):
    "Restore the states of the callbacks by name; callbacks of the same name get theirs in order"
    for name in dict.fromkeys(cb.name for cb in learn.cbs):
        cbs = [cb for cb in learn.cbs if cb.name == name]
        for cb,state in zip(cbs, [state for n,state in states if n == name]): set_callback_state(cb, state)
