"""ULMFiT from beginning to end on the docstrings that are on this machine, in about four minutes on two cores: pretrain a small
AWD-LSTM on some packages, fine-tune it on others, and tell which of these a docstring is from; against `learn.fine_tune`."""
import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use('Agg')

import pandas as pd
from fastai.callback.tracker import SaveModelCallback
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, ColSplitter, RandomSplitter
from fastai.metrics import Perplexity, accuracy
from fastai.text.data import TextBlock
from fastai.text.learner import language_model_learner, text_classifier_learner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config
from fastai.torch_core import set_seed
from fastcore.xtras import save_pickle
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from .all import docstrings  # `all`, for what it adds to the learner

# None of the packages to tell apart is among those the language model first learns from, and their docstrings share one format
PRETRAIN = ['torch', 'sympy', 'beartype', 'torchvision', 'mpmath']
CLASSES = ['numpy', 'scipy', 'pandas', 'sklearn', 'networkx', 'matplotlib']
SMALL = dict(emb_sz=96, n_hid=192)

def head_of(text, words):
    "The first `words` words of `text`"
    return ' '.join(text.split(' ')[:words])

def target_docs(n=600, words=30):
    "The first `words` words of `n` docstrings a package, and a `split`; a module lies in one split, as its docstrings resemble each other"
    df = docstrings(CLASSES, n_max=n)
    df['text'] = [head_of(t, words) for t in df.text]
    module = df.name.str.split('.').str[:3].str.join('.')
    order = module.drop_duplicates().sample(frac=1, random_state=0)
    split = dict(zip(order, (['train']*3 + ['valid', 'test'])*len(order)))
    return df.assign(split=module.map(split))

def lm_loaders(df, path, bs=32):
    "Loaders of a language model, a tenth of the texts held out"
    block = TextBlock.from_df('text', is_lm=True, seq_len=40, max_vocab=5000)
    return DataBlock(block, get_x=ColReader('text'), splitter=RandomSplitter(0.1, seed=0)).dataloaders(df, path=path, bs=bs, num_workers=0)

def clas_loaders(df, vocab, path, bs=16):
    "Loaders of the classifier; the test split is in neither"
    df = df[df.split != 'test'].assign(is_valid=lambda d: d.split == 'valid')
    blocks = TextBlock.from_df('text', seq_len=72, vocab=vocab),CategoryBlock
    block = DataBlock(blocks, get_x=ColReader('text'), get_y=ColReader('package'), splitter=ColSplitter())
    return block.dataloaders(df, path=path, bs=bs, num_workers=0)

def language_model(dls, **kwargs):
    "A small AWD-LSTM language model"
    config = {**awd_lstm_lm_config, **SMALL}
    return language_model_learner(dls, AWD_LSTM, config=config, drop_mult=0.3, pretrained=False, metrics=Perplexity(), **kwargs)

def classifier(df, vocab, path, encoder='encoder'):
    "A new learner on new loaders, so that every arm starts from the same place"
    set_seed(0)
    dls = clas_loaders(df, vocab, path)
    config = {**awd_lstm_clas_config, **SMALL}
    learn = text_classifier_learner(dls, AWD_LSTM, config=config, drop_mult=0.3, pretrained=False, metrics=accuracy)
    return learn.load_encoder(encoder)

def save_plot(axs, file):
    "Save the figure that `axs` are in, and say so"
    (axs if hasattr(axs, 'figure') else axs[0]).figure.savefig(file, dpi=110)
    print(f'saved {file}')

def test_error(learn, df):
    "Wrong answers on the test split, and of how many"
    test = df[df.split == 'test']
    _,acc = learn.validate(dl=learn.dls.test_dl(test, with_labels=True))
    return round((1-acc)*len(test)),len(test)

def pretrain(path, n):
    "A language model of general text, saved with its vocabulary as fastai's published ones are"
    print(f'\n== 1. A language model of {", ".join(PRETRAIN)}')
    dls = lm_loaders(docstrings(PRETRAIN, n_max=n), path)
    learn = language_model(dls)
    learn.fit_one_cycle(1, 1e-2)
    learn.save('pretrained', with_opt=False)
    save_pickle(path/learn.model_dir/'pretrained_vocab.pkl', dls.vocab)

def finetune_lm(df, path):
    "The pretrained model fine-tuned on the target text; its vocabulary"
    print(f'\n== 2. Fine-tuned on {", ".join(CLASSES)}: all layers, discriminative rates, slanted triangle')
    dls = lm_loaders(df[df.split != 'test'], path)
    learn = language_model(dls, pretrained_fnames=['pretrained', 'pretrained_vocab'])
    print(learn.layer_groups())
    plan = learn.ulmfit_plan(3, 1e-2)
    print(plan)
    learn.fit_plan(plan)
    learn.save_encoder('encoder')
    return dls.vocab

def finetune_classifier(df, vocab, path, epochs):
    "Test errors of the head-only phase and of the whole sequence, and η_L"
    print('\n== 3. The classifier: the head tuned, then gradual unfreezing')
    learn = classifier(df, vocab, path)
    print(learn.layer_groups())
    head = learn.head_lr_find()
    save_plot(matplotlib.pyplot.gca(), path/'head_lr.png')
    print(f'head_lr_find: η_L = {head.lr:.2e}')
    plan = learn.ulmfit_plan(epochs, head)
    print(plan)
    save_plot(plan.plot(), path/'plan.png')
    learn.fit_plan(plan, cbs=SaveModelCallback(every_epoch=True, fname='ulmfit'))
    save_plot(learn.recorder.plot_group_lrs(), path/'rates.png')
    whole = test_error(learn, df)
    learn.load('ulmfit_0')
    return test_error(learn, df),whole,head

def at_once(df, vocab, path, epochs, head):
    "Test errors without gradual unfreezing"
    print('\n== 4. The same rates, but all layers from the start')
    learn = classifier(df, vocab, path)
    learn.fit_ulmfit(epochs, head, gradual=False)
    return test_error(learn, df)

def fine_tune(df, vocab, path, epochs):
    "Test errors of fastai's `fine_tune`, from the same encoder and for as many epochs"
    print(f'\n== 5. `learn.fine_tune({epochs-1})`: the same encoder, and {epochs} epochs in all')
    learn = classifier(df, vocab, path)
    learn.fine_tune(epochs-1)
    return test_error(learn, df)

def bag_of_words(df):
    "What no pretraining at all gives: tf-idf and logistic regression on the training split"
    train,test = df[df.split == 'train'],df[df.split == 'test']
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=500))
    model.fit(train.text, train.package)
    return int((model.predict(test.text) != test.package).sum()),len(test)

def main():
    "Run it all, and print the table"
    parser = argparse.ArgumentParser(prog='python -m fastai_discrim', description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('fastai_discrim_demo'), help='folder for models and pictures')
    parser.add_argument('--epochs', type=int, default=6, help='epochs of each classifier')
    parser.add_argument('--pretrain-docs', type=int, default=300, help='docstrings a package to pretrain on')
    args,start = parser.parse_args(),time.time()
    if args.epochs < 5: parser.error(f'--epochs {args.epochs}: expected at least 5, one for each layer group of the classifier')
    path = args.out.resolve()
    (path/'models').mkdir(parents=True, exist_ok=True)
    set_seed(0)
    df = target_docs()
    pretrain(path, args.pretrain_docs)
    vocab = finetune_lm(df, path)
    first,whole,head = finetune_classifier(df, vocab, path, args.epochs)
    open_all = at_once(df, vocab, path, args.epochs, head)
    stock = fine_tune(df, vocab, path, args.epochs)
    rows = [('head alone, the first phase', 1, *first), ('the whole sequence', args.epochs, *whole),
            ('all layers from the start, gradual=False', args.epochs, *open_all),
            (f'learn.fine_tune({args.epochs-1})', args.epochs, *stock), ('for scale: tf-idf, logistic regression', '', *bag_of_words(df))]
    res = pd.DataFrame(rows, columns=['trained', 'epochs', 'wrong', 'of'])
    res['test error'] = (res.wrong/res.of).map('{:.1%}'.format)
    error = res.wrong/res.of
    res['95 % interval'] = (1.96 * (error * (1-error) / res.of)**.5).map('± {:.1%}'.format)
    print(f'\nWhich of {len(CLASSES)} packages a docstring is from: one run, on modules that are in no other split\n')
    print(res.to_string(index=False))
    print(f'\n{time.time()-start:.0f} s')

if __name__ == '__main__': main()
