"Tell folders from names of models on the hub"
__all__ = []

from pathlib import Path


def folder_of(where, arg:str) -> Path|None:
    "Return the folder at `where`, None for the name of a model; raise `ValueError` if the argument `arg` is a path without a folder"
    folder,text = Path(where),str(where)
    if folder.is_dir(): return folder
    # The name of a model has at most one slash; transformers itself refuses names that don't exist
    is_path = isinstance(where, Path) or folder.is_absolute() or text.startswith(('.', '~')) or text.count('/') > 1
    if is_path: raise ValueError(f'{arg}={text!r}: expected a folder, and there is none of this name; look at the path')
