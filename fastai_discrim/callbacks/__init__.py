"Callbacks for layer groups, each of which does one thing under any of fastai's schedulers; importing them wraps `fit` and `fine_tune`"
from . import checked_fit  # noqa: F401
