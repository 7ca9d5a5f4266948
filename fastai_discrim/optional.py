"Look up classes of fastai that may not be loaded: importing them here would load them for everybody"
__all__ = []

import sys


def if_loaded(
    module:str, # Where the class is defined, such as 'fastai.text.learner'
    name:str, # What the class is called
) -> type|tuple: # The class; `()`, of which nothing is an instance, where its module was never imported
    "Return a class for `isinstance`: where its module was never imported there can be no instance"
    # fastai.callback.progress changes the default callbacks when it is imported, fastai.text.core the default tokenization
    return getattr(sys.modules.get(module), name, ())
