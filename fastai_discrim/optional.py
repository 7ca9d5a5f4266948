"Look up fastai classes without importing their modules, since some of these modules change defaults when they are imported"
__all__ = []

import sys


def if_loaded(module:str, name:str) -> type|tuple:
    """Return a class of fastai for `isinstance`, without importing its module, such as 'fastai.text.learner'. Return `()` if that was never
    imported, as no object can be an instance then"""
    # Importing fastai.callback.progress changes the default callbacks, and fastai.text.core the default tokenization
    return getattr(sys.modules.get(module), name, ())
