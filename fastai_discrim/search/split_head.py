"Split a model's head from its body: find where it begins by running two items through the model"
__all__ = []

from collections import namedtuple
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product

import torch
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import get_model
from fastcore.basics import first
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from ..groups.modules import own_params
from ..module_state import modules_kept
from .frozen_head import SplitHead, items, list_tensors, module_inputs

# What layers, losses and compiled code raise where they get other shapes than they are for
CANNOT_RUN = RuntimeError, ValueError, IndexError, TypeError, AssertionError
# Relative difference that rounding may make, in half precision and in full
TOL_HALF,TOL_FULL = 2e-2,1e-4
# A longer error is cut where it is told within a line
LONG = 100
AT_WORK_EARLY = 'the head is also at work before the end of the model'


class HeadNotSeparable(Exception):
    "Raised where a head can't be run without the body"

_Call = namedtuple('_Call', 'module args kwargs')

def _trace(learn, batch):
    "Run `batch` through the model; return the calls of all modules, the prediction, and whether there was any half precision"
    model,calls,half = get_model(learn.model),[],[]
    device = next(model.parameters()).device.type
    def _is_half(t): return t.is_floating_point() and t.itemsize < 4
    def _note(m, args, kwargs):
        calls.append(_Call(m, args, kwargs))
        half.append(torch.is_autocast_enabled(device) or any(map(_is_half, list_tensors((args, kwargs)))))
    # A buffer made for two items would be in the way of more
    with modules_kept(model),ExitStack() as hooks:
        for m in model.modules(): hooks.enter_context(m.register_forward_pre_hook(_note, with_kwargs=True))
        learn.validate(dl=[batch])
    return calls,learn.pred,any(half)

def _trace_items(learn, batch, whole):
    "Run two items as `_trace` does; raise `HeadNotSeparable` where they can't be run, but the `whole` batch can"
    try: return _trace(learn, batch)
    except CANNOT_RUN as e:
        # What is wrong with the whole batch is said as stock fastai says it
        _trace(learn, whole)
        raise HeadNotSeparable(f'two items of a batch can not be run alone ({type(e).__name__}), as where items are not its first '
                               'dimension') from e

def _is_close(a, b, half):
    "Tell whether the tensors `a` and `b` are the same but for rounding, which is coarse in `half` precision"
    if a.shape != b.shape: return False
    if not (a.is_floating_point() and b.is_floating_point()): return torch.equal(a, b)
    tol = TOL_HALF if half else TOL_FULL
    return torch.allclose(a.float(), b.float(), rtol=tol, atol=tol*float(b.abs().max()))

@torch.no_grad()
def _check_loss(learn, half):
    "Raise if the loss that counts is not `loss_func`, as where the model computes its own: heads that run alone have `loss_func`"
    loss = learn.loss_func(learn.pred, *learn.yb)
    # One that is not finite is said later
    if loss.isfinite().all() and not _is_close(learn.loss, loss, half): raise HeadNotSeparable('another loss than `loss_func` trains')

def _first_line(e): return str(e).strip().split('\n')[0].split('. ')[0][:LONG]

def _modules_around(model, params):
    "List the modules that have all of `params`, from `model` to the smallest"
    res = [model]
    while True:
        inner = first(c for c in res[-1].children() if params <= set(c.parameters()))
        if inner is None: return res
        res.append(inner)

def _can_begin(m, params):
    "Tell whether a head can begin with `m`: what trains there, or does otherwise in training than in evaluation, belongs to it"
    if not params.isdisjoint(own_params(m)): return True
    is_leaf = not list(m.children())
    return is_leaf and (isinstance(m, _DropoutNd) or any(True for _ in m.buffers()))

def _body_of(model, params):
    "Return all modules that lie in one with parameters, none of them in `params`: a dropout that ends the body is the body's"
    body = set()
    for m in model.modules():
        weights = set(m.parameters())
        if weights and weights.isdisjoint(params): body.update(m.modules())
    return body

def _find_entry(calls, model, params):
    "Return the index of the call that the head begins with: the first after all calls of the body"
    body_calls = [i for i,c in enumerate(calls) if not params.issuperset(own_params(c.module))]
    start = body_calls[-1]+1 if body_calls else 0
    if not all(params.isdisjoint(own_params(c.module)) for c in calls[:start]): raise HeadNotSeparable(AT_WORK_EARLY)
    body = _body_of(model, params)
    for i in range(start, len(calls)):
        if _can_begin(calls[i].module, params) and calls[i].module not in body: return i
    raise HeadNotSeparable(AT_WORK_EARLY)

@contextmanager
def _other_weights(params):
    "Give `params` other values inside"
    before = [(p, p.clone()) for p in params]
    try:
        # Not by one and the same number, which the features of a layer norm, whose sum is 0, would not tell
        for p in params: p.add_(torch.linspace(1, 2, p.numel(), dtype=p.dtype, device=p.device).view(p.shape))
        yield
    finally:
        for p,old in before: p.copy_(old)

@torch.no_grad()
def _check_features(learn, batch, params, calls, i, half):
    "Raise if what goes into the head depends on the head, as with a tied weight, maybe where its module is not called"
    with _other_weights(params): other = _trace(learn, batch)[0][i]
    pairs = zip(list_tensors(calls[i][1:]), list_tensors(other[1:]))
    if not all(_is_close(a, b, half) for a,b in pairs): raise HeadNotSeparable(AT_WORK_EARLY)

@torch.no_grad()
def _find_output(head, features, pred, half):
    "Return the index of `pred` among what a copy of `head` returns for `features`, or None"
    # In training mode too: it must not fail later
    head.copy().train()(features)
    outputs = head.copy().eval()(features)
    return next((i for i,o in enumerate(outputs) if _is_close(o, pred, half)), None)

def split_head(
    learn:Learner, # The learner whose head is wanted; its callbacks run
    params:list, # Parameters of the head
) -> SplitHead:
    "Run two items to find where the head begins, and how it is called; raise `HeadNotSeparable`, with the reason, if the body is needed"
    if isinstance(learn.opt_func, OptimWrapper): raise HeadNotSeparable('the optimiser can not be created again for the head')
    train,model,params = learn.dls.train,get_model(learn.model),frozenset(params)
    # Without worker processes, where the loader is fastai's
    whole = train.one_batch() if hasattr(train, 'one_batch') else first(train)
    batch = items(whole, 0, 2)
    calls,pred,half = _trace_items(learn, batch, whole)
    if not isinstance(pred, Tensor): raise HeadNotSeparable(f'the prediction is a {type(pred).__name__}, not one tensor')
    _check_loss(learn, half)
    i = _find_entry(calls, model, params)
    _check_features(learn, batch, params, calls, i, half)
    entry,args,kwargs = calls[i]
    # From the smallest module that has all of the head outwards: around it there may be an activation, as for `y_range`, or a dropout
    around = [m for m in reversed(_modules_around(model, params)) if entry in set(m.modules())]
    why = ''
    for needs_inputs,root in product((False, True), around):
        call = first(c for c in calls if c.module is root)
        if call is None: continue
        inputs = [call.args, call.kwargs]
        # Copies of the head run in full precision, whatever the model ran in
        head = SplitHead(root, entry, params, items(module_inputs(root, *inputs), 0, 1), needs_inputs)
        features = module_inputs(entry, args, kwargs) + (module_inputs(root, *inputs) if needs_inputs else [])
        try: output = _find_output(head, features, pred, half)
        # The root may raise anything when one item from the body meets several features: then it can't be run alone
        except Exception as e: why = why or f' ({type(e).__name__}: {_first_line(e)})'
        else:
            if output is not None: return replace(head, output=output)
    raise HeadNotSeparable(f'the head takes more from the body than goes in where it begins{why}')
