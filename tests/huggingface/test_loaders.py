"Loaders from a data frame, a csv file and a folder, and what the labels say of loss and activation"
import pandas as pd
import pytest
import torch
from fastai.data.block import MultiCategoryBlock, RegressionBlock
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.metrics import accuracy_multi, mae
from tiny import LOADER, make_df, make_dls, make_learner, make_tokenizer
from torch import nn

from fastai_discrim.huggingface import HFTextDataLoaders


def rows(dl): return sorted((tuple(i for i in ids if i), y) for x,ys in dl for ids,y in zip(x['input_ids'].tolist(), ys.tolist()))

def test_columns_by_number_and_by_name():
    df = make_df()
    by_name,by_number = make_dls(df=df),make_dls(df=df, text_col=0, label_col=2, valid_col=5)
    assert [rows(dl) for dl in by_name] == [rows(dl) for dl in by_number] and by_name.vocab == ['high', 'low', 'mid'] and by_name.c == 3
    assert (len(by_name.train_ds), len(by_name.valid_ds), by_name.train.bs) == (32, 16, 8)

def test_rows_that_validate_by_chance():
    a,b,c = (make_dls(valid_col=None, valid_pct=0.25, seed=seed) for seed in (1, 1, 2))
    assert len(a.valid_ds) == 12 and rows(a.valid) == rows(b.valid) != rows(c.valid)

def test_csv(tmp_path):
    df = make_df()
    df.to_csv(tmp_path/'texts.csv', index=False)
    dls = HFTextDataLoaders.from_csv(tmp_path, make_tokenizer(), 'texts.csv', **LOADER)
    assert [rows(dl) for dl in dls] == [rows(dl) for dl in make_dls(df=df)] and dls.path == tmp_path

def write_folder(path, df, train='train', valid='valid'):
    for i,r in enumerate(df.itertuples()):
        folder = path/(valid if r.is_valid else train)/r.label
        folder.mkdir(parents=True, exist_ok=True)
        (folder/f'{i}.txt').write_text(r.text, encoding='utf-8')

def test_folder(tmp_path):
    df = make_df()
    write_folder(tmp_path, df, 'a', 'b')
    dls = HFTextDataLoaders.from_folder(tmp_path, make_tokenizer(), train='a', valid='b', bs=8, num_workers=0, device='cpu')
    assert [rows(dl) for dl in dls] == [rows(dl) for dl in make_dls(df=df)]
    dls = HFTextDataLoaders.from_folder(tmp_path, make_tokenizer(), valid_pct=0.25, seed=1, vocab=['low', 'mid', 'high'], bs=8,
                                        num_workers=0, device='cpu')
    assert len(dls.valid_ds) == 12 and dls.vocab == ['high', 'low', 'mid']
    # A text is told from a file
    learn = make_learner(tmp_path, dls=dls)
    assert learn.predict('ba be')[2].shape == (3,)

# What is learnt

def test_one_label():
    learn = make_learner()
    assert isinstance(learn.loss_func, CrossEntropyLossFlat) and learn.model.hf.config.problem_type == 'single_label_classification'
    label,i,probs = learn.predict('ba be')
    assert learn.dls.vocab[i] == label and probs.sum().item() == pytest.approx(1)

def test_many_labels():
    dls = make_dls(label_col='many', label_delim=';')
    assert list(dls.vocab) == ['high', 'low', 'mid', 'x', 'y']
    learn = make_learner(dls=dls, n_out=5, metrics=accuracy_multi)
    assert isinstance(learn.loss_func, BCEWithLogitsLossFlat) and learn.model.hf.config.problem_type == 'multi_label_classification'
    with learn.no_bar(),learn.no_logging(): learn.fit(1)
    labels,on,probs = learn.predict('ba be')
    assert list(labels) == [l for l,o in zip(dls.vocab, on) if o] and torch.equal(on.bool(), probs > 0.5)
    df = make_df()
    x,y = dls.valid.one_batch()
    many = df.many[df.is_valid].iloc[list(dls.valid.get_idxs())[:8]]
    assert y.dtype == torch.float and y.sum(1).tolist() == [len(m.split(';')) for m in many]

def test_a_row_without_any_of_many_labels():
    df = make_df()
    df.loc[0, 'many'] = ''
    assert [0]*5 in [y for _,y in rows(make_dls(df=df, label_col='many', label_delim=';').train)]

@pytest.mark.parametrize('y_block', [None, MultiCategoryBlock(encoded=True, vocab=['x', 'y'])])
@pytest.mark.parametrize('dtype', [int, bool, float])
def test_labels_in_columns_of_zeros_and_ones(dtype, y_block):
    df = make_df()
    for l in 'xy': df[l] = df.many.str.contains(l).astype(dtype)
    dls = make_dls(df=df, label_col=['x', 'y'], y_block=y_block)
    learn = make_learner(dls=dls, n_out=2, metrics=accuracy_multi)
    assert learn.model.hf.config.id2label == {0: 'x', 1: 'y'}
    assert {tuple(y) for _,y in rows(dls.train)} == {(0., 1.), (1., 0.)} and len(learn.validate()) == 2

@pytest.mark.parametrize('cols', ['score', ['score', 'other']])
def test_regression(cols):
    df = make_df()
    df['other'] = -df.score
    n = 2 if isinstance(cols, list) else 1
    learn = make_learner(dls=make_dls(df=df, label_col=cols, y_block=RegressionBlock(n_out=n)), n_out=n, metrics=mae)
    assert isinstance(learn.loss_func.func, nn.MSELoss) and learn.model.hf.config.problem_type == 'regression'
    loss,_ = learn.validate()
    preds,targs = learn.get_preds()
    assert loss == pytest.approx(((preds.view(16, n) - targs.view(16, n))**2).mean().item(), rel=1e-5)
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(1, 1e-2)
    value,*_ = learn.predict('ba be')
    assert list(value) == pytest.approx(learn.predict('ba be')[2].tolist(), rel=1e-4) and len(value) == n

def test_pairs_are_predicted_as_tuples():
    learn = make_learner(dls=make_dls(text_col=['text', 'second']))
    x, = learn.dls.test_dl([('ba be', 'bo')]).one_batch()
    assert x['input_ids'].tolist() == [make_tokenizer()('ba be', 'bo')['input_ids']]
    by_frame, = learn.dls.test_dl(pd.DataFrame(dict(text=['ba be'], second=['bo']))).one_batch()
    assert by_frame['input_ids'].tolist() == x['input_ids'].tolist() and learn.predict(('ba be', 'bo'))[0] in learn.dls.vocab
