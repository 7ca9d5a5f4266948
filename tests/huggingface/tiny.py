"Tiny models of transformers from their configurations, tokenizers made on the spot, and texts whose label can be learnt"
import os
import random

import pandas as pd
import pytest

# Nothing is looked for on the hub
os.environ['HF_HUB_OFFLINE'] = '1'
pytest.importorskip('transformers')

import transformers as tf
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from fastai_discrim.huggingface import HFTextDataLoaders, hf_text_classifier_learner

WORDS = [f'{a}{b}' for a in 'bdfgklmnprst' for b in ('a', 'e', 'i', 'o', 'u')]
N_POSITIONS = 40

class Pooled(nn.Module):
    "An encoder without a head of its own, and a head: what users write for a T5"
    def __init__(self, encoder, n):
        super().__init__()
        self.encoder,self.classifier = encoder,nn.Linear(encoder.config.d_model, n)
    def get_input_embeddings(self): return self.encoder.get_input_embeddings()
    def forward(self, input_ids, attention_mask):
        h,mask = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state,attention_mask[..., None]
        return self.classifier((h*mask).sum(1)/mask.sum(1))

# What a tokenizer of the kind has: special tokens, the template of one text and of two, and what it gives
BERT = dict(special=['[PAD]', '[UNK]', '[CLS]', '[SEP]'], one='[CLS] $A [SEP]', two='[CLS] $A [SEP] $B:1 [SEP]:1',
            roles=dict(pad_token='[PAD]', unk_token='[UNK]', cls_token='[CLS]', sep_token='[SEP]'),
            gives=['input_ids', 'token_type_ids', 'attention_mask'])
NO_TYPES = {**BERT, 'gives': ['input_ids', 'attention_mask']}
ROBERTA = dict(special=['<s>', '<pad>', '</s>', '<unk>'], one='<s> $A </s>', two='<s> $A </s> </s> $B </s>',
               roles=dict(pad_token='<pad>', unk_token='<unk>', cls_token='<s>', sep_token='</s>', bos_token='<s>', eos_token='</s>'),
               gives=['input_ids', 'attention_mask'])
XLNET = dict(special=['<unk>', '<s>', '</s>', '<cls>', '<sep>', '<pad>'], one='$A <sep> <cls>:2', two='$A <sep> $B:1 <sep>:1 <cls>:2',
             roles=dict(pad_token='<pad>', unk_token='<unk>', cls_token='<cls>', sep_token='<sep>', padding_side='left'),
             gives=['input_ids', 'token_type_ids', 'attention_mask'])
GPT2 = dict(special=['<unk>', '<|endoftext|>'], one='$A', two='$A $B', roles=dict(unk_token='<unk>', eos_token='<|endoftext|>'),
            gives=['input_ids', 'attention_mask'])
T5 = dict(special=['<pad>', '</s>', '<unk>'], one='$A </s>', two='$A </s> $B </s>',
          roles=dict(pad_token='<pad>', unk_token='<unk>', eos_token='</s>'), gives=['input_ids', 'attention_mask'])

def make_tokenizer(kind=BERT, words=WORDS, **kwargs):
    "A tokenizer of whole words"
    vocab = {w: i for i,w in enumerate([*kind['special'], *words])}
    tok = Tokenizer(WordLevel(vocab, unk_token=kind['roles']['unk_token']))
    tok.pre_tokenizer = Whitespace()
    tok.post_processor = TemplateProcessing(single=kind['one'], pair=kind['two'], special_tokens=[(w, vocab[w]) for w in kind['special']])
    return PreTrainedTokenizerFast(tokenizer_object=tok, model_input_names=kind['gives'], **{**kind['roles'], **kwargs})

N_TOKENS = len(WORDS)+8
SMALL = dict(vocab_size=N_TOKENS, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
             max_position_embeddings=N_POSITIONS, pad_token_id=0)

def _t5(n): return Pooled(tf.T5EncoderModel(tf.T5Config(vocab_size=N_TOKENS, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)), n)

def of(name, **config):
    "Make a function from a number of classes to a model"
    config = {k: v for k,v in {**SMALL, **config}.items() if v is not None}
    return lambda n: AutoModelForSequenceClassification.from_config(getattr(tf, f'{name}Config')(**config, num_labels=n))

# The kind of its tokenizer, what makes a model, and the number of its layers
MODELS = {
    'bert': (BERT, of('Bert'), 1+2+1+1),
    'roberta': (ROBERTA, of('Roberta', pad_token_id=1, max_position_embeddings=N_POSITIONS+2), 1+2+1),
    'distilbert': (BERT, of('DistilBert', dim=16, n_layers=2, n_heads=2, hidden_dim=24), 1+2+1),
    'deberta-v2': (BERT, of('DebertaV2', relative_attention=True, position_buckets=8, position_biased_input=False, type_vocab_size=0),
                   1+2+1),
    'electra': (BERT, of('Electra', embedding_size=8), 1+2+1),
    'albert': (BERT, of('Albert', embedding_size=8), None),
    'mpnet': (ROBERTA, of('MPNet', pad_token_id=1, max_position_embeddings=N_POSITIONS+2), 1+2+1),
    'xlnet': (XLNET, of('XLNet', d_model=16, n_layer=2, n_head=2, d_inner=24, pad_token_id=5, max_position_embeddings=None), 1+2+1),
    'gpt2': (GPT2, of('GPT2', n_embd=16, n_layer=2, n_head=2, n_positions=N_POSITIONS, pad_token_id=None, max_position_embeddings=None),
             1+2+1),
    't5': (T5, _t5, 1+2+1)}

def make_df(n=48, seed=0, lengths=(3, 12)):
    "Texts of many lengths, in three classes that their first word tells, also as numbers and as many labels; a third validates"
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        first = rng.choice(WORDS)
        text = ' '.join([first, *rng.choices(WORDS, k=rng.randrange(*lengths))])
        label = ['low', 'mid', 'high'][WORDS.index(first)*3//len(WORDS)]
        rows.append(dict(text=text, second=' '.join(rng.choices(WORDS, k=rng.randrange(1, 5))), label=label,
                         many=';'.join(sorted({label, rng.choice(['x', 'y'])})), score=float(len(text.split())), is_valid=i % 3 == 2))
    return pd.DataFrame(rows)

LOADER = dict(text_col='text', label_col='label', valid_col='is_valid', bs=8, num_workers=0, device='cpu')

def make_dls(path='.', kind=BERT, df=None, **kwargs):
    "Loaders of the texts of `make_df`"
    tokenizer = kwargs.pop('tokenizer', None) or make_tokenizer(kind)
    return HFTextDataLoaders.from_df(make_df() if df is None else df, tokenizer, path=path, **{**LOADER, **kwargs})

def make_learner(path='.', name='bert', dls=None, n_out=3, seed=0, **kwargs):
    "A learner of a tiny model"
    set_seed(seed)
    kind,make,_ = MODELS[name]
    dls = dls or make_dls(path, kind)
    return hf_text_classifier_learner(dls, make(n_out), **{'metrics': accuracy, **kwargs})
