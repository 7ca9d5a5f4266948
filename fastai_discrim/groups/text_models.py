"fastai's text models, and language models of any kind; fastai.text itself is never imported here"
__all__ = []

from collections.abc import Callable

from fastai.learner import Learner
from fastai.torch_core import get_model
from torch import nn

from ..optional import if_loaded

CORE = 'fastai.text.models.core'

def text_splitter(
    model:nn.Module, # Any model
) -> Callable|None: # A function of the model, or None if it is no text model of fastai's
    "Return the splitter that fastai itself has for `model`"
    if not isinstance(model, nn.Sequential) or len(model) != 2: return None
    body,head = model
    by_class = if_loaded(CORE, '_model_meta')
    if isinstance(body, if_loaded(CORE, 'SentenceEncoder')): return by_class.get(type(body.module), {}).get('split_clas')
    if isinstance(head, if_loaded(CORE, 'LinearDecoder')): return by_class.get(type(body), {}).get('split_lm')

def is_language_model(
    learn:Learner, # Any learner
) -> bool:
    "Tell whether the model of `learn` gives tokens"
    if isinstance(learn, if_loaded('fastai.text.learner', 'LMLearner')): return True
    return any(map(_gives_tokens, get_model(learn.model).modules()))

def _gives_tokens(m):
    "Tell whether `m` is fastai's decoder, or a model of transformers with output embeddings"
    if isinstance(m, if_loaded(CORE, 'LinearDecoder')): return True
    return hasattr(m, 'get_output_embeddings') and m.get_output_embeddings() is not None
