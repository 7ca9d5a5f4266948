"""Fine-tune a text classifier in several processes, and go on where it was stopped. The text is the docstrings of installed packages, and
the model is small and not pretrained: it shows how to start, and learns little.

On one machine, two processes on the CPU, or one for each GPU:

    pip install '.[distributed]'
    accelerate launch --cpu --num_processes 2 examples/distributed.py
    accelerate launch --multi_gpu examples/distributed.py

On two machines, on each with its own `--machine_rank`, 0 or 1, and the address of the first:

    accelerate launch --num_machines 2 --num_processes 2 --machine_rank 0 --main_process_ip 10.0.0.1 --main_process_port 29500 \\
        examples/distributed.py

Stop it and give the same command again: it goes on. The first process writes the checkpoint, and the others get it from there."""
import argparse
from pathlib import Path

import fastai.distributed  # noqa: F401, for `learn.distrib_ctx`
import torch
from fastai.data.transforms import RandomSplitter
from fastai.metrics import accuracy
from fastai.text.data import TextDataLoaders
from fastai.text.learner import text_classifier_learner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config
from fastai.torch_core import rank_distrib, set_seed

from fastai_discrim.all import docstrings


def classifier(path, n):
    "A small AWD-LSTM that tells which package a docstring is from; built alike in every process"
    set_seed(0)
    df = docstrings(['numpy', 'scipy', 'pandas'], n_max=n)
    df['text'] = df.text.str.split(' ').str[:40].str.join(' ')
    df['is_valid'] = df.index.isin(RandomSplitter(0.2, seed=0)(df)[1])
    device = None if torch.cuda.is_available() else 'cpu'
    dls = TextDataLoaders.from_df(df, path=path, text_col='text', label_col='package', valid_col='is_valid', bs=16, device=device,
                                  num_workers=0)
    config = {**awd_lstm_clas_config, 'emb_sz': 64, 'n_hid': 96}
    return text_classifier_learner(dls, AWD_LSTM, config=config, drop_mult=0.3, pretrained=False, metrics=accuracy)

def main():
    "Train, or go on training"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('distributed_demo'), help='folder for the checkpoint')
    parser.add_argument('--docs', type=int, default=300, help='docstrings a package')
    parser.add_argument('--epochs', type=int, default=6, help='epochs in all')
    args = parser.parse_args()
    learn = classifier(args.out.resolve(), args.docs)
    # Norm layers that agree between processes need a GPU
    with learn.distrib_ctx(sync_bn=torch.cuda.is_available()): learn.fit_ulmfit(args.epochs, checkpoint='run')
    if rank_distrib() == 0: learn.recorder.save_run('run.json')

if __name__ == '__main__': main()
