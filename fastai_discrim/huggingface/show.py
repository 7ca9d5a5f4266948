"Show texts, targets and predictions as a table"
__all__ = []

import pandas as pd
from fastai.data.core import show_batch, show_results
from fastai.imports import dispatch
from fastai.interpret import plot_top_losses
from fastai.torch_core import TitledFloat, display_df

from .tokens import TensorTokenIds

# Most characters of a text in a table
TRUNC_AT = 150


def _show_rows(samples, columns, max_n, trunc_at):
    "Display a table with one row for each of `samples`, whose first member is the text, and return the rows"
    rows = []
    for text,*rest in samples[:max_n]:
        if trunc_at is not None: text = text.truncate(trunc_at)
        row = pd.Series(dtype=object)
        for o,label in zip([text, *rest], columns): row = o.show(ctx=row, label=label)
        rows.append(row)
    display_df(pd.DataFrame(rows))
    return rows

def _columns(name, n):
    "Return the names of `n` columns of the same kind"
    return [name] if n == 1 else [f'{name}_{i}' for i in range(n)]

@dispatch
def show_batch(x:TensorTokenIds, y, samples, ctxs=None, max_n=9, trunc_at=TRUNC_AT, **kwargs):  # noqa: F811
    "Show texts and targets"
    return _show_rows(samples, ['text', *_columns('target', len(samples[0])-1)], max_n, trunc_at)

@dispatch
def show_results(x:TensorTokenIds, y, samples, outs, ctxs=None, max_n=9, trunc_at=TRUNC_AT, **kwargs):  # noqa: F811
    "Show texts, targets and predictions"
    n_targets,samples = len(samples[0])-1,[(*s, *o) for s,o in zip(samples, outs)]
    return _show_rows(samples, ['text', *_columns('target', n_targets), *_columns('prediction', len(outs[0]))], max_n, trunc_at)

@dispatch
def plot_top_losses(x:TensorTokenIds, y, samples, outs, raws, losses, trunc_at=TRUNC_AT, **kwargs):  # noqa: F811
    "Show the texts with the highest losses"
    samples = [(*s, *o, TitledFloat(raw.max().item()), TitledFloat(loss.item())) for s,o,raw,loss in zip(samples, outs, raws, losses)]
    return _show_rows(samples, ['text', 'target', 'prediction', 'probability', 'loss'], None, trunc_at)
