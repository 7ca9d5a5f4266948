"What is wrong is said before anything is trained, with the value and what to do"
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import transformers as tf
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import ColReader, ColSplitter
from test_loaders import write_folder
from tiny import MODELS, N_POSITIONS, SMALL, WORDS, make_df, make_dls, make_learner, make_tokenizer

from fastai_discrim.huggingface import HFTextBlock, HFTextDataLoaders, hf_text_classifier_learner


def changed(**values):
    "The frame of `make_df` with other values in its row 5"
    df = make_df()
    for col,v in values.items():
        df[col] = df[col].astype(object)
        df.at[5, col] = v
    return df

# Data

@pytest.mark.parametrize('text', ['', '  \n', None, np.nan, 3])
def test_an_empty_text(text):
    with pytest.raises(ValueError, match=r"text .* in row 5, column 'text', and 1 such rows in all: expected a str that is not empty"):
        make_dls(df=changed(text=text))

def test_an_empty_one_of_a_pair():
    with pytest.raises(ValueError, match=r"text '' in row 5, column 'second'"):
        make_dls(df=changed(second=''), text_col=['text', 'second'])

@pytest.mark.parametrize('label', [None, np.nan])
def test_a_missing_label(label):
    with pytest.raises(ValueError, match=r"label .* in row 5, column 'label', and 1 such rows in all: expected one; fill"):
        make_dls(df=changed(label=label))

def test_a_label_that_training_has_not():
    df = make_df()
    assert df.is_valid[5]
    with pytest.raises(ValueError, match="the training set lacks 1 of the 4 labels of the validation set, such as 'odd': .*split"):
        make_dls(df=changed(label='odd'))
    with pytest.raises(ValueError, match="such as 'odd'"): make_dls(df=changed(many='x;odd'), label_col='many', label_delim=';')

def test_with_a_data_block_too():
    "The loaders look at every text and every label, for their lengths"
    def _loaders(df):
        block = DataBlock(blocks=(HFTextBlock(make_tokenizer()), CategoryBlock), get_x=ColReader('text'), get_y=ColReader('label'),
                          splitter=ColSplitter())
        return block.dataloaders(df, bs=8, num_workers=0)
    with pytest.raises(ValueError, match="a text is '': expected one that is not empty"): _loaders(changed(text=''))
    # As fastai says it
    with pytest.raises(KeyError, match="Label 'odd' was not included in the training dataset"): _loaders(changed(label='odd'))

@pytest.mark.parametrize('kwargs', [dict(text_col='texts'), dict(label_col=['label', 'labels']), dict(valid_col='valid'), dict(text_col=6)])
def test_a_column_that_is_not_there(kwargs):
    (arg,col), = kwargs.items()
    with pytest.raises(ValueError, match='expected columns of the data frame, which are.*second') as e: make_dls(**kwargs)
    assert str(e.value).startswith(f'{arg}={col!r}')

def test_two_columns_of_one_name():
    df = changed()
    df = pd.concat([df, df[['text']]], axis=1)
    with pytest.raises(ValueError, match="text_col='text': expected one column 'text', but the data frame has several"): make_dls(df=df)

def test_a_number_of_numpy_names_a_column():
    df = changed()
    assert make_dls(df=df, text_col=np.int64(list(df.columns).index('text'))).train_ds[0] == make_dls(df=df).train_ds[0]

def test_rows_that_are_none():
    with pytest.raises(TypeError, match="df is a list: expected a pandas DataFrame"): HFTextDataLoaders.from_df(['ba be'], make_tokenizer())
    for df in (make_df()[:0], make_df().assign(is_valid=True)):
        with pytest.raises(ValueError, match=rf"none of {len(df)} rows trains: expected some that do; look at the column 'is_valid'"):
            make_dls(df=df)
    with pytest.raises(ValueError, match="none of 1 row trains: expected some that do; lower `valid_pct`"):
        make_dls(df=make_df()[:1], valid_col=None, valid_pct=1.)

def test_texts_to_predict():
    learn = make_learner()
    with pytest.raises(ValueError, match="a text is ' ': expected one that is not empty"): learn.predict(' ')
    with pytest.raises(TypeError, match='a text is .*nan.*, of type float.*: expected a str'):
        learn.dls.test_dl(pd.DataFrame(dict(text=[np.nan])))
    with pytest.raises(ValueError, match="an item has 3 texts.*expected one, or a pair"):
        make_learner(dls=make_dls(text_col=['text', 'second'])).predict(('a', 'b', 'c'))

def test_folders(tmp_path):
    with pytest.raises(ValueError, match='has 0 text files.*name their folders by `train` and `valid`'):
        HFTextDataLoaders.from_folder(tmp_path, make_tokenizer())
    write_folder(tmp_path, make_df())
    (tmp_path/'valid'/'low'/'empty.txt').write_text(' ')
    with pytest.raises(ValueError, match=r"empty.txt' is empty: expected a text"): HFTextDataLoaders.from_folder(tmp_path, make_tokenizer())
    (tmp_path/'valid'/'low'/'empty.txt').unlink()
    (tmp_path/'valid'/'odd').mkdir()
    (tmp_path/'valid'/'odd'/'a.txt').write_text('ba be')
    with pytest.raises(ValueError, match="such as 'odd'"): HFTextDataLoaders.from_folder(tmp_path, make_tokenizer())

# Tokenizers

def test_a_length_that_leaves_no_room_for_the_text():
    with pytest.raises(ValueError, match='max_length=2: expected at least 3, as the tokenizer adds 2 tokens of its own to a text'):
        make_dls(max_length=2)
    x,_ = make_dls(max_length=3).one_batch()
    assert x['input_ids'].shape[1] == 3

@pytest.mark.parametrize('as_path', [str, Path])
def test_a_folder_without_a_tokenizer(tmp_path, as_path):
    with pytest.raises(ValueError, match=r"tokenizer='.*': expected a folder with a tokenizer of transformers.*finds none"):
        make_dls(tokenizer=as_path(tmp_path))
    with pytest.raises(ValueError, match=r"tokenizer='.*nothing': expected a folder, and there is none of this name"):
        make_dls(tokenizer=as_path(tmp_path/'nothing'))

def test_what_is_no_tokenizer():
    with pytest.raises(TypeError, match='tokenizer=3: expected a tokenizer of transformers, or the name or folder of one, not a int'):
        make_dls(tokenizer=3)

# Models

@pytest.mark.parametrize('name', [n for n in MODELS if n not in ('deberta-v2', 'xlnet', 't5')])
@pytest.mark.filterwarnings('ignore:.*no padding token')
def test_texts_longer_than_the_model_are_truncated_and_it_is_said_once(name):
    df = make_df()
    df.loc[:1, 'text'] = ' '.join(WORDS[:50])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.filterwarnings('ignore', '.*no padding token')
        dls = make_dls(kind=MODELS[name][0], df=df)
    longest = max(dls.train.res)
    assert longest >= 50
    with pytest.warns(UserWarning) as seen: learn = make_learner(name=name, dls=dls)
    said, = [str(w.message) for w in seen]
    assert f'the longest {longest}: they are truncated' in said
    assert said.startswith(f'2 of 48 texts are longer than the {N_POSITIONS} tokens that the model has positions for, the longest ')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with learn.no_bar(),learn.no_logging(): learn.fit(1, 1e-3)
        learn.predict(' '.join(WORDS))
    assert max(x['input_ids'].shape[1] for x,_ in dls.train) == N_POSITIONS == learn.dls.tokenizer.model_max_length

@pytest.mark.parametrize('name', ['deberta-v2', 'xlnet', 't5'])
def test_a_model_without_positions_takes_any_length(name):
    learn = make_learner(name=name)
    x, = learn.dls.test_dl([' '.join(WORDS)]).one_batch()
    assert x['input_ids'].shape[1] >= len(WORDS) > N_POSITIONS and len(learn.predict(' '.join(WORDS))) == 3

def test_a_tokenizer_of_another_model():
    tokenizer = make_tokenizer(words=[*WORDS, *map(str, range(20))])
    model = MODELS['bert'][1](3)
    rows = model.get_input_embeddings().num_embeddings
    with pytest.raises(ValueError, match=rf'tokenizer has {len(tokenizer)} tokens and the model embeds {rows}: expected the tokenizer of'):
        hf_text_classifier_learner(make_dls(tokenizer=tokenizer), model)
    model.resize_token_embeddings(len(tokenizer))
    hf_text_classifier_learner(make_dls(tokenizer=tokenizer), model)

def _config(name, **kwargs): return getattr(tf, f'{name}Config')(**{**SMALL, **kwargs})

@pytest.mark.parametrize('make,match', [
    (lambda: tf.BertModel(_config('Bert')), 'BertModel gives no logits: expected a model with a classification head; give its name'),
    (lambda: tf.BertForTokenClassification(_config('Bert', num_labels=3)), r'BertForTokenClassification gives \(1, \d+, 3\) for one text'),
    (lambda: tf.BertForMaskedLM(_config('Bert')), r'BertForMaskedLM gives \(1, \d+, 68\) for one text'),
    (lambda: MODELS['bert'][1](2), 'gives 2 numbers for a text: expected 3, as the data have.*num_labels=3')])
def test_a_model_without_the_right_head(make, match):
    model,dls = make(),make_dls()
    model.bert.eval() if hasattr(model, 'bert') else model.eval()
    before,config = [p.clone() for p in model.parameters()],model.config.to_dict()
    modes = [m.training for m in model.modules()]
    with pytest.raises(ValueError, match=match): hf_text_classifier_learner(dls, model)
    assert model.config.to_dict() == config and [m.training for m in model.modules()] == modes
    assert all((p == q).all() for p,q in zip(model.parameters(), before))

def test_a_model_that_has_no_head_in_transformers(tmp_path):
    tf.ViTModel(tf.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r'expected a model for which transformers has a classification head'):
        hf_text_classifier_learner(make_dls(), tmp_path)

def test_a_folder_that_is_no_model(tmp_path):
    for model in (tmp_path, str(tmp_path)):
        with pytest.raises(ValueError, match=r'expected a folder with a model of transformers.*no config.json; give one that'):
            hf_text_classifier_learner(make_dls(), model)
    # A name of the hub has one slash at most
    for model in (tmp_path/'nothing', str(tmp_path/'nothing'), './nothing', '~/nothing'):
        with pytest.raises(ValueError, match='nothing.: expected a folder, and there is none of this name'):
            hf_text_classifier_learner(make_dls(), model)
    with pytest.raises(TypeError, match='model=3: expected the name of a model on the hub, a folder, or a model, not a int'):
        hf_text_classifier_learner(make_dls(), 3)

# Learners

def test_loaders_without_a_tokenizer():
    ds = [(i, i) for i in range(8)]
    with pytest.raises(ValueError, match='dls has no tokenizer of transformers: expected loaders of HFTextDataLoaders'):
        hf_text_classifier_learner(DataLoaders.from_dsets(ds, ds, bs=2), MODELS['bert'][1](3))

def test_a_class_without_a_name():
    dls = make_dls()
    dls.train_ds.tls[1].tfms.fs[-1].vocab.items[0] = np.nan
    with pytest.raises(ValueError, match='one of the classes is nan: expected a name'): make_learner(dls=dls)

def test_the_loss_of_a_model_that_has_none():
    with pytest.raises(ValueError, match='model_loss=True: expected a model that computes a loss, and Pooled takes no `labels`'):
        make_learner(name='t5', model_loss=True)
    with pytest.raises(TypeError, match='model_loss=1'): make_learner(model_loss=1)
