"Runs whose process is killed for good, also while it writes a checkpoint"
import os
import signal
import stat
import time

import pytest
import torch
from conftest import StopAt
from run.resumed import MAKERS, assert_equal, outcome, run, uninterrupted

from fastai_discrim.run.checkpoint_file import checkpoint_file, previous, read


def kill(*args): os.kill(os.getpid(), signal.SIGKILL)

class KillAt(StopAt):
    def before_step(self):
        if (self.epoch, self.iter) == self.at: kill()

def in_a_process_that_is_killed(f):
    pid = os.fork()
    if pid == 0:
        try: f()
        finally: os._exit(1)
    deadline = time.time()+60
    while time.time() < deadline:
        done,status = os.waitpid(pid, os.WNOHANG)
        if done: break
        time.sleep(.02)
    else: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0); pytest.fail('the process hangs')
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f'it was not killed: {status}'

def killed_while_writing(monkeypatch, what, at):
    "In the `at`th call of what `write` calls"
    from fastai_discrim.run import checkpoint_file as checkpoint
    real,calls = getattr(os, what),[]
    def f(*args):
        calls.append(args)
        if len(calls) == at:
            if what == 'fsync' and stat.S_ISREG(os.fstat(args[0]).st_mode): os.ftruncate(args[0], os.fstat(args[0]).st_size//2)
            kill()
        return real(*args)
    monkeypatch.setattr(checkpoint.os, what, f)

# Where it is killed, and the steps between checkpoints
KILLS = {'in an epoch': (KillAt(2, 3), None), 'between checkpoints': (KillAt(2, 3), 2), 'at its first step': (KillAt(0, 0), None),
         'writing the file': (('fsync', 5), 3), 'writing the folder': (('fsync', 6), None),
         'before the old one moves': (('replace', 4), None), 'before the new one moves': (('replace', 5), 3)}

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')
@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
@pytest.mark.parametrize('how,every', KILLS.values(), ids=KILLS)
@pytest.mark.parametrize('name', MAKERS)
def test_killed(tmp_path, monkeypatch, name, how, every):
    def make(): return MAKERS[name](tmp_path)
    want = uninterrupted(name)
    def killed():
        if isinstance(how, tuple): killed_while_writing(monkeypatch, *how)
        run(make, cbs=[] if isinstance(how, tuple) else [how], checkpoint='r', checkpoint_every=every)
    in_a_process_that_is_killed(killed)
    learn,_ = run(make, seed=7, checkpoint='r', checkpoint_every=every)
    assert_equal(want, outcome(learn))
    file = checkpoint_file(learn, 'r')
    assert previous(file).exists() and want['params']
    model = read(file)['learner']['model']
    for k,v in want['params'].items(): assert torch.equal(model[k], torch.tensor(v)), k
