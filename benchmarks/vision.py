"""ULMFiT's parts on images: a small residual network is pretrained on five classes of CIFAR-10 and fine-tuned on the other five.

    python benchmarks/vision.py [--arms ..] [--labels 20 100 500] [--seeds 5] [--out benchmarks/results/vision.json]
    python benchmarks/vision.py --table

A seed draws the labelled images, the head's first weights and the order of the batches; all arms share these. Data loaders and model are
made anew for every run. All arms have the same epochs and batch size, and the same ten layer groups, by `layerwise_split`.

- one rate:        `fit_one_cycle`, everything trains, at one rate
- fine_tune:       fastai's, one frozen epoch among the same number of epochs
- /2.6:            `fit_one_cycle` with `DiscriminativeLR`
- /2.6 + STLR:     slanted triangle, everything trains
- /2.6 + gradual:  `fit_one_cycle` with `DiscriminativeLR` and `GradualUnfreezing`
- all three:       `fit_plan(ulmfit_plan(..))`, an epoch a layer group
- all, span=100:   the same, but rates that fall to a hundredth, as `fine_tune`'s do, rather than by 2.6 a layer, to 1/5,430
- from scratch:    one rate, and no pretrained weights
- head alone:      `fit_one_cycle` of the head on a body frozen but for its norm layers
- fine_tune(n):    without a rate, so at fastai's own

Every arm that has a rate tries three (--rates) on one tuning seed that isn't tested, for each number of labels, and takes that of the best
accuracy on 250 other training images a class. Where that is at an end, the next half decade is tried too, until it isn't. The test images,
200 a class, are looked at once a run, at its end. `train_bn` is fastai's default: norm layers of frozen groups train.

Data: `URLs.CIFAR`, which is downloaded where it isn't in FASTAI_HOME. The first 1,000 training and 200 test images of each class are used,
by name. The results that come with this file are from a subset of as many images, as JPEG. Runs that --out has are not run again."""
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

# As many steps as the few labels give, and with many as few epochs as leave some after the last of ten groups has opened
EPOCHS,BATCH = {20: 20, 100: 15, 500: 12},{20: 20, 100: 50, 500: 100}
PRETRAIN = dict(epochs=30, rate=3e-3, batch=50, seed=0)
N_TRAIN,N_TEST,N_VALID,TUNING_SEED = 1000,200,250,1000

def one_rate(learn, n, lr):
    "One cycle, one rate for all layers"
    learn.fit_one_cycle(n, lr)

def fine_tune(learn, n, lr=None):
    "fastai's, `n` epochs in all; its own rate if none is given"
    learn.fine_tune(n-1, *([] if lr is None else [lr]), freeze_epochs=1)

def discr(learn, n, lr):
    "One cycle, discriminative rates"
    learn.fit_one_cycle(n, lr, cbs=DiscriminativeLR())

def discr_gradual(learn, n, lr):
    "One cycle over gradual unfreezing at discriminative rates"
    learn.fit_one_cycle(n, lr, cbs=[DiscriminativeLR(), GradualUnfreezing(1)])

def planned(learn, n, lr, **kwargs):
    "Discriminative rates in slanted triangles, and what `kwargs` say"
    learn.fit_plan(learn.ulmfit_plan(n, lr, **kwargs))

# An epoch a layer group, and the paper's fall however many groups there are
stepwise = partial(planned, epochs=1, factor=2.6)

def head_alone(learn, n, lr):
    "One cycle of the head; under `train_bn` the body's norm layers train too"
    learn.freeze()
    learn.fit_one_cycle(n, lr)

TUNED = {'one rate': one_rate, 'fine_tune': fine_tune, '/2.6': discr, '/2.6 + STLR': partial(planned, factor=2.6, gradual=False),
         '/2.6 + gradual': discr_gradual, 'all three': stepwise, 'all, span=100': partial(planned, epochs=1, span=100),
         'from scratch': one_rate, 'head alone': head_alone}
DEFAULT = {'fine_tune(n)': fine_tune}

class NoValid(Callback):
    "No validation after the epochs: it would take longer than they do"
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
    "The first `n` images of each class by name: class to a tensor"
    def _load(f): return torch.tensor(np.array(load_image(f, mode='RGB'))).permute(2, 0, 1)
    mean,std = (torch.tensor(o)[:,None,None] for o in cifar_stats)
    return {d.name: (torch.stack([_load(f) for f in sorted(get_image_files(d))[:n]])/255. - mean)/std
            for d in sorted(folder.iterdir()) if d.is_dir()}

def labelled(by_class, pick):
    "Pairs of image and label, of the images of each class that `pick` gives the indices of, from the class's number and size"
    return [(xs[i], torch.tensor(c)) for c,xs in enumerate(by_class) for i in pick(c, len(xs))]

def model():
    "Stem, eight residual blocks, head: ten layers, 0.7 million parameters"
    widths = [16, 16, 16, 32, 32, 64, 64, 128, 128]
    blocks = [ResBlock(1, ni, nf, stride=nf//ni) for ni,nf in zip(widths, widths[1:])]
    return nn.Sequential(ConvLayer(3, 16, stride=2), *blocks, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 5)))

def learner(train, valid, batch, seed, body=None):
    "A learner from `seed`, with the pretrained `body` if that is given"
    set_seed(seed)
    dls = DataLoaders.from_dsets(train, valid, bs=batch, device='cpu', num_workers=0)
    # A quarter faster on a CPU
    m = model().to(memory_format=torch.channels_last)
    if body is not None: m[:-1].load_state_dict(body)
    return Learner(dls, m, loss_func=CrossEntropyLossFlat(), metrics=accuracy, splitter=layerwise_split, cbs=[Augment(), NoValid()])

def evaluate(learn, data):
    "Loss and accuracy on `data`"
    dl = learn.dls.valid.new(data, bs=250)
    with learn.removed_cbs(learn.no_valid),learn.no_bar(): loss,acc = learn.validate(dl=dl)
    return dict(loss=float(loss), accuracy=float(acc))

def pretrained(cache, train, test):
    "The body's weights, from `cache` or made and kept there, and how good the network is on its own five classes"
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
    "`step` half decades from `lr`: 1e-3, 3e-3, 1e-2, .."
    return float(f'{10**((round(2*np.log10(lr)) + step)/2):.0e}')

class Runs:
    "All runs in a file, which is written after each"
    def __init__(self, out, settings):
        self.out,self.d = out,dict(settings, runs=[])
        if not out.exists(): return
        self.d = json.loads(out.read_text())
        if (odd := {k for k,v in settings.items() if k != 'versions' and self.d[k] != json.loads(json.dumps(v))}):
            raise SystemExit(f'{out} has runs with other settings ({", ".join(sorted(odd))}): expected the same, or another --out')

    def get(self, f, **key):
        "The run of `key`: as the file has it, or what `f` returns"
        for r in self.d['runs']:
            if all(r[k] == v for k,v in key.items()): return r
        start = time.perf_counter()
        self.d['runs'].append(dict(key, **f(), seconds=round(time.perf_counter()-start, 1)))
        new = self.out.with_suffix('.part')
        new.write_text(json.dumps(self.d, indent=1))
        new.replace(self.out)
        return self.d['runs'][-1]

class Bench:
    "Data, pretrained body and runs"
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
        "One training, and what it gives `on` the validation or the test images"
        order = [torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(10*seed+c)).tolist() for c in range(5)]
        train,valid = (labelled(self.train, lambda c,n,s=s: order[c][s]) for s in (slice(labels), slice(-N_VALID, None)))
        learn = learner(train, valid, BATCH[labels], seed, None if arm == 'from scratch' else self.body)
        with learn.no_bar(),learn.no_logging(): {**TUNED, **DEFAULT}[arm](learn, EPOCHS[labels], *([] if rate is None else [rate]))
        return evaluate(learn, valid if on == 'valid' else labelled(self.test, lambda c,n: range(n)))

    def result(self, arm, labels, seed, rate, on='test'):
        "A run, if the file hasn't it"
        key = dict(arm=arm, labels=labels, seed=seed, rate=rate, on=on)
        return self.runs.get(partial(self.run, **key), **key)

    def rate(self, arm, labels):
        "The best of the rates that are tried with the tuning seed; None for an arm that has its own"
        if arm in DEFAULT: return None
        tried,todo = {},list(self.rates)
        while todo:
            for lr in todo: tried[lr] = self.result(arm, labels, TUNING_SEED, lr, 'valid')['accuracy']
            best = max(tried, key=tried.get)
            todo = [half_decade(end, step) for end,step in ((min(tried), -1), (max(tried), 1)) if best == end]
        return best

def interval(xs):
    "Mean, and half of its 95 % t-interval"
    xs = np.array(xs)
    return xs.mean(),stats.t.ppf(0.975, len(xs)-1)*xs.std(ddof=1)/len(xs)**0.5 if len(xs) > 1 else np.nan

def table(runs, against=None):
    "Markdown: accuracy in percent with its 95 % interval, an arm a row; `against` an arm, the paired differences"
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
    parser.add_argument('--arms', nargs='+', choices=[*TUNED, *DEFAULT], default=[*TUNED, *DEFAULT], metavar='ARM', help='of the above')
    parser.add_argument('--labels', type=int, nargs='+', choices=EPOCHS, default=list(EPOCHS), help='labelled images a class')
    parser.add_argument('--seeds', type=int, default=5, help='number of seeds that are tested')
    parser.add_argument('--rates', type=float, nargs='+', default=[3e-3, 1e-2, 3e-2], help='that every arm tries at first')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results/vision.json', help='where the results go')
    parser.add_argument('--cache', type=Path, default=fastai_cfg().path('model'), help='folder for the pretrained weights')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help="torch's")
    parser.add_argument('--table', action='store_true', help='only print what --out has')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(args.threads)
    if not args.table: main(args)
    runs = json.loads(args.out.read_text())['runs']
    print('\n' + table(runs), table(runs, 'fine_tune'), sep='\n\n')
