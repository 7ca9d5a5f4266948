"Split the head of a model from its body: find where the head begins by running two items through the model"
__all__ = []

from collections import namedtuple
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product

import torch
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import find_bs, get_model
from fastcore.basics import first
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from ..autocast_state import autocast_closed
from ..data_state import first_batch
from ..groups.modules import own_params
from ..module_state import modules_kept
from .frozen_head import FeatureHead, SplitHead, items, list_tensors, module_inputs
from .head_cost import costs_in

# Errors that layers, losses and compiled code raise for unexpected shapes
CANNOT_RUN = RuntimeError, ValueError, IndexError, TypeError, AssertionError
# Relative difference that rounding may make, in half and in full precision
TOL_HALF,TOL_FULL = 2e-2,1e-4
# Characters of another error's message, at most, inside a message of this module
MAX_MESSAGE = 100
# Reasons why a head can't run alone; a message continues after "as"
USED_EARLY = 'the head, or the module that holds its parameters, is called before the end of the body'
OTHER_LOSS = 'the model trains with a loss other than `loss_func`'


class HeadNotSeparable(Exception):
    "Raised if a head can't run without the body; the message is the reason"

_Call = namedtuple('_Call', 'module args kwargs')

def _trace(learn, batch):
    "Run `batch` through the model; return the calls of all modules, the prediction, and whether any module ran in half precision"
    model,calls,half = get_model(learn.model),[],[]
    device = next(model.parameters()).device.type
    def _is_half(t): return t.is_floating_point() and t.itemsize < 4
    def _note(m, args, kwargs):
        calls.append(_Call(m, args, kwargs))
        half.append(torch.is_autocast_enabled(device) or any(map(_is_half, list_tensors((args, kwargs)))))
    # `forward` may make buffers that fit two items only
    with autocast_closed(),modules_kept(model),ExitStack() as hooks:
        for m in model.modules(): hooks.enter_context(m.register_forward_pre_hook(_note, with_kwargs=True))
        learn.validate(dl=[batch])
    if not calls: raise HeadNotSeparable('a callback skips batches of few items')
    return calls,learn.pred,any(half)

def _trace_items(learn, batch, whole):
    "Trace two items; raise `HeadNotSeparable` if the model fails on them, but not on the `whole` batch"
    try: return _trace(learn, batch)
    except CANNOT_RUN as e:
        # If the whole batch fails too, the user sees the error of the model, as in stock fastai
        _trace(learn, whole)
        raise HeadNotSeparable(f'the model or a callback fails on two items of a batch ({type(e).__name__}): its first dimension may not '
                               'be the items') from e

def _is_close(a, b, half):
    "Tell whether the tensors `a` and `b` are equal up to rounding, which is coarser in `half` precision"
    if a.shape != b.shape: return False
    if not (a.is_floating_point() and b.is_floating_point()): return torch.equal(a, b)
    tol = TOL_HALF if half else TOL_FULL
    return torch.allclose(a.float(), b.float(), rtol=tol, atol=tol*float(b.abs().max()))

@torch.no_grad()
def _check_loss(learn, half):
    "Raise if the loss is not that of `loss_func`, as for a model that computes its own: a head alone trains with `loss_func`"
    loss = learn.loss_func(learn.pred, *learn.yb)
    # The search itself reports a loss that is not finite
    if loss.isfinite().all() and not _is_close(learn.loss, loss, half): raise HeadNotSeparable(OTHER_LOSS)

def _first_sentence(e):
    "Return the first sentence of the message of error `e`, shortened"
    first_line = str(e).strip().split('\n')[0]
    return first_line.split('. ')[0][:MAX_MESSAGE]

def _can_begin(m, params):
    "Tell whether the head may begin with `m`: it trains, or it behaves differently in training and in evaluation"
    if not params.isdisjoint(own_params(m)): return True
    if list(m.children()): return False
    return isinstance(m, _DropoutNd) or bool(list(m.buffers()))

def _modules_in_body(model, params):
    "Return all modules inside one with parameters, none of which is in `params`: a dropout at the end of the body is part of the body"
    body = set()
    for m in model.modules():
        weights = set(m.parameters())
        if weights and weights.isdisjoint(params): body.update(m.modules())
    return body

def _find_entry(calls, model, params):
    "Return the index of the call that begins the head: the first one after all calls of the body"
    body_calls = [i for i,c in enumerate(calls) if not params.issuperset(own_params(c.module))]
    start = body_calls[-1]+1 if body_calls else 0
    if not all(params.isdisjoint(own_params(c.module)) for c in calls[:start]): raise HeadNotSeparable(USED_EARLY)
    body = _modules_in_body(model, params)
    for i in range(start, len(calls)):
        if _can_begin(calls[i].module, params) and calls[i].module not in body: return i
    raise HeadNotSeparable('no module of the head is called after the body')

@contextmanager
def _other_weights(params):
    "Change the values of `params` inside the context"
    before = [(p, p.clone()) for p in params]
    try:
        # Add different numbers: one number for all would have no effect on the features of a layer norm, which sum to 0
        for p in params: p.add_(torch.linspace(1, 2, p.numel(), dtype=p.dtype, device=p.device).view(p.shape))
        yield
    finally:
        for p,old in before: p.copy_(old)

@torch.no_grad()
def _check_features(learn, batch, params, calls, i, half):
    "Raise if the inputs of the head depend on its weights, as with a tied weight, whose module may not even be called"
    # torch's own encoder makes these of a batch with padding
    if any(t.is_nested for t in list_tensors(calls[i][1:])): raise HeadNotSeparable('the head takes nested tensors')
    with _other_weights(params): other = _trace(learn, batch)[0][i]
    pairs = zip(list_tensors(calls[i][1:]), list_tensors(other[1:]))
    if not all(_is_close(a, b, half) for a,b in pairs): raise HeadNotSeparable(USED_EARLY)

@torch.no_grad()
def _find_output(head, features, pred, half):
    "Return the index of `pred` among the tensors that a copy of `head` returns for `features`, or None"
    # Run it in training mode too, so that it doesn't fail later
    FeatureHead(head).train()(features)
    outputs = FeatureHead(head).eval()(features)
    return next((i for i,o in enumerate(outputs) if _is_close(o, pred, half)), None)

def split_head(learn:Learner, params:list) -> SplitHead:
    """Run two items, with the learner's callbacks, to find where the head, which has `params`, begins, and how it is called. Raise
    `HeadNotSeparable` if the head needs the body"""
    if isinstance(learn.opt_func, OptimWrapper): raise HeadNotSeparable('the optimiser can not be created again for the head')
    model,params = get_model(learn.model),frozenset(params)
    whole = first_batch(learn.dls.train)
    batch = items(whole, 0, 2)
    calls,pred,half = _trace_items(learn, batch, whole)
    if not isinstance(pred, Tensor): raise HeadNotSeparable(f'the prediction is a {type(pred).__name__}, not one tensor')
    _check_loss(learn, half)
    i = _find_entry(calls, model, params)
    _check_features(learn, batch, params, calls, i, half)
    entry,args,kwargs = calls[i]
    costs = tuple(n//find_bs(learn.yb) for n in costs_in(calls, params))
    # Modules around the head, from the smallest outwards: an outer one may add an activation, as for `y_range`, or a dropout
    outwards = [m for m in reversed(list(model.modules())) if params <= set(m.parameters()) and entry in set(m.modules())]
    why = ''
    for needs_inputs,root in product((False, True), outwards):
        call = first(c for c in calls if c.module is root)
        if call is None: continue
        inputs = [call.args, call.kwargs]
        # Copies of the head run in full precision, whatever the precision of the model
        head = SplitHead(root, entry, params, items(module_inputs(root, *inputs), 0, 1), needs_inputs, costs=costs)
        features = module_inputs(entry, args, kwargs) + (module_inputs(root, *inputs) if needs_inputs else [])
        try: output = _find_output(head, features, pred, half)
        # `root` may raise any error when the features of several items meet the body's output for one item
        except Exception as e: why = why or f' ({type(e).__name__}: {_first_sentence(e)})'
        else:
            if output is not None: return replace(head, output=output)
    raise HeadNotSeparable(f'the head needs more from the body than the inputs of its first module{why}')
