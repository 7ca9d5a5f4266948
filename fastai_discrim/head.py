"What is the head's rate, η_L: found by training the head alone, and nothing is left of it (ULMFiT, section 3.2)"
__all__ = ['HeadLR']

from collections import namedtuple
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain, takewhile

import matplotlib.pyplot as plt
import numpy as np
from fastai.callback.schedule import minimum
from fastai.learner import Learner
from fastai.torch_core import get_model, get_random_states, set_random_states
from fastcore.basics import patch

from .checks import check_count, check_data, check_number
from .groups import check_groups
from .unfreeze import train_only

HeadLR = namedtuple('HeadLR', 'lr lrs losses')
HeadLR.__doc__ = "What `head_lr_find` found: the rate `lr`, and the `losses` at the `lrs` that it was chosen from"

def _loader_state(dl):
    "What sets the order of a loader's batches: fastai's `rng` or torch's `generator`, and a language model's items, shuffled in place"
    gen = getattr(dl, 'generator', None)
    return deepcopy(getattr(dl, 'rng', None)),gen and gen.get_state(),list(dl.items.idxs) if hasattr(dl, 'make_chunks') else None

def _restore_loader(dl, rng, gen, idxs):
    if rng: dl.rng = rng
    if gen is not None: dl.generator.set_state(gen)
    if idxs is not None:
        dl.items.idxs[:] = idxs
        dl.make_chunks()

def _tensors(model): return {n:t for n,t in chain(model.named_parameters(), model.named_buffers())}

@contextmanager
def untouched(
    learn:Learner, # The learner that is trained inside
):
    "Training inside leaves no trace: weights, optimiser, `requires_grad`, gradients, recorder, random states, order of the batches"
    model,opt,rec = get_model(learn.model),learn.opt,getattr(learn, 'recorder', None)
    attrs,states,loaders = dict(vars(learn)),get_random_states(),[_loader_state(dl) for dl in learn.dls.loaders]
    tensors,opt_state = {n: t.detach().clone() for n,t in _tensors(model).items()},opt and deepcopy(opt.state_dict())
    grads = [(p, p.requires_grad, p.grad if p.grad is None else p.grad.clone()) for p in model.parameters()]
    modes = [(m, m.training) for m in model.modules()]
    log = {k:v if k == 'learn' else deepcopy(v) for k,v in vars(rec).items()} if rec else {}
    try: yield
    finally:
        for n,t in _tensors(model).items(): t.data.copy_(tensors[n])
        for p,rg,g in grads: p.requires_grad_(rg).grad = g
        for m,mode in modes: m.training = mode
        for o,old in ((learn, attrs), (rec, log)):
            if o: vars(o).clear(); vars(o).update(old)
        if opt: opt.load_state_dict(opt_state)
        if hasattr(model, 'reset'): model.reset()
        for dl,state in zip(learn.dls.loaders, loaders): _restore_loader(dl, *state)
        set_random_states(**states)

def _plot(res):
    _,ax = plt.subplots(figsize=(6, 3.5), layout='constrained')
    ax.plot(res.lrs, res.losses)
    ax.axvline(res.lr, color='C1', ls='--', label=f'chosen: {res.lr:.2e}')
    ax.set(xscale='log', xlabel='learning rate of the head', ylabel='training loss, smoothed')
    # Where the loss diverges says little, and would flatten the rest
    ax.set_ylim(top=min(ax.get_ylim()[1], 2*max(res.losses[:len(res.losses)//2]) - min(res.losses)))
    ax.legend()

@patch
def head_lr_find(self:Learner, *,
    runs:int=3, # Range tests to average, each over other batches
    num_it:int=100, # Steps of each
    start_lr:float=1e-5, # First rate
    end_lr:float=10, # Last rate, if the loss does not diverge before
    show_plot:bool=True, # Plot the loss against the rate?
) -> HeadLR: # The chosen rate, and the rates and mean training losses it was chosen from
    "Find η_L by range tests of the head alone: a tenth of the rate where their mean loss is lowest. Nothing is left of it on the learner"
    check_count(runs, 'runs')
    check_count(num_it, 'num_it')
    if num_it < 20: raise ValueError(f'num_it={num_it}: expected at least 20 steps, as the first tenth and the last 5 are not looked at')
    check_number(start_lr, 'start_lr')
    check_number(end_lr, 'end_lr', low=start_lr)
    n = len(check_groups(self))
    check_data(self)
    curves = []
    with untouched(self):
        if self.opt is None: self.create_opt()
        train_only(self, (n-1,))
        for _ in range(runs):
            self.lr_find(start_lr, end_lr, num_it, show_plot=False, suggest_funcs=None)
            lrs = self.recorder.lrs[num_it//10:-5]
            curves.append(list(takewhile(np.isfinite, map(float, self.recorder.losses[num_it//10:-5]))))
    # A run ends early where its loss diverges: only what all of them reached can be averaged
    k = min(map(len, curves))
    if k < 2: raise ValueError(f'the loss was finite at {k} rates: expected at least 2; mend the data or the loss, or lower `start_lr`')
    lrs,losses = np.array(lrs[:k]),np.mean([c[:k] for c in curves], axis=0)
    res = HeadLR(minimum(lrs, losses, num_it)[0], lrs, losses)
    if show_plot: _plot(res)
    return res
