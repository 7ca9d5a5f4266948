"An exported learner loads even where this package can't be imported"
import copy
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
import sys
class Gone:
    def find_spec(self, name, *_):
        if name.split('.')[0] == 'fastai_discrim': raise {error}
sys.meta_path.insert(0, Gone())
import torch
from fastai.basics import load_learner
learn = load_learner(sys.argv[1])
assert not any(m.startswith('fastai_discrim') for m in sys.modules)
print(learn.model(torch.ones(1, 4)).tolist())
"""
# Errors if the package isn't installed, or if something that it needs is missing or of another version
ERRORS = ["ModuleNotFoundError(f'No module named {name!r}', name=name)", "ModuleNotFoundError('No module named x')",
          "ImportError('cannot import')", "AttributeError('gone')"]

SPLITTERS = {'itself': lambda learn: None, 'with n_groups': lambda learn: learn.regroup(n_groups=2),
             'ordered by a run': lambda learn: learn.regroup(partial(layerwise_split, order=['', '0', '2', '4']))}

@pytest.mark.parametrize('regroup,error', [(r, ERRORS[0]) for r in SPLITTERS.values()] + [(SPLITTERS['itself'], e) for e in ERRORS[1:]])
def test_an_exported_learner(tmp_path, regroup, error):
    learn = make_mlp(tmp_path)
    learn.dls.new_empty = partial(DataLoaders, *[TfmdDL([0], bs=1, num_workers=0)]*2)
    regroup(learn)
    with learn.no_bar(),learn.no_logging(): learn.fit_ulmfit(1, 1e-2, gradual=False)
    learn.export('a.pkl')
    want = learn.model.eval()(torch.ones(1, 4)).tolist()
    args = [sys.executable, '-W', 'ignore', '-c', LOAD.replace('{error}', error), tmp_path/'a.pkl']
    res = subprocess.run(args, capture_output=True, text=True, cwd=tmp_path)
    assert res.returncode == 0, res.stderr
    assert res.stdout.strip() == str(want)
    again = load_learner(tmp_path/'a.pkl').splitter
    assert getattr(again, 'func', again) is layerwise_split

def test_a_splitter_stays_the_same_when_pickled_or_copied():
    for again in (pickle.loads(pickle.dumps(layerwise_split)), copy.copy(layerwise_split), copy.deepcopy(layerwise_split)):
        assert again is layerwise_split
    assert layerwise_split.__name__ == 'layerwise_split' and 'layerwise_split' in repr(layerwise_split) and layerwise_split.__doc__
