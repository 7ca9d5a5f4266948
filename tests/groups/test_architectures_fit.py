"In every common architecture exactly the unfrozen layers train"
from functools import partial

import pytest
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.optimizer import SGD
from groups.architectures import MODELS, build, two_items
from torch import nn

from fastai_discrim.callbacks.unfreezing import GradualUnfreezing
from fastai_discrim.groups.split import layerwise_split


class Watch(Callback):
    "Watch which layer groups moved in each epoch"
    run_valid,order = False,100
    def before_train(self): self.was = [[p.detach().clone() for p in g] for g in self.opt.param_lists]
    def after_train(self):
        now = [any(not torch.equal(p, w) for p,w in zip(g, ws)) for g,ws in zip(self.opt.param_lists, self.was)]
        self.seen = [*getattr(self, 'seen', []), now]

@pytest.mark.parametrize('name', MODELS)
def test_exactly_the_open_groups_train(tmp_path, name):
    m,x,n,*_ = build(name)
    n = min(n, 4)
    def loss(out, y): return (out[0] if isinstance(out, tuple) else out).float().sub(1).pow(2).mean()
    learn = Learner(two_items(x), m, loss_func=loss, opt_func=SGD, splitter=partial(layerwise_split, n_groups=n), train_bn=False,
                    path=tmp_path, cbs=[watch := Watch(), GradualUnfreezing(1)])
    if isinstance(m, nn.Sequential) and hasattr(m, 'reset'): m.reset()
    with learn.no_bar(),learn.no_logging(): learn.fit(n, 1e-2, wd=.1)
    assert watch.seen == [[i >= n-1-epoch for i in range(n)] for epoch in range(n)]
