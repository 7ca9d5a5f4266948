"The file that a run goes on from: written whole or not at all, checked before it is read, and read as data"
__all__ = []

import io
import os
import zlib
from pathlib import Path

import torch
from fastai.learner import Learner

from ..checks import check_count
from ..user_warning import warn_user
from .plain_data import from_plain, to_plain

# Version 1 had no module modes; version 2 did not tell what was frozen by hand from what was with its group
VERSION = 3

def checkpoint_file(
    learn:Learner, # The learner that runs
    name:str, # What the checkpoint is called
) -> Path:
    "Return the file of checkpoint `name`, beside the models that `learn.save` writes"
    return learn.path/learn.model_dir/f'{name}.ckpt'

def previous(
    file:Path, # A checkpoint
) -> Path:
    "Return the file of the checkpoint before `file`"
    return file.with_name(f'{file.name}.previous')

def _next(file):
    "Return the file that `write` writes before it renames it"
    return file.with_name(f'{file.name}.tmp')

def _sync_folder(path):
    "Have the operating system write the names in a folder to the disk"
    if os.name == 'nt': return # Windows opens no folders
    fd = os.open(path, os.O_RDONLY)
    try: os.fsync(fd)
    finally: os.close(fd)

def write(
    file:Path, # Where to
    state:dict, # What `to_plain` takes
):
    "Write `state` to `file`; the file that was there becomes the one before it, and a whole one is there at any time"
    buf,tmp = io.BytesIO(),_next(file)
    torch.save(to_plain(dict(fastai_discrim='Checkpoint', version=VERSION, **state)), buf)
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
    "Read one file; raise where it isn't what was written"
    data = file.read_bytes()
    if zlib.crc32(data[:-4]).to_bytes(4, 'big') != data[-4:]: raise ValueError(f'its {len(data)} bytes are not those that were written')
    # Nothing in the file is executed
    return torch.load(io.BytesIO(data[:-4]), map_location='cpu', weights_only=True)

def read(
    file:Path, # A checkpoint
) -> dict|None: # None where there is no file
    "Read what `write` wrote last; where that is damaged rename it, warn, and read the one before it"
    # Without the last file there is a whole next one if `write` was killed between its two renames; else someone deleted the last. A run
    # that was killed just before the first rename, and whose file was deleted then, looks the same
    files = [f for f in ([file, previous(file)] if file.exists() else [_next(file)]) if f.exists()]
    d,source,damaged = _first_whole(files)
    if d is None:
        # A next file that isn't whole was never a checkpoint
        if not damaged or file not in files: return None
        raise ValueError(f'{"; ".join(damaged)}: expected a whole one to go on from; delete it to start from the beginning')
    _check_version(source, d)
    if damaged and source == previous(file):
        warn_user(f'{damaged[0]}: going on from the one before it, {source.name}')
        # The next write would put it in the place of the one that is whole
        os.replace(file, file.with_name(f'{file.name}.damaged'))
    if source != file: os.replace(source, file)
    return from_plain(d)

def _first_whole(files):
    "Read the first of `files` that is whole; return what it holds, the file, and what is wrong with those before it"
    damaged = []
    for f in files:
        try: return _read(f),f,damaged
        except Exception as e: damaged.append(f'{f} is damaged ({type(e).__name__}: {str(e)[:200]})')
    return None,None,damaged

def _check_version(file, d):
    "Raise unless `d`, read from `file`, is a checkpoint of this version"
    kind,version = d['fastai_discrim'],d['version']
    if (kind, version) != ('Checkpoint', VERSION):
        raise ValueError(f'{file} is a {kind} of version {version}: expected one of version {VERSION}, which is what this fastai_discrim '
                         'reads; go on with the one that wrote it, or give the checkpoint another name')

def check_checkpoint(
    name:str, # What the checkpoint is called; None for none
    every:int|None=None, # Steps between two checkpoints within an epoch
    start_epoch:int=0, # What `fit` is given
):
    "Raise unless a run can have such a checkpoint"
    if name is not None and (not isinstance(name, str) or not name.strip() or '\0' in name):
        raise TypeError(f'checkpoint={name!r}: expected a name for it, such as \'run1\'')
    if every is not None: check_count(every, 'checkpoint_every')
    if every and name is None: raise ValueError(f'checkpoint_every={every} without `checkpoint`: expected a name for it')
    if start_epoch and name: raise ValueError(f'start_epoch={start_epoch} with checkpoint={name!r}: expected one of the two')
