"Several processes that train together: what rank 0 does for all of them, and what each of them knows"
__all__ = []

import pickle

import torch.distributed as dist
from fastai.imports import noop
from fastai.learner import Learner
from fastai.torch_core import rank_distrib


def n_processes() -> int:
    "Count the processes that train together"
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1

def all_gather(
    o, # What this process has; anything that can be pickled
) -> list: # By rank
    "Return what each process has, in all of them"
    if n_processes() == 1: return [o]
    res = [None]*n_processes()
    dist.all_gather_object(res, o)
    return res

def on_rank0(
    f, # A function without arguments
):
    "Call `f` on rank 0 and return its result on all ranks; an error of `f` is raised on all ranks, so that none waits forever"
    if n_processes() == 1: return f()
    res = [None, None]
    if rank_distrib() == 0:
        try: res[0] = f()
        except Exception as e: res[1] = _picklable(e)
    dist.broadcast_object_list(res, src=0)
    if res[1] is not None: raise res[1]
    return res[0]

def _picklable(e):
    "Return `e`, or a `RuntimeError` of the same text if `e` can't be sent to other processes"
    try: pickle.loads(pickle.dumps(e))
    except Exception: return RuntimeError(f'{type(e).__name__}: {e}')
    return e

def log_rank0(
    learn:Learner, # The learner that something is said about
    text:str, # What there is to say
):
    "Print `text` on rank 0, unless inside `learn.no_logging()`"
    if learn.logger is not noop and rank_distrib() == 0: print(text)
