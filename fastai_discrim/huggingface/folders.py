"A folder is told from the name of a model on the hub"
__all__ = []

from pathlib import Path


def folder_of(
    where, # A name, or the path of a folder
    arg:str, # The argument that it is, for the error
) -> Path|None: # None for a name
    "Return the folder that `where` says, or raise `ValueError` for a path at which there is none"
    folder,text = Path(where),str(where)
    if folder.is_dir(): return folder
    # A name has at most one slash, and transformers says what is wrong with it
    is_path = isinstance(where, Path) or folder.is_absolute() or text.startswith(('.', '~')) or text.count('/') > 1
    if is_path: raise ValueError(f'{arg}={text!r}: expected a folder, and there is none of this name; look at the path')
