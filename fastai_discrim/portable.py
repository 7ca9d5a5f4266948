"Make an exported learner load where this package can't be imported"
__all__ = []

from functools import update_wrapper
from operator import getitem

from fastcore.basics import exec_new

# `except Exception`, since an import can fail with any error, and the learner has to load all the same
IMPORT = """
try: from {module} import {name} as found
except Exception: from fastai.torch_core import trainable_params as found
"""

class _Import:
    "Unpickle as the namespace that results from running `code`"
    def __init__(self, code): self.code = code
    def __reduce__(self): return exec_new,(self.code,)

class Portable:
    "Pickle a splitter by its name, and unpickle fastai's default splitter where that name can't be imported"
    def __init__(self, f): update_wrapper(self, f)
    def __call__(self, *args, **kwargs): return self.__wrapped__(*args, **kwargs)
    def __repr__(self): return repr(self.__wrapped__)
    def __copy__(self): return self
    def __deepcopy__(self, memo): return self
    # The pickle refers only to functions of the standard library, fastcore and fastai
    def __reduce__(self): return getitem,(_Import(IMPORT.format(module=self.__module__, name=self.__qualname__)), 'found')
