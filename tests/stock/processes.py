"A tree of processes: each has imported a little more than the one above it, and every call runs in a fork of one of them"
import os
import signal
import subprocess
import sys
import traceback
from compileall import compile_dir
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

# A call that takes longer hangs
TIMEOUT = 120

class Processes:
    "Call functions in fresh processes: `processes(imports, 'stock.fits:run', *args)` runs the statements in `imports`, then the function"
    def __init__(self):
        here,there = Pipe()
        # Compile once: with `PYTHONDONTWRITEBYTECODE`, every fork would compile the modules that it imports
        compile_dir(Path(find_spec('fastai_discrim').origin).parent, quiet=2)
        # The package that the tests are for, wherever it was found, and no working directory that could hide a fault
        folders = [str(Path(find_spec('fastai_discrim').origin).parents[1]), str(Path(__file__).parents[1])]
        if 'PYTHONPATH' in os.environ: folders.append(os.environ['PYTHONPATH'])
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(folders), OMP_NUM_THREADS='1', MPLBACKEND='Agg', PYTHONWARNINGS='ignore')
        self.process = subprocess.Popen([sys.executable, __file__, str(there.fileno())], pass_fds=[there.fileno()], env=env,
                                        cwd=Path(__file__).parent, start_new_session=True)
        there.close()
        self.conn = here

    def __call__(self, imports, function, *args):
        self.conn.send((tuple(imports), function, args))
        if not self.conn.poll(TIMEOUT): raise TimeoutError(f'{function}{args} after {imports}')
        error,value = self.conn.recv()
        if error: raise AssertionError(f'{function}{args} after {imports}\n{error}')
        return value

    def close(self):
        self.conn.close()
        try: os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError: pass
        self.process.wait()

def _fork(f, *args):
    "Start `f` in a fork, and return its end of a pipe and its id"
    here,there = Pipe()
    pid = os.fork()
    if pid:
        there.close()
        return here,pid
    here.close()
    try: f(there, *args)
    finally: os._exit(0)

def _answer(conn, function, args):
    "Send what `function` returns, or the error that it raises"
    module,name = function.split(':')
    try:
        with open(os.devnull, 'w') as f, redirect_stdout(f): res = None,getattr(import_module(module), name)(*args)
    except BaseException: res = traceback.format_exc(),None
    conn.send(res)

def _serve(conn, statement=''):
    "Run `statement`; then answer each call in a fork, or hand it down to the process that has imported more"
    error,below = None,{}
    try: exec(statement, {})
    except BaseException: error = traceback.format_exc()
    while True:
        try: imports,function,args = conn.recv()
        except EOFError: return
        if error: conn.send((error, None))
        elif imports:
            first,*rest = imports
            if first not in below: below[first],_ = _fork(_serve, first)
            below[first].send((rest, function, args))
            conn.send(below[first].recv())
        else:
            child,pid = _fork(_answer, function, args)
            try: conn.send(child.recv())
            except EOFError: conn.send((f'the process ended in status {os.waitpid(pid, 0)[1]}', None))
            else: os.waitpid(pid, 0)
            child.close()

if __name__ == '__main__':
    # The script's folder would make `import processes` work, and shadow what has the name of a file here
    sys.path.pop(0)
    _serve(Connection(int(sys.argv[1])))
