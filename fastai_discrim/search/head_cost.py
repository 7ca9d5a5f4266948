"Estimate how much of a model's work its head does, from the calls of the modules in one pass"
__all__ = []

from math import prod

from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.rnn import PackedSequence

from ..groups.modules import own_params
from .choice import N_FIRST
from .frozen_head import list_tensors

# The head trains for as long as in the fit, but for at most this many steps per rate, over all folds, to keep the search cheap
MAX_STEPS = 350
# A head with this many parameters, or multiply-adds per item, is large: all its trials together cost at most about as much as 100 steps of
# the whole network, as a range test does
LARGE_HEAD,RANGE_TEST_STEPS = 100_000,100
# Fewer steps would favour rates that are too high for the fit. So the trials of a head that is most of the network may cost more than a
# range test
LEAST_STEPS = 20


def multiply_adds(call) -> int:
    "Estimate the multiply-adds of `call`, a module with its arguments: the size of its matrices times the positions that they apply to"
    m,args = call.module,[o.data if isinstance(o, PackedSequence) else o for o in (*call.args, *call.kwargs.values())]
    inputs = [t for t in list_tensors(args) if t.is_floating_point() and t.ndim > 1 and t.numel()]
    weights = sum(p.numel() for p in own_params(m) if p.ndim > 1)
    # An embedding takes whole numbers, and only looks up its rows
    if not inputs or not weights: return 0
    if not isinstance(m, _ConvNd): return weights*inputs[0][...,0].numel()
    # A transposed convolution applies its matrices at each position of the input, any other at each of the output
    return weights*inputs[0][:,0].numel()//(1 if m.transposed else prod(m.stride))

def costs_in(calls:list, params:frozenset) -> tuple:
    "Return the multiply-adds of the modules of the head, which have its `params`, and those of all modules, in `calls`"
    of_head = [multiply_adds(c) for c in calls if not params.isdisjoint(own_params(c.module))]
    return sum(of_head),sum(map(multiply_adds, calls))

def most_steps(*costs) -> int:
    "Return how many steps a head may train at each rate, over all folds; `costs` are pairs, a cost of the head and of the whole model"
    allowed = [RANGE_TEST_STEPS*whole//(head*N_FIRST) for head,whole in costs if head >= LARGE_HEAD]
    return max(min([MAX_STEPS, *allowed]), LEAST_STEPS)
