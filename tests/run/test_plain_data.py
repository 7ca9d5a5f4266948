"Values as plain data: what is written comes back, and nothing is executed"
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fastcore.foundation import L
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastai_discrim.run.checkpoint_file import read, write
from fastai_discrim.run.plain_data import PACK_FROM, UNWRITABLE, from_plain, to_plain


def through_a_file(v):
    "Return what is read where `v` was written; `torch.load` executes nothing"
    buf = io.BytesIO()
    torch.save(to_plain(v), buf)
    buf.seek(0)
    return from_plain(torch.load(buf, weights_only=True))

def same(a, b):
    "Tell whether two values are equal, types and nan and the sign of zero too, but that an `L` comes back as a list"
    if isinstance(a, (list, L)): return type(b) is list and len(a) == len(b) and all(map(same, a, b))
    if type(a) is not type(b): return False
    if isinstance(a, tuple): return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict): return list(a) == list(b) and all(map(same, a.values(), b.values()))
    if isinstance(a, torch.Tensor): return a.dtype == b.dtype and a.shape == b.shape and same(a.tolist(), b.tolist())
    if isinstance(a, np.ndarray): return a.dtype == b.dtype and a.shape == b.shape and same(a.tolist(), b.tolist())
    if isinstance(a, float): return math.isnan(a) and math.isnan(b) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b

DTYPES = np.int8,np.int64,np.uint8,np.bool_,np.float16,np.float32,np.float64
TORCH = torch.int64,torch.bool,torch.float32,torch.float64
keys = st.one_of(st.text(max_size=5), st.integers(), st.tuples(st.integers(), st.booleans()))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
paths = st.text('ab/', min_size=1, max_size=5).map(Path)
arrays = st.builds(lambda shape, dtype: np.arange(math.prod(shape)).reshape(shape).astype(dtype),
                   st.lists(st.integers(0, 3), max_size=3), st.sampled_from(DTYPES))
tensors = st.builds(lambda shape, dtype: torch.arange(math.prod(shape)).reshape(shape).to(dtype),
                    st.lists(st.integers(0, 3), max_size=3), st.sampled_from(TORCH))
leaves = st.one_of(scalars, paths, arrays, tensors, st.sets(st.one_of(st.integers(), st.text(max_size=3), paths), max_size=4))

def repeated(values):
    "Return lists long enough to be packed: one value many times, and another somewhere"
    return st.builds(lambda v, other, n, at: [*[v]*at, other, *[v]*(n-at)],
                     values, values, st.integers(PACK_FROM-2, PACK_FROM+2), st.integers(0, PACK_FROM-2))

nested = st.recursive(leaves, lambda values: st.one_of(
    st.lists(values, max_size=4), st.lists(values, max_size=4).map(tuple), st.lists(values, max_size=4).map(L),
    st.dictionaries(keys, values, max_size=4), repeated(values)), max_leaves=8)

@settings(deadline=None, max_examples=150)
@given(nested)
# One list among numbers, numbers of several types, rows of several lengths, and what lies beyond torch's integers
@example([[], *[1.]*PACK_FROM])
@example([[1, 2.]]*PACK_FROM)
@example([torch.tensor(1), *[torch.tensor(1.5)]*PACK_FROM])
@example([[1], [1, 2]]*PACK_FROM)
@example([2**70, -2**63]*PACK_FROM)
@example([2**63]*PACK_FROM)
@example([True, 1]*PACK_FROM)
@example([-0., math.inf]*PACK_FROM)
@example([L(1., 2.)]*PACK_FROM)
# Tuples, which a random state needs
@example(tuple(range(PACK_FROM)))
@example((*range(PACK_FROM), 2**63))
@example((True,)*PACK_FROM)
@example((1, 2.)*PACK_FROM)
def test_what_is_written_is_read(v): assert same(v, through_a_file(v))

@settings(deadline=None, max_examples=50)
@given(st.one_of(*(st.lists(st.lists(o, min_size=2, max_size=2), min_size=PACK_FROM, max_size=PACK_FROM+5)
                   for o in (st.integers(-2**61, 2**61), st.floats(-1e9, 1e9)))))
def test_a_table_of_numbers_is_one_tensor(rows):
    assert torch.is_tensor(to_plain(rows)['value']) and same(rows, through_a_file(rows))

@pytest.mark.parametrize('v,want', [(np.float32(.5), .5), (np.int8(3), 3), (np.True_, True), (np.str_('a'), 'a'), (np.float16(1), 1.),
                                    (np.uint64(2**63+1), 2**63+1)], ids=repr)
def test_numbers_of_numpy_are_written_as_those_of_python(v, want): assert same(through_a_file(v), want)

def test_lists_of_scalar_tensors_keep_their_numbers():
    got = through_a_file([torch.tensor(.1*i, dtype=torch.float64) for i in range(PACK_FROM)])
    assert same(got, [torch.tensor(.1*i, dtype=torch.float64) for i in range(PACK_FROM)])

def test_what_looks_like_a_mark_is_none(tmp_path):
    state = dict(a={'numbers': [1, 2]}, b={'scalars': 3}, c={'state_dict': {'x': 1}}, p=Path('a/b'), s={1, 'x'}, n=np.arange(3.))
    write(tmp_path/'a.ckpt', state)
    d = read(tmp_path/'a.ckpt')
    assert np.array_equal(d.pop('n'), state.pop('n')) and {k: d[k] for k in state} == state

def test_a_view_is_written_without_what_it_is_a_view_of(tmp_path):
    write(tmp_path/'a.ckpt', dict(t=torch.zeros(10**6)[:2], big=[2**70]*60))
    assert (tmp_path/'a.ckpt').stat().st_size < 10**4 and read(tmp_path/'a.ckpt')['big'][0] == 2**70

@pytest.mark.parametrize('v', [object(), len, frozenset(), 1j*np.longdouble(1), np.datetime64('2020-01-01'), np.longdouble(1),
                               np.zeros(2, np.longdouble), np.array(['a']), {Path('a'): 1}, torch.zeros(2, requires_grad=True), b'a',
                               [object()], {'a': {'b': object()}}], ids=lambda v: type(v).__name__)
def test_what_is_more_is_refused(v):
    "Before it is written: what can't be read would be a damaged checkpoint"
    with pytest.raises(UNWRITABLE): to_plain(v)

def test_what_is_no_data_is_refused(tmp_path):
    with pytest.raises(TypeError, match='a object in the state of a run: expected numbers, text, arrays and tensors'):
        write(tmp_path/'a.ckpt', dict(a=object()))
    assert not list(tmp_path.iterdir())
