"Tables of texts, targets and predictions"
import pandas as pd
import pytest
import torch
from fastai.data.block import RegressionBlock
from fastai.interpret import ClassificationInterpretation, Interpretation
from fastcore.foundation import L
from tiny import make_df, make_dls, make_learner

from fastai_discrim.huggingface import show


@pytest.fixture
def shown(monkeypatch):
    "The tables that are displayed"
    frames = []
    monkeypatch.setattr(show, 'display_df', frames.append)
    return frames

def text_of(dls, t): return dls.tokenizer.decode(dls.tokenizer(t)['input_ids'])

def test_show_batch(shown):
    df,dls = make_df(),make_dls()
    dls.valid.show_batch(max_n=4)
    table, = shown
    valid = df[df.is_valid].iloc[list(dls.valid.get_idxs())[:4]]
    assert list(table.columns) == ['text', 'target'] and list(table.target.map(str)) == list(valid.label)
    assert list(table.text.map(str)) == [text_of(dls, t) for t in valid.text] and table.text[0].startswith('[CLS]')
    dls.show_batch(trunc_at=3)
    assert all(len(t.split()) <= 3 for t in shown[-1].text) and len(shown[-1]) == 8

def test_show_results(shown):
    learn = make_learner()
    learn.show_results(max_n=5, shuffle=False)
    table, = shown
    df = make_df()
    valid = df[df.is_valid].iloc[list(learn.dls.valid.get_idxs())[:5]]
    assert list(table.columns) == ['text', 'target', 'prediction'] and list(table.target.map(str)) == list(valid.label)
    assert list(table.prediction.map(str)) == [learn.predict(t)[0] for t in valid.text]

def test_many_values(shown):
    df = make_df()
    learn = make_learner(dls=make_dls(label_col='many', label_delim=';'), n_out=5, metrics=None)
    learn.dls.show_batch()
    learn.show_results()
    assert set(shown[0].target.map(str)) <= set(df.many) and len(shown[1].columns) == 3
    learn = make_learner(dls=make_dls(label_col='score', y_block=RegressionBlock(n_out=1)), n_out=1, metrics=None)
    learn.dls.valid.show_batch()
    learn.show_results()
    scores = df.score[df.is_valid].iloc[list(learn.dls.valid.get_idxs())]
    assert list(shown[2].target.map(float)) == list(scores[:8]) and list(shown[3].columns) == ['text', 'target', 'prediction']

@pytest.mark.skipif(len(L(dict(a=1, b=2))) > 1, reason='with this fastcore, Interpretation takes inputs with names apart')
def test_top_losses(shown):
    learn = make_learner()
    interp = Interpretation.from_learner(learn)
    df = make_df()
    valid = df[df.is_valid]
    probs,targs = learn.get_preds()
    nll = -probs[range(16), targs].log()
    losses,idxs = interp.top_losses(5)
    expected,order = nll.sort(descending=True)
    assert torch.allclose(losses, expected[:5], atol=1e-4) and idxs.tolist() == order[:5].tolist()
    interp.plot_top_losses(5)
    table, = shown
    # Each text beside its own target, prediction and loss
    for row,i in zip(table.itertuples(), idxs.tolist(), strict=True):
        label,_,p = learn.predict(valid.text.iloc[i])
        assert (str(row.text), str(row.target), str(row.prediction)) == (text_of(learn.dls, valid.text.iloc[i]), valid.label.iloc[i], label)
        assert [float(row.loss), float(row.probability)] == pytest.approx([nll[i].item(), p.max().item()], abs=1e-4)
    interp.show_results([3, 1])
    assert list(shown[-1].text.map(str)) == [text_of(learn.dls, valid.text.iloc[i]) for i in (3, 1)]

def test_confusion():
    learn = make_learner()
    matrix = ClassificationInterpretation.from_learner(learn).confusion_matrix()
    probs,targs = learn.get_preds()
    expected = pd.crosstab(targs, probs.argmax(1)).reindex(index=range(3), columns=range(3), fill_value=0)
    assert (matrix == expected.to_numpy()).all()

def test_predictions_of_several_batches_with_inputs_can_be_shown():
    "Their batches differ in length"
    learn = make_learner()
    inputs,_,_ = learn.get_preds(with_input=True, reorder=False)
    decoded = learn.dls.valid.decode_batch((inputs, torch.zeros(16).long()), max_n=16)
    df = make_df()
    texts = [df.text[df.is_valid].iloc[i] for i in learn.dls.valid.get_idxs()]
    assert [str(t) for t,_ in decoded] == [text_of(learn.dls, t) for t in texts]
