"A small learner that needs nothing but `fastai.basics`, and all that two of them could differ in, as plain values"
import random
import re

import numpy as np
import torch
from fastai.basics import CrossEntropyLossFlat, DataLoaders, L, Learner, accuracy, nn, params, set_seed


class Items(list):
    "A data set that `export` can empty"
    def new_empty(self): return Items()

def split(model): return L(m for m in model if list(m.parameters())).map(params)

def make(path, cls=Learner, sizes=(4, 8, 8, 2), norm=True, n=24, **kwargs):
    "A layer group for each of the linear layers, the first with a batch norm beside it; three batches an epoch"
    set_seed(7)
    x = torch.randn(n, sizes[0])
    ds = Items(zip(x, (x.sum(1) > 0).long()))
    dls = DataLoaders.from_dsets(ds, Items(ds[:16]), bs=8, device='cpu', num_workers=0)
    layers = [nn.Linear(a, b) for a,b in zip(sizes, sizes[1:])]
    if norm: layers[0] = nn.Sequential(layers[0], nn.BatchNorm1d(sizes[1]))
    model = nn.Sequential(*[o for l in layers for o in (l, nn.ReLU())][:-1])
    kwargs = dict(splitter=split, loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=path) | kwargs
    return cls(dls, model, **kwargs)

def exact(o):
    "Return `o` as plain values, which are equal in two processes only where they are the same bit for bit"
    if o is None or isinstance(o, (bool, int, bytes)): return o
    if isinstance(o, float): return float(o).hex()
    # The time that an epoch took
    if isinstance(o, str): return re.sub(r'\b\d+:\d\d\b', 'm:ss', o)
    if isinstance(o, torch.Tensor): return str(o.dtype),tuple(o.shape),o.detach().contiguous().numpy().tobytes()
    if isinstance(o, (np.ndarray, np.generic)): return str(o.dtype),o.shape,o.tobytes()
    if isinstance(o, dict): return [(exact(k), exact(v)) for k,v in o.items()]
    if isinstance(o, (set, frozenset)): return sorted(map(repr, map(exact, o)))
    if isinstance(o, (list, tuple, L)): return [exact(v) for v in o]
    return type(o).__name__

def randomness(): return dict(python=exact(random.getstate()), numpy=exact(np.random.get_state()), torch=exact(torch.get_rng_state()))

def state(learn):
    "Return all of `learn` that a fit changes or the next fit depends on"
    opt,recorder = learn.opt,getattr(learn, 'recorder', None)
    of_opt = opt and [{k: exact(v) for k,v in opt.state[p].items()} for g in opt.param_lists for p in g if p in opt.state]
    return dict(weights=exact(dict(learn.model.state_dict())), grads=[exact(p.grad) for p in learn.model.parameters()],
                trains=[p.requires_grad for p in learn.model.parameters()], modes=[m.training for m in learn.model.modules()],
                opt=of_opt, hypers=opt and exact([dict(h) for h in opt.hypers]), frozen_idx=opt and getattr(opt, 'frozen_idx', None),
                recorder=recorder and {k: exact(v) for k,v in vars(recorder).items() if k not in ('learn', 'start_epoch')},
                attributes={k: exact(v) for k,v in vars(learn).items()}, rng=exact(learn.dls.train.rng.getstate()),
                cbs={type(cb).__name__: sorted(vars(cb)) for cb in learn.cbs}, order=[type(cb).__name__ for cb in learn.cbs],
                **randomness())
