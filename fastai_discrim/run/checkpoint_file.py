"Write and read the file of a checkpoint: written completely or not at all, checked before it is read, and read as data only"
__all__ = []

import io
import os
import zlib
from pathlib import Path

import torch
from fastai.learner import Learner

from ..checks import check_count
from ..distributed import on_rank0
from ..user_warning import warn_user
from .plain_data import from_plain, to_plain

# Version 1 had no modes of modules; version 2 did not distinguish parameters frozen by hand from those frozen with their group; version 3
# had other names for the state of the data
VERSION = 4

def checkpoint_file(learn:Learner, name:str) -> Path:
    "Return the file of the checkpoint `name`, beside the models that `learn.save` writes"
    return learn.path/learn.model_dir/f'{name}.ckpt'

def previous(file:Path) -> Path:
    "Return the file of the checkpoint before `file`"
    return file.with_name(f'{file.name}.previous')

def _next(file):
    "Return the temporary file that `write` renames to `file`"
    return file.with_name(f'{file.name}.tmp')

def _sync_folder(path):
    "Flush the file names of a folder to the disk"
    if os.name == 'nt': return # Windows can't open folders
    fd = os.open(path, os.O_RDONLY)
    try: os.fsync(fd)
    finally: os.close(fd)

def write(file:Path, state:dict):
    "Write `state` to `file` and keep the old file as the previous one, so that a complete file exists at any time"
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
        raise OSError(f'the checkpoint {file} can\'t be written ({e}): expected free space and permission to write; free some space, or '
                      'give the learner another `path` or `model_dir`') from e

def _read(file):
    "Read one file; raise `ValueError` if its checksum is wrong"
    data = file.read_bytes()
    if zlib.crc32(data[:-4]).to_bytes(4, 'big') != data[-4:]: raise ValueError(f'its {len(data)} bytes don\'t match their checksum')
    # `weights_only`: no code in the file is executed
    return torch.load(io.BytesIO(data[:-4]), map_location='cpu', weights_only=True)

def read(file:Path) -> dict|None:
    "Read a checkpoint, or return None if there is none; if it is damaged, warn, rename it, and read the previous one"
    # If `file` is missing, either `write` was killed between its two renames, so that the temporary file is complete, or someone deleted
    # `file`. A run that was killed just before the first rename, and whose file was deleted later, looks like the first case
    files = [f for f in ([file, previous(file)] if file.exists() else [_next(file)]) if f.exists()]
    d,source,damaged = _first_whole(files)
    if d is None:
        # An incomplete temporary file was never a checkpoint
        if not damaged or file not in files: return None
        raise ValueError(f'{"; ".join(damaged)}: expected a complete file to resume from; delete it to start from the beginning')
    _check_version(source, d)
    if damaged and source == previous(file):
        warn_user(f'{damaged[0]}: the previous checkpoint, {source.name}, is used')
        # Otherwise the next `write` would replace the complete file by the damaged one
        os.replace(file, file.with_name(f'{file.name}.damaged'))
    if source != file: os.replace(source, file)
    return from_plain(d)

def _first_whole(files):
    "Read the first complete file of `files`; return its content, the file, and messages about the damaged files before it"
    damaged = []
    for f in files:
        try: return _read(f),f,damaged
        except Exception as e: damaged.append(f'{f} is damaged ({type(e).__name__}: {str(e)[:200]})')
    return None,None,damaged

def _check_version(file, d):
    "Raise `ValueError` unless `d`, the content of `file`, is a checkpoint of this version"
    kind,version = d['fastai_discrim'],d['version']
    if (kind, version) != ('Checkpoint', VERSION):
        raise ValueError(f'{file} is a {kind} of version {version}: expected version {VERSION}, the only one that this fastai_discrim '
                         'reads; resume with the release that wrote it, or give the checkpoint another name')

def read_checkpoint(learn:Learner, name:str) -> dict|None:
    "Read the checkpoint `name` on rank 0, and return its content in all processes, or None if there is none"
    return on_rank0(lambda: read(checkpoint_file(learn, name)))

def check_checkpoint(name:str|None, every:int|None=None, start_epoch:int=0):
    "Raise `TypeError` or `ValueError` unless these are valid together as `checkpoint`, `checkpoint_every` and `start_epoch` of a fit"
    if name is not None and (not isinstance(name, str) or not name.strip() or '\0' in name):
        raise TypeError(f'checkpoint={name!r}: expected a name, such as \'run1\'')
    if every is not None: check_count(every, 'checkpoint_every')
    if every and name is None: raise ValueError(f'checkpoint_every={every} without `checkpoint`: expected a name, such as \'run1\'')
    if start_epoch and name: raise ValueError(f'start_epoch={start_epoch} with checkpoint={name!r}: expected one of the two')
