"Small models whose heads can be run alone, or can't"
import torch
from conftest import make_clas, make_mlp
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.tabular.model import TabularModel
from fastai.torch_core import params, set_seed
from fastai.vision.learner import create_head
from fastcore.foundation import L
from torch import nn

from fastai_discrim.search.split_head import split_head


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

class Tied(Siblings):
    "A body that uses a weight of the head, but not as a module"
    def forward(self, x): return {'logits': self.classifier(self.pooler(self.body(x).mean(1) @ self.pooler.weight))}

class Gated(Siblings):
    "A body that takes from the head, by a gate that is closed as yet"
    def __init__(self):
        super().__init__()
        self.body.append(nn.Linear(6, 6))
    def forward(self, x):
        h = self.body[:2](x).mean(1)
        return {'logits': self.classifier(self.body[2](h + 0*self.pooler(h)))}

class Logits(Callback):
    def after_pred(self): self.learn.pred = self.pred['logits']

class Padded(nn.Module):
    "A head with torch's encoder, which takes the last token for padding"
    def __init__(self):
        super().__init__()
        self.body,layer = nn.Embedding(20, 6),nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.head = nn.ModuleDict(dict(encoder=nn.TransformerEncoder(layer, 1), out=nn.Linear(6, 2)))
    def groups(self): return [list(m.parameters()) for m in (self.body, self.head)]
    def forward(self, x):
        is_padding = (torch.arange(x.shape[1]) == x.shape[1]-1).expand(x.shape)
        return {'logits': self.head.out(self.head.encoder(self.body(x), src_key_padding_mask=is_padding)[:,0])}

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

def split(learn):
    "Freeze the body of `learn`, and split off its head"
    learn.create_opt()
    learn.freeze()
    return split_head(learn, learn.opt.param_lists[-1])

# What goes in for a batch of 8 or 16, and the module that it goes into
HEADS = dict(mlp=(lambda p: make_mlp(p), (8,), nn.Linear), clas=(lambda p: make_clas(p), (24,), nn.BatchNorm1d),
             bert=(lambda p: tokens(Bert()), (6,), nn.Dropout), siblings=(lambda p: tokens(Siblings()), (6,), nn.Linear),
             last=(lambda p: tokens(Last()), (5, 6), nn.Linear), dropped=(lambda p: tokens(Dropped()), (6,), nn.Linear),
             vision=(lambda p: images(), (12,), nn.BatchNorm1d), table=(lambda p: table(), (4,), nn.Linear))
