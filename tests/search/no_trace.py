"What is compared before and after a search for a rate"
from functools import partial

import torch
from conftest import moved, weights
from fastai.callback.core import Callback
from fastai.optimizer import SGD, OptimWrapper, ranger
from fastai.torch_core import set_seed

OPTS = dict(adam={}, sgd=dict(opt_func=partial(SGD, mom=.9)), ranger=dict(opt_func=ranger),
            torch=dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)))

def check_no_trace(before, after):
    for k in before: assert before[k] == after[k], k

def check_training_that_follows(make, find, trained):
    "Check that a fit after `find` is what it would have been without it"
    a,b = make(),make()
    for learn in (a, b):
        set_seed(5)
        with learn.no_bar():
            if trained: learn.fit(1, 1e-2)
            if learn is a: find(learn)
            learn.fit_one_cycle(2, 1e-2)
    assert not moved(a, weights(b)) and a.recorder.losses == b.recorder.losses

class Stop(Callback):
    "Break off the `n`th batch that it sees"
    def __init__(self, ex, n): self.ex,self.n = ex,n
    def after_pred(self):
        self.n -= 1
        if not self.n: raise self.ex('stop')
