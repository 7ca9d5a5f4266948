"Usual settings by kind of architecture: the body's rate, from which a search starts, and the norm to which gradients are clipped"
__all__ = []

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import get_model
from torch import nn

from ..checks import batch_size
from ..distributed import n_processes
from ..groups.text_models import is_language_model
from ..plan.rates import FACTOR
from ..plan.schedules import STLR
from .accumulation import batches_per_step

# Rate of a pretrained transformer's top block under Adam, for models of at least this width, widest first. Source: Clark et al. 2020
# (ELECTRA), table 7, for a large, a base and a small model. Devlin et al. 2019 (BERT), appendix A.3, use 2e-5 to 5e-5 for all layers of a
# base or a large model, over thousands of steps
LAYER_NORM_LRS = {1024: 5e-5, 768: 1e-4, 0: 3e-4}
# These are for fits of so many steps
LAYER_NORM_STEPS = 60,250
# At a higher rate in a shorter fit, a rise of a few steps can destroy the features. So it has so many steps, or half of the cycle
SHORT_FIT_RISE,MAX_CUT_FRAC = 10,.5
# Rate of a convolutional network under Adam in a fit of at least so many steps: fastai's default for all layers
BATCH_NORM_LR,BATCH_NORM_STEPS = 1e-3,200
# If its head had a higher rate than its body, the loss would rise (measured on EfficientNet-Lite0 by `benchmarks/rates.py`)
BATCH_NORM_HEAD_RATIO = 1.
# Rate of a recurrent classifier's body, divided by the square root of the batch size, the scaling rule for Adam (Malladi et al. 2022), and
# the smallest and the largest batch of the AWD-LSTM in `benchmarks/real_models.py`
RECURRENT_LR,RECURRENT_SIZES = 1e-3,(8, 64)
# All groups of the body have this rate: if the rates fell by 2.6 per group, the lowest would hardly learn in few steps
RECURRENT_FACTOR = 1.
# A group that opens near the peak takes full steps at once, which can destroy its features. So the rate rises for half of the fit
RECURRENT_CUT_FRAC = .5
# Ratio of a block's rate to that of the block above it (Clark et al. 2020: 0.8 for small models, 0.9 for large ones)
BLOCK_DECAY = 0.9
# Largest norm of a transformer's gradients (BERT's `optimization.py`; also the default of Hugging Face's `Trainer`)
LAYER_NORM_CLIP = 1.
BATCH_OR_GROUP_NORM = nn.modules.batchnorm._BatchNorm,nn.GroupNorm

@dataclass(frozen=True)
class BodyPrior:
    "The usual rate of the body, known before anything is measured"
    lr: float|None # Rate of the group below the head; None for the paper's, η_L / 2.6
    kind: str # The networks that the rate is usual for
    is_limit: bool = False # Do higher rates destroy the pretrained features of such networks?
    is_settled: bool = False # Is a search unnecessary?
    scale: Callable|None = None # Function that returns what the rate is multiplied by in a fit of so many steps; None for 1
    factor: float = FACTOR # Ratio of the rate of a group of the body to that of the group below it
    head_ratio: float = FACTOR # Highest ratio of the head's rate to that of the group below it, if the head's rate was found
    cut_frac: float = STLR.cut_frac # Fraction of the cycle in which the rate rises
    short_rise: int = 0 # If the rate is raised in a short fit, number of steps in which it rises, or half of the cycle if that is less

    def lr_in(self,
        n_steps:int, # Number of steps of the fit
    ) -> float|None: # None for the paper's, η_L / 2.6
        "Return the usual rate in a fit of `n_steps` steps"
        return self.lr and self.lr*self._scale_in(n_steps)

    def cut_frac_in(self,
        n_steps:int, # Number of steps of the fit
        n_cycle:int, # Number of steps of the cycle: those of the fit, or of one of its phases
    ) -> float:
        "Return the fraction of a cycle in which the rate rises"
        if self._scale_in(n_steps) <= 1: return self.cut_frac
        return min(max(self.short_rise/max(n_cycle, 1), self.cut_frac), MAX_CUT_FRAC)

    def origin(self,
        n_steps:int, # Number of steps of the fit
    ) -> str:
        "Describe where the rate comes from"
        return 'what is usual ' + (f'in {n_steps} steps ' if self.scale else '') + f'for {self.kind}'

    def _scale_in(self, n_steps): return self.scale(max(n_steps, 1)) if self.scale else 1.

def layer_norm_scale(n_steps:int) -> float:
    """Return what the rate of a transformer is multiplied by in a fit of `n_steps` steps. In few steps, features hardly move at the usual
    rate, so it is higher in proportion, but at most doubled (measured on MiniLM by `benchmarks/rates.py`). In many steps, those that differ
    by chance move the features further, by the square root of their number: the rate falls by that root, to a third. In thousands of steps,
    a base model then has the rate of BERT's authors"""
    lowest,highest = LAYER_NORM_STEPS
    if n_steps < lowest: return min(lowest/n_steps, 2.)
    return max(sqrt(min(highest/n_steps, 1.)), 1/3)

def batch_norm_scale(n_steps:int) -> float:
    """Return what the rate of a convolutional network is multiplied by in a fit of `n_steps` steps: in few steps it is higher, at most
    three times as high (measured on EfficientNet-Lite0 by `benchmarks/rates.py`)"""
    return min(max(sqrt(BATCH_NORM_STEPS/n_steps), 1.), 3.)

def _is_layer_norm(m): return isinstance(m, nn.LayerNorm) or 'LayerNorm' in type(m).__name__ or 'RMSNorm' in type(m).__name__

def _width(m):
    "Return the number of features of a layer norm"
    if isinstance(m, nn.LayerNorm): return m.normalized_shape[-1]
    return max((p.numel() for p in m.parameters()), default=0)

def _body_modules(m, head):
    "Yield `m` and its submodules, except for modules of the head: all their parameters are in `head`, a set of `id`s"
    in_head = [id(p) in head for p in m.parameters()]
    if in_head and all(in_head): return
    yield m
    for c in m.children(): yield from _body_modules(c, head)

def _is_adaptive(learn, group):
    "Tell whether the optimiser divides each step by the size of the gradients, as Adam does: only then do models share a usual rate"
    opt = learn.opt
    # fastai uses an existing optimiser as it is
    if opt is None: opt = learn.opt_func if isinstance(learn.opt_func, OptimWrapper) else learn.opt_func([group], lr=learn.lr)
    # fastai calls the `alpha` of torch's ASGD, an average of its rates, `sqr_mom`, too
    return 'sqr_mom' in opt.hypers[0] and 'lambd' not in opt.hypers[0]

def _modules_below(learn, groups):
    "List the modules below the head"
    head = {id(p) for p in groups[-1]}
    return list(_body_modules(get_model(learn.model), head))

def usual_clip(
    learn:Learner, # The learner
    groups:list, # Its layer groups
) -> float|None: # None for no clipping
    "Return the usual largest norm of the gradients for a model of this kind, judged by the layers of the body"
    return LAYER_NORM_CLIP if any(map(_is_layer_norm, _modules_below(learn, groups))) else None

def _recurrent_prior(learn, groups):
    "Return the usual rate of a recurrent body. A search is unnecessary: in a few steps, ever higher rates seem better"
    if is_language_model(learn) or not _is_adaptive(learn, groups[-1]): return BodyPrior(None, 'recurrent networks', is_settled=True)
    # A loader that doesn't tell its batch size gets the lowest rate
    size,(lowest,highest) = (batch_size(learn.dls.train) or 0)*batches_per_step(learn)*n_processes(),RECURRENT_SIZES
    lr = RECURRENT_LR*sqrt(min(max(size, lowest), highest))
    kind = f'recurrent networks in batches of {size}' if size else 'recurrent networks'
    return BodyPrior(lr, kind, is_settled=True, factor=RECURRENT_FACTOR, cut_frac=RECURRENT_CUT_FRAC)

def body_prior(
    learn:Learner, # The learner
    groups:list, # Its layer groups
) -> BodyPrior:
    "Return the usual rate of the body for a model of this kind, judged by the layers of the body"
    modules = _modules_below(learn, groups)
    # The rate of a recurrent network would destroy a transformer below an LSTM, so the first of them decides
    telling = [m for m in modules if isinstance(m, nn.RNNBase) or _is_layer_norm(m)]
    if telling and isinstance(telling[0], nn.RNNBase): return _recurrent_prior(learn, groups)
    if not _is_adaptive(learn, groups[-1]): return BodyPrior(None, 'any network under this optimiser')
    # Layer norms before batch norms: some transformers begin with convolutions and batch norms
    widths = [_width(m) for m in telling if _is_layer_norm(m)]
    if widths:
        lr = next(lr for least,lr in LAYER_NORM_LRS.items() if max(widths) >= least)
        return BodyPrior(lr, 'networks with layer norms', is_limit=True, scale=layer_norm_scale, short_rise=SHORT_FIT_RISE)
    if any(isinstance(m, BATCH_OR_GROUP_NORM) for m in modules):
        return BodyPrior(BATCH_NORM_LR, 'networks with batch or group norms', scale=batch_norm_scale, head_ratio=BATCH_NORM_HEAD_RATIO)
    return BodyPrior(None, 'networks without norm layers')
