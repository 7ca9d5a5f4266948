"Share work and results between the processes of a distributed fit"
__all__ = []

import pickle

import torch.distributed as dist
from fastai.imports import noop
from fastai.learner import Learner
from fastai.torch_core import rank_distrib


def n_processes() -> int:
    "Return the number of processes that train together"
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1

def all_gather(o) -> list:
    "Gather `o`, the picklable object of each process, in all processes; return one object per rank"
    if n_processes() == 1: return [o]
    res = [None]*n_processes()
    dist.all_gather_object(res, o)
    return res

def on_rank0(f):
    "Call `f` on rank 0 and return its result on all ranks; raise its error on all ranks, so that none waits forever"
    if n_processes() == 1: return f()
    res = [None, None]
    if rank_distrib() == 0:
        try: res[0] = f()
        except Exception as e: res[1] = _picklable(e)
    dist.broadcast_object_list(res, src=0)
    if res[1] is not None: raise res[1]
    return res[0]

def _picklable(e):
    "Return `e`, or a `RuntimeError` with the same text if `e` can't be pickled"
    try: pickle.loads(pickle.dumps(e))
    except Exception: return RuntimeError(f'{type(e).__name__}: {e}')
    return e

def log_rank0(learn:Learner, text:str):
    "Print `text` on rank 0, unless inside `learn.no_logging()`"
    if learn.logger is not noop and rank_distrib() == 0: print(text)
