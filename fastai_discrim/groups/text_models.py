"Recognise fastai's text models, and language models of any kind, without importing fastai.text"
__all__ = []

from collections.abc import Callable

from fastai.learner import Learner
from torch import nn

from ..optional import if_loaded
from .modules import children_with_params, unwrapped
from .run_order import learner_input, run_outputs

CORE = 'fastai.text.models.core'

def text_splitter(model:nn.Module) -> Callable|None:
    "Return fastai's own splitter for `model`, or None if `model` is no text model of fastai's"
    if not isinstance(model, nn.Sequential) or len(model) != 2: return None
    body,head = model
    by_class = if_loaded(CORE, '_model_meta')
    if isinstance(body, if_loaded(CORE, 'SentenceEncoder')): return by_class.get(type(body.module), {}).get('split_clas')
    if isinstance(head, if_loaded(CORE, 'LinearDecoder')): return by_class.get(type(body), {}).get('split_lm')

def is_language_model(learn:Learner) -> bool:
    "Tell whether the model of `learn` outputs scores of tokens, which a model with a language model inside may not do"
    if isinstance(learn, if_loaded('fastai.text.learner', 'LMLearner')): return True
    model = unwrapped(learn.model)
    decoders = [d for d in map(_decoder, model.modules()) if d is not None]
    if not decoders: return False
    try: given,pred = run_outputs(model, learner_input(learn), decoders)
    # The model can't run on a batch if it needs callbacks that change the batch first
    except Exception: return _ends_with_decoder(model)
    return bool(pred) and any(t.shape[-1:] == pred[0].shape[-1:] for t in given)

def _decoder(m):
    "Return `m` if it is fastai's `LinearDecoder`, or its output embeddings if it is a language model of transformers; else None"
    if isinstance(m, if_loaded(CORE, 'LinearDecoder')): return m
    return m.get_output_embeddings() if hasattr(m, 'get_output_embeddings') else None

def _ends_with_decoder(m):
    "Tell whether the module that `m` declares last is a decoder of tokens"
    if _decoder(m) is not None: return True
    children = list(children_with_params(m).values())
    return bool(children) and _ends_with_decoder(children[-1])
