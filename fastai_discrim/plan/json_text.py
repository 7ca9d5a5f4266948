"Write values as readable JSON, also those that JSON has no form for"
__all__ = []

import json
import math
import re
from numbers import Real
from pathlib import Path

import numpy as np
import torch


def json_number(v:float) -> float|str:
    "Return `v` in a form that JSON can hold and `float` can read: a string for nan and infinity, which JSON doesn't have"
    return float(v) if math.isfinite(v) else str(float(v))

def dumps(d:dict) -> str:
    "Write `d` as JSON that people can read, with lists and dictionaries of plain values on one line"
    def _on_one_line(m): return m[1] + re.sub(r'\n\s*', ' ', m[2]) + m[3]
    text = json.dumps(d, indent=1, default=float)
    # A string in JSON can't hold a line break, so every line break is between items
    return re.sub(r'([\[{])\n\s*([^\[\]{}]*?)\n\s*([\]}])', _on_one_line, text)

def jsonable(v, name:str):
    "Convert `v`, which errors call `name`, to what JSON can hold; raise `TypeError` if that is impossible"
    if v is None or isinstance(v, (bool, int, str)): return v
    if isinstance(v, (np.ndarray, np.generic, torch.Tensor)): return jsonable(v.tolist(), name)
    if isinstance(v, Real): return json_number(v)
    if isinstance(v, Path): return str(v)
    if isinstance(v, dict): return {str(k): jsonable(o, name) for k,o in v.items()}
    if isinstance(v, (list, tuple)): return [jsonable(o, name) for o in v]
    raise TypeError(f'{name} has a {type(v).__name__}: expected numbers, text, paths, arrays, lists and dictionaries')
