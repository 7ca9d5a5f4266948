"Train models of Hugging Face's transformers with fastai, from a data frame to a saved learner: `from fastai_discrim.huggingface import *`"
__all__ = ['HFTextBlock', 'HFTextDataLoaders', 'HFTextLearner', 'hf_text_classifier_learner']

from importlib.util import find_spec

if find_spec('transformers') is None:
    raise ImportError("transformers isn't installed, and is needed for its models: `pip install 'fastai_discrim[transformers]'`")

from .block import HFTextBlock
from .learner import HFTextLearner, hf_text_classifier_learner
from .loaders import HFTextDataLoaders
