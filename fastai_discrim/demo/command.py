"""Fine-tune a pretrained transformer on few labels, and compare: which package is a docstring from? The texts are those of the packages
that are installed. Nothing is downloaded, unless a model of the hub is named."""
__all__ = ['main']

import argparse
from pathlib import Path

import matplotlib

AWD = 'awd_lstm'

def parse_args() -> argparse.Namespace:
    "Parse the command line"
    parser = argparse.ArgumentParser(prog='python -m fastai_discrim', description=__doc__)
    about_model = ('a model of the hub, or a folder; without it MiniLM, which the extra `demo` brings; awd_lstm is the paper from start '
                   'to end, with a small AWD-LSTM that is pretrained on the spot')
    parser.add_argument('--model', help=about_model)
    parser.add_argument('--out', type=Path, default=Path('fastai_discrim_demo'), help='folder for models and pictures')
    parser.add_argument('--epochs', type=int, help='epochs of each classifier; 10 with fewer than 200 labels, else 4, or 6 with awd_lstm')
    parser.add_argument('--labels', type=int, nargs='+', default=[60, 300], help='numbers of labelled texts; not with awd_lstm')
    parser.add_argument('--pretrain-docs', type=int, default=300, help='docstrings a package to pretrain on, with awd_lstm')
    args = parser.parse_args()
    if args.epochs is None and args.model == AWD: args.epochs = 6
    if args.epochs is not None and args.epochs < 2: parser.error(f'--epochs {args.epochs}: expected at least 2')
    if min(args.labels) < 40: parser.error(f'--labels {min(args.labels)}: expected at least 40')
    return args

def main():
    "Run the demo: train everything, save the pictures and print the table"
    args = parse_args()
    # Pictures are only saved
    matplotlib.use('Agg')
    (args.out/'models').mkdir(parents=True, exist_ok=True)
    # They import most of fastai
    from . import transformer_demo, ulmfit_demo
    (ulmfit_demo if args.model == AWD else transformer_demo).run(args)
