"Functions that an exported learner holds, which loads also where this package can't be imported"
__all__ = []

from functools import update_wrapper
from operator import getitem

from fastcore.basics import exec_new

# Whatever keeps the package from being imported, a learner is to load
IMPORT = """
try: from {module} import {name} as found
except Exception: from fastai.torch_core import trainable_params as found
"""

class _Import:
    "What the names are when it is unpickled that python code gives"
    def __init__(self, code): self.code = code
    def __reduce__(self): return exec_new,(self.code,)

class Portable:
    "A splitter that is pickled by its name; where that can't be imported, fastai's default splitter stands in for it"
    def __init__(self, f): update_wrapper(self, f)
    def __call__(self, *args, **kwargs): return self.__wrapped__(*args, **kwargs)
    def __repr__(self): return repr(self.__wrapped__)
    def __copy__(self): return self
    def __deepcopy__(self, memo): return self
    # Only functions of the standard library, fastcore and fastai
    def __reduce__(self): return getitem,(_Import(IMPORT.format(module=self.__module__, name=self.__qualname__)), 'found')
