"Warnings that point at the user's line, however deep in fastai's loop they are given"
__all__ = []

import sys
from warnings import warn

# What lies between a line of the user and a warning of ours, by the first part of a module's name
BETWEEN = {'fastai_discrim', 'fastai', 'fastcore', 'contextlib', 'functools', 'torch'}


def warn_user(
    text:str, # What there is to say
):
    "Warn of `text` at the innermost line that is not of this package, of fastai or of what these are called through"
    level,frame = 1,sys._getframe()
    while frame is not None and frame.f_globals.get('__name__', '').split('.')[0] in BETWEEN: level,frame = level+1,frame.f_back
    warn(text, stacklevel=level)
