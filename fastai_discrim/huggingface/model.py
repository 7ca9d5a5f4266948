"Wrap a model of transformers for fastai: it takes a batch as a dictionary, and returns logits"
__all__ = []

import inspect
from pathlib import Path

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from .folders import folder_of


class HFModel(nn.Module):
    "Pass a model the tensors of a batch that it takes, by name. Return its logits, or its whole output if the batch has `labels`"
    def __init__(self,
        hf:nn.Module, # A model of transformers or peft, or any other whose `forward` takes the tokenizer's output by the same names
    ):
        super().__init__()
        self.hf,self.takes = hf,taken_names(hf)

    def forward(self, batch:dict):
        out = self.hf(**{k: v for k,v in batch.items() if self.takes is None or k in self.takes})
        return out if isinstance(out, Tensor) or 'labels' in batch else out.logits

def base_of(hf:nn.Module) -> nn.Module:
    "Return the model that peft wraps, or `hf` itself"
    return hf.get_base_model() if hasattr(hf, 'get_base_model') else hf

def taken_names(hf:nn.Module) -> list|None:
    "List the names of the arguments that the model's `forward` takes, or return None if it takes any"
    names = list(inspect.signature(base_of(hf).forward).parameters)
    return names if 'input_ids' in names else None

def load_model(model, **config) -> nn.Module:
    """Load a model with a classification head by its name on the hub or its folder, with these values in its configuration; return an
    `nn.Module` as it is. Raise `ValueError` for a folder without a model, or a model that can't have such a head"""
    if isinstance(model, nn.Module): return model
    if not isinstance(model, (str, Path)):
        raise TypeError(f'model={model!r}: expected the name of a model on the hub, a folder, or a model, not a {type(model).__name__}')
    folder = folder_of(model, 'model')
    if folder and not (folder/'config.json').exists():
        raise ValueError(f'model={str(model)!r}: expected a folder with a model of transformers, and this one has no config.json; '
                         'give one that `save_pretrained` wrote')
    # With `ignore_mismatched_sizes`, a new head replaces a head for other classes
    try: return AutoModelForSequenceClassification.from_pretrained(model, ignore_mismatched_sizes=True, **config)
    except ValueError as e:
        if 'AutoModelForSequenceClassification' not in str(e): raise
        raise ValueError(f'model={str(model)!r}: expected a model for which transformers has a classification head '
                         '(AutoModelForSequenceClassification); put one on top of it, and give the model instead of its name') from e

# Names that models have for the embedding of their positions
_POSITIONS = 'position_embeddings','wpe','embed_positions'

def n_positions(hf:nn.Module) -> int|None:
    "Return the number of tokens that the model has positions for, or None if it has no table of positions"
    tables = [m for name,m in base_of(hf).named_modules() if name.split('.')[-1] in _POSITIONS and isinstance(m, nn.Embedding)]
    # RoBERTa's first position comes after the padding index, OPT's after an offset
    def _usable(m): return m.num_embeddings - getattr(m, 'offset', 0) - (0 if m.padding_idx is None else m.padding_idx+1)
    return min(map(_usable, tables), default=None)
