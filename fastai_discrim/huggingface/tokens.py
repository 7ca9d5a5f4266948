"Convert texts to inputs of a model, and back, by transformers' own tokenizer and collator"
__all__ = []

from copy import deepcopy
from pathlib import Path

from fastai.text.data import SortedDL, TensorText
from fastai.torch_core import TitledStr
from fasttransform import ItemTransform, Transform
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, DataCollatorWithPadding, PreTrainedTokenizerBase

from ..user_warning import warn_user
from .folders import folder_of

# A tokenizer without a limit has a `model_max_length` of 1e30, which is above this
NO_LIMIT = 10**9
# Characters of a text that a warning shows
SHOWN = 60


def own_tokenizer(
    tokenizer, # A tokenizer, or the name or folder of one
    max_length:int|None=None, # Most tokens of a text; None for the tokenizer's own limit
) -> PreTrainedTokenizerBase:
    """Return a copy of `tokenizer` that can pad, and that truncates at `max_length`. Raise `TypeError` if `tokenizer` is none, and
    `ValueError` if it can't pad or if `max_length` leaves no token for a text"""
    tokenizer = deepcopy(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerBase) else _load_tokenizer(tokenizer)
    if max_length is not None:
        n_own = tokenizer.num_special_tokens_to_add()
        if max_length <= n_own:
            raise ValueError(f'max_length={max_length}: expected at least {n_own+1}, as the tokenizer adds {n_own} tokens of its own to '
                             'a text')
        tokenizer.model_max_length = max_length
    if tokenizer.pad_token is None:
        name,eos = type(tokenizer).__name__,tokenizer.eos_token
        if eos is None:
            raise ValueError(f'{name} has neither a padding nor an end-of-sequence token: expected one, to pad with; call '
                             "`tokenizer.add_special_tokens({'pad_token': '[PAD]'})`, and the model's `resize_token_embeddings`")
        tokenizer.pad_token = eos
        warn_user(f'{name} has no padding token: its end-of-sequence token, {eos!r}, pads instead')
    return tokenizer

def _load_tokenizer(tokenizer):
    "Load a tokenizer by its name, or from a folder"
    if not isinstance(tokenizer, (str, Path)):
        raise TypeError(f'tokenizer={tokenizer!r}: expected a tokenizer of transformers, or the name or folder of one, not a '
                        f'{type(tokenizer).__name__}')
    folder = folder_of(tokenizer, 'tokenizer')
    try: return AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as e:
        if folder is None: raise
        raise ValueError(f'tokenizer={str(tokenizer)!r}: expected a folder with a tokenizer of transformers, and transformers finds none '
                         'in this one; give one that `save_pretrained` wrote, or the name that the model has on the hub') from e

class TensorTokenIds(TensorText):
    "Padded ids of tokens, from a tokenizer of transformers"

class HFTokenize(ItemTransform):
    "Tokenize a text, or a pair of texts; the result is a dictionary"
    def __init__(self,
        tokenizer:PreTrainedTokenizerBase, # A tokenizer, which truncates at its `model_max_length`
        say_cuts:bool=True, # Warn at the first text that is truncated?
    ):
        super().__init__()
        self.tokenizer,self.say_cuts = tokenizer,say_cuts

    def encodes(self, x):
        texts = check_texts(x)
        tokens = dict(self.tokenizer(*texts, truncation=self.limit is not None))
        if self.say_cuts and len(tokens['input_ids']) == self.limit: self._say_cut(texts)
        return tokens

    def decodes(self, x:TensorTokenIds):
        kept = [i for i in x.tolist() if i != self.tokenizer.pad_token_id]
        return TitledStr(self.tokenizer.decode(kept))

    @property
    def limit(self) -> int|None:
        "Most tokens of a text; None if there is no limit"
        n = self.tokenizer.model_max_length
        return n if n < NO_LIMIT else None

    def _say_cut(self, texts):
        "Warn, once, if `texts` have more tokens than the limit"
        n = len(self.tokenizer(*texts, verbose=False)['input_ids'])
        if n <= self.limit: return
        self.say_cuts = False
        warn_user(f'a text of {n} tokens, {texts[0][:SHOWN]!r}..., is truncated to the first {self.limit}, which is as many as fit; other '
                  f'long texts are truncated, too. Give `max_length={self.limit}`, or less, to say that this is intended')

def check_texts(x) -> list:
    "Return the texts of an item, one or a pair, or raise if one is missing or empty"
    texts = [x] if isinstance(x, str) or not hasattr(x, '__iter__') else list(x)
    for t in texts:
        if not isinstance(t, str):
            raise TypeError(f'a text is {t!r}, of type {type(t).__name__}: expected a str; fill it in or leave it out')
        if not t.strip(): raise ValueError(f'a text is {t!r}: expected one that is not empty; fill it in or leave it out')
    if not 0 < len(texts) < 3: raise ValueError(f'an item has {len(texts)} texts, {texts!r}: expected one, or a pair')
    return texts

class HFPad(Transform):
    "Pad the items of a batch to the longest of them, as `DataCollatorWithPadding` does"
    def __init__(self, tokenizer:PreTrainedTokenizerBase, pad_to_multiple_of:int|None=None):
        super().__init__()
        self.collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=pad_to_multiple_of)

    def __call__(self, samples, **kwargs):
        tokens,*rest = zip(*samples)
        batch = self.collator(list(tokens))
        padded = [{k: v[i] for k,v in batch.items()} for i in range(len(tokens))]
        return list(zip(padded, *rest))

class HFIds(Transform):
    "Decode a batch to its token ids, to show it"
    def __init__(self, pad_id:int):
        super().__init__()
        self.pad_id = pad_id

    def decodes(self, x:dict):
        ids = x['input_ids']
        # Batches of several lengths, as from `get_preds(with_input=True)`, are a list of items
        if not isinstance(ids, Tensor): ids = pad_sequence(list(ids), batch_first=True, padding_value=self.pad_id)
        return TensorTokenIds(ids)

def n_tokens(sample:tuple) -> int:
    "Count the tokens of an item: the tokenizer's output, and perhaps a target"
    return len(sample[0]['input_ids'])

class HFTextDL(SortedDL):
    "Make batches of texts of similar length"
    def __init__(self, dataset, sort_func=n_tokens, **kwargs):
        super().__init__(dataset, sort_func=sort_func, **kwargs)

    def get_idxs(self):
        # Don't sort a single batch: `Interpretation` expects its few items in the order in which it passed them
        return list(range(self.n)) if self.n <= self.bs and not self.shuffle else super().get_idxs()
