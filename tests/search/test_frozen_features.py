"What the frozen body gives the head is collected in one pass"
import pytest
import torch
from conftest import HalfPrecision, make_clas, make_mlp
from fastai.callback.core import Callback, CancelValidException
from fastai.data.core import DataLoaders
from search.split_models import Bert, Siblings, images, split, table, tokens

from fastai_discrim.search import folds
from fastai_discrim.search.frozen_features import frozen_features, train_and_valid_features
from fastai_discrim.search.frozen_head import items_in


@pytest.mark.parametrize('n,kw', [(3, dict(n_batch=3)), (2, dict(n_items=9)), (2, dict(n_items=16)), (8, {})])
def test_how_much_is_collected(mlp, n, kw):
    head = split(mlp)
    with mlp.no_bar(): batches = frozen_features(mlp, head, mlp.dls.train, **kw)
    assert len(batches) == n and items_in(batches) == 8*n

def test_features_are_what_the_body_gives(mlp):
    head = split(mlp)
    with mlp.no_bar(): batches = frozen_features(mlp, head, mlp.dls.valid)
    with torch.no_grad(): want = [mlp.model[:4].eval()(x) for x,_ in mlp.dls.valid]
    assert all(torch.equal(features[0][0], o) for (features,_),o in zip(batches, want))
    assert all(torch.equal(y, t) for (_,y),(_,t) in zip(batches, mlp.dls.valid))

@pytest.mark.parametrize('n_batch,n_train,n_valid', [(1, 1, 1), (4, 4, 1), (5, 5, 2), (50, 8, 2)])
def test_a_quarter_validates(mlp, n_batch, n_train, n_valid):
    "Batches of 8 items, of which 64 are there to train on, and 16 to validate"
    head = split(mlp)
    with mlp.no_bar(): train,valid = train_and_valid_features(mlp, head, n_batch)
    assert (len(train), len(valid)) == (n_train, n_valid)

@pytest.mark.parametrize('n_batch,n_train,n_valid', [(2, 1, 1), (5, 4, 1), (6, 4, 2), (8, 6, 2)])
def test_a_fifth_is_held_out_without_a_validation_set(mlp, capsys, n_batch, n_train, n_valid):
    mlp.dls = DataLoaders(mlp.dls.train, device='cpu')
    head = split(mlp)
    with mlp.no_bar(): train,valid = train_and_valid_features(mlp, head, n_batch)
    assert (len(train), len(valid)) == (n_train, n_valid) and not {id(b) for b in train} & {id(b) for b in valid}
    assert f'{n_valid} of {n_batch} training batches are held out' in capsys.readouterr().out

def test_a_pass_that_is_called_off_is_an_error(mlp):
    class CallOff(Callback):
        def before_batch(self): raise CancelValidException
    head = split(mlp)
    mlp.add_cb(CallOff())
    with mlp.no_bar(), pytest.raises(CancelValidException): frozen_features(mlp, head, mlp.dls.valid)

def trains_lstms_in_bf16():
    "Not every CPU does"
    xs = torch.zeros(2, 3, 4, requires_grad=True)
    try:
        with torch.autocast('cpu', torch.bfloat16): torch.nn.LSTM(4, 4)(xs)[0].sum().backward()
    except RuntimeError: return False
    return True

@pytest.mark.parametrize('make', [make_clas, make_mlp])
def test_mixed_precision(tmp_path, make):
    if make is make_clas and not trains_lstms_in_bf16(): pytest.skip('this CPU does not train LSTMs in bfloat16')
    learn = make(tmp_path, cbs=HalfPrecision())
    with learn.no_bar(): learn.fit(1, 1e-2)
    head = split(learn)
    with learn.no_bar():
        assert frozen_features(learn, head, learn.dls.valid)[0][0][0][0].dtype == torch.float32
        assert learn.head_lr_find(show_plot=False).how.startswith('validation loss')

def test_the_body_runs_once():
    learn,calls = tokens(Siblings()),[]
    learn.model.body[0].register_forward_pre_hook(lambda m, x: calls.append(len(x[0])))
    with learn.no_bar(): learn.head_lr_find([1e-3, 1e-2, 1e-1], n_epoch=5, show_plot=False)
    # Over the data in batches of 8, once in training, and for one or two items: to find the head, for the copies in each fold, and for the
    # predictions of the head before training
    assert [n for n in calls if n > 2] == [8]*(8+2+1) and len(calls) == 11 + 4 + folds.N_FOLDS + 1

@pytest.mark.parametrize('make', [lambda: tokens(Bert()), lambda: tokens(Siblings()), images, table])
def test_models_of_all_kinds(make):
    learn = make()
    with learn.no_bar(): res = learn.head_lr_find(show_plot=False)
    # On few items not every head learns, but each comes to something else at each rate
    assert res.how.startswith('validation loss') and res.lrs[0] == pytest.approx(1e-3) and len(set(res.losses.tolist())) == len(res.lrs)

def test_two_targets(mlp):
    ds = [(x, y, x.sum()) for x,y in mlp.dls.train_ds]
    mlp.dls = DataLoaders.from_dsets(ds, ds[:16], bs=8, device='cpu', num_workers=0)
    mlp.dls.n_inp,stock = 1,mlp.loss_func
    mlp.metrics,mlp.loss_func = [],lambda p,y,z: stock(p, y) + (p.mean(1)-z).pow(2).mean()
    with mlp.no_bar(): assert mlp.head_lr_find(show_plot=False).how.startswith('validation loss')
