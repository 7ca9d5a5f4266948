"JSON for people, of values that JSON has no form for"
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plan.strategies import quick

from fastai_discrim.plan.json_text import dumps, json_number, jsonable

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(plain, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=12)

@quick
@given(st.dictionaries(st.text(), values, max_size=4))
def test_text_is_read_as_it_was(d): assert json.loads(dumps(d)) == json.loads(json.dumps(d)) == d

def test_plain_lists_are_on_one_line():
    text = dumps(dict(a=[1, 2], b=dict(c=[3], d='x'), e=[[1, 2], [3]], f=['[', '\n', '] ,']))
    assert text.splitlines() == ['{', ' "a": [1, 2],', ' "b": {', '  "c": [3],', '  "d": "x"', ' },',
                                 ' "e": [', '  [1, 2],', '  [3]', ' ],',' "f": [', '  "[",', '  "\\n",', '  "] ,"', ' ]', '}']

def test_numbers_that_json_does_not_have():
    assert [json_number(v) for v in (1, .5, float('nan'), float('inf'), -float('inf'))] == [1., .5, 'nan', 'inf', '-inf']
    assert np.isnan(float(json_number(float('nan')))) and float(json_number(-float('inf'))) == -float('inf')

def test_values_as_json_has_them():
    d = dict(a=np.arange(3), b=np.float32(.5), c=torch.tensor([[1.], [float('nan')]]), d=Path('x')/'y', e=(1, None, True), f={1: 'z'})
    assert jsonable(d, 'it') == dict(a=[0, 1, 2], b=.5, c=[[1.], ['nan']], d=str(Path('x')/'y'), e=[1, None, True], f={'1': 'z'})
    for v in (object(), {1, 2}, 1j):
        with pytest.raises(TypeError, match=f'it has a {type(v).__name__}: expected numbers, text, paths'): jsonable([v], 'it')
