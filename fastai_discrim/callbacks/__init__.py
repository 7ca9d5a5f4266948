"Callbacks for layer groups that work under any of fastai's schedulers; importing them wraps `fit` and `fine_tune`"
from . import checked_fit  # noqa: F401
