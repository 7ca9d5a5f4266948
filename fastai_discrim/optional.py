"Look up fastai classes without importing their modules, since some of these modules change defaults when they are imported"
__all__ = []

import sys


def if_loaded(
    module:str, # The module that defines the class, such as 'fastai.text.learner'
    name:str, # The name of the class
) -> type|tuple: # The class; `()` if its module was never imported, as no object can be an instance then
    "Return a class of fastai for `isinstance`, without importing its module"
    # Importing fastai.callback.progress changes the default callbacks, and fastai.text.core the default tokenization
    return getattr(sys.modules.get(module), name, ())
