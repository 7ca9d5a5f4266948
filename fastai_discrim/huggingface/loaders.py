"Data loaders of texts for models of transformers, like fastai's `TextDataLoaders`"
__all__ = ['HFTextDataLoaders']

import csv
from itertools import chain
from pathlib import Path

import pandas as pd
from fastai.data.block import CategoryBlock, DataBlock, MultiCategoryBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import ColReader, ColSplitter, GrandparentSplitter, RandomSplitter, get_text_files, parent_label
from fastcore.meta import delegates

from .bad_input import check_rows, check_rows_train, check_valid_labels, hold_zeros_and_ones, names_of_columns
from .block import HFTextBlock


class HFTextDataLoaders(DataLoaders):
    "Make loaders of texts and labels for a model of transformers from a data frame, a csv file or a folder"
    @classmethod
    @delegates(DataLoaders.from_dblock)
    def from_df(cls,
        df:pd.DataFrame, # One row for each text
        tokenizer, # The model's tokenizer, or its name or folder
        path='.', # Folder in which learners save
        valid_pct:float=0.2, # Fraction of the rows that validate, if there is no `valid_col`
        seed:int|None=None, # Seed of the random draw of those rows
        text_col=0, # Column of the texts, its name or number; two columns for pairs of texts, which are tuples in `predict`
        label_col=1, # Column of the labels; several columns, each with a label, or with 0 and 1 for the label that it is named after
        label_delim:str|None=None, # Separator of the labels in `label_col`, if a text has several
        y_block=None, # Block of the targets, such as `RegressionBlock`; None for one label or several, by what `label_col` holds
        valid_col=None, # Column that tells whether a row validates
        max_length:int|None=None, # Most tokens of a text, as in `HFTextBlock`
        pad_to_multiple_of:int|None=None, # As in `HFTextBlock`
        **kwargs
    ):
        "Make loaders from `df`. Raise `ValueError` for a missing column, an empty text, a missing label, or if no row trains"
        if not isinstance(df, pd.DataFrame):
            raise TypeError(f'df is a {type(df).__name__}: expected a pandas DataFrame with one row per text')
        texts,labels = names_of_columns(df, 'text_col', text_col),names_of_columns(df, 'label_col', label_col)
        valid = names_of_columns(df, 'valid_col', valid_col)
        check_rows(df, texts, labels)
        multi = label_delim is not None or len(labels) > 1
        get_y = ColReader(labels, label_delim=label_delim)
        splits = (ColSplitter(*valid) if valid else RandomSplitter(valid_pct, seed=seed))(df)
        check_rows_train(splits, *valid)
        if y_block is None and label_delim is None and hold_zeros_and_ones(df, labels):
            y_block = MultiCategoryBlock(encoded=True, vocab=labels)
        if y_block is None:
            def _labels(rows):
                targets = [get_y(df.iloc[i]) for i in rows]
                return list(chain.from_iterable(targets)) if multi else targets
            check_valid_labels(*map(_labels, splits))
            y_block = MultiCategoryBlock if multi else CategoryBlock
        block = DataBlock(blocks=(HFTextBlock(tokenizer, max_length, pad_to_multiple_of), y_block),
                          get_x=_TextReader(texts), get_y=get_y, splitter=_Splits(splits))
        return cls.from_dblock(block, df, path=path, **kwargs)

    @classmethod
    @delegates(from_df)
    def from_csv(cls,
        path, # Folder of the file, in which learners save, too
        tokenizer, # The model's tokenizer, or its name or folder
        csv_fname='labels.csv', # Name of the file
        header='infer', # As in `pd.read_csv`
        delimiter=',', # As in `pd.read_csv`
        quoting=csv.QUOTE_MINIMAL, # As in `pd.read_csv`
        **kwargs
    ):
        "Make loaders from the file `path/csv_fname`, as `from_df` does"
        df = pd.read_csv(Path(path)/csv_fname, header=header, delimiter=delimiter, quoting=quoting)
        return cls.from_df(df, tokenizer, path=path, **kwargs)

    @classmethod
    @delegates(DataLoaders.from_dblock)
    def from_folder(cls,
        path, # Folder with a subfolder of text files for each label, in `train` and `valid`, or anywhere if `valid_pct` is given
        tokenizer, # The model's tokenizer, or its name or folder
        train='train', # Name of the folder of the training set
        valid='valid', # Name of the folder of the validation set
        valid_pct:float|None=None, # Fraction of the texts that validate, instead of `train` and `valid`
        seed:int|None=None, # Seed of the random draw of those texts
        vocab:list|None=None, # Labels in order; None for the labels of the training set, sorted
        max_length:int|None=None, # Most tokens of a text, as in `HFTextBlock`
        pad_to_multiple_of:int|None=None, # As in `HFTextBlock`
        **kwargs
    ):
        "Make loaders from text files in folders named after their labels. Raise `ValueError` for an empty file"
        files = get_text_files(path, folders=[train, valid] if valid_pct is None else None)
        splits = (GrandparentSplitter(train, valid) if valid_pct is None else RandomSplitter(valid_pct, seed=seed))(files)
        if not len(files) or not all(map(len, splits)):
            n_train,n_valid = map(len, splits)
            raise ValueError(f'{str(path)!r} has {len(files)} text files, of which {n_train} train and {n_valid} validate: expected some '
                             'of each; name their folders by `train` and `valid`, or give `valid_pct`')
        for f in files:
            if not read_text(f).strip(): raise ValueError(f'{str(f)!r} is empty: expected a text; fill it in or leave it out')
        if vocab is None:
            train_labels,valid_labels = ([parent_label(files[i]) for i in split] for split in splits)
            check_valid_labels(train_labels, valid_labels)
        block = DataBlock(blocks=(HFTextBlock(tokenizer, max_length, pad_to_multiple_of), CategoryBlock(vocab=vocab)),
                          get_x=read_text, get_y=parent_label, splitter=_Splits(splits))
        return cls.from_dblock(block, files, path=path, **kwargs)

def read_text(
    path:Path, # A file. By this annotation fastai knows that a text to predict isn't a file
) -> str:
    "Read a text file"
    return Path(path).read_text(encoding='utf-8')

class _Splits:
    "Split items as drawn before"
    def __init__(self, splits): self.splits = splits
    def __call__(self, items): return self.splits

class _TextReader:
    "Read one text, or a pair of them as a tuple"
    def __init__(self, cols): self.reader = ColReader(cols)
    def __call__(self, row): return tuple(self.reader(row)) if len(self.reader.cols) > 1 else self.reader(row)
