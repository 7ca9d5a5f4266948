"Batches of texts: equal to those of transformers' own collator, by name, of similar length"
import warnings

import pytest
import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, ColSplitter
from tiny import BERT, GPT2, MODELS, ROBERTA, WORDS, XLNET, make_df, make_dls, make_tokenizer
from transformers import DataCollatorWithPadding

from fastai_discrim.huggingface import HFTextBlock
from fastai_discrim.huggingface.tokens import own_tokenizer


def by_hand(tokenizer, texts, **kwargs):
    "A batch of texts, or of pairs, as a user of transformers makes it"
    items = [tokenizer(*([t] if isinstance(t, str) else t), truncation=True) for t in texts]
    return dict(DataCollatorWithPadding(tokenizer, **kwargs)(items))

def same_batch(a, b): return list(a) == list(b) and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)

def chunks(dl, texts):
    "The texts of each batch of a loader that doesn't shuffle"
    texts = [texts[i] for i in dl.get_idxs()]
    return [texts[i:i+dl.bs] for i in range(0, len(texts), dl.bs)]

KINDS = {name: kind for name,(kind,*_) in MODELS.items()}

@pytest.mark.filterwarnings('ignore:.*no padding token')
@pytest.mark.parametrize('name', KINDS)
def test_batches_equal_those_of_the_collator(name):
    df,tokenizer = make_df(),make_tokenizer(KINDS[name])
    dls = make_dls(kind=KINDS[name], df=df)
    if tokenizer.pad_token is None: tokenizer.pad_token = tokenizer.eos_token
    texts,seen = list(df.text[df.is_valid]),0
    for (x,y),chunk in zip(dls.valid, chunks(dls.valid, texts), strict=True):
        expected = by_hand(tokenizer, chunk)
        assert same_batch(x, expected) and list(x) == [k for k in tokenizer.model_input_names if k in expected]
        assert [dls.vocab[i] for i in y] == [df.label[df.text == t].iloc[0] for t in chunk]
        seen += len(chunk)
    assert seen == len(texts) == 16

@pytest.mark.parametrize('kind', [BERT, ROBERTA, XLNET])
def test_pairs(kind):
    df,tokenizer = make_df(),make_tokenizer(kind)
    dls = make_dls(kind=kind, df=df, text_col=['text', 'second'])
    pairs = list(zip(df.text[df.is_valid], df.second[df.is_valid]))
    for (x,_),chunk in zip(dls.valid, chunks(dls.valid, pairs), strict=True): assert same_batch(x, by_hand(tokenizer, chunk))
    if kind is BERT: assert x['token_type_ids'].any()

def test_padding_is_on_the_side_that_the_tokenizer_says():
    x,_ = make_dls(kind=XLNET).valid.one_batch()
    shortest = x['attention_mask'].sum(1).argmin()
    assert not x['attention_mask'][shortest, 0] and x['attention_mask'][:, -1].all()

def test_padding_to_a_multiple():
    df = make_df()
    dls = make_dls(df=df, pad_to_multiple_of=8)
    for (x,_),chunk in zip(dls.valid, chunks(dls.valid, list(df.text[df.is_valid]))):
        assert x['input_ids'].shape[1] % 8 == 0 and same_batch(x, by_hand(make_tokenizer(), chunk, pad_to_multiple_of=8))

def test_batches_are_of_similar_length():
    dls = make_dls(df=make_df(400, lengths=(1, 30)), bs=4)
    def _padding(batches): return sum((x['attention_mask'] == 0).sum().item() for x,_ in batches)
    lengths = [n for x,_ in dls.valid for n in x['attention_mask'].sum(1).tolist()]
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) > 20
    # Sorted within stretches of 50 batches
    unsorted = dls.valid.new(dataset=dls.train_ds, get_idxs=lambda: list(range(len(dls.train_ds))))
    assert 0 < 10*_padding(dls.train) < _padding(unsorted)
    # So are those of a new loader of the same kind
    test = dls.test_dl([' '.join(WORDS[:n]) for n in (3, 30, 4, 31, 5, 32, 6, 33)], num_workers=0)
    assert [x['input_ids'].shape[1] for x, in test] == [35, 8]

def test_one_batch_is_left_in_its_order():
    dls = make_dls()
    texts = ['ba', 'be bi bo', 'bu da']
    x, = dls.test_dl(texts).one_batch()
    assert same_batch(x, by_hand(make_tokenizer(), texts))

def test_worker_processes_make_the_same(capfd):
    df = make_df()
    a,b = (make_dls(df=df, num_workers=n).valid for n in (0, 2))
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '.*fork.*', DeprecationWarning)
        assert all(same_batch(x, other) for (x,_),(other,_) in zip(a, b, strict=True))
    assert 'parallelism' not in capfd.readouterr().err

# Truncation

LONG = ' '.join(WORDS[:20])

def long_df(n_long=2):
    df = make_df()
    df.loc[:n_long-1, 'text'] = LONG
    return df

def test_texts_are_truncated_at_max_length():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        dls = make_dls(df=long_df(), max_length=7)
    expected = make_tokenizer()(LONG, truncation=True, max_length=7)['input_ids']
    assert len(expected) == 7 and expected in [row for x,_ in dls.train for row in x['input_ids'].tolist()]
    assert max(dls.train.res) == 7

def test_where_nobody_asked_for_it_it_is_said_once():
    with pytest.warns(UserWarning, match='a text of 22 tokens.*first 16.*max_length=16') as seen:
        dls = make_dls(df=long_df(3), tokenizer=make_tokenizer(model_max_length=16))
        for _ in range(2): list(dls.train)
    assert len(seen) == 1 and max(dls.train.res) == 16

def test_a_text_that_just_fits_is_no_reason_to_say_anything():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        dls = make_dls(df=long_df(), tokenizer=make_tokenizer(model_max_length=22))
    assert max(dls.train.res) == 22

# Tokenizers

def test_without_a_padding_token_the_last_one_pads():
    tokenizer = make_tokenizer(GPT2)
    with pytest.warns(UserWarning, match="no padding token: its end-of-sequence token, '<|endoftext|>'") as seen:
        dls = make_dls(tokenizer=tokenizer)
    assert len(seen) == 1
    x,_ = dls.valid.one_batch()
    assert (x['input_ids'][x['attention_mask'] == 0] == tokenizer.eos_token_id).all() and (x['attention_mask'] == 0).any()
    # The user's own is as it was
    assert tokenizer.pad_token is None and dls.tokenizer.pad_token == '<|endoftext|>'

def test_a_tokenizer_that_cannot_pad():
    tokenizer = make_tokenizer({**GPT2, 'roles': dict(unk_token='<unk>')})
    with pytest.raises(ValueError, match='neither a padding nor an end-of-sequence token.*add_special_tokens'):
        make_dls(tokenizer=tokenizer)

def test_a_tokenizer_by_its_folder(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    for folder in (tmp_path, str(tmp_path)): assert dict(own_tokenizer(folder)('ba be')) == dict(make_tokenizer()('ba be'))

# What is shown

@pytest.mark.filterwarnings('ignore:.*no padding token')
@pytest.mark.parametrize('kind', [BERT, XLNET, GPT2])
def test_a_batch_is_decoded_without_padding(kind):
    df,dls = make_df(),make_dls(kind=kind)
    texts = [df.text[df.is_valid].iloc[i] for i in dls.valid.get_idxs()]
    decoded = dls.valid.decode_batch(dls.valid.one_batch(), max_n=8)
    tokenizer = dls.tokenizer
    assert [str(t) for t,_ in decoded] == [tokenizer.decode(tokenizer(t)['input_ids']) for t in texts[:8]]
    assert [str(l) for _,l in decoded] == [df.label[df.text == t].iloc[0] for t in texts[:8]]

def test_data_block_api():
    df = make_df()
    block = DataBlock(blocks=(HFTextBlock(make_tokenizer(), max_length=9), CategoryBlock), get_x=ColReader(['text', 'second']),
                      get_y=ColReader('label'), splitter=ColSplitter())
    dls = block.dataloaders(df, bs=8, num_workers=0, device='cpu')
    pairs = list(zip(df.text[df.is_valid], df.second[df.is_valid]))
    for (x,_),chunk in zip(dls.valid, chunks(dls.valid, pairs), strict=True):
        assert same_batch(x, by_hand(make_tokenizer(model_max_length=9), chunk))

@pytest.mark.parametrize('kwargs,error,match', [
    (dict(max_length=0), ValueError, 'max_length=0: expected at least 1'), (dict(max_length=1.5), TypeError, 'max_length=1.5'),
    (dict(pad_to_multiple_of='8'), TypeError, "pad_to_multiple_of='8'")])
def test_odd_lengths(kwargs, error, match):
    with pytest.raises(error, match=match): HFTextBlock(make_tokenizer(), **kwargs)
