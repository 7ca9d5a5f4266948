"An exported learner loads even where this package can't be imported"
import copy
import json
import pickle
import subprocess
import sys
from functools import partial

import pytest
import torch
from conftest import make_mlp
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import load_learner

from fastai_discrim.groups.split import layerwise_split

LOAD = """
import json, sys
class Gone:
    def find_spec(self, name, *_):
        if name.split('.')[0] == 'fastai_discrim': raise eval(self.error)
sys.meta_path.insert(0, Gone())
import torch
from fastai.basics import load_learner
for file,Gone.error in zip(sys.argv[1::2], sys.argv[2::2]):
    try: got = load_learner(file).model(torch.ones(1, 4)).tolist()
    except Exception as e: got = f'{type(e).__name__}: {e}'
    print(json.dumps(got))
    assert not any(m.startswith('fastai_discrim') for m in sys.modules)
"""
# Errors if the package isn't installed, or if something that it needs is missing or of another version
ERRORS = ["ModuleNotFoundError(f'No module named {name!r}', name=name)", "ModuleNotFoundError('No module named x')",
          "ImportError('cannot import')", "AttributeError('gone')"]

SPLITTERS = {'itself': lambda learn: None, 'with n_groups': lambda learn: learn.regroup(n_groups=2),
             'ordered by a run': lambda learn: learn.regroup(partial(layerwise_split, order=['', '0', '2', '4']))}

CASES = [(how, ERRORS[0]) for how in SPLITTERS] + [('itself', error) for error in ERRORS[1:]]

def exported(path, how):
    "Export a learner, and return the file and what its model gives"
    learn = make_mlp(path)
    learn.dls.new_empty = partial(DataLoaders, *[TfmdDL([0], bs=1, num_workers=0)]*2)
    SPLITTERS[how](learn)
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(1, 1e-2, gradual=False)
    learn.export(f'{how}.pkl')
    return path/f'{how}.pkl',learn.model.eval()(torch.ones(1, 4)).tolist()

@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    "For each case the file, what its model gave, and what it gives where the package is missing: in one process for all cases"
    path = tmp_path_factory.mktemp('exported')
    files = {how: exported(path, how) for how in SPLITTERS}
    args = [o for how,error in CASES for o in (files[how][0], error)]
    res = subprocess.run([sys.executable, '-W', 'ignore', '-c', LOAD, *args], capture_output=True, text=True, cwd=path)
    assert res.returncode == 0, res.stderr
    return {case: (*files[case[0]], json.loads(line)) for case,line in zip(CASES, res.stdout.splitlines(), strict=True)}

@pytest.mark.parametrize('case', CASES, ids='-'.join)
def test_an_exported_learner(loaded, case):
    file,want,got = loaded[case]
    assert got == want
    again = load_learner(file).splitter
    assert getattr(again, 'func', again) is layerwise_split

def test_a_splitter_stays_the_same_when_pickled_or_copied():
    for again in (pickle.loads(pickle.dumps(layerwise_split)), copy.copy(layerwise_split), copy.deepcopy(layerwise_split)):
        assert again is layerwise_split
    assert layerwise_split.__name__ == 'layerwise_split' and 'layerwise_split' in repr(layerwise_split) and layerwise_split.__doc__
