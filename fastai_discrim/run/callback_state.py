"The state of callbacks and metrics as plain data, and back"
__all__ = []

from inspect import signature

from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.rnn import RNNCallback
from fastai.callback.tracker import TrackerCallback
from fastai.learner import Metric
from fastcore.foundation import L

from ..plan.plan import Plan
from .plain_data import UNWRITABLE, tagged, to_plain

# Of callbacks of these packages what isn't plain is known not to matter, but for the recorder's history
KNOWN = 'fastai.', 'fastai_discrim.'
HISTORY = {'Recorder.values'}

def _look(v):
    "Return how a value looks. A plan stays as it is: it can't change, and its table takes longer than the rest of a checkpoint"
    return v if isinstance(v, Plan) else repr(v)

def init_args(
    o, # A callback, a metric or a module
) -> dict: # By name
    "Return how the attributes look that `o` was made with"
    return {k: _look(vars(o)[k]) for k in signature(type(o).__init__).parameters if k in vars(o)}

def plain_attrs(
    o, # A callback, a metric or a module
    args:dict|None=None, # What `init_args` gave as the run began: of these, only what has changed since is taken; None for none of them
    lost:set|None=None, # To which the names of what can't be written are added
) -> dict: # By name
    "Return the attributes of `o` that are plain"
    names,res = signature(type(o).__init__).parameters,{}
    for k,v in vars(o).items():
        if k == 'learn' or k in names and (args is None or args.get(k) == _look(v)): continue
        try: res[k] = _plain_attr(v)
        except (*UNWRITABLE, AttributeError):
            if lost is not None: lost.add(f'{type(o).__name__}.{k}')
    return res

def _plain_attr(v):
    "Return an attribute as plain data: its own, or its state as a module, as of a GradScaler or an average of weights"
    try: return to_plain(v)
    except UNWRITABLE:
        if not hasattr(v, 'load_state_dict'): raise
        return tagged('state_dict', to_plain(v.state_dict()))

def set_attrs(
    o, # A callback, a metric or a module
    attrs:dict, # What `plain_attrs` gave, as it was read
):
    "Restore attributes"
    for k,v in attrs.items():
        old = vars(o).get(k)
        if isinstance(old, Metric): set_attrs(old, v)
        elif isinstance(old, L) and old and all(isinstance(m, Metric) for m in old):
            for m,attr in zip(old, v): set_attrs(m, attr)
        elif isinstance(old, L): setattr(o, k, L(v))
        elif isinstance(v, dict) and set(v) == {'state_dict'}:
            if hasattr(old, 'load_state_dict'): old.load_state_dict(v['state_dict'])
        # As it was read: fastai warns where a callback gets an attribute that the learner has too
        else: vars(o)[k] = v

def in_checkpoint(
    cb:Callback, # A callback
) -> bool:
    "Tell whether the state of `cb` is written: not where each batch makes it again"
    return getattr(type(cb), 'in_checkpoint', True) and not isinstance(cb, (ProgressCallback, RNNCallback))

def _watched(cb):
    "Return what a tracker monitors, in which direction, and where it saves the best; None for other callbacks"
    # One that ends phases watches nothing before a phase that may end early
    if isinstance(cb, TrackerCallback) and hasattr(cb, 'comp'): return [cb.monitor, cb.comp.__name__, getattr(cb, 'fname', None)]

def callback_state(
    cb:Callback, # A callback
    args:dict, # What `init_args` gave as the run began
    lost:set, # To which the names are added of what can't be written and may matter
) -> dict: # By name
    "Return the state of a callback"
    gone = set()
    res = plain_attrs(cb, args, gone)
    lost |= gone & HISTORY if type(cb).__module__.startswith(KNOWN) else gone
    watched = _watched(cb)
    return {**res, 'watches': watched} if watched else res

def set_callback_state(
    cb:Callback, # A callback
    state:dict, # What `callback_state` gave, as it was read
):
    "Restore the state of a callback; a tracker's best so far only if that is by what it watches now"
    now = _watched(cb)
    # Where the monitored value stands may be another place now
    skipped = {'watches', 'idx'} if now else set()
    if now and state.get('watches', now) != now: skipped |= {'best', 'new_best', 'wait'}
    set_attrs(cb, {k:v for k,v in state.items() if k not in skipped})
