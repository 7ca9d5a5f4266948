"""Run ULMFiT from start to end on docstrings of installed packages, in about four minutes on two cores: pretrain a small AWD-LSTM on some
packages, fine-tune it on others, train a classifier that tells which of these a docstring is from, and compare it with `learn.fine_tune`"""
__all__ = []

import time

import fastai.callback.schedule  # noqa: F401, for `fit_one_cycle` and `fine_tune`
import matplotlib.pyplot as plt
from fastai.callback.tracker import SaveModelCallback
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, ColSplitter, RandomSplitter
from fastai.metrics import Perplexity, accuracy
from fastai.text.data import TextBlock
from fastai.text.learner import language_model_learner, text_classifier_learner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config
from fastai.torch_core import set_seed
from fastcore.xtras import save_pickle

# `all` adds the methods that the demo calls
from ..all import docstrings
from .docstring_task import CLASSES, bag_of_words, count_errors, error_table, save_figure, target_docs

# Packages to pretrain the language model on; none of them is a class
PRETRAIN = ['torch', 'sympy', 'beartype', 'torchvision', 'mpmath']
# Sizes of the AWD-LSTM
SMALL = dict(emb_sz=96, n_hid=192)
# Layer groups of the classifier; each gets a phase
N_GROUPS = 5

def lm_loaders(df, path, bs=32):
    "Make the loaders of a language model, with a tenth of the texts for validation"
    block = TextBlock.from_df('text', is_lm=True, seq_len=40, max_vocab=5000)
    return DataBlock(block, get_x=ColReader('text'), splitter=RandomSplitter(0.1, seed=0)).dataloaders(df, path=path, bs=bs, num_workers=0)

def clas_loaders(df, vocab, path, bs=16):
    "Make the loaders of the classifier, without the test split"
    df = df[df.split != 'test'].assign(is_valid=lambda d: d.split == 'valid')
    blocks = TextBlock.from_df('text', seq_len=72, vocab=vocab),CategoryBlock
    block = DataBlock(blocks, get_x=ColReader('text'), get_y=ColReader('package'), splitter=ColSplitter())
    return block.dataloaders(df, path=path, bs=bs, num_workers=0)

def language_model(dls, **kwargs):
    "Make a learner with a small AWD-LSTM language model"
    config = {**awd_lstm_lm_config, **SMALL}
    return language_model_learner(dls, AWD_LSTM, config=config, drop_mult=0.3, pretrained=False, metrics=Perplexity(), **kwargs)

def classifier(df, vocab, path, encoder='encoder'):
    "Make a new classifier with new loaders from a fixed seed, so that all methods start from the same state"
    set_seed(0)
    dls = clas_loaders(df, vocab, path)
    config = {**awd_lstm_clas_config, **SMALL}
    learn = text_classifier_learner(dls, AWD_LSTM, config=config, drop_mult=0.3, pretrained=False, metrics=accuracy)
    return learn.load_encoder(encoder)

def pretrain(path, n):
    "Train a language model on other texts, and save it with its vocabulary, as fastai's pretrained models are saved"
    print(f'\n== 1. Pretrain a language model on {", ".join(PRETRAIN)}')
    dls = lm_loaders(docstrings(PRETRAIN, n_max=n), path)
    learn = language_model(dls)
    learn.fit_one_cycle(1, 1e-2)
    learn.save('pretrained', with_opt=False)
    save_pickle(path/learn.model_dir/'pretrained_vocab.pkl', dls.vocab)

def finetune_lm(df, path):
    "Fine-tune the pretrained model on the target texts, save its encoder, and return its vocabulary"
    print(f'\n== 2. Fine-tune it on {", ".join(CLASSES)}: all layers, discriminative rates, slanted triangle')
    dls = lm_loaders(df[df.split != 'test'], path)
    learn = language_model(dls, pretrained_fnames=['pretrained', 'pretrained_vocab'])
    print(learn.layer_groups())
    plan = learn.ulmfit_plan(3, 1e-2)
    print(plan)
    learn.fit_plan(plan)
    learn.save_encoder('encoder')
    return dls.vocab

def finetune_classifier(df, vocab, path, epochs):
    "Fine-tune the classifier as ULMFiT does; return the errors after the head's phase and at the end, and the result of `head_lr_find`"
    print('\n== 3. Train the classifier: find the rate of the head, then unfreeze gradually')
    learn = classifier(df, vocab, path)
    print(learn.layer_groups())
    head_lr = learn.head_lr_find()
    save_figure(plt.gcf(), path/'head_lr.png')
    print(f'head_lr_find: η_L = {head_lr.lr:.2e}')
    plan = learn.ulmfit_plan(epochs, head_lr, epochs=1)
    print(plan)
    save_figure(plan.plot()[0].figure, path/'plan.png')
    learn.fit_plan(plan, cbs=SaveModelCallback(every_epoch=True, fname='ulmfit'))
    save_figure(learn.recorder.plot_group_lrs()[0].figure, path/'rates.png')
    errors = count_errors(learn, df)
    learn.load('ulmfit_0')
    return count_errors(learn, df),errors,head_lr

def train_all_layers(df, vocab, path, epochs, head_lr):
    "Fine-tune without gradual unfreezing, and return the errors"
    print('\n== 4. Train all layers from the start, at the same rates')
    learn = classifier(df, vocab, path)
    learn.fit_ulmfit(epochs, head_lr, gradual=False)
    return count_errors(learn, df)

def train_stock(df, vocab, path, epochs):
    "Run fastai's `fine_tune` from the same encoder for as many epochs, and return the errors"
    print(f'\n== 5. Run `learn.fine_tune({epochs-1})` from the same encoder, {epochs} epochs in all')
    learn = classifier(df, vocab, path)
    learn.fine_tune(epochs-1)
    return count_errors(learn, df)

def run(args):
    "Train all models as the command line says, save the pictures and print the table"
    if args.epochs < N_GROUPS:
        raise SystemExit(f'--epochs {args.epochs}: expected at least {N_GROUPS}, one for each layer group of the classifier')
    start,path,epochs = time.time(),args.out.resolve(),args.epochs
    print('This runs the whole method of the paper. A language model that is pretrained for a minute has little to transfer; to see what '
          'transfer gives, leave out `--model awd_lstm`, or read the tables in README.md')
    set_seed(0)
    df = target_docs()
    pretrain(path, args.pretrain_docs)
    vocab = finetune_lm(df, path)
    head_errors,errors,head_lr = finetune_classifier(df, vocab, path, epochs)
    all_layers_errors = train_all_layers(df, vocab, path, epochs, head_lr)
    stock_errors = train_stock(df, vocab, path, epochs)
    rows = [('head alone, the first phase', 1, *head_errors),
            ('the whole sequence', epochs, *errors),
            ('all layers from the start, gradual=False', epochs, *all_layers_errors),
            (f'learn.fine_tune({epochs-1})', epochs, *stock_errors),
            ('for scale: tf-idf, logistic regression', '', *bag_of_words(df))]
    print(f'\nWhich of {len(CLASSES)} packages is a docstring from? One run, tested on modules that are in no other split\n')
    print(error_table(rows, ['trained', 'epochs']).to_string(index=False))
    print(f'\n{time.time()-start:.0f} s')
