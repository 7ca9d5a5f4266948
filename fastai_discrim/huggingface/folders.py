"Tell folders from names of models on the hub"
__all__ = []

from pathlib import Path


def folder_of(
    where, # The name of a model, or the path of a folder
    arg:str, # Name of the argument, for the error
) -> Path|None: # None for the name of a model
    "Return the folder at `where`, or raise `ValueError` if `where` is a path without a folder"
    folder,text = Path(where),str(where)
    if folder.is_dir(): return folder
    # The name of a model has at most one slash; transformers itself refuses names that don't exist
    is_path = isinstance(where, Path) or folder.is_absolute() or text.startswith(('.', '~')) or text.count('/') > 1
    if is_path: raise ValueError(f'{arg}={text!r}: expected a folder, and there is none of this name; look at the path')
