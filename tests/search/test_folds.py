"With few labels each of them validates once"
import pytest
import torch
from conftest import make_clas
from fastai.data.core import DataLoaders
from hypothesis import given, settings
from hypothesis import strategies as st

from fastai_discrim.search.folds import folds

pytestmark = pytest.mark.all_rates

def batches(start, sizes, other=False):
    "Batches of numbered items, as `frozen_features` gives them: features and targets"
    res = []
    for n in sizes:
        ids = torch.arange(start, start+n)
        features = [[ids[:,None], torch.zeros(3, n, 2) if other else ids[:,None]*10], {'mask': ids[:,None] > 0}]
        res.append((features, ids))
        start += n
    return res

def ids_of(several): return [i for _,ids in several for i in ids.tolist()]

@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(2, 12), min_size=1, max_size=30), st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_every_item_validates_once_and_never_trains_in_that_fold(train_sizes, valid_sizes):
    n_train,n_valid = sum(train_sizes),sum(valid_sizes)
    sets = folds(batches(0, train_sizes), batches(n_train, valid_sizes))
    assert n_train+n_valid < 500 or len(sets) == 1
    if len(sets) == 1: return
    validated = [ids_of(valid) for _,valid in sets]
    assert all(validated) and all(train for train,_ in sets)
    everyone = range(n_train+n_valid)
    assert sorted(sum(validated, [])) == list(everyone)
    for train,_ in sets:
        # Features stay with their targets
        for ((a,b),kwargs),y in train: assert torch.equal(a[:,0], y) and torch.equal(b[:,0], 10*y) and len(kwargs['mask']) == len(y)
    for (train,_),ids in zip(sets, validated):
        trained = ids_of(train)
        assert len(set(trained)) == len(trained) and not set(trained) & set(ids)
        # All others train, but for single items that are batches of their own
        left_out = set(everyone)-set(trained)-set(ids)
        assert len(left_out) <= len(valid_sizes)
        assert max(len(y) for _,y in train) <= max(train_sizes)

def test_five_folds_of_about_equal_size():
    sets = folds(batches(0, [8]*12), batches(96, [24]))
    assert [len(ids_of(valid)) for _,valid in sets] == [24]*5 and [len(ids_of(train)) for train,_ in sets] == [96]*5
    # The validation set is the first to validate
    assert ids_of(sets[0][1]) == list(range(96, 120))

@pytest.mark.parametrize('n,n_folds', [(499, 5), (500, 1), (501, 1)])
def test_of_500_items_the_sets_are_as_they_are(n, n_folds):
    train,valid = batches(0, [80]*5),batches(400, [n-400])
    sets = folds(train, valid)
    assert len(sets) == n_folds
    if n_folds == 1: assert sets[0][0] is train and sets[0][1] is valid

def test_validation_batches_are_cut_to_the_size_of_training_batches():
    sets = folds(batches(0, [8]*4), batches(32, [20, 3]))
    assert [len(y) for _,y in sets[0][1]] == [7, 6, 7, 3]

def test_features_that_are_not_by_items_are_not_cut():
    "As the state of a recurrent network, layers first"
    sets = folds(batches(0, [8]*4, other=True), batches(32, [20], other=True))
    assert [len(y) for _,y in sets[0][1]] == [20] and all(20 in [len(y) for _,y in train] for train,_ in sets[1:])

def test_one_training_batch():
    sets = folds(batches(0, [8]), batches(8, [4]))
    assert [(ids_of(train), ids_of(valid)) for train,valid in sets] == [(list(range(8)), [8, 9, 10, 11]), ([8, 9, 10, 11], list(range(8)))]

def test_no_fold_without_what_trains():
    "A batch norm can't train on one item"
    (train,valid), = folds(batches(0, [8]), batches(8, [1]))
    assert ids_of(train) == list(range(8)) and ids_of(valid) == [8]

def test_a_single_item_that_is_left_over_validates_but_does_not_train():
    sets = folds(batches(0, [8]*4), batches(32, [8, 1]))
    assert ids_of(sets[0][1]) == list(range(32, 41))
    assert all(1 not in [len(y) for _,y in train] for train,_ in sets) and 32 in ids_of(sets[1][0])

def test_batches_of_one_item_train_where_all_are():
    sets = folds(batches(0, [1]*8), batches(8, [1]*2))
    assert len(sets) == 5 and all(len(ids_of(train)) == 8 for train,_ in sets)

@pytest.mark.filterwarnings('ignore:no rate clearly lowers')
def test_a_head_with_batch_norm_and_one_item_left_over(tmp_path):
    learn = make_clas(tmp_path, n=89)
    docs = list(learn.dls.train_ds)
    learn.dls = DataLoaders.from_dsets(docs[17:], docs[:17], bs=8, device='cpu', num_workers=0)
    with learn.no_bar(),learn.no_logging(): res = learn.head_lr_find([1e-3, 1e-2], show_plot=False)
    assert res.how.endswith('5-fold cross-validation') and res.lr in (1e-3, 1e-2)
