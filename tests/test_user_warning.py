"Warnings point at the user's line"
import warnings

import pytest

from fastai_discrim.user_warning import warn_user


def test_the_callers_own_line():
    with pytest.warns(UserWarning, match='so it is') as w: warn_user('so it is')
    assert w[0].filename == __file__

def test_the_line_that_called_the_fit(mlp):
    mlp.model[0].weight.requires_grad_(False)
    with pytest.warns(UserWarning, match='frozen by hand') as w, mlp.no_bar(), mlp.no_logging():
        mlp.fit_ulmfit(3, 1e-2)
    (at,) = [o for o in w if 'by hand' in str(o.message)]
    assert at.filename == __file__ and 'mlp.fit_ulmfit(3, 1e-2)' in open(__file__).readlines()[at.lineno-1]

def test_code_that_has_no_name():
    code,names = compile('warn_user("from nowhere")', 'a cell', 'exec'),dict(warn_user=warn_user)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        exec(code, names)
    assert [str(o.message) for o in w] == ['from nowhere'] and w[0].filename == 'a cell'
