"""Measure the time that each callback adds to a batch, compared with the same fit in stock fastai. There are two learners; the arms take
turns, and the result is the median over all batches of all repeats, so that other work on the machine has little effect.

    python benchmarks/callback_cost.py [--repeats 30]

Unfreezing saves time by what it freezes. To measure its own cost, all groups are open here.
The arm `stock` runs fastai without the two methods that importing fastai_discrim wraps, `fit` and `fine_tune`; the arm `imported` runs the
same fit with them."""
import argparse
import json
import time
from contextlib import contextmanager, nullcontext

import fastai.callback.schedule  # noqa: F401, for `fit_one_cycle`
import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.text.learner import TextLearner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config
from fastai.text.models.core import get_text_classifier
from torch import nn

from fastai_discrim.all import DiscriminativeLR, GroupLRRecorder, Phase, Plan, discriminative_lrs, layerwise_split
from fastai_discrim.callbacks.unfreezing import Unfreezing


class AllOpen(Unfreezing):
    "Do the work of unfreezing, but leave all groups open"
    def schedule(self, n_groups, n_epoch): return [(n_epoch, tuple(range(n_groups)))]

@contextmanager
def stock():
    "Restore fastai's own methods inside the context"
    wrappers = {nm: getattr(Learner, nm) for nm in ('fit', 'fine_tune')}
    # `functools.wraps` keeps the wrapped method in `__wrapped__`
    for nm,f in wrappers.items(): setattr(Learner, nm, f.__wrapped__)
    try: yield
    finally:
        for nm,f in wrappers.items(): setattr(Learner, nm, f)

class Clock(Callback):
    "Record when each batch ends. All arms have this callback"
    order,run_valid = -1000,False
    def before_train(self): self.times = [time.perf_counter()]
    def after_batch(self): self.times.append(time.perf_counter())

def loaders(x, y, bs):
    ds = list(zip(x, y))
    return DataLoaders.from_dsets(ds, ds[:bs], bs=bs, device='cpu', num_workers=0)

def mlp():
    x = torch.randn(3200, 10)
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 2))
    return Learner(loaders(x, (x.sum(1) > 0).long(), 16), model, loss_func=CrossEntropyLossFlat(), splitter=layerwise_split)

def clas():
    x = torch.randint(3, 8000, (640, 70))
    model = get_text_classifier(AWD_LSTM, 8000, 2, config=dict(awd_lstm_clas_config, emb_sz=128, n_hid=256))
    return TextLearner(loaders(x, x[:,0] % 2, 32), model, loss_func=CrossEntropyLossFlat(), splitter=layerwise_split)

def measure(make, repeats):
    learn,clock = make(),Clock()
    learn.remove_cb(learn.progress)
    lrs = discriminative_lrs(1e-3, len(layerwise_split(learn.model)))
    plan = Plan([Phase(1, range(len(lrs)), lrs)])
    def one_cycle(*cbs): learn.fit_one_cycle(1, 1e-3, cbs=[clock, *cbs])
    arms = {'stock': one_cycle, 'imported': one_cycle, 'GroupLRRecorder': lambda: one_cycle(GroupLRRecorder()),
            'DiscriminativeLR': lambda: one_cycle(DiscriminativeLR()), 'unfreezing': lambda: one_cycle(AllOpen()),
            'both': lambda: one_cycle(AllOpen(), DiscriminativeLR()), 'fit_plan': lambda: learn.fit_plan(plan, cbs=clock)}
    times = {k: [] for k in arms}
    with learn.no_logging():
        one_cycle()
        for _ in range(repeats):
            for k,fit in arms.items():
                with stock() if k == 'stock' else nullcontext(): fit()
                # Skip the first batches, which warm up
                times[k] += np.diff(clock.times)[2:].tolist()
    us = {k: np.median(v)*1e6 for k,v in times.items()}
    return {k: dict(us_per_batch=v, over_stock_us=v-us['stock'], ratio=v/us['stock']) for k,v in us.items()}

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=30, help='number of repeats of each arm')
    args = parser.parse_args()
    torch.set_num_threads(1)
    res = {'MLP, 3 groups, batch 16': measure(mlp, args.repeats),
           'AWD-LSTM classifier 128/256, batch 32': measure(clas, max(args.repeats//6, 1))}
    for name,rows in res.items():
        print(f'\n{name}\n{"arm":<18}{"us a batch":>12}{"over stock":>12}{"ratio":>8}')
        for k,r in rows.items(): print(f'{k:<18}{r["us_per_batch"]:>12.0f}{r["over_stock_us"]:>12.0f}{r["ratio"]:>8.3f}')
    print('\n' + json.dumps(res))
