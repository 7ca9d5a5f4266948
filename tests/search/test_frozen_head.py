"A copy of a head that takes frozen features"
import pytest
import torch
import torch.fx
from conftest import everything, make_mlp
from search.no_trace import check_no_trace
from search.split_models import HEADS, Siblings, split, tokens
from torch import nn

from fastai_discrim.search.frozen_features import frozen_features
from fastai_discrim.search.frozen_head import FeatureHead
from fastai_discrim.search.split_head import split_head


@pytest.mark.parametrize('make', [o[0] for o in HEADS.values()], ids=HEADS)
def test_it_predicts_as_the_model(tmp_path, make):
    learn = make(tmp_path)
    head = split(learn)
    with learn.no_bar():
        batches = frozen_features(learn, head, learn.dls.valid)
        preds,_ = learn.get_preds(act=lambda o: o)
    with torch.no_grad(): ours = torch.cat([FeatureHead(head).eval()(features) for features,*_ in batches])
    torch.testing.assert_close(ours, preds.as_subclass(torch.Tensor))

@pytest.mark.parametrize('make', [o[0] for o in HEADS.values()], ids=HEADS)
def test_its_weights_are_its_own(tmp_path, make):
    learn = make(tmp_path)
    head = split(learn)
    a,b,c = head.copies(3)
    group = learn.opt.param_lists[-1]
    def ids(ps): return {id(p) for p in ps}
    assert not ids(a.trainable()) & ids([*learn.model.parameters(), *b.trainable()]) and not ids(b.trainable()) & ids(c.trainable())
    def values(ps): return sorted((p.flatten().tolist(), p.requires_grad) for p in ps)
    assert values(a.trainable()) == values(b.trainable()) == values(group)

def _pred(copy, features, mode):
    torch.manual_seed(1)
    with torch.no_grad(): return copy.train(mode)(features)

class SharedDropout(nn.Module):
    "A network whose head has the dropout of a block of its body"
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(.5)
        self.body,self.hidden,self.top = nn.Sequential(nn.Linear(4, 4), self.drop),nn.Linear(4, 4),nn.Linear(4, 2)

    def forward(self, x): return self.top(self.drop(self.hidden(self.body(x))))

class Scaled(nn.Module):
    "A layer with a parameter of its own, as modules that `torch.fx` traces may have"
    def __init__(self):
        super().__init__()
        self.scale,self.top = nn.Parameter(torch.ones(8)),nn.Linear(8, 2)
    def forward(self, x): return self.top(x*self.scale)

def with_shared_dropout(path):
    learn = make_mlp(path)
    learn.model,learn.splitter = SharedDropout(),lambda m: [[*m.body.parameters()], [*m.hidden.parameters(), *m.top.parameters()]]
    return learn

def with_traced_head(path):
    learn = make_mlp(path)
    learn.model = nn.Sequential(*learn.model[:4], torch.fx.symbolic_trace(Scaled()))
    learn.splitter = lambda m: [[*m[:4].parameters()], [*m[4].parameters()]]
    return learn

COPIED = {k: o[0] for k,o in HEADS.items()} | {'dropout of the body': with_shared_dropout, 'traced': with_traced_head}

@pytest.mark.parametrize('make', COPIED.values(), ids=COPIED)
def test_all_copies_are_as_one_made_alone(tmp_path, make):
    learn = make(tmp_path)
    head = split(learn)
    with learn.no_bar(): (features,*_),*_ = frozen_features(learn, head, learn.dls.valid)
    copies,alone = head.copies(3),FeatureHead(head)
    for mode in (True, False):
        want = _pred(alone, features, mode)
        for copy in copies: assert torch.equal(_pred(copy, features, mode), want)
    # One that trains doesn't change the others
    with torch.no_grad():
        for p in copies[1].trainable(): p.add_(.1)
    same = [torch.equal(_pred(copy, features, False), want) for copy in copies]
    assert same == [True, False, True]

def test_the_body_within_it_stays_in_evaluation_mode():
    head = FeatureHead(split(tokens(Siblings()))).train()
    assert not head.root.body.training and not head.root.body[1].training and head.root.drop.training and head.root.pooler.training

class Counted(nn.Linear):
    "A layer that counts its calls"
    n_calls = 0
    def forward(self, x):
        type(self).n_calls += 1
        return super().forward(x)

class Blocks(nn.Module):
    "A network whose blocks are in a list and in a dict, which themselves are never called, as in many vision models"
    def __init__(self):
        super().__init__()
        self.blocks,self.last = nn.ModuleList([Counted(4, 4), Counted(4, 4)]),nn.ModuleDict(dict(a=Counted(4, 4)))
        self.hidden,self.top = nn.Linear(4, 4),nn.Linear(4, 2)

    def forward(self, x):
        for block in self.blocks: x = block(x)
        return self.top(self.hidden(self.last['a'](x)))

def test_blocks_of_the_body_in_a_list_run_only_when_the_head_is_copied(mlp):
    mlp.model,mlp.splitter = Blocks(),lambda m: [
        [*m.blocks.parameters(), *m.last.parameters()], [*m.hidden.parameters(), *m.top.parameters()]]
    head = split(mlp)
    Counted.n_calls = 0
    copy = FeatureHead(head)
    assert Counted.n_calls == 3
    features = [[torch.randn(8, 4)], {}]
    for _ in range(5): preds = copy(features)
    assert Counted.n_calls == 3
    for other in head.copies(4): assert torch.equal(other(features), preds)
    assert Counted.n_calls == 6 and torch.equal(preds, mlp.model.top(mlp.model.hidden(features[0][0])))

@pytest.mark.parametrize('find', [lambda l: l.head_lr_find(), lambda l: l.fit_ulmfit(2)], ids=['head_lr_find', 'fit_ulmfit'])
def test_a_head_that_is_frozen_by_hand_has_no_rate(mlp, find):
    for p in mlp.model[-1].parameters(): p.requires_grad_(False)
    before = everything(mlp)
    with pytest.raises(ValueError, match='all parameters of the head are frozen by hand: .*give a rate, as in `fit_ulmfit'): find(mlp)
    check_no_trace(before, everything(mlp))
    # With a rate, it is passed over
    with mlp.no_bar(),mlp.no_logging(): mlp.fit_ulmfit(2, 1e-2)

def test_what_is_frozen_by_hand_stays_so(mlp):
    mlp.create_opt()
    mlp.model[-1].bias.requires_grad_(False)
    head = split_head(mlp, mlp.opt.param_lists[-1])
    assert [p.requires_grad for p in FeatureHead(head).trainable()] == [True, False]

def test_a_dropout_in_place_leaves_the_features_alone(mlp):
    mlp.model = nn.Sequential(*mlp.model[:4], nn.Dropout(.5, inplace=True), mlp.model[-1])
    head = split(mlp)
    assert head.entry is mlp.model[4]
    with mlp.no_bar(): (features,_),*_ = frozen_features(mlp, head, mlp.dls.valid)
    before = features[0][0].clone()
    FeatureHead(head).train()(features)
    assert torch.equal(features[0][0], before)
