"The work of a head is estimated from the calls of its modules"
import pytest
import torch
from conftest import make_mlp
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import params, set_seed
from fastcore.foundation import L
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode

from fastai_discrim.search.head_cost import LARGE_HEAD, LEAST_STEPS, MAX_STEPS, costs_in, most_steps, multiply_adds
from fastai_discrim.search.split_head import _Call, split_head


class TwoD(nn.Module):
    "Convolutions of all kinds, and a classifier of each pixel"
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, groups=4),
                                  nn.ConvTranspose2d(8, 6, 2, stride=2), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 4, 1))
    def forward(self, x): return self.head(self.body(x))

class Tokens(nn.Module):
    "A layer for all tokens, and a classifier of their mean"
    def __init__(self):
        super().__init__()
        self.body,self.head = nn.Sequential(nn.Embedding(20, 6), nn.LayerNorm(6), nn.Linear(6, 12)),nn.Linear(12, 3)
    def forward(self, x): return self.head(self.body(x).mean(1))

def calls_of(model, x):
    calls = []
    for m in model.modules(): m.register_forward_pre_hook(lambda *call: calls.append(_Call(*call)), with_kwargs=True)
    return calls,model(x)

IMAGES,IDS = torch.randn(2, 3, 8, 8),torch.randint(20, (2, 7))

@pytest.mark.parametrize('model,x', [(TwoD(), IMAGES), (Tokens(), IDS)], ids=['images', 'tokens'])
def test_as_torch_counts(model, x):
    calls,_ = calls_of(model, x)
    costs = costs_in(calls, frozenset(model.head.parameters()))
    with FlopCounterMode(display=False) as whole: model(x)
    features = model.body(x)
    with FlopCounterMode(display=False) as of_head: model.head(features if features.ndim == 4 else features.mean(1))
    # Torch counts a multiplication and an addition as two
    assert costs == (of_head.get_total_flops()//2, whole.get_total_flops()//2)

def test_a_recurrent_layer_runs_at_each_token():
    lstm = nn.LSTM(6, 5, batch_first=True)
    assert multiply_adds(_Call(lstm, (torch.randn(2, 7, 6),), {})) == 2*7*4*5*(6+5)

def test_a_recurrent_layer_takes_packed_sequences():
    lstm = nn.LSTM(6, 5)
    packed = pack_padded_sequence(torch.randn(7, 2, 6), [7, 4])
    assert multiply_adds(_Call(lstm, (packed,), {})) == (7+4)*4*5*(6+5)

class Own(nn.Module):
    "A layer of one's own that looks a little like a convolution"
    kernel_size = 3
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 4))

def test_a_layer_of_ones_own_is_taken_for_a_linear_one():
    assert multiply_adds(_Call(Own(), (), dict(x=torch.randn(2, 7, 4)))) == 2*7*8

def test_modules_without_matrices_or_inputs_cost_nothing():
    for m,x in ((nn.BatchNorm2d(3), IMAGES), (nn.Embedding(20, 6), IDS), (nn.ReLU(), IMAGES), (nn.Linear(3, 2), torch.tensor(1.)),
                # A layer of one's own for inputs without a feature, as a table without continuous columns has
                (Own(), torch.zeros(2, 0))):
        assert multiply_adds(_Call(m, (x,), {})) == 0

@pytest.mark.parametrize('costs,want', [
    ([(LARGE_HEAD-1, LARGE_HEAD)], MAX_STEPS),
    # All 13 rates together cost 100 steps of the whole network
    ([(LARGE_HEAD, 4*LARGE_HEAD)], 30), ([(10*LARGE_HEAD, 40*LARGE_HEAD)], 30), ([(LARGE_HEAD, LARGE_HEAD)], LEAST_STEPS),
    ([(LARGE_HEAD, 1000*LARGE_HEAD)], MAX_STEPS), ([(1, 2), (LARGE_HEAD, 4*LARGE_HEAD)], 30), ([(0, 0), (0, 0)], MAX_STEPS)])
def test_steps_that_cost_as_much_as_a_range_test(costs, want): assert most_steps(*costs) == want

def segmenter(tmp_path, n=120):
    set_seed(0)
    x = torch.randn(n, 3, 8, 8)
    ds = list(zip(x, (x[:,0] > 0).long()))
    dls = DataLoaders.from_dsets(ds[:96], ds[96:], bs=2, device='cpu', num_workers=0)
    return Learner(dls, TwoD(), loss_func=CrossEntropyLossFlat(axis=1), splitter=lambda m: L(m.body, m.head).map(params), path=tmp_path)

def steps_of(learn, monkeypatch):
    "Find the head's rate, and return how many training batches all trials had, per rate"
    from fastai_discrim.search import head_trials
    seen,stock = [],head_trials.trial_losses
    def trial_losses(learn, head, train, valid, lrs, n_epoch, **kwargs):
        seen.append(n_epoch*len(train))
        return stock(learn, head, train, valid, lrs, n_epoch=n_epoch, **kwargs)
    monkeypatch.setattr(head_trials, 'trial_losses', trial_losses)
    with learn.no_bar(),learn.no_logging(): learn.head_lr_find([1e-3, 1e-2], n_epoch=9, runs=1, show_plot=False)
    monkeypatch.setattr(head_trials, 'trial_losses', stock)
    return seen

@pytest.mark.all_rates
def test_a_head_of_convolutions_trains_for_few_steps(tmp_path, monkeypatch):
    plain = steps_of(segmenter(tmp_path), monkeypatch)
    monkeypatch.setattr('fastai_discrim.search.head_cost.LARGE_HEAD', 1000)
    learn = segmenter(tmp_path)
    head,whole = 64*(6*5*9+5*4),16*3*8*9+16*8*2*9+16*8*6*4+64*(6*5*9+5*4)
    monkeypatch.setattr('fastai_discrim.search.head_cost.LEAST_STEPS', 1)
    bound = 100*whole//(13*head)
    few = steps_of(learn, monkeypatch)
    # Five folds before, and one now
    assert len(plain) == 5 and sum(plain) > 150 and len(few) == 1 and bound/2 < few[0] <= bound < 20

@pytest.mark.all_rates
def test_a_large_head_has_as_many_folds_as_there_are_steps_for(tmp_path, monkeypatch):
    monkeypatch.setattr('fastai_discrim.search.head_lr.most_steps', lambda *_: 110)
    # All 48 batches, which most of five folds would train for 5*48 steps
    assert steps_of(segmenter(tmp_path), monkeypatch) == [48, 48]

def test_the_costs_are_those_of_one_item(tmp_path):
    learn = make_mlp(tmp_path)
    learn.create_opt()
    with learn.no_bar(): head = split_head(learn, learn.opt.param_lists[-1])
    assert head.costs == tuple(sum(p.numel() for p in ps if p.ndim > 1) for ps in (head.params, learn.model.parameters()))
