"Where the head of a model begins, and what goes in there"
import pytest
import torch
from conftest import make_clas, make_lm, make_mlp
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.tabular.model import TabularModel
from fastai.torch_core import params, set_seed
from fastai.vision.learner import create_head
from fastcore.foundation import L
from torch import nn
from torch.amp import GradScaler

from fastai_discrim.kept import keep, split_head


class Bert(nn.Module):
    "As transformers have it: all tokens go into a head that looks at the first, beside a body that takes keywords, and a dict comes out"
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense,self.drop,self.out = nn.Linear(6, 6),nn.Dropout(.5),nn.Linear(6, 2)
        def forward(self, features, scale=1.): return self.out(self.drop(torch.tanh(self.dense(self.drop(features[:,0]*scale)))))

    def __init__(self):
        super().__init__()
        self.body,self.classifier = nn.Sequential(nn.Embedding(20, 6), nn.LayerNorm(6)),self.Head()
    def forward(self, x): return {'hidden': (h := self.body(x)), 'logits': self.classifier(features=h, scale=2.)}
    def groups(self): return L(self.body, self.classifier).map(params)

class Siblings(Bert):
    "A head of two modules that have no module of their own around them"
    def __init__(self):
        super().__init__()
        self.pooler,self.classifier = nn.Linear(6, 6),nn.Linear(6, 2)
        self.drop = nn.Dropout(.5)
    def forward(self, x): return {'logits': self.classifier(self.drop(torch.tanh(self.pooler(self.body(x).mean(1)))))}
    def groups(self): return L(params(self.body), params(self.pooler)+params(self.classifier))

class Last(Siblings):
    "A head that scores every token, and looks among the ids, which do not go through the body, for the last that is no padding"
    def forward(self, x):
        scores = self.classifier(self.drop(torch.tanh(self.pooler(self.body(x)))))
        return {'logits': scores[torch.arange(len(x)), (x > 4).cumsum(1).argmax(1)]}

class Dropped(Siblings):
    "A body that ends with the dropout with which it begins"
    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb,self.drop,self.norm = nn.Embedding(20, 6),nn.Dropout(.5),nn.LayerNorm(6)
        def forward(self, x): return self.drop(self.norm(self.drop(self.emb(x))))
    def __init__(self):
        super().__init__()
        self.body = self.Body()

class Skip(Siblings):
    "A head that takes from the body again, further up"
    def forward(self, x): return {'logits': self.classifier(torch.tanh(self.pooler((h := self.body(x)).mean(1))) + h[:,0])}

class Cat(Siblings):
    "One that does so in a way that fails for a copy of the head, as a U-Net does"
    def forward(self, x): return {'logits': self.classifier(torch.cat([self.pooler((h := self.body(x)).mean(1))[:,:3], h[:,0,:3]], 1))}

class Late(Siblings):
    "A body that goes on after the head has begun"
    def forward(self, x): return {'logits': self.classifier(self.body[1](self.pooler(self.body[0](x).mean(1))))}

class Uncalled(Siblings):
    "A head whose weight is used, but not as a module"
    def forward(self, x): return {'logits': self.body(x).mean(1) @ self.classifier.weight.T + self.pooler.weight.sum()}

class Logits(Callback):
    def after_pred(self): self.learn.pred = self.pred['logits']

def tokens(model):
    set_seed(1)
    x = torch.randint(0, 20, (64, 5))
    ds = list(zip(x, (x[:,0] > 9).long()))
    return Learner(DataLoaders.from_dsets(ds, ds[:16], bs=8, device='cpu', num_workers=0), model, loss_func=CrossEntropyLossFlat(),
                   splitter=lambda m: m.groups(), cbs=Logits())

def images():
    set_seed(1)
    x = torch.randn(32, 3, 8, 8)
    ds = list(zip(x, (x.mean((1, 2, 3)) > 0).long()))
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
    return Learner(DataLoaders.from_dsets(ds, ds[:16], bs=8, device='cpu', num_workers=0), nn.Sequential(body, create_head(6, 2)),
                   loss_func=CrossEntropyLossFlat(), splitter=lambda m: L(m[0], m[1]).map(params))

def table():
    set_seed(1)
    cat,cont = torch.randint(0, 4, (64, 2)),torch.randn(64, 3)
    ds = list(zip(cat, cont, cont.sum(1, keepdim=True)))
    dls = DataLoaders.from_dsets(ds, ds[:16], bs=8, device='cpu', num_workers=0)
    dls.n_inp = 2
    model = TabularModel([(4, 2), (4, 2)], 3, 1, [8, 4], y_range=(-5, 5))
    return Learner(dls, model, loss_func=MSELossFlat(), splitter=lambda m: [params(m.embeds)+params(m.bn_cont)+params(m.layers[:2]),
                                                                            params(m.layers[2:])])

def begin(learn):
    learn.create_opt()
    learn.freeze()
    return split_head(learn, learn.opt.param_lists[-1])

# What goes in for a batch of 8 or 16, and the module that it goes into
HEADS = dict(mlp=(lambda p: make_mlp(p), (8,), nn.Linear), clas=(lambda p: make_clas(p), (24,), nn.BatchNorm1d),
             bert=(lambda p: tokens(Bert()), (6,), nn.Dropout), siblings=(lambda p: tokens(Siblings()), (6,), nn.Linear),
             last=(lambda p: tokens(Last()), (5, 6), nn.Linear), dropped=(lambda p: tokens(Dropped()), (6,), nn.Linear),
             vision=(lambda p: images(), (12,), nn.BatchNorm1d), table=(lambda p: table(), (4,), nn.Linear))

@pytest.mark.parametrize('make,shape,kind', HEADS.values(), ids=HEADS)
def test_the_input_of_the_heads_first_module_with_parameters_is_kept(tmp_path, make, shape, kind):
    learn = make(tmp_path)
    head,why = begin(learn)
    assert not why and type(head.args[1]) is kind
    with learn.no_bar(): batches = keep(learn, head, learn.dls.valid)
    (((x,),kwargs,*_),y),*_ = batches
    assert x.shape[1:] == shape and not kwargs and sum(len(b[1]) for b in batches) == 16
    assert type(x) is type(y) is torch.Tensor and not x.requires_grad

@pytest.mark.parametrize('make', [o[0] for o in HEADS.values()], ids=HEADS)
def test_a_head_on_what_was_kept_predicts_as_the_model(tmp_path, make):
    learn = make(tmp_path)
    head,_ = begin(learn)
    with learn.no_bar():
        batches = keep(learn, head, learn.dls.valid)
        preds,_ = learn.get_preds(act=lambda o: o)
    with torch.no_grad(): ours = torch.cat([head().eval()(inp) for inp,*_ in batches])
    torch.testing.assert_close(ours, preds.as_subclass(torch.Tensor))

@pytest.mark.parametrize('make', [o[0] for o in HEADS.values()], ids=HEADS)
def test_a_heads_weights_are_its_own(tmp_path, make):
    learn = make(tmp_path)
    head,_ = begin(learn)
    a,b = head(),head()
    group = learn.opt.param_lists[-1]
    assert not {id(p) for p in a.trainable()} & {id(p) for p in [*learn.model.parameters(), *b.trainable()]}
    def values(ps): return sorted((p.flatten().tolist(), p.requires_grad) for p in ps)
    assert values(a.trainable()) == values(group)

def test_the_body_within_a_head_stays_in_evaluation_mode():
    head,_ = begin(tokens(Siblings()))
    head = head().train()
    assert not head.root.body.training and not head.root.body[1].training and head.root.drop.training and head.root.pooler.training

def test_what_is_frozen_by_hand_in_the_head_stays_so(mlp):
    mlp.create_opt()
    mlp.model[-1].bias.requires_grad_(False)
    assert [p.requires_grad for p in split_head(mlp, mlp.opt.param_lists[-1])[0]().trainable()] == [True, False]

@pytest.mark.parametrize('learn,why', [(lambda p: tokens(Skip()), 'the head takes more from the body'),
                                       (lambda p: tokens(Cat()), 'the head takes more from the body'),
                                       (lambda p: tokens(Late()), 'the head is also at work'),
                                       (lambda p: tokens(Uncalled()), 'the head is also at work'),
                                       (make_lm, 'the head is also at work')], ids=['skip', 'cat', 'late', 'uncalled', 'lm'])
def test_heads_that_can_not_be_run_alone(tmp_path, learn, why):
    learn = learn(tmp_path)
    before = [p.clone() for p in learn.model.parameters()]
    head,said = begin(learn)
    assert head is None and why in said
    assert all(map(torch.equal, before, learn.model.parameters()))

@pytest.mark.parametrize('n,kw', [(3, dict(n_batch=3)), (2, dict(n_items=9)), (2, dict(n_items=16)), (8, {})])
def test_how_much_is_kept(mlp, n, kw):
    head,_ = begin(mlp)
    with mlp.no_bar(): assert len(keep(mlp, head, mlp.dls.train, **kw)) == n

class Half(MixedPrecision):
    "fastai's, on a CPU"
    def __init__(self): super().__init__(amp_mode='bf16')
    def before_fit(self):
        self.autocast,self.scales = torch.autocast('cpu', torch.bfloat16),[]
        self.learn.scaler = self.scaler = GradScaler('cpu', enabled=False)

@pytest.mark.parametrize('make', [make_clas, make_mlp])
def test_mixed_precision(tmp_path, make):
    learn = make(tmp_path, cbs=Half())
    with learn.no_bar(): learn.fit(1, 1e-2)
    head,why = begin(learn)
    assert not why
    with learn.no_bar():
        assert keep(learn, head, learn.dls.valid)[0][0][0][0].dtype == torch.float32
        assert learn.head_lr_find(show_plot=False).how.startswith('validation loss')

def test_what_trains_or_drops_before_the_first_weights_belongs_to_the_head(mlp):
    ps = []
    for first in (nn.BatchNorm1d(8, affine=False), nn.Dropout(0.), nn.Dropout(.9)):
        mlp.model = nn.Sequential(*mlp.model[:4], first, nn.Linear(8, 2))
        set_seed(1)
        nn.init.normal_(mlp.model[-1].weight)
        head,why = begin(mlp)
        assert not why and head.args[1] is first
        set_seed(1)
        with mlp.no_bar(): ps.append(mlp.head_lr_find([1e-2, 1e-1], show_plot=False).losses.tolist())
    assert ps[0] != ps[1] != ps[2]

def test_a_dropout_in_place_leaves_what_was_kept_alone(mlp):
    mlp.model = nn.Sequential(*mlp.model[:4], nn.Dropout(.5, inplace=True), mlp.model[-1])
    head,_ = begin(mlp)
    assert head.args[1] is mlp.model[4]
    with mlp.no_bar(): (inp,_),*_ = keep(mlp, head, mlp.dls.valid)
    before = inp[0][0].clone()
    head().train()(inp)
    assert torch.equal(inp[0][0], before)

def test_the_body_runs_once(monkeypatch):
    learn,calls = tokens(Siblings()),[]
    learn.model.body[0].register_forward_pre_hook(lambda m, x: calls.append(len(x[0])))
    with learn.no_bar(): learn.head_lr_find([1e-3, 1e-2, 1e-1], n_epoch=5, show_plot=False)
    # Over the data in batches of 8, and for one or two items: to find the head, and once for each of two runs of four copies of it
    assert [n for n in calls if n > 2] == [8]*(8+2) and len(calls) == 10 + 4 + 2*4

@pytest.mark.parametrize('make', [lambda: tokens(Bert()), lambda: tokens(Siblings()), images, table])
def test_models_of_all_kinds(make):
    learn = make()
    with learn.no_bar(): res = learn.head_lr_find(show_plot=False, n_epoch=4)
    assert res.how.startswith('validation loss') and res.losses.min() < res.losses[0]

def test_two_targets(mlp):
    ds = [(x, y, x.sum()) for x,y in mlp.dls.train_ds]
    mlp.dls = DataLoaders.from_dsets(ds, ds[:16], bs=8, device='cpu', num_workers=0)
    mlp.dls.n_inp,stock = 1,mlp.loss_func
    mlp.metrics,mlp.loss_func = [],lambda p,y,z: stock(p, y) + (p.mean(1)-z).pow(2).mean()
    with mlp.no_bar(): assert mlp.head_lr_find(show_plot=False).how.startswith('validation loss')
