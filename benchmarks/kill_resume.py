"""Kill a run at a random moment, resume it from its checkpoint in a new process, and compare the final state with that of an uninterrupted
run; then measure what a checkpoint costs. Three models take turns: an MLP, an AWD-LSTM classifier and an AWD-LSTM language model, on random
data in a temporary folder. The script needs `os.fork`, so it doesn't run on Windows. On two cores, 100 kills take about ten minutes, and
the cost another two."""
import argparse
import json
import os
import random
import signal
import tempfile
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.text.data import LMDataLoader, SortedDL
from fastai.text.learner import LMLearner, TextLearner
from fastai.text.models import AWD_LSTM, awd_lstm_clas_config, awd_lstm_clas_split, awd_lstm_lm_config, awd_lstm_lm_split
from fastai.text.models.core import get_language_model, get_text_classifier
from fastai.torch_core import set_seed
from fastprogress.fastprogress import progress_bar
from torch import nn

from fastai_discrim.all import layerwise_split
from fastai_discrim.run.checkpoint_file import checkpoint_file, previous
from fastai_discrim.run.checkpointing import Checkpointing

SMALL = dict(emb_sz=32, n_hid=48)

def docs(n, vocab, length=24):
    "Make random documents, and for each a label: whether its words are high"
    g = torch.Generator().manual_seed(3)
    xs = [torch.randint(3, vocab, (length - i%7,), generator=g) for i in range(n)]
    return [(x, (x > vocab//2).float().mean().gt(0.5).long()) for x in xs]

def pad(length, b): return [(torch.cat([x, x.new_ones(length-len(x))]), y) for x,y in b]

def mlp(path):
    "Make a learner of points, with three layer groups"
    set_seed(7)
    x = torch.randn(640, 16)
    ds = list(zip(x, (x.sum(1) > 0).long()))
    dls = DataLoaders.from_dsets(ds, ds[:64], bs=8, device='cpu', num_workers=0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(.2), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2))
    return Learner(dls, model, splitter=layerwise_split, loss_func=CrossEntropyLossFlat(), path=path)

def classifier(path, n=96, bs=8, vocab=60, config=SMALL, length=24):
    "Make an AWD-LSTM classifier with five layer groups; its documents are sorted and shuffled as in fastai"
    set_seed(7)
    items = docs(n, vocab, length)
    dls = DataLoaders(SortedDL(items, bs=bs, shuffle=True, before_batch=partial(pad, length), num_workers=0),
                      SortedDL(items[:n//4], bs=bs, before_batch=partial(pad, length), num_workers=0), device='cpu')
    model = get_text_classifier(AWD_LSTM, vocab, 2, config={**awd_lstm_clas_config, **config}, seq_len=16, drop_mult=0.5)
    return TextLearner(dls, model, loss_func=CrossEntropyLossFlat(), splitter=awd_lstm_clas_split, path=path)

def language_model(path):
    "Make an AWD-LSTM language model with four layer groups"
    set_seed(7)
    texts = [x for x,_ in docs(96, 60)]
    train,valid = LMDataLoader(texts, bs=8, seq_len=8, shuffle=True), LMDataLoader(texts[:24], bs=8, seq_len=8)
    model = get_language_model(AWD_LSTM, 60, config={**awd_lstm_lm_config, **SMALL}, drop_mult=0.5)
    dls = DataLoaders(train, valid, device='cpu')
    return LMLearner(dls, model, loss_func=CrossEntropyLossFlat(), splitter=awd_lstm_lm_split, path=path)

KINDS = {'MLP': mlp, 'AWD-LSTM classifier': classifier, 'AWD-LSTM language model': language_model}

def state(learn):
    "Compute a checksum of all state after training: weights, buffers, optimiser, losses, random states"
    opt = [learn.opt.state.get(p, {}) for g in learn.opt.param_lists for p in g]
    parts = [learn.model.state_dict(), opt, learn.recorder.group_lrs.tolist(), [x.item() for x in learn.recorder.losses],
             [[float(o) for o in v] for v in learn.recorder.values],
             torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()]
    def _bytes(o):
        if torch.is_tensor(o): return o.detach().cpu().numpy().tobytes()
        if isinstance(o, dict): return b''.join(str(k).encode() + _bytes(v) for k,v in o.items())
        if isinstance(o, (list, tuple)): return b''.join(map(_bytes, o))
        return repr(o).encode()
    return sha256(_bytes(parts)).hexdigest()

def run(kind, path, every, seed):
    "Train, or resume training, and write the checksum of the final state"
    torch.set_num_threads(1)
    learn = KINDS[kind](path)
    plan = learn.ulmfit_plan(6, 1e-2, epochs=1, gradual=True)
    set_seed(seed)
    with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan, checkpoint='run', checkpoint_every=every)
    (path/'end.txt').write_text(state(learn))

def start(kind, path, every, seed):
    "Start `run` in a process of its own, and return the id of the process"
    if pid := os.fork(): return pid
    code = 1
    try:
        run(kind, path, every, seed)
        code = 0
    finally: os._exit(code)

def whole(kind, every):
    "Return the checksum of an uninterrupted run, and its seconds"
    with tempfile.TemporaryDirectory() as d:
        began = time.time()
        os.waitpid(start(kind, Path(d), every, 3), 0)
        return (Path(d)/'end.txt').read_text(),time.time()-began

def kill_one(kind, every, after, end, again):
    "Kill a run after `after` seconds, then its resumed runs after the seconds in `again`; let the last one end, and describe what happened"
    with tempfile.TemporaryDirectory() as d:
        path,seed,hit,done = Path(d),3,0,False
        for wait in (after, *again):
            pid = start(kind, path, every, seed)
            time.sleep(wait)
            done = os.waitpid(pid, os.WNOHANG)[0] != 0
            if done: break
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            hit += 1
            # A process that resumes has other random states; one that begins from the start needs the same seed
            begun = any(p.suffix != '.tmp' for p in path.rglob('run.ckpt*'))
            seed = 1000+hit if begun else 3
        writing = bool(list(path.rglob('*.tmp')))
        _,status = os.waitpid(start(kind, path, every, seed), 0)
        ended = (path/'end.txt').read_text() if status == 0 else f'failed: {status}'
        return dict(kind=kind, every=every, after=after, killed=hit, before_the_first=hit > 0 and seed == 3, while_writing=writing,
                    finished_before=done, same=ended == end)

def kills(n, seed):
    "Kill `n` runs, and describe each"
    rng = random.Random(seed)
    ends = {(kind, every): whole(kind, every) for kind in KINDS for every in (None, 7)}
    rows = []
    for i in progress_bar(range(n)):
        kind,every = list(ends)[i % len(ends)]
        end,seconds = ends[kind, every]
        # In every fourth round, kill the resumed run, too
        again = [rng.uniform(0, seconds)] if i//len(ends) % 4 == 3 else []
        rows.append(kill_one(kind, every, rng.uniform(0, seconds), end, again))
    return rows

def cost(emb, hid, vocab, n, epochs):
    "Measure seconds and bytes of a checkpoint, and compare them with an epoch's seconds and the bytes of model and optimiser"
    seconds,write = [],Checkpointing._write
    def timed(self, *args, **kwargs):
        began = time.perf_counter()
        write(self, *args, **kwargs)
        seconds.append(time.perf_counter()-began)
    Checkpointing._write = timed
    with tempfile.TemporaryDirectory() as d:
        learn = classifier(Path(d), n=n, bs=64, vocab=vocab, config=dict(emb_sz=emb, n_hid=hid), length=72)
        plan = learn.ulmfit_plan(epochs, 1e-2, epochs=1)
        began = time.perf_counter()
        with learn.no_bar(), learn.no_logging(): learn.fit_plan(plan, checkpoint='run')
        whole = time.perf_counter()-began
        tensors = [*learn.model.state_dict().values(), *(v for g in learn.opt.param_lists for p in g for v in learn.opt.state[p].values()
                                                         if torch.is_tensor(v))]
        own = sum({t.data_ptr(): t.nbytes for t in tensors}.values())
        size = checkpoint_file(learn, 'run').stat().st_size
        assert previous(checkpoint_file(learn, 'run')).exists(), 'the one before is kept'
    epoch = (whole-sum(seconds))/epochs
    return dict(documents=n, emb=emb, hid=hid, vocab=vocab, epoch_s=epoch, checkpoint_s=[round(s, 3) for s in seconds],
                worst_share_of_an_epoch=max(seconds)/epoch, bytes=size, model_and_optimiser_bytes=own, bytes_ratio=size/own)

def table(rows):
    "Make a table of the kills as Markdown"
    lines = ['| model | checkpoints | runs | kills | before the first checkpoint | while writing one | over before it was killed '
             '| differ |', '|' + ' --- |'*8]
    for kind,every in dict.fromkeys((r['kind'], r['every']) for r in rows):
        part = [r for r in rows if (r['kind'], r['every']) == (kind, every)]
        total = [sum(int(r[k]) for r in part) for k in ('killed', 'before_the_first', 'while_writing', 'finished_before')]
        when = 'each epoch' if every is None else f'and every {every} steps'
        lines.append(f'| {kind} | {when} | {len(part)} | {" | ".join(map(str, total))} | {sum(not r["same"] for r in part)} |')
    return '\n'.join(lines)

def price(c):
    "Describe the cost of a checkpoint in a sentence"
    return (f'AWD-LSTM classifier (emb {c["emb"]}, hidden {c["hid"]}, vocabulary {c["vocab"]}), {c["documents"]} documents of 72 words:\n'
            f'an epoch {c["epoch_s"]:.1f} s, a checkpoint {min(c["checkpoint_s"]):.2f} to {max(c["checkpoint_s"]):.2f} s, at most '
            f'{c["worst_share_of_an_epoch"]:.1%} of an epoch;\n{c["bytes"]/2**20:.1f} MiB, {c["bytes_ratio"]:.3f} of model and optimiser')

def main():
    "Run the benchmark, save the results as JSON, and print the tables"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=100, help='number of runs to kill')
    parser.add_argument('--seed', type=int, default=0, help='seed of the random moments')
    parser.add_argument('--documents', type=int, default=4000, help='documents of the classifier whose checkpoints are timed; 0 for none')
    parser.add_argument('--epochs', type=int, default=6, help='epochs of that classifier')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results/kill_resume.json', help='file of the results')
    parser.add_argument('--table', action='store_true', help='only print the table of the results in --out')
    args = parser.parse_args()
    if not args.table:
        res = dict(kills=kills(args.kills, args.seed), cost=cost(200, 400, 15000, args.documents, args.epochs) if args.documents else None)
        args.out.write_text(json.dumps(res, indent=1))
    res = json.loads(args.out.read_text())
    print('\n' + table(res['kills']))
    if res['cost']: print('\n' + price(res['cost']))

if __name__ == '__main__': main()
