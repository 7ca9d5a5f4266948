"The file: whole or not there, checked, and read as data"
import io
import os
import pickle
import zlib
from pathlib import Path

import pytest
import torch
from conftest import make_clas, make_lm, make_mlp, same, snapshot, weights

from fastai_discrim.run import checkpoint_file as module
from fastai_discrim.run.checkpoint_file import checkpoint_file, previous, read, write


def test_what_was_written_is_read(tmp_path):
    state = dict(a=[1, 2.5, 'x', None, True], b=(1, (2, 3)), t=torch.arange(3), many=[.1*i for i in range(100)], ints=list(range(60)),
                 scalars=[torch.tensor(float(i)) for i in range(60)], rows=[[1., 2.]]*60, empty=[], d={'k': {1: 'one'}})
    write(tmp_path/'models'/'a.ckpt', state)
    d = read(tmp_path/'models'/'a.ckpt')
    assert torch.equal(d.pop('t'), torch.arange(3)) and all(torch.equal(a, b) for a,b in zip(d.pop('scalars'), state['scalars']))
    assert d == dict(fastai_discrim='Checkpoint', version=4, **{k:v for k,v in state.items() if k not in ('t', 'scalars')})
    assert [type(v) for v in d['a']] == [int, float, str, type(None), bool] and type(d['many'][0]) is float and type(d['ints'][0]) is int

def test_nothing_there_is_none(tmp_path): assert read(tmp_path/'a.ckpt') is None

def test_the_one_before_is_kept(tmp_path):
    file = tmp_path/'a.ckpt'
    for i in range(3): write(file, dict(i=i))
    assert read(file)['i'] == 2 and read(previous(file))['i'] == 1 and len(list(tmp_path.iterdir())) == 2

def damage_cut(b): return b[:len(b)//2]
def damage_flip(b): return b[:len(b)//2] + bytes([b[len(b)//2] ^ 1]) + b[len(b)//2+1:]
def damage_all(b): return b''
DAMAGES = [damage_cut, damage_flip, damage_all, lambda b: b[:-1], lambda b: b'junk'*100]

@pytest.mark.parametrize('damage', DAMAGES)
def test_damage(tmp_path, damage):
    file = tmp_path/'a.ckpt'
    for i in range(2): write(file, dict(i=i, t=torch.randn(100)))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(UserWarning, match='a.ckpt is damaged .*the previous checkpoint, a.ckpt.previous, is used'):
        assert read(file)['i'] == 0
    write(file, dict(i=2))
    for f in (file, previous(file)): f.write_bytes(damage(f.read_bytes()))
    with pytest.raises(ValueError, match='a.ckpt is damaged .*a.ckpt.previous is damaged .*expected a complete file'): read(file)
    previous(file).unlink()
    with pytest.raises(ValueError, match='a.ckpt is damaged .*expected a complete file'): read(file)

def test_killed_between_two_renames(tmp_path):
    file = tmp_path/'a.ckpt'
    write(file, dict(i=0))
    # The next one is whole already
    write(tmp_path/'b.ckpt', dict(i=1))
    os.replace(file, previous(file))
    os.replace(tmp_path/'b.ckpt', tmp_path/'a.ckpt.tmp')
    assert read(file)['i'] == 1 and read(file)['i'] == 1 and read(previous(file))['i'] == 0

def test_a_file_that_was_deleted_begins_anew(tmp_path):
    file = tmp_path/'a.ckpt'
    for i in range(2): write(file, dict(i=i))
    # The same if a run was killed before, while it wrote the next one
    (tmp_path/'a.ckpt.tmp').write_bytes(file.read_bytes()[:50])
    assert read(file)['i'] == 1
    file.unlink()
    assert read(file) is None

def test_what_is_damaged_does_not_take_the_place_of_what_is_whole(tmp_path):
    file = tmp_path/'a.ckpt'
    for i in range(2): write(file, dict(i=i))
    file.write_bytes(b'junk')
    with pytest.warns(UserWarning, match='is damaged'): assert read(file)['i'] == 0
    assert read(file)['i'] == 0 and (tmp_path/'a.ckpt.damaged').exists() and not previous(file).exists()
    write(file, dict(i=5))
    assert read(previous(file))['i'] == 0

class Evil:
    def __reduce__(self): return Path.touch, (Path('executed'),)

def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    buf = io.BytesIO()
    torch.save(dict(fastai_discrim='Checkpoint', version=4, x=Evil()), buf)
    (tmp_path/'a.ckpt').write_bytes(buf.getvalue() + zlib.crc32(buf.getvalue()).to_bytes(4, 'big'))
    with pytest.raises(ValueError, match='is damaged'): read(tmp_path/'a.ckpt')
    assert not Path('executed').exists()
    pickle.loads(pickle.dumps(Evil()))
    assert Path('executed').exists()

@pytest.mark.parametrize('version', [1, 2, 3, 5])
def test_another_version_is_refused(tmp_path, monkeypatch, version):
    monkeypatch.setattr(module, 'VERSION', version)
    write(tmp_path/'a.ckpt', {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f'is a Checkpoint of version {version}: expected version 4, the only one that this fastai_'):
        read(tmp_path/'a.ckpt')
    assert (tmp_path/'a.ckpt').exists()

def fails(error):
    def f(*args): raise error
    return f

def test_no_right_or_no_space_is_said_at_the_start(mlp, monkeypatch):
    monkeypatch.setattr(module.os, 'fsync', fails(OSError(28, 'No space left on device')))
    before = weights(mlp)
    with pytest.raises(OSError, match="can't be written .*No space left.*: expected free space and permission to write"), mlp.no_bar():
        mlp.fit_plan(mlp.ulmfit_plan(3, 1e-2), checkpoint='a')
    assert all(torch.equal(v, before[k]) for k,v in weights(mlp).items()) and not list((mlp.path/mlp.model_dir).iterdir())

def test_space_that_runs_out_later_does_not_stop_the_run(mlp, monkeypatch):
    fsync,calls = os.fsync,[]
    def full_later(fd):
        calls.append(fd)
        if len(calls) > 4: raise OSError(28, 'No space left on device')
        fsync(fd)
    monkeypatch.setattr(module.os, 'fsync', full_later)
    with pytest.warns(UserWarning, match='No space left.*training goes on without'), mlp.no_bar():
        mlp.fit_plan(mlp.ulmfit_plan(4, 1e-2), checkpoint='a')
    assert len(mlp.recorder.values) == 4 and read(checkpoint_file(mlp, 'a'))['epoch'] == 1

@pytest.mark.parametrize('kw,match', [(dict(checkpoint=3), 'checkpoint=3: expected a name'),
                                      (dict(checkpoint=''), "checkpoint='': expected a name"),
                                      (dict(checkpoint='a', checkpoint_every=0), 'checkpoint_every=0: expected at least 1'),
                                      (dict(checkpoint='a', start_epoch=1), "start_epoch=1 with checkpoint='a': expected one of the two")])
def test_bad_arguments_change_nothing(mlp, kw, match):
    before = snapshot(mlp)
    with pytest.raises((TypeError, ValueError), match=match): mlp.fit_plan(mlp.ulmfit_plan(3, 1e-2), **kw)
    assert same(before, snapshot(mlp)) and mlp.opt is None

@pytest.mark.parametrize('make', [make_mlp, make_clas, make_lm])
def test_it_is_no_larger_than_model_and_optimiser(tmp_path, make):
    learn = make(tmp_path)
    learn.model.register_parameter('big', torch.nn.Parameter(torch.zeros(1000, 500)))
    def split(m):
        first = set(m[0].parameters())
        return [list(first), [p for p in m.parameters() if p not in first]]
    learn.splitter = split
    learn.create_opt()
    with learn.no_bar(): learn.fit_plan(learn.ulmfit_plan(2, 1e-3, gradual=True), checkpoint='a', checkpoint_every=3)
    tensors = [*learn.model.state_dict().values(), *(v for g in learn.opt.param_lists for p in g for v in learn.opt.state[p].values()
                                                     if torch.is_tensor(v))]
    size = sum({t.data_ptr(): t.nbytes for t in tensors}.values())
    assert checkpoint_file(learn, 'a').stat().st_size < 1.05*size
