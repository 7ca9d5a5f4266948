"Any model is split into stem, repeated blocks and head. Tests of common architectures are in test_architectures.py"
import pytest
import torch
from fastai.torch_core import params
from groups.small_models import Block, Net, blocks, ids, is_partition, linears, tower
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from fastai_discrim.groups.blocks import Blocks, NoLayerOrder
from fastai_discrim.groups.repeats import repeated_blocks
from fastai_discrim.groups.split import layerwise_split


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
    # A final norm belongs to the block below it
    assert len(groups[3]) == 4 + 2
    assert repeated_blocks(m) == set(bs)

def test_blocks_as_attributes():
    bs = blocks(4)
    m = Net(stem=nn.Linear(2, 2), **{f'block{i}': b for i,b in enumerate(bs)}, fc=nn.Linear(2, 2))
    assert ids(layerwise_split(m)[1:-1]) == ids(map(params, bs))

@pytest.mark.parametrize('name', ['head', 'classifier', 'fc', 'lm_head', 'score', 'qa_outputs', 'head_1', 'pre_classifier'])
@pytest.mark.parametrize('cls', [nn.ModuleList, nn.Sequential])
def test_a_head_is_last_wherever_it_is_declared(name, cls):
    head,stem,bs = nn.Linear(2, 3),nn.Linear(2, 2),blocks(3, cls)
    want = ids([params(stem), *map(params, bs), params(head)])
    for children in ({name: head, 'stem': stem, 'layers': bs}, {'stem': stem, name: head, 'layers': bs},
                     {'stem': stem, 'layers': bs, name: head}):
        assert ids(layerwise_split(Net(**children))) == want
    # Plain lists, one of which is the head
    head,body = nn.Sequential(*linears(2)),nn.Sequential(*linears(3))
    for children in ({name: head, 'body': body}, {'body': body, name: head}):
        assert ids(layerwise_split(Net(**children))) == ids([*map(params, body), params(head)])

def test_a_head_that_is_declared_early_leaves_the_last_list_to_the_body():
    head,a,b = nn.Linear(4, 3),nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4)),nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    assert ids(layerwise_split(Net(head=head, layer1=a, layer2=b))) == ids(map(params, [*a, *b, head]))
    # Without another head, the last list is the head
    assert ids(layerwise_split(Net(layer1=a, layer2=b))) == ids(map(params, [*a, b]))

def test_modules_before_the_body_that_a_model_names_are_its_head():
    pool,bs = nn.Bilinear(2, 2, 2),blocks(2)
    m = Net(pool=pool, bert=Net(emb=nn.Embedding(3, 2), layer=bs))
    assert ids(layerwise_split(m)) == ids([params(pool)+params(m.bert.emb), *map(params, bs)])
    m.base_model_prefix = 'bert'
    assert ids(layerwise_split(m)) == ids([params(m.bert.emb), *map(params, bs), params(pool)])

def test_a_final_norm_belongs_to_the_last_block_wherever_it_is_declared():
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

def test_numbered_lists_of_blocks():
    m = Net(stem=nn.Linear(2, 2), layer1=blocks(2), layer2=blocks(3), fc=nn.Linear(2, 2))
    assert ids(layerwise_split(m)[1:-1]) == ids(map(params, [*m.layer1, *m.layer2]))

def test_repeated_modules_inside_a_block_are_no_layers():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = blocks(2)
    m = Net(stem=nn.Linear(2, 2), layers=nn.ModuleList([Deep() for _ in range(3)]), fc=nn.Linear(2, 2))
    assert len(layerwise_split(m)) == 5
    class DeepStage(Deep): pass
    m = Net(stem=nn.Linear(2, 2), stages=nn.ModuleList([DeepStage() for _ in range(3)]), fc=nn.Linear(2, 2))
    assert len(layerwise_split(m)) == 2 + 3*2

def test_embeddings_belong_to_the_stem_wherever_they_are():
    rel,norm,bs = nn.Embedding(4, 2),nn.LayerNorm(2),blocks(2)
    m = Net(stem=nn.Linear(2, 2), encoder=Net(layer=bs, rel=rel, norm=norm), fc=nn.Linear(2, 2))
    assert ids(layerwise_split(m)[:1]) == ids([params(m.stem)+params(rel)+params(norm)])

def test_a_norm_belongs_to_the_stem_if_its_name_says_so():
    for name,of_input in (('embeddings_norm', True), ('other_norm', False)):
        m = Net(emb=nn.Embedding(3, 2), layers=blocks(2), **{name: nn.LayerNorm(2)}, fc=nn.Linear(2, 2))
        norm = params(getattr(m, name))
        last = params(m.layers[1]) + ([] if of_input else norm)
        assert ids(layerwise_split(m)) == ids([params(m.emb) + (norm if of_input else []), params(m.layers[0]), last, params(m.fc)])

def test_parameters_of_modules_belong_to_the_stem():
    m = Net(stem=nn.Linear(2, 2), encoder=Net(layer=blocks(2)), fc=nn.Linear(2, 2))
    m.cls,m.encoder.pos = nn.Parameter(torch.zeros(2)),nn.Parameter(torch.zeros(2))
    groups = layerwise_split(m)
    assert is_partition(m, groups) and len(groups) == 4 and {id(m.cls), id(m.encoder.pos)} < set(ids(groups)[0])

@pytest.mark.parametrize('cls,n,want', [(nn.ModuleList, 1, 1), (nn.Sequential, 1, 0), (nn.Sequential, 2, 2)])
def test_number_of_modules_of_a_class_that_makes_them_blocks(cls, n, want):
    assert len(repeated_blocks(Net(layers=blocks(n, cls)))) == want

@pytest.mark.parametrize('names,want', [(['block1', 'block2'], 0), (['block1', 'block2', 'block3'], 3), (['one', 'two', 'three'], 0),
                                        (['mixed_5a', 'mixed_5b', 'mixed_6a'], 3)])
def test_three_attributes_of_one_name_are_blocks(names, want):
    assert len(repeated_blocks(Net(**{n: Block() for n in names}))) == want

def test_blocks_inside_a_head_belong_to_the_head():
    assert repeated_blocks(Net(body=blocks(2), head=blocks(3))) and len(repeated_blocks(Net(body=blocks(2), head=blocks(3)))) == 2

def test_a_model_without_order_raises_no_layer_order():
    m = Net(stem=nn.Linear(2, 2), head=nn.Linear(2, 2))
    with pytest.raises(NoLayerOrder, match='^no repeated blocks follow each other$'): Blocks(m).layers(m, head=True)
