"Give warnings that point at the user's line, even from deep inside a fit"
__all__ = []

import sys
from warnings import warn

# Top-level packages whose frames lie between the user's line and a warning
BETWEEN = {'fastai_discrim', 'fastai', 'fastcore', 'contextlib', 'functools', 'torch'}

def warn_user(text:str):
    "Give a `UserWarning` that points at the innermost line outside of the packages in `BETWEEN`"
    level,frame = 1,sys._getframe()
    while frame is not None and frame.f_globals.get('__name__', '').split('.')[0] in BETWEEN:
        level,frame = level+1,frame.f_back
    warn(text, stacklevel=level)
