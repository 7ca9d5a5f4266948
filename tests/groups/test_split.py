"The layers of `nn.Sequential` and of wrapped models, tied weights, `n_groups`. The general rule is in test_blocks.py"
import pytest
import torch
from fastai.collab import EmbeddingDotBias
from fastai.text.models import AWD_LSTM, awd_lstm_lm_config
from fastai.text.models.core import get_language_model
from fastai.torch_core import params
from groups.small_models import Net, blocks, ids, is_partition, linears, same_state, state
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18

from fastai_discrim.groups.split import layerwise_split


def test_it_changes_nothing():
    m = get_language_model(AWD_LSTM, 20, config=dict(awd_lstm_lm_config, emb_sz=8, n_hid=12))
    next(m.parameters()).requires_grad_(False)
    before = state(m)
    assert ids(layerwise_split(m)) == ids(layerwise_split(m))
    assert same_state(state(m), before)

def test_sequential_one_group_a_layer():
    a,b,c = linears(3)
    assert ids(layerwise_split(nn.Sequential(a, nn.ReLU(), b, nn.Dropout(), c, nn.Softmax(1)))) == ids(map(params, (a, b, c)))

def test_sequential_norms_belong_to_their_layer():
    a,b = linears(2)
    n1,n2,n3 = (nn.BatchNorm1d(2) for _ in range(3))
    m = nn.Sequential(n1, a, n2, nn.ReLU(), b, n3)
    assert ids(layerwise_split(m)) == ids([params(n1)+params(a)+params(n2), params(b)+params(n3)])
    wrapped = nn.Sequential(a, nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()), b)
    assert layerwise_split(wrapped).map(len) == [4, 2]

def test_embeddings_side_by_side_are_one_layer():
    a,b = linears(2)
    for cls in (nn.ModuleList, lambda ms: nn.Sequential(*ms)):
        embeddings = cls([nn.Embedding(3, 2), nn.Embedding(3, 2)])
        assert ids(layerwise_split(nn.Sequential(embeddings, a, b))) == ids(map(params, (embeddings, a, b)))

def test_sequential_body_is_divided_and_the_head_stays_whole():
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

def test_a_shared_embedding_belongs_to_the_input_or_if_tied_to_the_output_to_the_head():
    emb,fc = nn.Embedding(5, 2),nn.Linear(2, 5, bias=False)
    m = Net(shared=emb, encoder=Net(emb=emb, layer=blocks(2)), decoder=Net(emb=emb, layer=blocks(2)), fc=fc)
    groups = layerwise_split(m)
    assert is_partition(m, groups) and len(groups) == 6 and ids(groups[:1]) == [[id(emb.weight)]]
    fc.weight = emb.weight
    groups = layerwise_split(m)
    assert is_partition(m, groups) and len(groups) == 5 and ids(groups[-1:]) == [[id(emb.weight)]]

def test_parameters_of_the_root_belong_to_the_input():
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

def test_a_list_with_its_own_forward_is_one_layer():
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

def test_wrapped_models_are_unwrapped():
    m = nn.Sequential(*linears(2), nn.Sequential(*linears(2)))
    want = ids(layerwise_split(m))
    assert ids(layerwise_split(Net(model=m))) == want == ids(layerwise_split(Net(a=Net(b=m))))
    assert ids(layerwise_split(torch.compile(m))) == want == ids(layerwise_split(nn.DataParallel(m)))

@pytest.mark.parametrize('wrap', [lambda m: m, nn.DataParallel, torch.compile], ids=['as it is', 'DataParallel', 'compile'])
def test_a_collaborative_model_is_split_into_factors_and_biases_whatever_wraps_it(wrap):
    m = EmbeddingDotBias(5, 50, 50)
    assert ids(layerwise_split(wrap(m))) == ids([params(m.u_weight)+params(m.i_weight), params(m.u_bias)+params(m.i_bias)])

def resnet():
    "A ResNet-18 without weights, which take longer to draw than to divide"
    with torch.device('meta'): return resnet18(num_classes=2)

@pytest.mark.parametrize('n', range(2, 11))
def test_n_groups_merges_neighbours_and_leaves_the_head_alone(n):
    m = resnet()
    every,some = layerwise_split(m),layerwise_split(m, n_groups=n)
    assert len(some) == n and is_partition(m, some) and ids(some[-1:]) == ids(every[-1:])
    assert sum(ids(some), []) == sum(ids(every), [])
    # Groups of whole layers, of about equal size
    starts = [id(g[0]) for g in every]
    counts = [sum(i in starts for i in g) for g in ids(some[:-1])]
    assert sum(counts) == 9 and max(counts)-min(counts) < 2

@pytest.mark.parametrize('n', [1, 11, 0, -1, True, 2.5, '3'])
def test_bad_n_groups(n):
    with pytest.raises((ValueError, TypeError), match='n_groups='): layerwise_split(resnet(), n_groups=n)

# Properties of models made up by hypothesis, from descriptions: a name, or a list of descriptions for an `nn.Sequential`
LAYERS = dict(linear=lambda: nn.Linear(2, 2), norm=lambda: nn.LayerNorm(2), batchnorm=lambda: nn.BatchNorm1d(2),
              relu=nn.ReLU, embedding=lambda: nn.Embedding(3, 2))
WEIGHTED = ('linear', 'norm', 'batchnorm', 'embedding')
NAMES = st.sampled_from(list(LAYERS))
NESTED = st.recursive(NAMES, lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=14)

def flat(spec): return [n for o in spec for n in flat(o)] if isinstance(spec, list) else [spec]
def sequential(spec): return nn.Sequential(*map(sequential, spec)) if isinstance(spec, list) else LAYERS[spec]()
HAS_WEIGHTS = st.lists(NESTED, min_size=1, max_size=5).filter(lambda spec: not set(WEIGHTED).isdisjoint(flat(spec)))
quick = settings(max_examples=150, deadline=None)

@quick
@given(HAS_WEIGHTS)
def test_groups_of_any_sequential_are_a_partition_in_order(spec):
    m = sequential(spec)
    groups = layerwise_split(m)
    assert is_partition(m, groups)
    # Without tied weights, parameters are declared in the order in which they run
    assert sum(ids(groups), []) == [id(p) for p in m.parameters()]

@quick
@given(st.lists(NAMES, min_size=1, max_size=10).filter(lambda spec: not set(WEIGHTED).isdisjoint(spec)))
def test_groups_of_a_flat_sequential_are_its_layers_each_with_its_norms(spec):
    m = sequential(spec)
    want,waiting = [],[]
    for name,layer in zip(spec, m):
        if 'norm' not in name and params(layer):
            want.append(waiting + params(layer))
            waiting = []
        elif want: want[-1] += params(layer)
        # Norms at the very start belong to the first layer
        else: waiting += params(layer)
    assert ids(layerwise_split(m)) == ids(want or [waiting])

@quick
@given(HAS_WEIGHTS, st.data())
def test_n_groups_of_any_sequential_are_its_layers_merged(spec, data):
    m = sequential(spec)
    every = layerwise_split(m)
    if len(every) < 2:
        with pytest.raises(ValueError, match='n_groups=2: expected at least 2, and at most the 1 layers'): layerwise_split(m, n_groups=2)
        return
    n = data.draw(st.integers(2, len(every)))
    some = layerwise_split(m, n_groups=n)
    assert len(some) == n and is_partition(m, some) and ids(some[-1:]) == ids(every[-1:])
    # Each layer lies in one group
    of = {id(p): i for i,g in enumerate(some) for p in g}
    assert all(len({of[id(p)] for p in layer}) == 1 for layer in every)

@quick
@given(st.lists(st.integers(0, 3), min_size=2, max_size=8))
def test_a_layer_that_is_used_again_is_in_the_last_group_only(uses):
    layers = [nn.Linear(2, 2) for _ in range(4)]
    m = nn.Sequential(*[layers[i] for i in uses])
    groups = layerwise_split(m)
    in_order_of_last_use = [i for at,i in enumerate(uses) if i not in uses[at+1:]]
    assert is_partition(m, groups) and ids(groups) == ids(params(layers[i]) for i in in_order_of_last_use)

@quick
@given(st.lists(st.sampled_from(['linear', 'embedding', 'norm']), min_size=2, max_size=8), st.data())
def test_tied_weights_are_in_one_group(spec, data):
    m = sequential(spec)
    tied = data.draw(st.lists(st.integers(0, len(spec)-1), max_size=4, unique=True))
    weight = nn.Parameter(torch.zeros(2))
    for i in tied: m[i].weight = weight
    groups = layerwise_split(m)
    assert is_partition(m, groups)

@st.composite
def trees(draw, depth=3):
    "Make modules with lists, blocks, norms and heads anywhere; some have no known order"
    kinds = ['linear', 'norm', 'embedding', 'block'] + (['list', 'sequential', 'net', 'net'] if depth else [])
    kind = draw(st.sampled_from(kinds))
    if kind == 'block': return blocks(1)[0]
    if kind in LAYERS: return LAYERS[kind]()
    if kind in ('list', 'sequential'):
        if draw(st.booleans()): return blocks(draw(st.integers(1, 3)), nn.ModuleList if kind == 'list' else nn.Sequential)
        members = [draw(trees(depth-1)) for _ in range(draw(st.integers(1, 3)))]
        return nn.ModuleList(members) if kind == 'list' else nn.Sequential(*members)
    names = draw(st.lists(st.sampled_from(['stem', 'encoder', 'decoder', 'layer1', 'layer2', 'head', 'final_norm', 'fc', 'embedding_norm',
                                           'user', 'item']), min_size=1, max_size=4, unique=True))
    return Net(**{n: draw(trees(depth-1)) for n in names})

@quick
@given(trees())
def test_any_model_is_split_into_a_partition_or_refused(m):
    before = state(m)
    try: groups = layerwise_split(m)
    except ValueError as e: assert "can't tell the order of the layers" in str(e)
    else: assert is_partition(m, groups)
    assert same_state(state(m), before)

@quick
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.sampled_from([nn.ModuleList, nn.Sequential]), st.integers(0, 2),
       st.booleans(), st.booleans())
def test_stem_blocks_and_head_of_any_model_that_has_an_order(lengths, cls, depth, norm, head_first):
    stages = [blocks(n, cls) for n in lengths]
    # A single block in each stage counts as repeated only in an `nn.ModuleList`
    if cls is nn.Sequential and sum(lengths) < 2: stages[0].append(blocks(1)[0])
    body = Net(**{f'layer{i}': o for i,o in enumerate(stages)})
    if norm: body.norm = nn.LayerNorm(2)
    for _ in range(depth): body = Net(inner=body)
    head,stem = dict(head=nn.Linear(2, 3)),dict(stem=nn.Linear(2, 2))
    m = Net(**head, **stem, body=body) if head_first else Net(**stem, body=body, **head)
    *rest,last = [params(b) for stage in stages for b in stage]
    norms = [p for n,p in m.named_parameters() if 'norm' in n]
    groups = layerwise_split(m)
    assert is_partition(m, groups) and ids(groups) == ids([params(m.stem), *rest, last+norms, params(m.head)])
