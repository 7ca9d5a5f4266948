"Check texts, labels, tokenizer and model before anything is trained"
__all__ = []

from numbers import Integral

import pandas as pd
import torch
from fastai.data.core import DataLoaders
from fastai.torch_core import to_device
from fastcore.foundation import L
from torch import Tensor, nn

from ..module_state import modules_kept
from ..user_warning import warn_user
from .model import HFModel, base_of, n_positions
from .tokens import HFTokenize


def names_of_columns(df:pd.DataFrame, arg:str, cols) -> list:
    "Return the names of `cols`, the argument `arg`: columns by name or number, one or a list; raise `ValueError` if `df` lacks one"
    res = []
    for c in L(cols):
        if c in df.columns: res.append(c)
        elif isinstance(c, Integral) and 0 <= c < df.shape[1]: res.append(df.columns[c])
        else: raise ValueError(f'{arg}={cols!r}: expected columns of the data frame, which are {list(df.columns)}')
    twice = [c for c in res if list(df.columns).count(c) > 1]
    if twice: raise ValueError(f'{arg}={cols!r}: expected one column {twice[0]!r}, but the data frame has several; rename them')
    return res

def hold_zeros_and_ones(df:pd.DataFrame, label_cols:list) -> bool:
    "Tell whether there are several `label_cols` of 0 and 1, or of booleans, each for one label"
    return len(label_cols) > 1 and bool(df[label_cols].isin([0, 1]).all(axis=None))

def check_rows(df:pd.DataFrame, text_cols:list, label_cols:list):
    "Raise `ValueError` if a text is missing or empty, or a label is missing"
    for col in text_cols:
        bad = df[col].map(lambda t: not isinstance(t, str) or not t.strip())
        _refuse_rows(df, bad, col, 'text', 'expected a str that is not empty')
    for col in label_cols: _refuse_rows(df, df[col].isna(), col, 'label', 'expected one')

def _refuse_rows(df, bad, col, what, expected):
    "Raise `ValueError` if any row is `bad`"
    if not bad.any(): return
    row = df.index[bad.argmax()]
    raise ValueError(f'{what} {df[col][bad].iloc[0]!r} in row {row!r}, column {col!r}, and {bad.sum()} such rows in all: '
                     f'{expected}; fill them in or leave them out')

def check_rows_train(splits:tuple, valid_col:str|None=None):
    "Raise `ValueError` if no row trains; `splits` lists those that train and those that validate, as `valid_col` tells if there is one"
    train,valid = splits
    if len(train): return
    n = len(valid)
    advice = f'look at the column {valid_col!r}' if valid_col else 'lower `valid_pct`, or give more rows'
    raise ValueError(f'none of {n} row{"" if n == 1 else "s"} trains: expected some that do; {advice}')

def check_valid_labels(train:list, valid:list):
    "Raise `ValueError` for a label that only the validation set has"
    known = set(train)
    unknown = list(dict.fromkeys(l for l in valid if l not in known))
    if unknown:
        raise ValueError(f'the training set lacks {len(unknown)} of the {len(set(valid))} labels of the validation set, such as '
                         f'{unknown[0]!r}: expected labels of the training set; split the data in another way, or leave those items out')

def hf_tokenize(dls:DataLoaders) -> HFTokenize:
    "Return the transform of `dls` that tokenizes; raise `ValueError` if it isn't one for models of transformers"
    tls = getattr(getattr(dls, 'train_ds', None), 'tls', [])
    for t in (tls[0].tfms.fs if len(tls) else []):
        if isinstance(t, HFTokenize): return t
    raise ValueError('dls has no tokenizer of transformers: expected loaders of HFTextDataLoaders, or of a DataBlock with HFTextBlock')

def check_classes(dls:DataLoaders) -> list:
    "Return the names of the classes, none for a regression, or raise `ValueError` if one is None or nan"
    names = list(getattr(dls, 'vocab', []))
    missing = [n for n in names if n is None or n != n]
    if missing:
        raise ValueError(f'one of the classes is {missing[0]!r}: expected a name; fill in the labels that are missing, or leave '
                         'those items out')
    return names

def check_vocabulary(tokenizer, hf:nn.Module):
    "Raise `ValueError` if the tokenizer has tokens that the model has no embedding for"
    if not hasattr(hf, 'get_input_embeddings'): return
    n,rows = len(tokenizer),base_of(hf).get_input_embeddings().weight.shape[0]
    if n > rows:
        raise ValueError(f'the tokenizer has {n} tokens and the model embeds {rows}: expected the tokenizer of this model; take it from '
                         f'where the model is from, or, if tokens were added to it, call `model.resize_token_embeddings({n})`')

def fit_to_positions(dls:DataLoaders, hf:nn.Module):
    "Let the tokenizer truncate texts to the number of positions that the model has, and warn once if there are longer texts"
    n,tokenize = n_positions(hf),hf_tokenize(dls)
    if n is None or (tokenize.limit is not None and tokenize.limit <= n): return
    tokenize.tokenizer.model_max_length = n
    lengths = [r for dl in dls.loaders for r in getattr(dl, 'res', [])]
    longer = sum(r > n for r in lengths)
    if longer:
        tokenize.say_cuts = False
        warn_user(f'{longer} of {len(lengths)} texts are longer than the {n} tokens that the model has positions for, the longest '
                  f'{max(lengths)}: they are truncated; give `max_length={n}`, or less, to say that this is intended')

def check_logits(model:HFModel, dls:DataLoaders, n_out:int):
    "Run one text through the model, and raise `ValueError` unless the model returns `n_out` logits"
    dl,n = dls.train,n_positions(model.hf)
    device = next(model.parameters()).device
    batch,*_ = dl.after_batch(to_device(dl.do_batch([dl.do_item(0)]), device))
    name,advice = type(base_of(model.hf)).__name__,'give its name or folder, or make it by `AutoModelForSequenceClassification`'
    # Take the first `n` tokens, as the tokenizer doesn't truncate to the model's positions yet
    try:
        with modules_kept(model),torch.no_grad(): logits = model.eval()({k: v[:, :n] for k,v in batch.items()})
    except AttributeError as e:
        if 'logits' not in str(e): raise
        raise ValueError(f'{name} gives no logits: expected a model with a classification head; {advice}') from e
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ValueError(f'{name} gives {tuple(getattr(logits, "shape", ()))} for one text: expected one row of numbers, as from a model '
                         f'with a classification head; {advice}')
    if logits.shape[1] != n_out:
        raise ValueError(f'{name} gives {logits.shape[1]} numbers for a text: expected {n_out}, as the data have; {advice}, with '
                         f'`num_labels={n_out}`')
