"A file that a run goes on from: written whole or not at all, checked before it is read, and read as data"
__all__ = []

import io
import os
import zlib
from hashlib import sha1
from pathlib import Path
from warnings import warn

import numpy as np
import torch
from fastai.learner import Learner
from fastai.torch_core import get_model

from .checks import count_items
from .groups import check_groups
from .plan import Plan
from .several import n_processes, whole_loader
from .states import plain, unpacked

VERSION = 1

def checkpoint_file(
    learn:Learner, # The learner that runs
    name:str, # What the checkpoint is called
) -> Path:
    "The file of checkpoint `name`, beside the models that `learn.save` writes"
    return learn.path/learn.model_dir/f'{name}.ckpt'

def previous(
    file:Path, # A checkpoint
) -> Path:
    "The file of the checkpoint before `file`"
    return file.with_name(f'{file.name}.previous')

def _next(file): return file.with_name(f'{file.name}.tmp')

def _sync_folder(path):
    if os.name == 'nt': return # Windows opens no folders
    fd = os.open(path, os.O_RDONLY)
    try: os.fsync(fd)
    finally: os.close(fd)

def write(
    file:Path, # Where to
    state:dict, # What `plain` can take
):
    "Write `state` to `file`; what was there becomes the one before it, and at no time is there none that is whole"
    buf,tmp = io.BytesIO(),_next(file)
    torch.save(plain(dict(fastai_discrim='Checkpoint', version=VERSION, **state)), buf)
    data = buf.getbuffer()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tmp.open('wb') as f:
            f.write(data)
            f.write(zlib.crc32(data).to_bytes(4, 'big'))
            f.flush()
            os.fsync(f.fileno())
        if file.exists(): os.replace(file, previous(file))
        os.replace(tmp, file)
        _sync_folder(file.parent)
    except OSError as e:
        tmp.unlink(missing_ok=True)
        raise OSError(f'the checkpoint {file} can\'t be written ({e}): expected space and the right to write; make room, or give the '
                      'learner another `path` or `model_dir`') from e

def _read(file):
    data = file.read_bytes()
    if zlib.crc32(data[:-4]).to_bytes(4, 'big') != data[-4:]: raise ValueError(f'its {len(data)} bytes are not those that were written')
    # Nothing in the file is executed
    return torch.load(io.BytesIO(data[:-4]), map_location='cpu', weights_only=True)

def read(
    file:Path, # A checkpoint
) -> dict|None: # None where there is no file
    "What `write` wrote last; the one before it, with a warning, where the last is damaged, which is then put aside"
    # Without the last there is a next one, whole, if `write` was killed between its two renames; else someone deleted the last. That can't
    # be told from a run that was killed just before the first of them, and whose file was deleted then
    files,damaged = [file, previous(file)] if file.exists() else [_next(file)],[]
    for f in filter(Path.exists, files):
        try: d = _read(f)
        except Exception as e: damaged.append((f, f'{f} is damaged ({type(e).__name__}: {str(e)[:200]})'))
        else: break
    else:
        if not damaged or file not in files: return None
        raise ValueError(f'{"; ".join(o for _,o in damaged)}: expected a whole one to go on from; delete it to begin anew')
    if (kind := (d['fastai_discrim'], d['version'])) != ('Checkpoint', VERSION):
        raise ValueError(f'{f} is a {kind[0]} of version {kind[1]}: expected one of version {VERSION}, which is what this fastai_discrim '
                         'reads; go on with the one that wrote it, or give the checkpoint another name')
    if damaged and f == previous(file):
        warn(f'{damaged[0][1]}: going on from the one before it, {f.name}', stacklevel=4)
        # Lest the next write puts it in the place of the one that is whole
        os.replace(file, file.with_name(f'{file.name}.damaged'))
    if f != file: os.replace(f, file)
    return unpacked(d)

def _short(text): return sha1(text.encode()).hexdigest()[:8]

def func_name(
    f, # A function, a class, or a `partial` of one
) -> str:
    "What `f` is called where it is defined, with the torch optimiser that it wraps"
    inner = getattr(f, 'keywords', {}).get('opt')
    f = getattr(f, 'func', f)
    return getattr(f, '__name__', type(f).__name__) + (f'({func_name(inner)})' if inner else '')

def facts(
    learn:Learner, # The learner that runs
    plan:Plan, # The plan that it runs
    wd:float=None, # Weight decay, as `fit` is given it
    reset_opt:bool=False, # Will the optimiser be created anew?
) -> dict: # By name
    "What must be the same for a run to go on"
    def _sum(tensors): return f'{sum(t.numel() for t in tensors.values())} in {len(tensors)} tensors, ' + _short(
        ', '.join(f'{n} {tuple(t.shape)}' for n,t in tensors.items()))
    model,dls,wd = get_model(learn.model),learn.dls,learn.wd if wd is None else wd
    # After Ctrl-C a callback such as `MixUp` leaves its own
    loss = getattr(getattr(learn.loss_func, '__self__', None), 'old_lf', learn.loss_func)
    loaders = [whole_loader(dl) for dl in dls.loaders]
    return {
        'plan': plan.to_json(), 'parameters': _sum(dict(model.named_parameters())), 'buffers': _sum(dict(model.named_buffers())),
        'layer groups': [len(g) for g in check_groups(learn, reset_opt)],
        'vocabulary': f'{len(dls.vocab)} entries, {_short(repr(dls.vocab))}' if hasattr(dls, 'vocab') else None,
        'training items': count_items(loaders[0]), 'validation items': count_items(loaders[1]) if len(loaders) > 1 else 0,
        'batch size': getattr(loaders[0], 'bs', None) or getattr(loaders[0], 'batch_size', None), 'batches an epoch': len(loaders[0]),
        'optimiser': func_name(learn.opt_func), 'weight decay': [wd.start, wd.stop] if isinstance(wd, slice) else np.asarray(wd).tolist(),
        'momentum': list(learn.moms), 'loss function': func_name(loss), 'metrics': list(learn.metrics.attrgot('name')),
        'processes': n_processes()}

def check_same(
    file:Path, # The checkpoint, for the message
    old:dict, # `facts` that it was written under
    new:dict, # `facts` of the run that is to go on from it
):
    "Raise if the two are of different runs"
    diffs = []
    if Plan.from_json(old['plan']) != Plan.from_json(new['plan']):
        diffs.append(f'its plan is\n{Plan.from_json(old["plan"])}\nand this one\n{Plan.from_json(new["plan"])}\n')
    diffs += [f'{k}: {old[k]} there, {new[k]} here' for k in new if k != 'plan' and k in old and old[k] != new[k]]
    if diffs: raise ValueError(f'{file} is of another run: {"; ".join(diffs)}: expected the same; give this run another name for its '
                               'checkpoint, or delete that file')
