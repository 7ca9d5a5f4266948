"Everything, for notebooks: `from fastai_discrim.all import *`"
from .groups import *
from .rates import *
from .schedule import *
from .record import *
from .unfreeze import *
from .plan import *
from .head import *
from .ulmfit import *
from .docstrings import *
