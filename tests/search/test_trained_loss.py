"A loss that counts in training only is found out"
import pytest
from conftest import everything, make_clas, make_mlp
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.mixup import MixUp
from fastai.callback.training import GradientAccumulation
from fastai.losses import CrossEntropyLossFlat
from search.no_trace import check_no_trace
from torch import nn

from fastai_discrim.callbacks.unfreezing import GradualUnfreezing
from fastai_discrim.search.split_head import HeadNotSeparable
from fastai_discrim.search.trained_loss import check_trained_loss


class Teacher(Callback):
    "As in distillation: what another network says counts in training"
    def __init__(self, share=1.): self.teacher,self.share = nn.Linear(4, 2),share
    def after_loss(self):
        if not self.training: return
        self.learn.loss_grad = self.loss_grad + self.share*(self.pred-self.teacher(self.x).detach()).square().mean()
        self.learn.loss = self.loss_grad.clone()

class Penalty(Callback):
    "As fastai's `RNNRegularizer`: a term of the gradients alone"
    def after_loss(self):
        if self.training: self.learn.loss_grad = self.loss_grad + self.pred.square().mean()

class Skip(Callback):
    def before_batch(self): raise CancelBatchException

class Fails(Callback):
    def before_train(self): raise ZeroDivisionError

def check(learn, ndim=2):
    learn.create_opt()
    with learn.no_bar(),learn.no_logging(): check_trained_loss(learn, ndim)

@pytest.mark.parametrize('cbs', [None, MixUp(), Penalty(), GradientAccumulation(16), GradualUnfreezing(1), Skip(), Fails(), Teacher(1e-4)])
def test_what_loss_func_gives_trains(tmp_path, cbs): check(make_mlp(tmp_path, cbs=cbs))

def test_a_text_classifier(clas): check(clas)

def test_a_callbacks_loss(tmp_path):
    with pytest.raises(HeadNotSeparable, match='trains with a loss other than `loss_func`'): check(make_mlp(tmp_path, cbs=Teacher()))

class Both(nn.Module):
    "Has a second output in training, or the loss"
    def __init__(self, loss):
        super().__init__()
        self.body,self.head,self.loss = nn.Sequential(nn.Linear(4, 8), nn.ReLU()),nn.Linear(8, 2),loss
    def forward(self, x):
        pred = self.head(self.body(x))
        if not self.training: return pred
        return pred.square().mean() if self.loss else (pred, pred)

@pytest.mark.parametrize('loss', [False, True])
def test_a_model_that_gives_something_else_in_training(tmp_path, loss):
    learn,stock = make_mlp(tmp_path),CrossEntropyLossFlat()
    learn.model,learn.splitter = Both(loss),lambda m: [list(m.body.parameters()), list(m.head.parameters())]
    def of_all(p, y):
        if isinstance(p, tuple): return sum(stock(o, y) for o in p)
        return stock(p, y) if p.ndim else p
    learn.loss_func = of_all
    with pytest.raises(HeadNotSeparable, match='something else in training'): check(learn)
    with learn.no_bar(),learn.no_logging(): assert learn.head_lr_find(show_plot=False).how.startswith('range test')

def test_a_loss_that_is_not_finite_is_said_later(mlp):
    mlp.loss_func = lambda p,y: p.sum()*float('nan')
    check(mlp)

@pytest.mark.parametrize('make,cbs', [(make_mlp, MixUp), (make_mlp, GradualUnfreezing), (make_clas, GradualUnfreezing)])
def test_it_leaves_no_trace(tmp_path, make, cbs):
    learn = make(tmp_path, cbs=cbs())
    with learn.no_bar(): learn.fit(2, 1e-2)
    loaders,before = list(learn.dls.loaders),everything(learn)
    with learn.no_bar(): check_trained_loss(learn, 2)
    check_no_trace(before, everything(learn))
    assert all(a is b for a,b in zip(learn.dls.loaders, loaders)) and len(learn.dls.loaders) == 2

def test_ctrl_c(mlp):
    class Stop(Callback):
        def after_pred(self): raise KeyboardInterrupt
    with mlp.no_bar(): mlp.fit(1, 1e-2)
    mlp.add_cb(Stop())
    before = everything(mlp)
    with pytest.raises(KeyboardInterrupt): check_trained_loss(mlp, 2)
    before['bar'] = everything(mlp)['bar']
    check_no_trace(before, everything(mlp))
