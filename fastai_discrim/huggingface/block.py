"A `TransformBlock` of texts for models of transformers"
__all__ = ['HFTextBlock']

from fastai.data.block import TransformBlock

from ..checks import check_count
from . import show  # noqa: F401, for `show_batch` and the like
from .tokens import HFIds, HFPad, HFTextDL, HFTokenize, own_tokenizer


class HFTextBlock(TransformBlock):
    "Tokenize and batch texts, or pairs of texts, for a model of transformers"
    def __init__(self,
        tokenizer, # The model's tokenizer, or its name or folder; the block uses a copy
        max_length:int|None=None, # Most tokens of a text or a pair; None for as many as fit, with a warning if that truncates a text
        pad_to_multiple_of:int|None=None, # Pad batches to a multiple of this; None to pad to the longest text
    ):
        for name,n in dict(max_length=max_length, pad_to_multiple_of=pad_to_multiple_of).items():
            if n is not None: check_count(n, name)
        tokenizer = own_tokenizer(tokenizer, max_length)
        super().__init__(type_tfms=HFTokenize(tokenizer, say_cuts=max_length is None), batch_tfms=HFIds(tokenizer.pad_token_id),
                         dl_type=HFTextDL, dls_kwargs=dict(before_batch=HFPad(tokenizer, pad_to_multiple_of)))
