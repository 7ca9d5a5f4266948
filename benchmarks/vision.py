"""Test the parts of ULMFiT on images: pretrain a small residual network on five classes of CIFAR-10, and fine-tune it on the other five.

    python benchmarks/vision.py [--arms ..] [--labels 20 100 500] [--seeds 5] [--out benchmarks/results/vision.json]
    python benchmarks/vision.py --table

A seed determines the labelled images, the head's initial weights and the order of the batches; all arms share these. Each run makes its own
data loaders and model. All arms have the same epochs and batch size, and the same ten layer groups, from `layerwise_split`.

- one rate:        `fit_one_cycle` of all layers at one rate
- fine_tune:       fastai's `fine_tune`, with one frozen epoch, for the same number of epochs in all
- /2.6:            `fit_one_cycle` with `DiscriminativeLR`
- /2.6 + STLR:     slanted triangle, all layers train
- /2.6 + gradual:  `fit_one_cycle` with `DiscriminativeLR` and `GradualUnfreezing`
- all three:       `fit_plan(ulmfit_plan(..))`, one epoch for each layer group
- all, span=100:   the same, but rates fall to a hundredth in all, as in `fine_tune`, instead of by 2.6 a layer, which is to 1/5,430
- from scratch:    one rate, without pretrained weights
- head alone:      `fit_one_cycle` of the head; of the body only norm layers train
- fine_tune(n):    without a rate, so at fastai's default

For each number of labels, each arm that has a rate tries three rates (--rates) with one tuning seed, which isn't tested, and takes the rate
with the best accuracy on 250 other training images per class. If that is the lowest or highest, it tries the next half decade, too, until
it isn't. Each run uses the test images, 200 per class, once, at its end. `train_bn` has fastai's default: norm layers of frozen groups
train.

Data: `URLs.CIFAR`, which is downloaded if FASTAI_HOME lacks it. The runs use the first 1,000 training and 200 test images of each class, by
name. The saved results are from a subset with as many images, as JPEG. Runs that are in --out are not run again."""
import argparse
import json
import platform
import time
import warnings
from functools import partial
from pathlib import Path

import fastai
import numpy as np
import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.schedule import Learner
from fastai.data.core import DataLoaders
from fastai.data.external import URLs, fastai_cfg, untar_data
from fastai.data.transforms import get_image_files
from fastai.layers import ConvLayer, ResBlock
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai.vision.core import cifar_stats, load_image
from fastprogress.fastprogress import progress_bar
from scipy import stats
from torch import nn

from fastai_discrim import __version__
from fastai_discrim.all import DiscriminativeLR, GradualUnfreezing, layerwise_split

# Epochs and batch size by number of labels: few labels need many epochs for enough steps; with many labels some epochs are left after the
# last of ten groups has opened
EPOCHS,BATCH = {20: 20, 100: 15, 500: 12},{20: 20, 100: 50, 500: 100}
PRETRAIN = dict(epochs=30, rate=3e-3, batch=50, seed=0)
N_TRAIN,N_TEST,N_VALID,TUNING_SEED = 1000,200,250,1000

def one_rate(learn, n, lr):
    "Run one cycle with one rate for all layers"
    learn.fit_one_cycle(n, lr)

def fine_tune(learn, n, lr=None):
    "Run fastai's `fine_tune` for `n` epochs in all, at its default rate if none is given"
    learn.fine_tune(n-1, *([] if lr is None else [lr]), freeze_epochs=1)

def discr(learn, n, lr):
    "Run one cycle with discriminative rates"
    learn.fit_one_cycle(n, lr, cbs=DiscriminativeLR())

def discr_gradual(learn, n, lr):
    "Run one cycle with gradual unfreezing and discriminative rates"
    learn.fit_one_cycle(n, lr, cbs=[DiscriminativeLR(), GradualUnfreezing(1)])

def planned(learn, n, lr, **kwargs):
    "Run slanted triangles with discriminative rates; `kwargs` are for `ulmfit_plan`"
    learn.fit_plan(learn.ulmfit_plan(n, lr, **kwargs))

# One epoch for each layer group, and the paper's factor for any number of groups
stepwise = partial(planned, epochs=1, factor=2.6)

def head_alone(learn, n, lr):
    "Run one cycle of the head; the body's norm layers train, too, as `train_bn` is on"
    learn.freeze()
    learn.fit_one_cycle(n, lr)

TUNED = {'one rate': one_rate, 'fine_tune': fine_tune, '/2.6': discr, '/2.6 + STLR': partial(planned, factor=2.6, gradual=False),
         '/2.6 + gradual': discr_gradual, 'all three': stepwise, 'all, span=100': partial(planned, epochs=1, span=100),
         'from scratch': one_rate, 'head alone': head_alone}
DEFAULT = {'fine_tune(n)': fine_tune}

class NoValid(Callback):
    "Skip the validation after each epoch, which would take longer than the epoch"
    def before_validate(self): raise CancelValidException()

class Augment(Callback):
    "Flip half of the training images, and shift a batch by up to `shift` pixels each way"
    def __init__(self, shift=4, flips=True): self.shift,self.flips = shift,flips
    def before_batch(self):
        if not self.training: return
        x,(i,j) = self.x.clone(),torch.randint(0, 2*self.shift+1, (2,))
        height,width = x.shape[-2:]
        if self.flips:
            flip = torch.rand(len(x)) < 0.5
            x[flip] = x[flip].flip(-1)
        self.learn.xb = (nn.functional.pad(x, (self.shift,)*4, mode='reflect')[:,:,i:i+height,j:j+width],)

def images(folder, n):
    "Load the first `n` images of each class by name; return a tensor for each class"
    def _load(f): return torch.tensor(np.array(load_image(f, mode='RGB'))).permute(2, 0, 1)
    mean,std = (torch.tensor(o)[:,None,None] for o in cifar_stats)
    return {d.name: (torch.stack([_load(f) for f in sorted(get_image_files(d))[:n]])/255. - mean)/std
            for d in sorted(folder.iterdir()) if d.is_dir()}

def labelled(by_class, pick):
    "Return pairs of image and label; `pick` returns the indices of the images of a class from the class's number and size"
    return [(xs[i], torch.tensor(c)) for c,xs in enumerate(by_class) for i in pick(c, len(xs))]

def model():
    "Make the network of stem, eight residual blocks and head: ten layers with 0.7 million parameters"
    widths = [16, 16, 16, 32, 32, 64, 64, 128, 128]
    blocks = [ResBlock(1, ni, nf, stride=nf//ni) for ni,nf in zip(widths, widths[1:])]
    return nn.Sequential(ConvLayer(3, 16, stride=2), *blocks, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 5)))

def learner(train, valid, batch, seed, body=None):
    "Make a learner from `seed`, with the pretrained `body` if one is given"
    set_seed(seed)
    dls = DataLoaders.from_dsets(train, valid, bs=batch, device='cpu', num_workers=0)
    # On a CPU this format is a quarter faster
    m = model().to(memory_format=torch.channels_last)
    if body is not None: m[:-1].load_state_dict(body)
    return Learner(dls, m, loss_func=CrossEntropyLossFlat(), metrics=accuracy, splitter=layerwise_split, cbs=[Augment(), NoValid()])

def evaluate(learn, data):
    "Return loss and accuracy on `data`"
    dl = learn.dls.valid.new(data, bs=250)
    with learn.removed_cbs(learn.no_valid),learn.no_bar(): loss,acc = learn.validate(dl=dl)
    return dict(loss=float(loss), accuracy=float(acc))

def pretrained(cache, train, test):
    "Pretrain the network, or load it from `cache`; return the body's weights, and loss and accuracy on the five source classes"
    file = cache/f'vision_{"_".join(f"{k}{v}" for k,v in PRETRAIN.items())}.pth'
    if not file.exists():
        learn = learner(labelled(train, lambda c,n: range(n)), labelled(test, lambda c,n: range(n)), PRETRAIN['batch'], PRETRAIN['seed'])
        print(f'pretraining for {PRETRAIN["epochs"]} epochs')
        learn.fit_one_cycle(PRETRAIN['epochs'], PRETRAIN['rate'])
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(dict(body=learn.model[:-1].state_dict(), result=evaluate(learn, learn.dls.valid.dataset)), file)
    kept = torch.load(file)
    return kept['body'],kept['result']

def half_decade(lr, step):
    "Move `lr` by `step` half decades: 1e-3, 3e-3, 1e-2, .."
    return float(f'{10**((round(2*np.log10(lr)) + step)/2):.0e}')

class Runs:
    "Keep all runs in a file, which is written after each run"
    def __init__(self, out, settings):
        self.out,self.d = out,dict(settings, runs=[])
        if not out.exists(): return
        self.d = json.loads(out.read_text())
        if (odd := {k for k,v in settings.items() if k != 'versions' and self.d[k] != json.loads(json.dumps(v))}):
            raise SystemExit(f'{out} has runs with other settings ({", ".join(sorted(odd))}): expected the same, or another --out')

    def get(self, f, **key):
        "Return the run of `key` from the file; if the file lacks it, call `f` and save what that returns"
        for r in self.d['runs']:
            if all(r[k] == v for k,v in key.items()): return r
        start = time.perf_counter()
        self.d['runs'].append(dict(key, **f(), seconds=round(time.perf_counter()-start, 1)))
        new = self.out.with_suffix('.part')
        new.write_text(json.dumps(self.d, indent=1))
        new.replace(self.out)
        return self.d['runs'][-1]

class Bench:
    "Hold data, pretrained body and runs"
    def __init__(self, args):
        path = untar_data(URLs.CIFAR)
        train,test = images(path/'train', N_TRAIN),images(path/'test', N_TEST)
        names = list(train)
        self.body,source = pretrained(args.cache, *([d[k] for k in names[:5]] for d in (train, test)))
        self.train,self.test = ([d[k] for k in names[5:]] for d in (train, test))
        self.rates = sorted(args.rates)
        settings = dict(source=names[:5], target=names[5:], epochs=EPOCHS, batch=BATCH, pretrain=PRETRAIN, on_source=source,
                        rates=self.rates, tuning_seed=TUNING_SEED, versions=dict(fastai_discrim=__version__, fastai=fastai.__version__,
                        torch=torch.__version__, python=platform.python_version(), threads=torch.get_num_threads()))
        self.runs = Runs(args.out, settings)

    def run(self, arm, labels, seed, rate, on):
        "Train once, and evaluate `on` the validation or the test images"
        order = [torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(10*seed+c)).tolist() for c in range(5)]
        train,valid = (labelled(self.train, lambda c,n,s=s: order[c][s]) for s in (slice(labels), slice(-N_VALID, None)))
        learn = learner(train, valid, BATCH[labels], seed, None if arm == 'from scratch' else self.body)
        with learn.no_bar(),learn.no_logging(): {**TUNED, **DEFAULT}[arm](learn, EPOCHS[labels], *([] if rate is None else [rate]))
        return evaluate(learn, valid if on == 'valid' else labelled(self.test, lambda c,n: range(n)))

    def result(self, arm, labels, seed, rate, on='test'):
        "Return the result of a run, which is done if the file lacks it"
        key = dict(arm=arm, labels=labels, seed=seed, rate=rate, on=on)
        return self.runs.get(partial(self.run, **key), **key)

    def rate(self, arm, labels):
        "Find the best rate with the tuning seed; return None for an arm at fastai's default rate"
        if arm in DEFAULT: return None
        tried,todo = {},list(self.rates)
        while todo:
            for lr in todo: tried[lr] = self.result(arm, labels, TUNING_SEED, lr, 'valid')['accuracy']
            best = max(tried, key=tried.get)
            todo = [half_decade(end, step) for end,step in ((min(tried), -1), (max(tried), 1)) if best == end]
        return best

def interval(xs):
    "Return the mean, and half of its 95 % t-interval"
    xs = np.array(xs)
    return xs.mean(),stats.t.ppf(0.975, len(xs)-1)*xs.std(ddof=1)/len(xs)**0.5 if len(xs) > 1 else np.nan

def table(runs, against=None):
    "Make a table with one row for each arm: accuracy in percent and its 95 % interval, or the paired differences from the arm `against`"
    acc = {}
    for r in runs:
        if r['on'] == 'test': acc.setdefault((r['arm'], r['labels']), {})[r['seed']] = 100*r['accuracy']
    labels,rows = sorted({k for _,k in acc}),[]
    for arm in [o for o in [*TUNED, *DEFAULT] if o != against]:
        cells = []
        for k in labels:
            a,b = acc.get((arm, k), {}),acc.get((against, k), {})
            xs = [a[s] - (b[s] if against else 0) for s in sorted(a) if s in b or not against]
            lrs = {r['rate'] for r in runs if (r['arm'], r['labels'], r['on']) == (arm, k, 'test')} - {None}
            cells.append((('{:+.1f}' if against else '{:.1f}') + ' ± {:.1f}').format(*interval(xs)) + ''.join(f' ({lr:.0e})' for lr in lrs
                         if not against) if xs else '')
        rows.append((arm, *cells))
    head = f'minus {against}' if against else 'arm',*(f'{k} labels a class' for k in labels)
    return '\n'.join('| ' + ' | '.join(r) + ' |' for r in (head, ('---',)*len(head), *rows))

def main(args):
    "Tune each arm, then test it, for each number of labels"
    bench = Bench(args)
    print(f'pretrained: accuracy {bench.runs.d["on_source"]["accuracy"]:.3f} on its own five classes')
    for labels in args.labels:
        print(f'{labels} labels a class: rates')
        rates = {arm: bench.rate(arm, labels) for arm in progress_bar(args.arms)}
        print(f'{labels} labels a class: seeds')
        for seed,arm in progress_bar([(seed, arm) for seed in range(args.seeds) for arm in rates]):
            bench.result(arm, labels, seed, rates[arm])

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--arms', nargs='+', choices=[*TUNED, *DEFAULT], default=[*TUNED, *DEFAULT], metavar='ARM', help='arms to run')
    parser.add_argument('--labels', type=int, nargs='+', choices=EPOCHS, default=list(EPOCHS), help='numbers of labelled images per class')
    parser.add_argument('--seeds', type=int, default=5, help='number of seeds that are tested')
    parser.add_argument('--rates', type=float, nargs='+', default=[3e-3, 1e-2, 3e-2], help='rates that each arm tries first')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results/vision.json', help='file of the results')
    parser.add_argument('--cache', type=Path, default=fastai_cfg().path('model'), help='folder for the pretrained weights')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help="number of torch's threads")
    parser.add_argument('--table', action='store_true', help='only print the tables of the results in --out')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(args.threads)
    if not args.table: main(args)
    runs = json.loads(args.out.read_text())['runs']
    print('\n' + table(runs), table(runs, 'fine_tune'), sep='\n\n')
