"""Compare gradual unfreezing in fastai_discrim, in fastai by hand, and in Lightning: finetuning-scheduler and `BackboneFinetuning`.

    pip install -e . finetuning-scheduler lightning
    python benchmarks/peers.py [--repeats 7] [--out benchmarks/results/peers.json]
    python benchmarks/peers.py --table

Two models: a small AWD-LSTM classifier of fastai's without dropout, and an MLP whose steps are so short that the framework takes most of
their time. Both have five layer groups and the same plan: the head trains for one epoch, then one more group opens in each epoch, and all
groups train for four epochs. Each group has the rate of the group above divided by 2.6, constant within a phase, as all libraries can do
this. All arms have the same initial weights, the same batches in the same order from a torch DataLoader, `torch.optim.SGD` with momentum,
a CPU, one thread, and no logger, progress bar or validation.

- torch:             a training loop by hand, to which the other arms are compared
- fastai_discrim:    `fit_plan`
- fastai by hand:    `freeze_to` and `fit`, phase by phase. `learn.freeze_to` resets the optimiser's state, here the momentum, so the final
                     weights differ; the other arms keep the state
- fts:               finetuning-scheduler with its default, `restore_best`: it saves a checkpoint after each epoch with the lowest loss so
                     far, and the next phase begins from it. This needs a logged loss; the files are in a temporary folder
- fts, no restore:   `restore_best=False`, without checkpoints and logging
- BackboneFinetuning: another plan, as this callback knows only a backbone that opens at one epoch: the head trains for one epoch, then all
                     layers, the body at the head's rate / 2.6. Don't compare its mean, whole, loss and differs with those of other arms

fastai's arms have its Recorder, which keeps the rates and losses of every step; arms without a logged loss have nothing like it. Each run
has its own process, forked from one that has imported all libraries and trained nothing, and warms up by a fit over two batches. Arms take
turns. Hooks of torch record when a step ends and when a forward pass begins, so all arms are timed alike. Linux only.

- step:     time from the end of one step to the end of the next: the median over the epochs with all groups open, relative to torch in the
            same repeat, with quartiles
- mean:     the mean over all epochs of their median step, where frozen groups save time, relative to torch
- epoch:    ms from the last step of an epoch to the first batch of the next, if the phase doesn't change
- change:   additional ms if the phase changes
- whole:    time of the whole fit, including the making of learner or trainer, relative to torch
- peak:     most MB that another fit over two batches adds to the memory of the process (so without model and imports), with an allocator
            that returns freed memory at once
- lines:    lines that a user writes, one statement each, without imports, comments and docstrings. A LightningModule counts; what names the
            layer groups (a splitter or patterns) doesn't, nor do arguments that turn Lightning's defaults off
- loss:     mean over the batches after training, in evaluation mode
- differs:  the greatest absolute difference from torch's final weights and batch norm statistics"""
import argparse
import ast
import ctypes
import gc
import inspect
import json
import os
import platform
import tempfile
import textwrap
import time
import warnings
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config, awd_lstm_clas_split
from fastai.text.models.core import get_text_classifier
from fastcore.basics import defaults
from fastprogress.fastprogress import progress_bar
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader

from fastai_discrim.all import Flat, Phase, Plan, discriminative_lrs

try:
    from finetuning_scheduler import FinetuningScheduler, FTSCheckpoint
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import BackboneFinetuning
# The tables of saved runs need none of these packages
except ImportError: LightningModule = None

EPOCHS,MOM = (1, 1, 1, 1, 4),0.9
QUIET = dict(accelerator='cpu', devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False)

@dataclass
class Task:
    "Hold what all arms get"
    model: nn.Module
    loader: DataLoader
    lrs: list # A rate for each layer group, input first
    splitter: callable # Function that returns the layer groups, for torch and fastai
    patterns: list # Patterns of the layer groups' names, head first, for finetuning-scheduler
    n_body: int # Number of the model's children that are the body

def torch_loop(t):
    groups = t.splitter(t.model)
    opt = torch.optim.SGD([dict(params=list(g), lr=lr) for g,lr in zip(groups, t.lrs)], momentum=MOM)
    for phase,n_epoch in enumerate(EPOCHS):
        for i,g in enumerate(groups):
            for p in g: p.requires_grad_(i >= len(groups)-1-phase)
        for _ in range(n_epoch):
            for x,y in t.loader:
                F.cross_entropy(t.model(x), y).backward()
                opt.step()
                opt.zero_grad()

def fit_plan(t):
    opt_func = partial(OptimWrapper, opt=torch.optim.SGD, momentum=MOM)
    learn = Learner(DataLoaders(t.loader, []), t.model, F.cross_entropy, opt_func=opt_func, splitter=t.splitter)
    n = len(t.lrs)
    plan = Plan([Phase(n_epoch, range(n-1-i, n), t.lrs, Flat(), moms=(MOM,)*3) for i,n_epoch in enumerate(EPOCHS)])
    learn.fit_plan(plan)

def by_hand(t):
    opt_func = partial(OptimWrapper, opt=torch.optim.SGD, momentum=MOM)
    learn = Learner(DataLoaders(t.loader, []), t.model, F.cross_entropy, opt_func=opt_func, splitter=t.splitter)
    for i,n_epoch in enumerate(EPOCHS):
        learn.freeze_to(-1-i)
        learn.fit(n_epoch, t.lrs)

class Tuned(LightningModule or object):
    def __init__(self, model, lr):
        super().__init__()
        self.model,self.lr = model,lr
    def training_step(self, batch, batch_idx):
        x,y = batch
        return F.cross_entropy(self.model(x), y)
    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], self.lr, momentum=MOM)

class Logged(Tuned):
    def training_step(self, batch, batch_idx):
        x,y = batch
        loss = F.cross_entropy(self.model(x), y)
        self.log('train_loss', loss, on_step=False, on_epoch=True)
        return loss

class BodyHead(Tuned):
    def __init__(self, body, head, lr):
        super(Tuned, self).__init__()
        self.backbone,self.head,self.lr = body,head,lr
    def training_step(self, batch, batch_idx):
        x,y = batch
        return F.cross_entropy(self.head(self.backbone(x)), y)

def fts(t):
    phases = zip(t.patterns, reversed(t.lrs), accumulate(EPOCHS))
    schedule = {i: dict(params=[p], lr=lr, max_transition_epoch=end) for i,(p,lr,end) in enumerate(phases)}
    cbs = [FinetuningScheduler(schedule, epoch_transitions_only=True), FTSCheckpoint(monitor='train_loss', save_on_train_epoch_end=True)]
    Trainer(max_epochs=sum(EPOCHS), callbacks=cbs, **QUIET).fit(Logged(t.model, t.lrs[-1]), t.loader)

def fts_no_restore(t):
    phases = zip(t.patterns, reversed(t.lrs), accumulate(EPOCHS))
    schedule = {i: dict(params=[p], lr=lr, max_transition_epoch=end) for i,(p,lr,end) in enumerate(phases)}
    cbs = [FinetuningScheduler(schedule, epoch_transitions_only=True, restore_best=False), FTSCheckpoint(save_top_k=0)]
    Trainer(max_epochs=sum(EPOCHS), callbacks=cbs, **QUIET).fit(Tuned(t.model, t.lrs[-1]), t.loader)

def backbone(t):
    cb = BackboneFinetuning(unfreeze_backbone_at_epoch=EPOCHS[0], lambda_func=lambda epoch: 1., backbone_initial_lr=t.lrs[-2])
    module = BodyHead(t.model[:t.n_body], t.model[t.n_body:], t.lrs[-1])
    Trainer(max_epochs=sum(EPOCHS), callbacks=cb, enable_checkpointing=False, **QUIET).fit(module, t.loader)

# Code that a user writes for each arm; the last function runs the arm
ARMS = {'torch': [torch_loop], 'fastai_discrim': [fit_plan], 'fastai by hand': [by_hand], 'fts': [Logged, fts],
        'fts, no restore': [Tuned, fts_no_restore], 'BackboneFinetuning': [BodyHead, backbone]}

class First(nn.Module):
    "Select the logits from the output of fastai's classifier"
    def forward(self, x): return x[0]

def clas(n_batch):
    x = torch.randint(3, 4000, (n_batch, 16, 40))
    # With `weight_p=0` torch returns the raw weights themselves, and fastai's `WeightDropout` fails at the second batch
    none = {k: 1e-12 if k == 'weight_p' else 0. for k in awd_lstm_clas_config if k.endswith('_p')}
    config = {**awd_lstm_clas_config, **none, 'emb_sz': 64, 'n_hid': 128}
    model = nn.Sequential(*get_text_classifier(AWD_LSTM, 4000, 2, config=config, ps=[0.]), First())
    patterns = ['model.1.*', *(f'model.0.module.rnns.{i}.*' for i in (2, 1, 0)), 'model.0.module.encoder.*']
    return model,x,(x < 2000).float().mean(2) > 0.5,awd_lstm_clas_split,patterns,1

def linears(model): return [list(o.parameters()) for o in model if isinstance(o, nn.Linear)]

def mlp(n_batch):
    x,widths = torch.randn(n_batch, 16, 20),[20, 64, 64, 64, 64]
    model = nn.Sequential(*(o for ni,nf in zip(widths, widths[1:]) for o in (nn.Linear(ni, nf), nn.ReLU())), nn.Linear(64, 2))
    return model,x,x.sum(2) > 0,linears,[f'model.{i}.*' for i in (8, 6, 4, 2, 0)],8

# For each model: a function that makes it and its data, the number of batches in an epoch, and the head's rate
MODELS = {'AWD-LSTM': (clas, 8, 0.01), 'MLP': (mlp, 60, 0.1)}

def task(name, n_batch=None):
    "Make model and data from one seed, the same for all arms"
    make,n,lr = MODELS[name]
    torch.manual_seed(0)
    model,x,y,*groups = make(n)
    return Task(model, DataLoader(list(zip(x, y.long()))[:n_batch], batch_size=None), discriminative_lrs(lr, len(EPOCHS)).tolist(), *groups)

def peak_memory(f):
    "Return the most MB that `f()` adds to the memory of the process"
    def _mb(field): return int(Path('/proc/self/status').read_text().split(field+':')[1].split()[0])/1024
    libc = ctypes.CDLL(None)
    # Set M_MMAP_THRESHOLD: otherwise glibc keeps some freed tensors, which makes a greater difference than the arms do
    libc.mallopt(-3, 1<<16)
    gc.collect()
    libc.malloc_trim(0)
    # Reset the peak
    Path('/proc/self/clear_refs').write_text('5')
    before = _mb('VmRSS')
    f()
    return _mb('VmHWM') - before

def run(name, arm):
    "Run one fit, and return its measurements and final weights"
    # Silence stdout and stderr, also those of C code
    for fd in (1, 2): os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
    warnings.filterwarnings('ignore')
    defaults.callbacks = [o for o in defaults.callbacks if o is not ProgressCallback]
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(tmp)
        fit = ARMS[arm][-1]
        fit(task(name, 2))
        t,begun,ended = task(name),[],[]
        # Hook the first child, as `BackboneFinetuning` doesn't call the model itself
        hooks = [t.model[0].register_forward_pre_hook(lambda *_: begun.append(time.perf_counter())),
                 register_optimizer_step_post_hook(lambda *_: ended.append(time.perf_counter()))]
        start = time.perf_counter()
        fit(t)
        whole = time.perf_counter()-start
        for o in hooks: o.remove()
        peak = peak_memory(partial(fit, task(name, 2)))
        os.chdir('/')
    starts,ends = (np.array(o).reshape(sum(EPOCHS), -1) for o in (begun, ended))
    steps,gaps = np.median(np.diff(ends), axis=1)*1e6,(starts[1:,0]-ends[:-1,-1])*1e3
    last,epoch = sum(EPOCHS[:-1]),np.median(gaps[sum(EPOCHS[:-1]):])
    changes = gaps[:1 if arm == 'BackboneFinetuning' else last] - epoch
    t.model.eval()
    with torch.no_grad(): loss = np.mean([F.cross_entropy(t.model(x), y).item() for x,y in t.loader])
    weights = np.concatenate([v.double().flatten().numpy() for v in t.model.state_dict().values()])
    return dict(step_us=np.median(np.diff(ends[last:]))*1e6, mean_us=steps.mean(), epoch_ms=epoch, change_ms=np.median(changes),
                whole_ms=whole*1e3, peak_mb=peak, loss=loss),weights

def n_lines(*objs):
    "Count statements; a class counts with the methods that it inherits from this file, a function without its `def`"
    def _methods(o): return [m for _,m in inspect.getmembers(o, inspect.isfunction) if m.__module__ == __name__]
    def _lines(f): return len(ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(f)))).splitlines())
    return sum(1 + sum(map(_lines, _methods(o))) if inspect.isclass(o) else _lines(o)-1 for o in objs)

def main(args):
    "Run all arms in turn, and save the results"
    if LightningModule is None: raise SystemExit('expected finetuning-scheduler and lightning: pip install finetuning-scheduler lightning')
    torch.set_num_threads(1)
    packages = ['fastai_discrim', 'fastai', 'finetuning-scheduler', 'lightning', 'torch', 'numpy']
    d = dict(epochs=EPOCHS, momentum=MOM, models={k: dict(batches=n, head_lr=lr) for k,(_,n,lr) in MODELS.items()},
             versions={**{k: version(k) for k in packages}, 'python': platform.python_version()},
             lines={k: n_lines(*objs) for k,objs in ARMS.items()}, runs=[])
    arms = list(ARMS)
    # Begin each repeat with another arm
    todo = [(name, i, arms[(i+j)%len(arms)]) for name in MODELS for i in range(args.repeats) for j in range(len(arms))]
    with get_context('fork').Pool(1, maxtasksperchild=1) as pool:
        refs = {name: pool.apply(run, (name, 'torch'))[1] for name in MODELS}
        for name,i,arm in progress_bar(todo):
            res,weights = pool.apply(run, (name, arm))
            d['runs'].append(dict(model=name, arm=arm, repeat=i, **res, differs=np.abs(weights-refs[name]).max()))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(d, indent=1))

def table(d, name):
    "Make a table as Markdown: medians over the repeats, one row for each arm"
    rows = [('arm', 'step, µs', 'step / torch', 'mean / torch', 'epoch, ms', 'change, ms', 'whole / torch', 'peak, MB', 'lines', 'loss',
             'differs')]
    rows.append(('---',)*len(rows[0]))
    runs = {arm: [r for r in d['runs'] if (r['model'], r['arm']) == (name, arm)] for arm in d['lines']}
    for arm,rs in runs.items():
        def med(k, rs=rs): return np.median([r[k] for r in rs])
        def ratio(k, rs=rs, form='{1:.2f}'):
            by_repeat = {r['repeat']: r[k] for r in runs['torch']}
            return form.format(*np.quantile([r[k]/by_repeat[r['repeat']] for r in rs], [0.25, 0.5, 0.75]))
        rows.append((arm, f'{med("step_us"):.0f}', ratio('step_us', form='{1:.2f} ({0:.2f} .. {2:.2f})'), ratio('mean_us'),
                     f'{med("epoch_ms"):.2f}', f'{med("change_ms"):.2f}', ratio('whole_ms'), f'{med("peak_mb"):.1f}',
                     str(d['lines'][arm]), f'{med("loss"):.6f}', f'{med("differs"):.0e}'))
    return '\n'.join('| ' + ' | '.join(r) + ' |' for r in rows)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=7, help='number of runs of each arm')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results/peers.json', help='file of the results')
    parser.add_argument('--table', action='store_true', help='only print the tables of the results in --out')
    args = parser.parse_args()
    if not args.table: main(args)
    d = json.loads(args.out.read_text())
    print('\n' + ', '.join(f'{k} {v}' for k,v in d['versions'].items()))
    for name in MODELS: print(f'\nAn {name}:\n\n{table(d, name)}')
