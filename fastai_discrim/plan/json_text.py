"JSON that people can read, of values that JSON has no form for"
__all__ = []

import json
import math
import re
from numbers import Real
from pathlib import Path

import numpy as np
import torch


def json_number(
    v:float, # Any number
) -> float|str: # A string for nan and infinity, which JSON doesn't have
    "Return `v` as JSON can hold it and `float` reads it"
    return float(v) if math.isfinite(v) else str(float(v))

def dumps(
    d:dict, # What JSON can hold
) -> str: # JSON, with lists and dictionaries of plain values on one line
    "Write `d` as JSON text for people, too"
    text = json.dumps(d, indent=1, default=float)
    # A line break is always between items, as no string in JSON can hold one
    return re.sub(r'([\[{])\n\s*([^\[\]{}]*?)\n\s*([\]}])', lambda m: m[1] + re.sub(r'\n\s*', ' ', m[2]) + m[3], text)

def jsonable(
    v, # A number, text, a path, an array, or several of these in a list or dictionary
    name:str, # What it is called
):
    "Return `v` as JSON can hold it; raise `TypeError` if it can't"
    if v is None or isinstance(v, (bool, int, str)): return v
    if isinstance(v, (np.ndarray, np.generic, torch.Tensor)): return jsonable(v.tolist(), name)
    if isinstance(v, Real): return json_number(v)
    if isinstance(v, Path): return str(v)
    if isinstance(v, dict): return {str(k): jsonable(o, name) for k,o in v.items()}
    if isinstance(v, (list, tuple)): return [jsonable(o, name) for o in v]
    raise TypeError(f'{name} has a {type(v).__name__}: expected numbers, text, paths, arrays, lists and dictionaries')
