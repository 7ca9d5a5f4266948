"Everything, for notebooks: `from fastai_discrim.all import *`"
from .compare import *
from .docstrings import *
from .fit_plan import *
from .groups import *
from .head import *
from .plan import *
from .rates import *
from .recipe import *
from .recipes import *
from .record import *
from .run_record import *
from .schedule import *
from .ulmfit import *
from .unfreeze import *
