"What the pages have and don't make, small enough for a CPU: data, learners, and pretrained models that nothing is downloaded for"
import re
from functools import partial

import fastai.callback.all as callbacks
import fastai.tabular.all as tabular
import fastai.text.all as text
import fastai.vision.all as vision
import numpy as np
import pandas as pd
from conftest import SMALL, make_clas, make_mlp
from fastai.torch_core import set_seed
from fastai.vision.data import ImageDataLoaders
from PIL import Image

import fastai_discrim.all as ours

TRANSFORMER = 'distilbert-base-uncased'
N_TEXTS,N_IMAGES,IMAGE_SIZE = 32,20,8

def texts():
    "A data frame as the pages have it: texts that say in one word which label they have, and which of them validate"
    rng = np.random.default_rng(0)
    words,labels = np.array('ba be bi bo bu da de di do du'.split()),np.arange(N_TEXTS) % 2
    rows = [' '.join([*rng.choice(words, 12), 'good' if y else 'bad']) for y in labels]
    return pd.DataFrame(dict(text=rows, label=np.where(labels, 'pos', 'neg'), is_valid=np.arange(N_TEXTS) % 4 == 0))

def image_files(path):
    "Write dark and light images, one folder for each, and return a data frame of their names, labels and ages"
    rng = np.random.default_rng(0)
    for i in range(N_IMAGES):
        pixels = rng.integers(0, 128, (IMAGE_SIZE, IMAGE_SIZE, 3)) + 127*(i % 2)
        (folder := path/'images'/('light' if i % 2 else 'dark')).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype('uint8')).save(folder/f'{i}.png')
    names = [f"{'light' if i % 2 else 'dark'}/{i}.png" for i in range(N_IMAGES)]
    return pd.DataFrame(dict(name=names, label=['light old' if i % 2 else 'dark' for i in range(N_IMAGES)], age=np.arange(N_IMAGES)*5.))

def images(path):
    "Loaders of dark and light images"
    image_files(path)
    return ImageDataLoaders.from_folder(path/'images', valid_pct=0.25, seed=0, bs=8, num_workers=0, device='cpu')

def rows():
    "A data frame with a number, a category and a label"
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(a=rng.normal(size=32), b=rng.choice(list('xyz'), 32)))
    return df.assign(y=np.where(df.a > 0, 'yes', 'no'))

TABLE = dict(procs=[tabular.Categorify, tabular.Normalize], cat_names=['b'], cont_names=['a'], y_names='y')

def table(path):
    "Loaders of a table, and the weights of a model that was trained on such a table"
    dls = tabular.TabularDataLoaders.from_df(rows(), path, **TABLE, bs=8, num_workers=0, device='cpu')
    tabular.tabular_learner(dls).save('trained_elsewhere')
    return dls

# What blocks with these words in them find under the name `dls`
LOADERS = {'vision_learner(': images, 'tabular_learner(': table}

def small(f, config):
    "A constructor of text learners whose model is small and not pretrained, on loaders that don't start processes"
    def _f(dls, arch, *args, **kwargs):
        kwargs['config'] = {**config, **kwargs.pop('config', {}), **SMALL}
        return f(dls, arch, *args, pretrained=False, **kwargs)
    return _f

def install(monkeypatch, path):
    "Put small constructors in the place of fastai's; `import *` of a page then gives them"
    texts().to_csv(path/'texts.csv', index=False)
    from_df = partial(text.TextDataLoaders.from_df, path=path, num_workers=0, device='cpu')
    def _from_df(df, *args, **kwargs):
        kwargs = {'bs': 16, **kwargs}
        # A recipe's batches would be larger than the data
        kwargs['bs'] = min(kwargs['bs'], 16)
        return from_df(df, *args, **{**kwargs, 'seq_len': 8} if kwargs.get('is_lm') else kwargs)
    monkeypatch.setattr(text.TextDataLoaders, 'from_df', _from_df)
    for module in (text, vision, tabular): monkeypatch.setattr(module, 'untar_data', lambda url: path, raising=False)
    configs = dict(text_classifier_learner=text.awd_lstm_clas_config, language_model_learner=text.awd_lstm_lm_config)
    for name,config in configs.items(): monkeypatch.setattr(text, name, small(getattr(text, name), config))
    monkeypatch.setattr(vision.ImageDataLoaders, 'from_df', partial(vision.ImageDataLoaders.from_df, bs=8, num_workers=0, device='cpu'))
    monkeypatch.setattr(vision, 'vision_learner', partial(vision.vision_learner, pretrained=False))

def names(path, n) -> dict:
    "Return what a page starts with: fastai, this package, and data and a learner under their usual names; `n` texts train it"
    set_seed(0)
    res = {'__name__': 'page'}
    for module in (tabular, vision, text, callbacks, ours): res |= {k: v for k,v in vars(module).items() if not k.startswith('_')}
    learn = make_clas(path, n=n)
    return res | dict(learn=learn, dls=learn.dls, df=texts(), points=make_mlp(path).dls, plan=learn.ulmfit_plan(2, 1e-2), name=TRANSFORMER)

def prepare(block, names, path):
    "Put the data in place that a block needs"
    for words,make in LOADERS.items():
        if words in block.text: names['dls'] = make(path)
    if 'ImageDataLoaders.from_df(' in block.text: names |= dict(df=image_files(path), path=path)
    if 'to.new(' in block.text: names |= dict(to=tabular.TabularPandas(rows(), **TABLE), train_df=rows(), valid_df=rows())

def save_tiny_transformer(path):
    "Save a tiny model and its tokenizer under a name of the hub: a folder comes first"
    from tiny import MODELS, make_tokenizer
    kind,make,_ = MODELS['distilbert']
    set_seed(0)
    make(2).save_pretrained(path/TRANSFORMER)
    make_tokenizer(kind).save_pretrained(path/TRANSFORMER)

def needs_transformer(text): return re.search(r'\bHF|hf_', text) is not None
