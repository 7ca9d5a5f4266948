"Convert the state of callbacks and metrics to plain data, and restore it"
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

# The values of callbacks in these packages that aren't plain data don't affect a run, except for the recorder's history
KNOWN = 'fastai.', 'fastai_discrim.'
HISTORY = {'Recorder.values'}

def _snapshot(v):
    "Return what to compare `v` with later: its `repr`, or a plan itself, which can't change and whose table is slow to make"
    return v if isinstance(v, Plan) else repr(v)

def init_args(o) -> dict:
    "Return a snapshot of the attributes of `o` that are named like arguments of `__init__`, by name"
    return {k: _snapshot(vars(o)[k]) for k in signature(type(o).__init__).parameters if k in vars(o)}

def plain_attrs(
    o, # A callback, a metric or a module
    args:dict|None=None, # `init_args` at the start of the run: those that changed since are included; None to include none
    lost:set|None=None, # A set to which to add the names of attributes that can't be written
) -> dict: # By name
    "Return the attributes of `o` that can be written as plain data"
    names,res = signature(type(o).__init__).parameters,{}
    for k,v in vars(o).items():
        if k == 'learn' or k in names and (args is None or args.get(k) == _snapshot(v)): continue
        try: res[k] = _plain_attr(v)
        except (*UNWRITABLE, AttributeError):
            if lost is not None: lost.add(f'{type(o).__name__}.{k}')
    return res

def _plain_attr(v):
    "Return an attribute as plain data: of a metric its attributes, of a GradScaler or of averaged weights the `state_dict`"
    if isinstance(v, Metric): return plain_attrs(v)
    try: return to_plain(v)
    except UNWRITABLE:
        if not hasattr(v, 'load_state_dict'): raise
        return tagged('state_dict', to_plain(v.state_dict()))

def set_attrs(o, attrs:dict):
    "Restore the attributes of `o` from the result of `plain_attrs`, as read from a checkpoint"
    for k,v in attrs.items():
        old = vars(o).get(k)
        if isinstance(old, Metric): set_attrs(old, v)
        elif isinstance(old, L): setattr(o, k, L(v))
        elif isinstance(v, dict) and set(v) == {'state_dict'}:
            if hasattr(old, 'load_state_dict'): old.load_state_dict(v['state_dict'])
        # `setattr` would warn if the learner has an attribute of the same name
        else: vars(o)[k] = v

def in_checkpoint(cb:Callback) -> bool:
    "Tell whether the state of `cb` is part of a checkpoint: not if each batch creates it again"
    return getattr(type(cb), 'saves_state', True) and not isinstance(cb, (ProgressCallback, RNNCallback))

def _watched(cb):
    "Return what a tracker monitors, in which direction, and where it saves the best; None for other callbacks"
    # `PhaseEnding` has no `comp` until a phase with `early_stop` begins
    if isinstance(cb, TrackerCallback) and hasattr(cb, 'comp'): return [cb.monitor, cb.comp.__name__, getattr(cb, 'fname', None)]

def callback_state(
    cb:Callback, # A callback
    args:dict, # `init_args` at the start of the run
    lost:set, # A set to which to add the names of attributes that can't be written and may affect the run
) -> dict: # By name
    "Return the state of a callback as plain data"
    gone = set()
    res = plain_attrs(cb, args, gone)
    lost |= gone & HISTORY if type(cb).__module__.startswith(KNOWN) else gone
    watched = _watched(cb)
    return {**res, 'watches': watched} if watched else res

def set_callback_state(cb:Callback, state:dict):
    "Restore the `callback_state` of `cb`; the best value of a tracker only if it still monitors the same value"
    now = _watched(cb)
    # The index of the monitored value may have changed
    skipped = {'watches', 'idx'} if now else set()
    if now and state.get('watches', now) != now: skipped |= {'best', 'new_best', 'wait'}
    set_attrs(cb, {k:v for k,v in state.items() if k not in skipped})
