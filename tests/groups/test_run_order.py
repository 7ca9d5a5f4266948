"Find the order of layers by a run, which leaves no trace"
import pickle
from functools import partial

import pytest
import torch
from conftest import everything, make_mlp
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import params
from groups.architectures import MODELS, build
from groups.small_models import Net, ids, is_partition, same_state, state
from torch import nn

from fastai_discrim.groups.layer_groups import check_groups
from fastai_discrim.groups.run_order import learner_input, run_order, run_outputs
from fastai_discrim.groups.split import layerwise_split


class Block(nn.Module):
    def __init__(self, n=4):
        super().__init__()
        self.a,self.b = nn.Linear(n, n),nn.Linear(n, n)
    def forward(self, x): return x + self.b(self.a(x).relu())

class Runs(Net):
    "A module that runs its children in another order than that of declaration"
    def __init__(self, order, **children):
        super().__init__(**children)
        self.order = order
    def forward(self, x):
        for n in self.order:
            m = getattr(self, n)
            for o in (m if isinstance(m, nn.ModuleList) else [m]): x = o(x)
        return x

def square(): return nn.Linear(4, 4)
def body(n=3): return nn.ModuleList([Block() for _ in range(n)])

class Towers(Net):
    "Parts that run side by side, each on a part of the input"
    def forward(self, x): return self.last(torch.cat([self.left(x[:,:2]), self.right(x)], 1))

# Models for which names and widths tell a wrong order, or none
MODELS_BY_RUN = {
    'a square output layer': (lambda: Runs(['first', 'body', 'out'], out=square(), first=square(), body=body()), ['first', 'body', 'out']),
    'two of them': (lambda: Runs(['first', 'body', 'b', 'a'], a=square(), b=square(), first=square(), body=body()),
                    ['first', 'body', ('b', 'a')]),
    'a body declared last but for a part of the stem': (lambda: Runs(['stem', 'body', 'out'], out=square(), body=body(), stem=square()),
                                                        ['stem', 'body', 'out']),
    'stages of one width': (lambda: Runs(['b', 'a', 'last'], a=nn.Sequential(*body()), b=nn.Sequential(*body()), last=square()),
                            ['b', 'a', 'last']),
    'a head in name only': (lambda: Runs(['head', 'body', 'out'], head=square(), body=body(), out=square()), ['head', 'body', 'out'])}

def want_of(m, names):
    res = []
    for n in names:
        if isinstance(n, tuple): res.append(sum((params(getattr(m, o)) for o in n), []))
        else: res += map(params, getattr(m, n)) if isinstance(getattr(m, n), (nn.ModuleList, nn.Sequential)) else [params(getattr(m, n))]
    return ids(res)

def learner(model, path, **kwargs):
    learn = make_mlp(path)
    return Learner(learn.dls, model, loss_func=CrossEntropyLossFlat(), splitter=layerwise_split, path=path, **kwargs)

@pytest.mark.parametrize('make,names', MODELS_BY_RUN.values(), ids=MODELS_BY_RUN)
def test_a_run_finds_the_order(make, names):
    m,x = make(),torch.randn(2, 4)
    want,before = want_of(m, names),state(m)
    assert ids(layerwise_split(m, x=x)) == want and same_state(state(m), before)
    order = run_order(m, x).names
    again = pickle.loads(pickle.dumps(partial(layerwise_split, order=order)))
    assert ids(again(m)) == want and ids(again(nn.DataParallel(m))) == want

@pytest.mark.parametrize('call', [lambda learn: check_groups(learn), lambda learn: learn.regroup().opt.param_lists,
                                  lambda learn: (learn.fit_ulmfit(1, 1e-2, gradual=False), learn.opt.param_lists)[1],
                                  lambda learn: (learn.fit_ulmfit(1, 1e-2, gradual=False), learn.create_opt(), learn.opt.param_lists)[2]],
                         ids=['check', 'regroup', 'fit', 'again'])
@pytest.mark.parametrize('make,names', MODELS_BY_RUN.values(), ids=MODELS_BY_RUN)
def test_a_learner_runs_its_model_on_a_batch(tmp_path, make, names, call):
    m = make()
    learn = learner(m, tmp_path)
    with learn.no_bar(),learn.no_logging(): assert ids(call(learn)) == want_of(m, names)

def test_the_splitter_stays_if_a_run_finds_the_same_order(tmp_path):
    m = Runs(['stem', 'body', 'fc'], stem=square(), body=body(), fc=square())
    learn = learner(m, tmp_path)
    check_groups(learn)
    assert learn.splitter is layerwise_split

def test_parts_side_by_side_are_refused_though_widths_fit(tmp_path):
    m = Towers(left=nn.Sequential(nn.Linear(2, 4), square()), right=nn.Sequential(square(), square()), last=nn.Bilinear(8, 8, 2))
    m.last.forward = m.last.weight.mean((0, 1)).mul
    assert is_partition(m, layerwise_split(m))
    for call in (lambda: layerwise_split(m, x=torch.randn(2, 4)), lambda: learner(m, tmp_path).fit_ulmfit(2, 1e-2),
                 lambda: learner(m, tmp_path).regroup()):
        with pytest.raises(ValueError, match=r': left, right run side by side \(its children: .*\); write a splitter'): call()

class Interleaved(Net):
    def forward(self, x):
        for a,f in zip(self.attn, self.ffn): x = f(a(x))
        return self.fc(x)

def test_parts_of_each_layer_are_refused():
    m = Interleaved(attn=body(), ffn=body(), fc=square())
    with pytest.raises(ValueError, match=': attn, ffn run side by side'): layerwise_split(m, x=torch.randn(2, 4))

@pytest.mark.parametrize('name', MODELS)
def test_known_architectures_are_split_as_without_a_run(name):
    m,x,*_ = build(name)
    before = state(m)
    assert [set(g) for g in layerwise_split(m, x=x)] == [set(g) for g in layerwise_split(m)] and same_state(state(m), before)

class Remembers(nn.Module):
    "A module that changes all that a run may change: a count, a buffer's size, new buffers, random states"
    def __init__(self):
        super().__init__()
        self.lin,self.norm,self.drop = square(),nn.BatchNorm1d(4, momentum=None),nn.Dropout(.5)
        self.n = 0
        self.register_buffer('seen', torch.zeros(1))
    def forward(self, x):
        self.n,self.last = self.n+1,x
        self.seen.add_(1)
        self.register_buffer('seen', torch.zeros(self.n))
        self.register_buffer('new', torch.rand(3))
        return self.norm(self.drop(self.lin(x))) + torch.rand(1)

@pytest.mark.parametrize('training', [False, True])
def test_a_run_leaves_no_trace(training):
    m,x = Remembers().train(training),torch.randn(5, 4)
    before,attrs = state(m),{k: v for k,v in vars(m).items() if not k.startswith('_')}
    order = run_order(m, x)
    run_outputs(m, (x,), [m.lin], [m.norm])
    assert order.names == ['', 'lin', 'drop', 'norm'] and same_state(state(m), before)
    assert {k: v for k,v in vars(m).items() if not k.startswith('_')} == attrs and m.n == 0 and not hasattr(m, 'last')

def test_a_failed_run_leaves_no_trace():
    m = Runs(['a', 'b'], a=Remembers(), b=nn.Linear(3, 3)).train()
    x = torch.randn(5, 4)
    before = state(m)
    with pytest.raises(RuntimeError): run_order(m, x)
    assert same_state(state(m), before) and m.a.n == 0

def test_a_run_leaves_no_trace_on_a_learner(learn):
    before = everything(learn)
    looked = [sorted(vars(dl)) for dl in learn.dls.loaders]
    x = learner_input(learn)
    assert len(x) == 1 and x[0].device.type == 'cpu' and everything(learn) == before
    assert [sorted(vars(dl)) for dl in learn.dls.loaders] == looked
    check_groups(learn)
    assert everything(learn) == before

def test_the_input_is_on_the_models_device():
    "Also inside a dictionary, which is the input of a model of Hugging Face"
    items = [({'x': torch.randn(4)}, torch.tensor(0)) for _ in range(8)]
    dls = DataLoaders.from_dsets(items, items, bs=4, num_workers=0, device='cpu')
    learn = Learner(dls, nn.Linear(4, 2).to('meta'), loss_func=CrossEntropyLossFlat())
    assert learner_input(learn)[0]['x'].device.type == 'meta'

class Twice(Callback):
    "A callback that adds an input which no batch has"
    def before_batch(self): self.learn.xb = (*self.xb, self.x)

class TwoInputs(Net):
    def forward(self, x, y):
        for b in self.body: x = b(x + y)
        return self.out(x)

def test_names_and_widths_decide_if_the_model_can_not_run(tmp_path):
    m = TwoInputs(stem=nn.Linear(3, 4), body=body(), out=nn.Linear(4, 2))
    learn = learner(m, tmp_path, cbs=Twice())
    assert ids(check_groups(learn)) == ids(layerwise_split(m))

def test_names_and_widths_decide_if_there_are_no_items(tmp_path):
    m = Runs(['stem', 'body', 'fc'], stem=square(), body=body(), fc=square())
    learn = Learner(DataLoaders([], []), m, loss_func=CrossEntropyLossFlat(), splitter=layerwise_split, path=tmp_path)
    assert len(check_groups(learn)) == 5

def test_a_model_that_has_changed_is_run_again(tmp_path):
    m = Runs(['first', 'body', 'out'], out=square(), first=square(), body=body())
    learn = learner(m, tmp_path)
    check_groups(learn)
    m.more,m.order = square(),['more', 'first', 'body', 'out']
    learn = learner(m, tmp_path)
    assert ids(check_groups(learn)) == ids([params(m.more)+params(m.first), *map(params, m.body), params(m.out)])
