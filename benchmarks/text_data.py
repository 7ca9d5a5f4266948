"Make the texts, language models and classifiers for benchmarks/text.py, the same for all arms"
import pickle
import random
from collections import Counter, namedtuple
from functools import partial
from pathlib import Path

import pandas as pd
import sentences
from fastai.data.core import DataLoaders, Datasets
from fastai.data.external import URLs, fastai_cfg, untar_data
from fastai.data.transforms import Categorize, ColReader, get_text_files
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.text.core import tokenize_df
from fastai.text.data import LMDataLoader, Numericalize, Pad_Chunk, SortedDL, make_vocab
from fastai.text.learner import language_model_learner, text_classifier_learner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config
from fastai.torch_core import set_seed

from fastai_discrim.demo.docstring_task import target_docs

SHARED = Path(__file__).resolve().parents[2]/'shared/weights'
SIZES = dict(emb_sz=200, n_hid=400)

# A set: its texts, the number of labelled texts (of which a tenth validates, or a fifth of up to 500), and the epochs of a classifier
Set = namedtuple('Set', 'texts labelled epochs')
SETS = dict(trec6=Set('trec6', None, 6), docstrings=Set('docstrings', None, 6), ag=Set('ag', None, 6), imdb2k=Set('imdb', 2000, 6),
            imdb10k=Set('imdb', 10_000, 6), ag1k=Set('ag', 1000, 6), trec100=Set('trec6', 100, 30),
            docstrings100=Set('docstrings', 100, 30),
            ag100=Set('ag', 100, 30), imdb100=Set('imdb', 100, 30), trec500=Set('trec6', 500, 10), docstrings500=Set('docstrings', 500, 10))

# Epochs of the language model, and the tokens of a text that are kept: the first, or the last, in which a review gives its verdict
LM_EPOCHS = dict(trec6=10, docstrings=6, ag=2, imdb=1, **dict.fromkeys(sentences.FILES, 2))
KEPT = dict(trec6=None, docstrings=None, ag=slice(32), imdb=slice(-100, None), **dict.fromkeys(sentences.FILES))

def _docstrings():
    "Read docstrings of six packages; each module is in the training or in the test set, as docstrings of a module resemble each other"
    df = target_docs().rename(columns={'package': 'label'})
    return df[df.split != 'test'],df[df.split == 'test']

def _trec6(): return tuple(pd.read_csv(fastai_cfg().path('data')/f'trec6/{part}.csv') for part in ('train', 'test'))

def _ag():
    def _part(part, n):
        df = pd.read_csv(untar_data(URLs.AG_NEWS)/f'{part}.csv', header=None, names=['label', 'title', 'text'], keep_default_na=False)
        df['text'] = df['title'] + '. ' + df['text']
        return df.sample(n, random_state=0)
    return _part('train', 10_000),_part('test', 3000)

def _imdb():
    def _part(part, n):
        files = random.Random(0).sample(sorted(get_text_files(untar_data(URLs.IMDB)/part, folders=['pos', 'neg'])), n)
        return pd.DataFrame({'label': [f.parent.name for f in files], 'text': [f.read_text(encoding='utf-8') for f in files]})
    return _part('train', 10_000),_part('test', 3000)

TEXTS = dict(docstrings=_docstrings, trec6=_trec6, ag=_ag, imdb=_imdb, **{o: partial(sentences.read, o) for o in sentences.FILES})

def tokens(texts, cache):
    "Return tokens and labels of training and test set, and the vocabulary of the training set; keep them in `cache`"
    path = cache/f'{texts}.tokens'
    if not path.exists():
        train,test = (df.reset_index(drop=True)[['label', 'text']] for df in TEXTS[texts]())
        def _tokenized(df):
            df = tokenize_df(df, 'text')[0][['label', 'text']]
            return df if KEPT[texts] is None else df.assign(text=[toks[KEPT[texts]] for toks in df.text])
        train,test = map(_tokenized, (train, test))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps((train, test, make_vocab(Counter(t for toks in train.text for t in toks)))))
    return pickle.loads(path.read_bytes())

def language_model(texts, cache, weights, seed=0) -> Learner:
    "Make the pretrained language model with the vocabulary of `texts`; the first tenth, for docstrings of one package, is held out"
    train,_,vocab = tokens(texts, cache)
    set_seed(seed)
    n = len(train)//10
    splits = list(range(n, len(train))),list(range(n))
    dsets = Datasets(train, [[ColReader('text'), Numericalize(vocab)]], splits=splits, dl_type=LMDataLoader)
    dls = dsets.dataloaders(bs=32, seq_len=72, num_workers=0)
    if weights is None: return language_model_learner(dls, AWD_LSTM, drop_mult=0.3, path=cache)
    learn = language_model_learner(dls, AWD_LSTM, config=dict(awd_lstm_lm_config, **SIZES), drop_mult=0.3, pretrained=False, path=cache)
    return learn.load_pretrained(*(weights/f'awd_lstm_200_400{o}' for o in ('.pth', '_vocab.pkl')))

def draw(n, labelled, seed):
    "Draw from `seed` which of `n` texts are labelled, and which of these validate; return the indices of training and validation texts"
    order = random.Random(seed).sample(range(n), labelled or n)
    n_valid = len(order)//(5 if len(order) <= 500 else 10)
    return order[n_valid:],order[:n_valid]

def loaders(texts, n, cache, seed, seq_len=72) -> DataLoaders:
    "Make loaders to train, validate and test; `seed` determines which `n` texts are labelled, None for all, and which of these validate"
    train,test,vocab = tokens(texts, cache)
    splits = draw(len(train), n, seed)
    tfms = [[ColReader('text'), Numericalize(vocab)], [ColReader('label'), Categorize(vocab=sorted(train.label.unique()))]]
    dsets = Datasets(train, tfms, splits=splits, dl_type=SortedDL)
    n_labelled = sum(map(len, splits))
    bs = 64 if n_labelled > 500 else 16 if n_labelled > 100 else 8
    dls = dsets.dataloaders(bs=bs, val_bs=128, before_batch=Pad_Chunk(seq_len=seq_len), num_workers=0)
    return DataLoaders(*dls.loaders, dls.test_dl(test, with_labels=True))

def classifier(texts, n, cache, encoder, seed, sizes=SIZES, config=None, **kwargs) -> Learner:
    "Make a classifier, with all layers except the head frozen, and load the fine-tuned `encoder` unless that is None"
    dls = loaders(texts, n, cache, seed, kwargs.get('seq_len', 72))
    # Making the loaders draws random numbers, so the seed is set after that
    set_seed(seed)
    config = dict(config or awd_lstm_clas_config, **sizes)
    learn = text_classifier_learner(dls, AWD_LSTM, config=config, pretrained=False, metrics=accuracy, path=cache, **kwargs)
    return learn if encoder is None else learn.load_encoder(encoder)
