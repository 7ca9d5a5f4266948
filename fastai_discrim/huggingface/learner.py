"A learner for a model of transformers"
__all__ = ['HFTextLearner', 'hf_text_classifier_learner']

from pathlib import Path

import pandas as pd
from fastai.data.core import DataLoaders
from fastai.data.transforms import get_c
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.torch_core import get_model, nested_reorder, tensor
from fastcore.foundation import L
from fastcore.meta import delegates

from ..checks import check_flag
from ..groups import layer_groups  # noqa: F401, adds `Learner.layer_groups`
from ..groups.split import layerwise_split
from ..user_warning import warn_user
from .bad_input import check_classes, check_logits, check_vocabulary, fit_to_positions, hf_tokenize
from .model import HFModel, base_of, load_model
from .model_loss import ModelLoss


class HFTextLearner(Learner):
    "Train a model of transformers"
    def layer_groups(self) -> pd.DataFrame: # One row per layer group, input first
        "List the layer groups as `Learner.layer_groups` does, with the names that modules have in the model of transformers"
        df = super().layer_groups()
        df['modules'] = [', '.join(name.removeprefix('hf.') for name in names.split(', ')) for names in df.modules]
        return df

    def get_preds(self, ds_idx=1, dl=None, with_input=False, *args, reorder=True, **kwargs):
        "Get predictions as `Learner.get_preds` does, also with inputs that are dictionaries"
        if not (with_input and reorder): return super().get_preds(ds_idx, dl, with_input, *args, reorder=reorder, **kwargs)
        if dl is None: dl = self.dls[ds_idx]
        # fastai reorders tensors and lists, but not the values of a dict
        if not hasattr(dl, 'get_idxs'): return super().get_preds(ds_idx, dl, with_input, *args, reorder=False, **kwargs)
        dl = dl.new(shuffle=False, drop_last=False)
        order = tensor(list(dl.get_idxs())).argsort()
        inputs,*rest = super().get_preds(ds_idx, dl, with_input, *args, reorder=False, **kwargs)
        return {k: v[order] for k,v in inputs.items()},*nested_reorder(rest, order)

    def save_pretrained(self,
        folder, # Folder to save to, which is created if needed
    ) -> Path:
        "Save model and tokenizer as transformers does, for `from_pretrained(folder)`"
        hf = get_model(self.model).hf
        if not hasattr(hf, 'save_pretrained'):
            raise TypeError(f'the model is a {type(hf).__name__}: expected one of transformers or peft, which has `save_pretrained`; '
                            'use `learn.export`')
        hf.save_pretrained(folder)
        hf_tokenize(self.dls).tokenizer.save_pretrained(folder)
        return Path(folder)

def _problem_type(loss_func):
    "Return the name that transformers has for the task of `loss_func`"
    if isinstance(loss_func, CrossEntropyLossFlat): return 'single_label_classification'
    return 'multi_label_classification' if isinstance(loss_func, BCEWithLogitsLossFlat) else 'regression'

def _set_config(hf, config, tokenizer):
    "Update the model's configuration by `config` and by the tokenizer's padding token"
    own = getattr(base_of(hf), 'config', None)
    if own is None: return
    own.update(config)
    # Some models find the last token of a text by the padding token
    pad_id = own.get_text_config().pad_token_id
    if pad_id not in (None, tokenizer.pad_token_id):
        warn_user(f'the model pads by token {pad_id} and the tokenizer by {tokenizer.pad_token_id}: the model now uses the '
                  "tokenizer's padding token")
    own.get_text_config().pad_token_id = tokenizer.pad_token_id

@delegates(Learner.__init__)
def hf_text_classifier_learner(
    dls:DataLoaders, # Loaders from `HFTextDataLoaders`, or from a `DataBlock` with an `HFTextBlock`
    model, # Name of a model on the hub, a folder, or a model of transformers or peft with one output for each class
    *,
    model_loss:bool=False, # Train by the loss that the model computes from `labels`, instead of by `loss_func`?
    splitter=layerwise_split, # As in `Learner`
    train_bn:bool=False, # Do norm layers of frozen groups train? Those of a transformer are layer norms
    cbs=None, # As in `Learner`
    **kwargs
) -> HFTextLearner:
    """Make a learner that fine-tunes a model of transformers. Nothing is frozen. Texts are truncated to the model's positions. Raise
    `ValueError` for a tokenizer with more tokens than the model embeds, and for a model that doesn't return one logit for each class"""
    check_flag(model_loss, 'model_loss')
    tokenizer,classes,n_out = hf_tokenize(dls).tokenizer,check_classes(dls),get_c(dls)
    if not n_out: raise ValueError(f'dls.c is {n_out!r}: expected the number of classes or values to predict; set it')
    config = dict(num_labels=n_out, problem_type=_problem_type(kwargs.get('loss_func') or getattr(dls.train_ds, 'loss_func', None)))
    if classes: config |= dict(id2label=dict(enumerate(map(str, classes))), label2id={str(c): i for i,c in enumerate(classes)})
    hf = load_model(model, **config)
    net = HFModel(hf)
    if model_loss and net.takes is not None and 'labels' not in net.takes:
        raise ValueError(f'model_loss=True: expected a model that computes a loss, and {type(hf).__name__} takes no `labels`; leave it out')
    check_vocabulary(tokenizer, hf)
    check_logits(net, dls, n_out)
    _set_config(hf, config, tokenizer)
    fit_to_positions(dls, hf)
    if model_loss: cbs = [*L(cbs), ModelLoss()]
    return HFTextLearner(dls, net, splitter=splitter, train_bn=train_bn, cbs=cbs, **kwargs)
