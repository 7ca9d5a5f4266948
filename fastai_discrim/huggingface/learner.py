"A learner for texts and a model of transformers"
__all__ = ['HFTextLearner', 'hf_text_classifier_learner']

from pathlib import Path

import pandas as pd
from fastai.data.core import DataLoaders
from fastai.data.transforms import get_c
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.torch_core import nested_reorder, tensor
from fastcore.foundation import L
from fastcore.meta import delegates

from ..checks import check_flag
from ..groups import layer_groups  # noqa: F401, as it is extended
from ..groups.split import layerwise_split
from ..user_warning import warn_user
from .bad_input import check_classes, check_logits, check_vocabulary, fit_to_positions, hf_tokenize
from .model import HFModel, base_of, hf_model, load_model
from .model_loss import ModelLoss


class HFTextLearner(Learner):
    "A learner whose model is one of transformers"
    def layer_groups(self) -> pd.DataFrame: # One row a layer group, input first
        "List the layer groups as `Learner.layer_groups` does, by the names that the model itself has"
        df = super().layer_groups()
        df['modules'] = [', '.join(name.removeprefix('hf.') for name in names.split(', ')) for names in df.modules]
        return df

    def get_preds(self, ds_idx=1, dl=None, with_input=False, *args, reorder=True, **kwargs):
        "Get predictions as `Learner.get_preds` does, also with inputs that have names"
        if not (with_input and reorder): return super().get_preds(ds_idx, dl, with_input, *args, reorder=reorder, **kwargs)
        if dl is None: dl = self.dls[ds_idx]
        # fastai puts tensors and lists back in order, not what is in a dict
        if not hasattr(dl, 'get_idxs'): return super().get_preds(ds_idx, dl, with_input, *args, reorder=False, **kwargs)
        dl = dl.new(shuffle=False, drop_last=False)
        order = tensor(list(dl.get_idxs())).argsort()
        inputs,*rest = super().get_preds(ds_idx, dl, with_input, *args, reorder=False, **kwargs)
        return {k: v[order] for k,v in inputs.items()},*nested_reorder(rest, order)

    def save_pretrained(self,
        folder, # It is made if it isn't there
    ) -> Path:
        "Save model and tokenizer as transformers does, for `from_pretrained(folder)`"
        hf = hf_model(self)
        if not hasattr(hf, 'save_pretrained'):
            raise TypeError(f'the model is a {type(hf).__name__}: expected one of transformers or peft, which can be saved so; '
                            'use `learn.export`')
        hf.save_pretrained(folder)
        hf_tokenize(self.dls).tokenizer.save_pretrained(folder)
        return Path(folder)

def _problem_type(loss_func):
    "Name what is learnt as transformers does"
    if isinstance(loss_func, CrossEntropyLossFlat): return 'single_label_classification'
    return 'multi_label_classification' if isinstance(loss_func, BCEWithLogitsLossFlat) else 'regression'

def _set_config(hf, config, tokenizer):
    "Tell the model what it is trained for, and which token pads"
    own = getattr(base_of(hf), 'config', None)
    if own is None: return
    own.update(config)
    # By it some models find the last token of a text
    pad_id = own.get_text_config().pad_token_id
    if pad_id not in (None, tokenizer.pad_token_id):
        warn_user(f'the model pads by token {pad_id} and the tokenizer by {tokenizer.pad_token_id}: the model is told to do as the '
                  'tokenizer')
    own.get_text_config().pad_token_id = tokenizer.pad_token_id

@delegates(Learner.__init__)
def hf_text_classifier_learner(
    dls:DataLoaders, # Of `HFTextDataLoaders`, or of a `DataBlock` with an `HFTextBlock`
    model, # Name of a model on the hub, a folder, or a model with as many outputs as there are classes, also one of peft
    *,
    model_loss:bool=False, # Train by the loss that the model computes from `labels`, in place of `loss_func`?
    splitter=layerwise_split, # As in `Learner`
    train_bn:bool=False, # Do norm layers of frozen groups train? A transformer's are layer norms
    cbs=None, # As in `Learner`
    **kwargs
) -> HFTextLearner:
    """Make a learner that fine-tunes a model of transformers. Nothing is frozen. Texts are truncated to the model's positions. Raise
    `ValueError` for a tokenizer of another model, and for a model that doesn't give one number a class"""
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
    cbs = L(cbs) + (L(ModelLoss()) if model_loss else L())
    return HFTextLearner(dls, net, splitter=splitter, train_bn=train_bn, cbs=cbs, **kwargs)
