"""What the callbacks cost a batch, against the same fit without them. Two learners, arms interleaved, medians.

    python benchmarks/callback_cost.py [--repeats 9]

Unfreezing saves time by what it freezes; to see its own cost, all groups are open here.
The arm `stock` runs fastai as it is, without the recording of every group's rate that importing fastai_discrim adds."""
import argparse
import json
import time
from contextlib import contextmanager

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Recorder
from fastai.losses import CrossEntropyLossFlat
from fastai.text.learner import TextLearner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config
from fastai.text.models.core import get_text_classifier
from torch import nn

from fastai_discrim.all import DiscriminativeLR, Phase, Plan, discriminative_lrs, layerwise_split
from fastai_discrim.unfreeze import Unfreezing


class AllOpen(Unfreezing):
    "The work of unfreezing without its savings"
    def stages(self, n_groups): return [(1, tuple(range(n_groups)))]

@contextmanager
def stock():
    ours,Recorder.after_batch = Recorder.after_batch,Recorder._orig_after_batch
    try: yield
    finally: Recorder.after_batch = ours

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

def seconds(fit):
    t = time.perf_counter()
    fit()
    return time.perf_counter() - t

def measure(make, repeats, epochs=2):
    learn = make()
    learn.remove_cb(learn.progress)
    n,lrs = epochs*len(learn.dls.train),discriminative_lrs(1e-3, len(layerwise_split(learn.model)))
    plan = Plan([Phase(epochs, range(len(lrs)), lrs)])
    def plain(): learn.fit_one_cycle(epochs, 1e-3)
    arms = {'stock': plain, 'recording': plain,
            'DiscriminativeLR': lambda: learn.fit_one_cycle(epochs, 1e-3, cbs=DiscriminativeLR()),
            'unfreezing': lambda: learn.fit_one_cycle(epochs, 1e-3, cbs=AllOpen()),
            'both': lambda: learn.fit_one_cycle(epochs, 1e-3, cbs=[AllOpen(), DiscriminativeLR()]),
            'fit_plan': lambda: learn.fit_plan(plan)}
    times = {k: [] for k in arms}
    with learn.no_logging():
        plain()
        for _ in range(repeats):
            for k,fit in arms.items():
                if k == 'stock':
                    with stock(): times[k].append(seconds(fit))
                else: times[k].append(seconds(fit))
    t = {k: np.array(v)/n*1e6 for k,v in times.items()}
    return {k: dict(us_per_batch=float(np.median(v)), over_stock_us=float(np.median(v-t['stock'])), ratio=float(np.median(v/t['stock'])))
            for k,v in t.items()}

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=9, help='interleaved repeats of every arm')
    args = parser.parse_args()
    torch.set_num_threads(1)
    res = {'MLP, 3 groups, batch 16': measure(mlp, args.repeats),
           'AWD-LSTM classifier 128/256, batch 32': measure(clas, max(args.repeats//3, 1), 1)}
    for name,rows in res.items():
        print(f'\n{name}\n{"arm":<18}{"us a batch":>12}{"over stock":>12}{"ratio":>8}')
        for k,r in rows.items(): print(f'{k:<18}{r["us_per_batch"]:>12.0f}{r["over_stock_us"]:>12.0f}{r["ratio"]:>8.3f}')
    print('\n' + json.dumps(res))
