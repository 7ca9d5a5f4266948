"The layers of text models, of `nn.Sequential`, and of any model with repeated blocks; what is refused. Architectures are in test_audit.py"
import subprocess
import sys

import pytest
import torch
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_clas_split, awd_lstm_lm_config, awd_lstm_lm_split
from fastai.text.models.core import get_language_model, get_text_classifier
from fastai.torch_core import params
from torch import nn
from torchvision.models import ResNet, resnet18
from torchvision.models.resnet import BasicBlock

from fastai_discrim.layers import layerwise_split

CFG = dict(emb_sz=8, n_hid=12)

def ids(groups): return [[id(p) for p in g] for g in groups]

def is_partition(model, groups):
    flat = [id(p) for g in groups for p in g]
    return len(flat) == len(set(flat)) and set(flat) == {id(p) for p in model.parameters()} and all(len(g) for g in groups)

@pytest.mark.parametrize('kw', [{}, dict(bidir=True), dict(n_layers=4), dict(n_layers=1)])
def test_text_classifier_is_as_fastai_splits_it(kw):
    m = get_text_classifier(AWD_LSTM, 20, 2, config=dict(awd_lstm_clas_config, **CFG, **kw))
    groups = layerwise_split(m)
    assert ids(groups) == ids(awd_lstm_clas_split(m)) and is_partition(m, groups)
    assert len(groups) == kw.get('n_layers', 3) + 2

@pytest.mark.parametrize('kw', [{}, dict(tie_weights=False), dict(out_bias=False), dict(n_layers=2)])
def test_language_model_is_as_fastai_splits_it(kw):
    m = get_language_model(AWD_LSTM, 20, config=dict(awd_lstm_lm_config, **CFG, **kw))
    groups = layerwise_split(m)
    assert ids(groups) == ids(awd_lstm_lm_split(m)) and is_partition(m, groups)
    assert len(groups) == kw.get('n_layers', 3) + 1

def test_it_changes_nothing():
    m = get_language_model(AWD_LSTM, 20, config=dict(awd_lstm_lm_config, **CFG))
    next(m.parameters()).requires_grad_(False)
    before = {k:v.clone() for k,v in m.state_dict().items()},[p.requires_grad for p in m.parameters()],torch.get_rng_state()
    assert ids(layerwise_split(m)) == ids(layerwise_split(m))
    assert all(torch.equal(v, before[0][k]) for k,v in m.state_dict().items()) and [p.requires_grad for p in m.parameters()] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])

def linears(n): return [nn.Linear(2, 2) for _ in range(n)]

def test_sequential_one_group_a_layer():
    a,b,c = linears(3)
    assert ids(layerwise_split(nn.Sequential(a, nn.ReLU(), b, nn.Dropout(), c, nn.Softmax(1)))) == ids(map(params, (a, b, c)))

def test_sequential_norms_go_with_their_layer():
    a,b = linears(2)
    n1,n2,n3 = (nn.BatchNorm1d(2) for _ in range(3))
    m = nn.Sequential(n1, a, n2, nn.ReLU(), b, n3)
    assert ids(layerwise_split(m)) == ids([params(n1)+params(a)+params(n2), params(b)+params(n3)])
    wrapped = nn.Sequential(a, nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()), b)
    assert layerwise_split(wrapped).map(len) == [4, 2]

def test_sequential_body_is_opened_the_head_stays_whole():
    a,b,c,d,e = linears(5)
    m = nn.Sequential(nn.Sequential(a, nn.Sequential(b, c)), nn.Sequential(d, nn.ReLU(), e))
    assert ids(layerwise_split(m)) == ids([params(a), params(b), params(c), params(d)+params(e)])
    assert ids(layerwise_split(nn.Sequential(m, nn.Identity()))) == ids(layerwise_split(m))

def test_tied_weight_is_in_the_last_layer_that_has_it():
    emb,rnn,dec = nn.Embedding(5, 3),nn.Linear(3, 3),nn.Linear(3, 5)
    dec.weight = emb.weight
    m = nn.Sequential(emb, rnn, dec)
    assert ids(layerwise_split(m)) == ids([params(rnn), params(dec)]) and is_partition(m, layerwise_split(m))
    assert ids(layerwise_split(nn.Sequential(rnn, emb, rnn))) == ids([params(emb), params(rnn)])

def test_parameters_of_the_root_go_with_the_input():
    class Tokens(nn.Sequential):
        def __init__(self, *args):
            super().__init__(*args)
            self.cls = nn.Parameter(torch.zeros(2))
    m = Tokens(*linears(3))
    groups = layerwise_split(m)
    assert len(groups) == 3 and groups[0][0] is m.cls and is_partition(m, groups)
    m = nn.Sequential(Tokens(*linears(2)), *linears(1))
    assert len(layerwise_split(m)) == 3 and is_partition(m, layerwise_split(m))

def test_frozen_parameters_keep_their_place():
    m = nn.Sequential(*linears(3))
    m[0].requires_grad_(False)
    assert is_partition(m, layerwise_split(m)) and len(layerwise_split(m)) == 3


class Net(nn.Module):
    "Children by name, in this order, for models of every shape"
    def __init__(self, **kids):
        super().__init__()
        for n,c in kids.items(): setattr(self, n, c)

class Block(nn.Module):
    def __init__(self, n=2):
        super().__init__()
        self.a,self.b = linears(2)

def blocks(n, cls=nn.ModuleList): return cls([Block() for _ in range(n)]) if cls is nn.ModuleList else cls(*[Block() for _ in range(n)])

def test_general_rule_stem_blocks_head():
    stem,norm,pool,fc = nn.Linear(2, 2),nn.LayerNorm(2),nn.Linear(2, 2),nn.Linear(2, 2)
    bs = blocks(3)
    m = Net(stem=stem, norm=norm, blocks=bs, pool=pool, fc=fc)
    assert ids(layerwise_split(m)) == ids([params(stem)+params(norm), *map(params, bs), params(pool)+params(fc)])

@pytest.mark.parametrize('cls', [nn.ModuleList, nn.Sequential])
@pytest.mark.parametrize('depth', [1, 2, 3])
def test_blocks_are_found_however_deep(cls, depth):
    stem,fc,bs = nn.Linear(2, 2),nn.Linear(2, 2),blocks(3, cls)
    inner = Net(layer=bs, norm=nn.LayerNorm(2))
    for _ in range(depth): inner = Net(inner=inner)
    m = Net(stem=stem, encoder=inner, fc=fc)
    groups = layerwise_split(m)
    assert is_partition(m, groups) and len(groups) == 5 and ids(groups[-1:]) == ids([params(fc)])
    # A last norm goes with the block below it
    assert len(groups[3]) == 4 + 2

def test_blocks_as_attributes():
    bs = blocks(4)
    m = Net(stem=nn.Linear(2, 2), **{f'block{i}': b for i,b in enumerate(bs)}, fc=nn.Linear(2, 2))
    assert ids(layerwise_split(m)[1:-1]) == ids(map(params, bs))

@pytest.mark.parametrize('name', ['head', 'classifier', 'fc', 'lm_head', 'score', 'qa_outputs', 'head_1', 'pre_classifier'])
@pytest.mark.parametrize('cls', [nn.ModuleList, nn.Sequential])
def test_a_head_is_last_wherever_it_is_declared(name, cls):
    head,stem,bs = nn.Linear(2, 3),nn.Linear(2, 2),blocks(3, cls)
    want = ids([params(stem), *map(params, bs), params(head)])
    for kids in ({name: head, 'stem': stem, 'layers': bs}, {'stem': stem, name: head, 'layers': bs}, {'stem': stem, 'layers': bs,
            name: head}):
        assert ids(layerwise_split(Net(**kids))) == want
    # Plain lists, of which one is the head
    head,body = nn.Sequential(*linears(2)),nn.Sequential(*linears(3))
    for kids in ({name: head, 'body': body}, {'body': body, name: head}):
        assert ids(layerwise_split(Net(**kids))) == ids([*map(params, body), params(head)])

def test_a_last_norm_goes_with_the_last_block_wherever_it_is_declared():
    norm,bs = nn.LayerNorm(2),blocks(3)
    for inner in (Net(final_layer_norm=norm, layers=bs), Net(layers=bs, norm=norm), Net(layers=bs, emb_layer_norm_after=norm)):
        m = Net(stem=nn.Linear(2, 2), decoder=inner, fc=nn.Linear(2, 2))
        assert ids(layerwise_split(m)[3:4]) == ids([params(bs[2])+params(norm)])

def test_heads_side_by_side_are_one_head():
    class Head(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.a,self.b = nn.Linear(8, 8),nn.Linear(8, n)
    body = tower(4)
    for heads in (nn.ModuleList([Head(3), Head(5)]), nn.ModuleDict({'a': Head(3), 'b': Head(5)})):
        assert ids(layerwise_split(Net(body=body, heads=heads))) == ids([params(body[0]), params(body[2]), params(heads)])
        assert ids(layerwise_split(nn.Sequential(body, Net(tasks=heads)))) == ids([params(body[0]), params(body[2]), params(heads)])

def test_a_head_that_has_blocks_leaves_the_body_its_layers():
    body,head = nn.Sequential(*linears(3)),blocks(2, nn.Sequential)
    assert ids(layerwise_split(Net(features=body, head=head))) == ids([*map(params, body), params(head)])

def test_one_block_a_stage():
    m = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)
    groups = layerwise_split(m)
    assert is_partition(m, groups) and ids(groups[1:-1]) == ids(params(getattr(m, f'layer{i}')) for i in range(1, 5))

def test_a_list_with_a_forward_of_its_own_is_one_layer():
    class Skip(nn.Sequential):
        def forward(self, x): return x + super().forward(x)
    m = nn.Sequential(nn.Linear(2, 2), Skip(*linears(2)), Skip(*linears(2)), nn.Linear(2, 2))
    assert ids(layerwise_split(m)) == ids(map(params, m))
    class Se(nn.Module):
        def __init__(self):
            super().__init__()
            self.skip,self.convs = nn.Linear(2, 2),nn.Sequential(*linears(2))
    m = nn.Sequential(nn.Linear(2, 2), Se(), nn.ReLU(), Net(skip=nn.Linear(2, 2), convs=nn.Sequential(*linears(2))), nn.Linear(2, 2))
    assert ids(layerwise_split(m)) == ids(map(params, (m[0], m[1], m[3], m[4])))

def test_numbered_lists_of_blocks():
    m = Net(stem=nn.Linear(2, 2), layer1=blocks(2), layer2=blocks(3), fc=nn.Linear(2, 2))
    assert ids(layerwise_split(m)[1:-1]) == ids(map(params, [*m.layer1, *m.layer2]))

def test_what_repeats_inside_a_block_is_no_layer():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = blocks(2)
    m = Net(stem=nn.Linear(2, 2), layers=nn.ModuleList([Deep() for _ in range(3)]), fc=nn.Linear(2, 2))
    assert len(layerwise_split(m)) == 5
    class DeepStage(Deep): pass
    m = Net(stem=nn.Linear(2, 2), stages=nn.ModuleList([DeepStage() for _ in range(3)]), fc=nn.Linear(2, 2))
    assert len(layerwise_split(m)) == 2 + 3*2

def test_embeddings_are_of_the_input_wherever_they_are():
    rel,norm,bs = nn.Embedding(4, 2),nn.LayerNorm(2),blocks(2)
    m = Net(stem=nn.Linear(2, 2), encoder=Net(layer=bs, rel=rel, norm=norm), fc=nn.Linear(2, 2))
    assert ids(layerwise_split(m)[:1]) == ids([params(m.stem)+params(rel)+params(norm)])

def test_an_embedding_shared_with_a_decoder_is_of_the_input_and_tied_to_the_output_of_the_head():
    emb,fc = nn.Embedding(5, 2),nn.Linear(2, 5, bias=False)
    m = Net(shared=emb, encoder=Net(emb=emb, layer=blocks(2)), decoder=Net(emb=emb, layer=blocks(2)), fc=fc)
    groups = layerwise_split(m)
    assert is_partition(m, groups) and len(groups) == 6 and ids(groups[:1]) == [[id(emb.weight)]]
    fc.weight = emb.weight
    groups = layerwise_split(m)
    assert is_partition(m, groups) and len(groups) == 5 and ids(groups[-1:]) == [[id(emb.weight)]]

def test_wrapped_models_are_opened():
    m = nn.Sequential(*linears(2), nn.Sequential(*linears(2)))
    want = ids(layerwise_split(m))
    assert ids(layerwise_split(Net(model=m))) == want == ids(layerwise_split(Net(a=Net(b=m))))
    assert ids(layerwise_split(torch.compile(m))) == want

def test_parameters_of_modules_go_with_the_input():
    m = Net(stem=nn.Linear(2, 2), encoder=Net(layer=blocks(2)), fc=nn.Linear(2, 2))
    m.cls,m.encoder.pos = nn.Parameter(torch.zeros(2)),nn.Parameter(torch.zeros(2))
    groups = layerwise_split(m)
    assert is_partition(m, groups) and len(groups) == 4 and {id(m.cls), id(m.encoder.pos)} < set(ids(groups)[0])

@pytest.mark.parametrize('n', range(2, 11))
def test_n_groups_merges_neighbours_and_leaves_the_head_alone(n):
    m = resnet18(num_classes=2)
    every,some = layerwise_split(m),layerwise_split(m, n_groups=n)
    assert len(some) == n and is_partition(m, some) and ids(some[-1:]) == ids(every[-1:])
    assert sum(ids(some), []) == sum(ids(every), [])
    # Whole layers, as even as can be
    starts = [id(g[0]) for g in every]
    counts = [sum(i in starts for i in g) for g in ids(some[:-1])]
    assert sum(counts) == 9 and max(counts)-min(counts) < 2

@pytest.mark.parametrize('n', [1, 11, 0, -1, True, 2.5, '3'])
def test_n_groups_that_cannot_be(n):
    with pytest.raises((ValueError, TypeError), match='n_groups='): layerwise_split(resnet18(), n_groups=n)

def tower(n): return nn.Sequential(nn.Linear(n, 8), nn.ReLU(), nn.Linear(8, 8))
def towers(a, b): return Net(user=tower(a), item=tower(b), head=nn.Linear(16, 2))

REFUSED = {
    'no blocks': (lambda: Net(stem=nn.Linear(2, 2), head=nn.Linear(2, 2)), r'of Net, in which no repeated blocks follow each other '
                  r'\(its children: stem \(Linear\), head \(Linear\)\): write a splitter, `lambda m: L\('),
    'one layer': (lambda: nn.LSTM(2, 2), r'of LSTM, in which no repeated blocks follow each other \(its children: none\)'),
    'two towers': (lambda: towers(3, 5), 'as user, item may stand side by side'),
    'equal towers': (lambda: towers(8, 8), 'as user, item may stand side by side'),
    'two encoders': (lambda: Net(text=Net(layer=blocks(2)), image=Net(layer=blocks(2)), head=nn.Linear(4, 2)), 'as text, image may stand'),
    'two lists of blocks': (lambda: Net(query=blocks(3), key=blocks(3), head=nn.Linear(4, 2)), 'as query, key may stand side by side'),
    'an ensemble': (lambda: Net(models=nn.ModuleList([resnet18(), resnet18()]), head=nn.Linear(2000, 2)),
                    'in which no repeated blocks follow'),
    'towers in a list': (lambda: Net(towers=nn.ModuleList([tower(4), tower(4)]), head=nn.Linear(16, 2)),
                         'in which no repeated blocks follow'),
    'numbered towers': (lambda: Net(tower1=tower(4), tower2=tower(4), head=nn.Linear(16, 2)), 'as tower1, tower2 may stand side by side'),
    'three of a class': (lambda: Net(text=Block(), image=Block(), audio=Block(), head=nn.Linear(6, 2)),
                         'in which no repeated blocks follow'),
    'a decoder first': (lambda: Net(decoder=tower(8), encoder=tower(8)), 'as decoder, encoder may stand side by side'),
    'parts of layers': (lambda: Net(attentions=blocks(3), norms=nn.ModuleList([nn.LayerNorm(2) for _ in range(3)]), fc=nn.Linear(2, 2)),
                        'as attentions, norms may stand side by side'),
    'no parameters': (lambda: nn.Sequential(nn.ReLU()), 'Sequential has no parameters'),
}

@pytest.mark.parametrize('make,match', REFUSED.values(), ids=REFUSED)
def test_models_without_an_order_are_refused_with_what_was_found(make, match):
    with pytest.raises(ValueError, match=match): layerwise_split(make())

def test_widths_tell_the_order_of_plain_lists():
    a,b = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()),nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    fc = nn.Linear(64, 2)
    assert ids(layerwise_split(Net(a=a, b=b, fc=fc))) == ids([params(a), params(b[0]), params(b[2]), params(fc)])
    a,b = nn.Sequential(*linears(2)),nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4))
    assert len(layerwise_split(Net(a=a, b=b, fc=nn.Linear(4, 2)))) == 5

def test_neither_timm_nor_transformers_are_needed():
    code = """
import sys
for n in ('timm', 'transformers', 'accelerate'): sys.modules[n] = None
from fastai_discrim.all import layerwise_split
from torchvision.models import ResNet, resnet18
from torchvision.models.resnet import BasicBlock
assert len(layerwise_split(resnet18())) == 10
"""
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)
