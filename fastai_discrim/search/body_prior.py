"The body's learning rate by kind of architecture: where the search begins, and what a plan has that isn't searched for"
__all__ = []

from dataclasses import dataclass

from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import get_model
from torch import nn

# Adam on pretrained transformers, by the width of their layers, from the widest: Clark et al. 2020 (ELECTRA), table 7, for a small, a base
# and a large model, with lower rates in the layers below. Devlin et al. 2019 (BERT), appendix A.3, have 2e-5 to 5e-5 for all layers of a
# base or a large model, for thousands of steps
LAYER_NORM_LRS = {1024: 5e-5, 768: 1e-4, 0: 3e-4}
# Adam on convolutional networks: fastai's default for all layers
BATCH_NORM_LR = 1e-3
# Each block's rate is that of the block above times this (Clark et al. 2020: 0.8 for small models, 0.9 for large ones)
BLOCK_DECAY = 0.9

@dataclass(frozen=True)
class BodyPrior:
    "What is known of the body's rate before anything is measured"
    lr: float|None # Rate of the group below the head; None for the paper's, η_L / 2.6
    kind: str # Of which networks it is known
    is_limit: bool = False # Do higher rates destroy what such networks have learnt?
    is_settled: bool = False # Is there nothing to measure?

def _is_layer_norm(m): return isinstance(m, nn.LayerNorm) or 'LayerNorm' in type(m).__name__ or 'RMSNorm' in type(m).__name__

def _width(m):
    "Return how many features a layer norm has"
    if isinstance(m, nn.LayerNorm): return m.normalized_shape[-1]
    return max((p.numel() for p in m.parameters()), default=0)

def _layer_norm_lr(norms):
    "Return what is usual for a transformer as wide as the widest of its layer norms"
    width = max(map(_width, norms))
    return next(lr for least,lr in LAYER_NORM_LRS.items() if width >= least)

def _is_batch_or_group_norm(m): return isinstance(m, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm))

def _body_modules(m, head):
    "Yield `m` and the modules in it, but for those that belong to the head: all their parameters are in `head`, by `id`"
    in_head = [id(p) in head for p in m.parameters()]
    if in_head and all(in_head): return
    yield m
    for c in m.children(): yield from _body_modules(c, head)

def _is_adaptive(learn, group):
    "Tell whether the optimiser scales each step by the gradient's size, as Adam does: only then are rates alike from model to model"
    opt = learn.opt
    # One that is there already fastai takes as it is
    if opt is None: opt = learn.opt_func if isinstance(learn.opt_func, OptimWrapper) else learn.opt_func([group], lr=learn.lr)
    return 'sqr_mom' in opt.hypers[0]

def body_prior(
    learn:Learner, # The learner
    groups:list, # Its layer groups
) -> BodyPrior:
    "Return what fine-tuning usually takes for a model of its kind, judged by the layers of its body"
    head = {id(p) for p in groups[-1]}
    modules = list(_body_modules(get_model(learn.model), head))
    # The paper's rate is for these, and higher ones only seem better in a few steps
    if any(isinstance(m, nn.RNNBase) for m in modules): return BodyPrior(None, 'recurrent networks', is_settled=True)
    if not _is_adaptive(learn, groups[-1]): return BodyPrior(None, 'any network under this optimiser')
    # Some transformers begin with convolutions and batch norms
    norms = list(filter(_is_layer_norm, modules))
    if norms: return BodyPrior(_layer_norm_lr(norms), 'networks with layer norms', is_limit=True)
    if any(map(_is_batch_or_group_norm, modules)): return BodyPrior(BATCH_NORM_LR, 'networks with batch or group norms')
    return BodyPrior(None, 'networks without norm layers')
