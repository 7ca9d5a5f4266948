"Modules declared before the body that run after it are found by widths, or refused if these don't tell"
import pytest
from fastai.torch_core import params
from groups.small_models import Net, ids
from torch import nn

from fastai_discrim.groups.split import layerwise_split


class Block(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a,self.b = nn.Linear(n, n),nn.Linear(n, n)

def body(n=8): return nn.ModuleList([Block(n) for _ in range(3)])
def encoder(n=8): return Net(emb=nn.Embedding(5, n), layers=body(n))

NAMES = ['out', 'linear', 'dense', 'output', 'regressor', 'logits', 'top']

@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('head', [lambda: nn.Linear(8, 2), lambda: nn.Linear(8, 8), lambda: nn.Sequential(nn.Dropout(), nn.Linear(8, 3)),
                                  lambda: Net(a=nn.Linear(8, 16), b=nn.Linear(16, 1))], ids=['layer', 'square', 'list', 'module'])
def test_before_what_takes_tokens(name, head):
    head,enc = head(),encoder()
    groups = layerwise_split(Net(**{name: head}, encoder=enc))
    assert ids(groups) == ids([params(enc.emb), *map(params, enc.layers), params(head)])

@pytest.mark.parametrize('name', NAMES)
def test_before_a_stem_of_another_width(name):
    head,stem,bs = nn.Linear(8, 2),nn.Linear(3, 8),body()
    assert ids(layerwise_split(Net(**{name: head}, stem=stem, layers=bs))) == ids(map(params, (stem, *bs, head)))
    head,stem = nn.Linear(8*4, 2),nn.Conv2d(3, 8, 3)
    bs = nn.ModuleList([Net(a=nn.Conv2d(8, 8, 3), b=nn.Conv2d(8, 8, 3)) for _ in range(3)])
    assert ids(layerwise_split(Net(**{name: head}, stem=stem, layers=bs))) == ids(map(params, (stem, *bs, head)))

def test_a_stem_stays_the_stem():
    for stem in (nn.Linear(3, 8), nn.Linear(8, 8)):
        bs,fc = body(),nn.Linear(8, 2)
        assert ids(layerwise_split(Net(first=stem, layers=bs, fc=fc))) == ids(map(params, (stem, *bs, fc)))

def test_before_blocks_and_an_embedding_that_is_declared_last():
    head,bs,emb = nn.Linear(8, 2),body(),nn.Embedding(5, 8)
    assert ids(layerwise_split(Net(out=head, layers=bs, emb=emb))) == ids(map(params, (emb, *bs, head)))
    # 8 is a multiple of 2, but a linear layer has exactly its output width
    stem = nn.Linear(8, 8)
    assert ids(layerwise_split(Net(out=head, stem=stem, layers=bs))) == ids(map(params, (stem, *bs, head)))

def test_a_final_norm_of_any_name():
    for norm in (nn.LayerNorm(8), nn.BatchNorm1d(8), nn.GroupNorm(2, 8)):
        stem,bs,fc = nn.Linear(3, 8),body(),nn.Linear(8, 2)
        groups = layerwise_split(Net(norm=norm, stem=stem, layers=bs, fc=fc))
        assert ids(groups) == ids([params(stem), *map(params, bs[:2]), params(bs[2])+params(norm), params(fc)])
    norm,stem,bs = nn.LayerNorm(3),nn.Linear(3, 8),body()
    assert ids(layerwise_split(Net(norm=norm, stem=stem, layers=bs, fc=nn.Linear(8, 2)))[:1]) == ids([params(norm)+params(stem)])

REFUSED = {'numbers beside tokens': lambda: Net(extra=nn.Linear(5, 8), encoder=encoder(), fc=nn.Linear(8, 2)),
           'a norm that may be of the embedding': lambda: Net(norm=nn.LayerNorm(8), emb=nn.Embedding(5, 8), layers=body(),
                                                              fc=nn.Linear(8, 2))}

@pytest.mark.parametrize('make', REFUSED.values(), ids=REFUSED)
def test_an_unknown_order_is_refused(make):
    with pytest.raises(ValueError, match='(extra|norm), declared before the body, may run after it .*by a run, with `learn.regroup'):
        layerwise_split(make())
