"Changes that a run makes to modules and other objects are put back in place"
from collections import OrderedDict, deque
from functools import partial

import numpy as np
import pytest
import torch
from fastcore.foundation import L
from torch import nn

from fastai_discrim.module_state import containers, content, modules_kept, set_content


def ids(o, seen=()): return {id(v) for v in containers(o, set(map(id, seen)))}

class Holder:
    "An object with attributes"
    def __init__(self, **attrs): vars(self).update(attrs)
    def method(self): pass

def test_containers_are_found():
    a,b = [1],torch.ones(1)
    for o in ([a, b], (a, b), L(a, b), {'a': a, 'b': b}, {'x': [{'y': (a, L(b))}]}, Holder(a=a, b=b), Holder(a=a, b=[b]),
              Holder(a=a, b=b).method, partial(max, a, key=b), lambda: (a, b), deque([a, b])):
        assert {id(a), id(b)} <= ids(o)
    m = nn.Sequential(nn.Linear(1, 1))
    assert {id(o) for o in (m[0].weight, m[0]._buffers, vars(m), m._forward_hooks)} <= ids(m)
    held = [m]
    assert ids(held, [m[0].bias]) == ids(held) - {id(m[0].bias)}

def test_objects_without_tensors_are_left_alone():
    "Loggers, files and other objects without a tensor; classes"
    logger = Holder(step=1, files=[1, 2], inner=Holder(w=torch.ones(1)))
    assert not ids(logger) and len(ids([logger])) == 1
    assert not ids(Holder) and not ids(3) and not ids('ab')
    # A function that uses an undefined name; only its empty attributes are found
    assert [v for v in containers(lambda: undefined, set())] == [{}]  # noqa: F821

def test_data_that_hooks_collect_are_left_alone():
    m,gathered = nn.Linear(1, 1),[]
    m.register_forward_hook(lambda *args: gathered.append(1))
    with modules_kept(m): m(torch.ones(1, 1))
    assert gathered == [1]

def test_a_variable_without_a_value_yet():
    def make():
        def f(): return later
        assert not {id(v) for v in containers(f, set()) if not isinstance(v, dict)}
        later = 1
        return f
    make()

def test_each_object_is_found_once_even_in_a_cycle():
    a = [torch.ones(1)]
    a.append(a)
    assert len(list(containers([a, a], set()))) == 3

def test_content_is_put_back_in_place():
    held = [[1, 2], deque([1, 2], maxlen=2), {1: 2, 3: 4}, OrderedDict(a=1, b=2), {1, 2}, np.ones(2), torch.ones(2), torch.ones(3)]
    old = [content(v) for v in held]
    held[0].append(3), held[1].append(3), held[2].update({1: 0, 9: 9}), held[3].move_to_end('a'), held[4].add(3), held[6].add_(1)
    held[5] += 1
    held[7].resize_(5)
    for v,o in zip(held, old): set_content(v, o)
    assert held[:5] == [[1, 2], deque([1, 2]), {1: 2, 3: 4}, OrderedDict(a=1, b=2), {1, 2}] and list(held[3]) == ['a', 'b']
    assert held[5].tolist() == held[6].tolist() == [1, 1] and held[7].tolist() == [1, 1, 1]

def test_tensors_that_can_not_be_changed_in_place():
    frozen = np.ones(1)
    frozen.flags.writeable = False
    for v in (frozen, torch.ones(1).expand(3), nn.Parameter(torch.ones(1)).expand(3), nn.LazyLinear(2).weight,
              torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])):
        assert content(v) is None
    for v in (torch.ones(1).expand(1), torch.eye(2).to_sparse(), torch.ones(2, 2).t()):
        old = content(v)
        set_content(v, old)
        assert torch.equal(v.to_dense(), old.to_dense())

def test_an_unchanged_dictionary_that_can_not_be_emptied_is_left_alone():
    "Such as the outputs of transformers models"
    class Output(OrderedDict):
        def clear(self): raise TypeError
        def update(self, *args): raise TypeError
    out = Output(a=torch.ones(1))
    set_content(out, content(out))

class Run(nn.Module):
    "A module that makes, replaces and changes buffers, and sets attributes, when it runs"
    def __init__(self):
        super().__init__()
        self.w,self.seen,self._last = nn.Parameter(torch.ones(1)),[],None
        self.register_buffer('size', torch.zeros(0))
        self.register_buffer('count', torch.zeros(1))
    def forward(self, x):
        self.size,self._last = torch.zeros(len(x)),x
        self.count += 1
        self.seen.append(len(x))
        self.register_buffer('new', x)
        return self.w*x

@pytest.mark.parametrize('ex', [None, KeyboardInterrupt, ZeroDivisionError])
def test_a_run_leaves_no_trace_on_modules(ex):
    m = nn.Sequential(Run(), nn.BatchNorm1d(1))
    run,size = m[0],m[0].size
    with pytest.raises(ex) if ex else modules_kept(nn.ReLU()),modules_kept(m):
        m(torch.ones(2, 1))
        m.eval()
        m.register_forward_hook(print)
        with torch.no_grad(): run.w += 1
        if ex: raise ex
    assert m.training and m[1].training and not m._forward_hooks and m[1].num_batches_tracked == 0 and (m[1].running_mean == 0).all()
    assert run.size is size and run.size.shape == (0,) and run.count == 0
    assert not run.seen and run._last is None and 'new' not in run._buffers
    # Parameters are left alone
    assert run.w == 2
