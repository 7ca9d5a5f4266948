"Fit a bag of words, tf-idf with logistic regression, to the labelled texts of a cell of benchmarks/real_models.py"
from functools import lru_cache

from fastai.text.core import defaults
from real_models_data import CELLS, MAX_LEN, minilm_folder, texts
from text_data import KEPT, draw, tokens


def _cut_by_tokenizer(df, max_len):
    "Cut texts where MiniLM's tokens end"
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    spans = tokenizer(list(df.text), truncation=True, max_length=max_len, return_offsets_mapping=True)['offset_mapping']
    return df.assign(text=[text[:max(end for _,end in o)] for text,o in zip(df.text, spans)])

def _joined(df):
    "Join tokens, without those that fastai adds"
    return df.assign(text=[' '.join(o for o in toks if o not in defaults.text_spec_tok) for toks in df.text])

@lru_cache
def as_read(cell, cache) -> tuple:
    "Return the training and test texts of a cell as far as its network reads them"
    train,test = texts(cell.data, cell.model)
    if cell.model == 'minilm': return tuple(_cut_by_tokenizer(df, MAX_LEN[cell.data]) for df in (train, test))
    return (train, test) if KEPT[cell.data] is None else tuple(map(_joined, tokens(cell.data, cache)[:2]))

def floor(name, seed, cache, whole) -> tuple:
    "Return the test error and the number of labelled texts; the `whole` texts, or as much of them as the network reads"
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    cell = CELLS[name]
    train,test = texts(cell.data, cell.model) if whole else as_read(cell, cache)
    picked,valid = draw(len(train), cell.labels, seed)
    labelled = train.loc[picked+valid]
    words = TfidfVectorizer(ngram_range=(1, 2))
    model = LogisticRegression(C=10, max_iter=1000).fit(words.fit_transform(labelled.text), labelled.label)
    return float((model.predict(words.transform(test.text)) != test.label).mean()),len(labelled)
