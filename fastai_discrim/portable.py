"Functions that an exported learner holds, which loads also where this package isn't installed"
__all__ = []

from functools import update_wrapper
from pydoc import locate

from fastai.torch_core import trainable_params
from fastcore.basics import ifnone


class _Located:
    "What an import by name gives when it is unpickled; None where there is no such module"
    def __init__(self, path): self.path = path
    def __reduce__(self): return locate,(self.path,)

class Portable:
    "A splitter that is pickled by its name; where that can't be imported, fastai's default splitter stands in for it"
    def __init__(self, f): update_wrapper(self, f)
    def __call__(self, *args, **kwargs): return self.__wrapped__(*args, **kwargs)
    def __repr__(self): return repr(self.__wrapped__)
    def __copy__(self): return self
    def __deepcopy__(self, memo): return self
    # Only functions of the standard library, fastcore and fastai
    def __reduce__(self): return ifnone,(_Located(f'{self.__module__}.{self.__qualname__}'), trainable_params)
