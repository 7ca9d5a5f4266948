"Frozen features: collect the inputs of the head, computed by the frozen body, with the targets, in one pass over the data"
__all__ = []

from contextlib import ExitStack
from math import ceil, inf

from fastai.callback.core import Callback, CancelValidException
from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from ..checks import count_items, has_valid
from ..distributed import log_rank0
from .frozen_head import SplitHead, items_in, map_tensors, module_inputs

# Training items per validation item; without a validation set, one of so many training batches is held out
TRAIN_PER_VALID,BATCHES_PER_HELD_OUT = 4,5


class FeatureRecorder(Callback):
    "Record the inputs of modules, and the targets, of at most `n_batch` batches, or at most `n_items` items in whole batches"
    # After the progress bar, which then also counts the batch that ends the pass
    order = ProgressCallback.order+1
    def __init__(self, modules:list, n_batch:float, n_items:float):
        self.modules,self.n_batch,self.n_items,self.batches = modules,n_batch,n_items,[]

    def on_call(self, m, args, kwargs):
        "Record the inputs of the first call of `m` in a batch; a forward pre-hook"
        self.inputs.setdefault(m, module_inputs(m, args, kwargs))

    def before_batch(self): self.inputs = {}

    def after_batch(self):
        features = [o for m in self.modules for o in self.inputs[m]]
        targets = map_tensors(lambda t: t.as_subclass(Tensor), self.yb)
        self.batches.append((features, *targets))
        if len(self.batches) >= self.n_batch or items_in(self.batches) >= self.n_items: raise CancelValidException()

def frozen_features(learn:Learner, head:SplitHead, dl, n_batch:float=inf, n_items:float=inf) -> list:
    """Run `learn` over `dl` in evaluation mode, with its callbacks, and collect one tuple per batch: the inputs of its head, and the
    targets. The limits are those of `FeatureRecorder`"""
    recorder = FeatureRecorder(head.sources(), n_batch, n_items)
    with ExitStack() as hooks:
        for m in recorder.modules: hooks.enter_context(m.register_forward_pre_hook(recorder.on_call, with_kwargs=True))
        learn.validate(dl=dl, cbs=recorder)
    # Another callback cancelled the pass, and `validate` caught its exception
    if not recorder.batches: raise CancelValidException()
    return recorder.batches

def shuffled(dl, n):
    "Return `dl` in random order if it has more than `n` items, as the first may share a class; return `dl` itself if it can't be shuffled"
    size = count_items(dl)
    if size is None or size <= n or isinstance(dl.dataset, IterableDataset): return dl
    if hasattr(dl, 'new'): return dl.new(shuffle=True)
    # Any other sampler may leave out items on purpose
    if not isinstance(dl, DataLoader) or not isinstance(dl.sampler, SequentialSampler) or dl.batch_size is None: return dl
    return DataLoader(dl.dataset, dl.batch_size, shuffle=True, collate_fn=dl.collate_fn)

def train_and_valid_features(learn:Learner, head:SplitHead, n_batch:int) -> tuple:
    "Collect the `frozen_features` of at most `n_batch` training batches, and of a quarter as many items of the validation set"
    train = frozen_features(learn, head, learn.dls.train, n_batch)
    if has_valid(learn):
        n_items = max(items_in(train)//TRAIN_PER_VALID, 1)
        return train,frozen_features(learn, head, shuffled(learn.dls.valid, n_items), n_items=n_items)
    held_out = ceil(len(train)/BATCHES_PER_HELD_OUT)
    if held_out == len(train):
        raise ValueError('no validation set, and 1 training batch: expected at least 2, one of which is held out; give the learner a '
                         'validation set, or smaller batches')
    log_rank0(learn, f'head_lr_find: no validation set, so {held_out} of {len(train)} training batches are held out')
    return train[held_out:],train[:held_out]
