"The loop of a plan's fit is the learner's own while it runs, and at no other time"
import pytest
from conftest import StopAt, make_mlp
from run.resumed import plan_of


def test_other_fits_begin_at_their_beginning(tmp_path):
    a = make_mlp(tmp_path)
    for stop in ((2, 3), (4, 3)):
        with pytest.raises(KeyboardInterrupt), a.no_bar():
            a.fit_plan(plan_of(a), checkpoint='r', checkpoint_every=2, cbs=StopAt(*stop))
        with a.no_bar(): a.fit(2, 1e-3)
        assert len(a.recorder.values) == 2 and len(a.recorder.lrs) == 16 and not {"_do_fit", "one_batch", "phase"} & set(vars(a))
