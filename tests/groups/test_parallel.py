"Parts that may run side by side are refused, unless names or widths tell their order"
import pytest
from fastai.torch_core import params
from groups.small_models import Block, Net, blocks, ids, linears, tower
from torch import nn
from torchvision.models import resnet18

from fastai_discrim.groups.parallel import is_parallel, side_by_side
from fastai_discrim.groups.split import layerwise_split


def towers(a, b): return Net(user=tower(a), item=tower(b), head=nn.Linear(16, 2))

REFUSED = {
    'no blocks': (lambda: Net(stem=nn.Linear(2, 2), head=nn.Linear(2, 2)), r'of Net: no repeated blocks follow each other '
                  r'\(its children: stem \(Linear\), head \(Linear\)\); write a splitter, '
                  r'`lambda m: L\(m.stem, m.head\).map\(params\)`, input first'),
    'one layer': (lambda: nn.LSTM(2, 2), r'of LSTM: no repeated blocks follow each other \(its children: none\)'),
    'two towers': (lambda: towers(3, 5), ': user, item may run side by side .*; find it by a run, .*, or write a splitter'),
    'equal towers': (lambda: towers(8, 8), ': user, item may run side by side'),
    'two encoders': (lambda: Net(text=Net(layer=blocks(2)), image=Net(layer=blocks(2)), head=nn.Linear(4, 2)), ': text, image may run'),
    'two lists of blocks': (lambda: Net(query=blocks(3), key=blocks(3), head=nn.Linear(4, 2)), ': query, key may run side by side'),
    'an ensemble': (lambda: Net(models=nn.ModuleList([resnet18(), resnet18()]), head=nn.Linear(2000, 2)),
                    'no repeated blocks follow'),
    'towers in a list': (lambda: Net(towers=nn.ModuleList([tower(4), tower(4)]), head=nn.Linear(16, 2)),
                         'no repeated blocks follow'),
    'numbered towers': (lambda: Net(tower1=tower(4), tower2=tower(4), head=nn.Linear(16, 2)), ': tower1, tower2 may run side by side'),
    'three of a class': (lambda: Net(text=Block(), image=Block(), audio=Block(), head=nn.Linear(6, 2)),
                         'no repeated blocks follow'),
    'a decoder first': (lambda: Net(decoder=tower(8), encoder=tower(8)), ': decoder, encoder may run side by side'),
    'parts of layers': (lambda: Net(attentions=blocks(3), norms=nn.ModuleList([nn.LayerNorm(2) for _ in range(3)]), fc=nn.Linear(2, 2)),
                        ': attentions, norms may run side by side'),
    'towers whose widths divide': (lambda: Net(user=tower(4), item=tower(16), head=nn.Linear(16, 2)), ': user, item may run side by'),
    'towers that are concatenated': (lambda: Net(user=tower(4), item=tower(8), head=nn.Linear(16, 2)), ': user, item may run side by'),
    'no parameters': (lambda: nn.Sequential(nn.ReLU()), 'Sequential has no parameters'),
}

@pytest.mark.parametrize('make,match', REFUSED.values(), ids=REFUSED)
def test_models_without_an_order_are_refused(make, match):
    with pytest.raises(ValueError, match=match): layerwise_split(make())

def test_widths_tell_the_order_of_plain_lists():
    a,b = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()),nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    fc = nn.Linear(64, 2)
    assert ids(layerwise_split(Net(a=a, b=b, fc=fc))) == ids([params(a), params(b[0]), params(b[2]), params(fc)])
    a,b = nn.Sequential(*linears(2)),nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4))
    assert len(layerwise_split(Net(a=a, b=b, fc=nn.Linear(4, 2)))) == 5

class Head(nn.Module):
    def __init__(self, n_in, n_out, layers=False):
        super().__init__()
        self.a,self.b = nn.Linear(n_in, 8),nn.Linear(8, n_out)
        if layers: self.more = nn.ModuleList([nn.Linear(8, n_out)])

LISTS = {
    'layers that follow': (lambda: nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 2)]), False),
    'a flattened image': (lambda: nn.ModuleList([nn.Conv2d(4, 8, 3), nn.Linear(8*9, 2)]), False),
    'layers that do not': (lambda: nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)]), True),
    'the same in a Sequential': (lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 3)), False),
    'one that follows among those that do not': (lambda: nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 3)]), False),
    'a width that is unknown': (lambda: nn.ModuleList([nn.Linear(4, 3), nn.Embedding(4, 3)]), False),
    'norms between': (lambda: nn.ModuleList([nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(4, 3)]), True),
    'one member': (lambda: nn.ModuleList([nn.Linear(4, 3)]), False),
    'heads of several tasks': (lambda: nn.ModuleList([Head(4, 3), Head(4, 5)]), True),
    'of equal tasks, or blocks': (lambda: nn.ModuleList([Head(4, 3), Head(4, 3)]), False),
    'blocks with lists': (lambda: nn.ModuleList([Head(4, 3, layers=True), Head(4, 5, layers=True)]), False),
    'whole models': (lambda: nn.ModuleList([Net(a=Block(), fc=nn.Linear(2, 3)), Net(a=Block(), fc=nn.Linear(2, 3))]), True),
    'blocks with fc1': (lambda: nn.ModuleList([Net(a=Block(), fc1=nn.Linear(2, 3)), Net(a=Block(), fc1=nn.Linear(2, 3))]), False),
}

@pytest.mark.parametrize('make,want', LISTS.values(), ids=LISTS)
def test_lists_side_by_side(make, want): assert is_parallel(make()) is want

PAIRS = {
    'numbered': (dict(layer1=tower(8), layer2=tower(8)), []),
    'encoder and decoder': (dict(encoder=tower(8), decoder=tower(8)), []),
    'widths in one direction': (dict(a=tower(4), b=tower(8)), []),
    'widths in both': (dict(a=tower(8), b=tower(8)), ['a', 'b']),
    'widths in neither': (dict(a=tower(3), b=tower(5)), ['a', 'b']),
    'parts of each layer': (dict(attn=nn.ModuleList(linears(3)), ffn=nn.ModuleList(linears(3))), ['attn', 'ffn']),
    'lists that number the same': (dict(layer1=nn.ModuleList(linears(3)), layer2=nn.ModuleList(linears(3))), []),
}

@pytest.mark.parametrize('children,want', PAIRS.values(), ids=PAIRS)
def test_children_side_by_side(children, want): assert side_by_side(children, list(children), set()) == want

def test_blocks_are_in_the_order_in_which_they_are_declared():
    children = {f'block{i}': Block() for i in range(3)}
    assert side_by_side(children, list(children), set(children.values())) == []
