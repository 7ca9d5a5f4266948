"Make the head a module of its own that takes frozen features, so that the frozen body runs only once"
__all__ = []

from copy import deepcopy
from dataclasses import dataclass

import torch
from fastai.torch_core import find_bs
from torch import Tensor, nn


def map_tensors(f, o):
    "Apply `f` to each tensor in `o`, a tensor or nested tuples, lists and dicts; unlike fastai's `apply`, don't restore tensor types"
    if isinstance(o, Tensor): return f(o)
    if isinstance(o, dict): return {k: map_tensors(f, v) for k,v in o.items()}
    return type(o)(map_tensors(f, v) for v in o) if type(o) in (tuple, list) else o

def list_tensors(o) -> list:
    "List the tensors in `o`, a tensor or nested tuples, lists and dicts"
    res = []
    map_tensors(res.append, o)
    return res

def items(o, start:int, stop:int):
    "Slice the first dimension of all tensors in `o`, the items; tensors without dimensions stay as they are"
    return map_tensors(lambda t: t[start:stop] if t.ndim else t, o)

def has_items_first(o, n:int) -> bool:
    "Tell whether all tensors in `o` have `n` items in the first dimension"
    return all(t.ndim and len(t) == n for t in list_tensors(o))

def part_bounds(n:int, n_parts:int) -> list:
    "Divide `n` items into parts of about the same size; return the start and stop of each, as `items` takes them"
    ends = [round(i*n/n_parts) for i in range(n_parts+1)]
    return list(zip(ends, ends[1:]))

def items_in(batches:list) -> int:
    "Count the items in `batches` from `frozen_features`"
    return sum(find_bs(targets) for _,*targets in batches)

def module_inputs(m:nn.Module, args:tuple, kwargs:dict) -> list:
    "Copy the arguments of module `m`, in its precision and without fastai's tensor types, which double the time of a small head"
    dtype = next((p.dtype for p in m.parameters()), torch.float32)
    def _copy(t): return t.detach().as_subclass(Tensor).to(dtype if t.is_floating_point() else t.dtype, copy=True)
    return map_tensors(_copy, [args, kwargs])

@dataclass(frozen=True, eq=False)
class SplitHead:
    "Describe where a head begins, and how it is called"
    root: nn.Module # A module that contains the whole head
    entry: nn.Module # The first module of the head: its inputs are the features
    params: frozenset # Parameters of the head
    item: list # Positional and keyword arguments of `root`, for one item
    needs_inputs: bool = False # Are the inputs of `root` features too, as for a head that pools by token ids?
    output: int | None = None # Index of the prediction among the tensors that `root` returns; None for all of them
    costs: tuple = (0, 0) # Multiply-adds of the head, and of the whole model, for one item

    def sources(self) -> list:
        "Return the modules whose inputs are the features"
        return [self.entry, self.root] if self.needs_inputs else [self.entry]

    def copies(self, n:int) -> list:
        "Return `n` copies of the head, each with its own weights, that take features and share the modules before the head"
        first = FeatureHead(self)
        return [first, *(FeatureHead(self, first) for _ in range(n-1))]

class _FirstResult:
    "Call a function once, and return the same result for every later call"
    def __init__(self, f): self.f,self.result = f,None
    def __call__(self, *args, **kwargs):
        if self.result is None: self.result = self.f(*args, **kwargs)
        return self.result

class FeatureHead(nn.Module):
    "A copy of a head that takes frozen features. The modules before the head run once, on one item, and their output is ignored"
    def __init__(self,
        head:SplitHead, # The head
        first=None, # An earlier copy, whose modules before the head this copy shares
    ):
        super().__init__()
        # Share the weights of the body, if the root has any, instead of copying them
        memo = {id(p): p for p in head.root.parameters() if p not in head.params}
        self.head,self.body_params,self.features = head,set(memo.values()),None
        if first is not None:
            for m,of_first in zip(self._largest_in_body(head.root), first.body): memo |= zip(map(id, m.modules()), of_first.modules())
        self.root = deepcopy(head.root, memo).eval()
        self.body = list(self._largest_in_body(self.root))
        memo[id(head.entry)].register_forward_pre_hook(self._enter, with_kwargs=True)
        if first is None: self._run_body()

    def _run_body(self):
        "Run the modules before the head once, and let them return the same result at every later call"
        for m in self.body: m.forward = _FirstResult(m.forward)
        args,kwargs = self.head.item
        with torch.no_grad(): self.root(*args, **kwargs)

    def _enter(self, *_):
        "Replace the inputs of the entry by the features; a forward pre-hook"
        # Only the first call is the entry: the head may call the same dropout again later
        features,self.features = self.features,None
        if features is None: return None
        return tuple(map_tensors(Tensor.clone, features) if getattr(self.head.entry, 'inplace', False) else features)

    def _largest_in_body(self, m):
        "Yield the largest submodules of `m` that belong to the body"
        for c in m.children():
            params = set(c.parameters())
            # A list of modules is never called itself
            is_called = type(c).forward is not nn.Module.forward
            if is_called and params and params <= self.body_params: yield c
            else: yield from self._largest_in_body(c)

    def forward(self,
        features:list, # Positional and keyword arguments of the entry, then those of the root if `needs_inputs`
    ):
        self.features = features[:2]
        args,kwargs = features[2:] if self.head.needs_inputs else self.head.item
        outputs = list_tensors(self.root(*args, **kwargs))
        return outputs if self.head.output is None else outputs[self.head.output]

    def train(self, mode=True):
        super().train(mode)
        for m in self.body: m.eval()
        return self

    def trainable(self) -> list:
        "Return the parameters of the head"
        return [p for p in self.root.parameters() if p not in self.body_params]
