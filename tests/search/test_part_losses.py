"The loss of a batch is split into those of its parts wherever it is their mean"
import numpy as np
import pytest
import torch
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat, MSELossFlat
from fastai.torch_core import TensorBase, TensorCategory
from torch import nn

from fastai_discrim.search.part_losses import gather_losses, part_losses


def rand(*shape): return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
def labels(n, *shape): return torch.randint(n, shape, generator=torch.Generator().manual_seed(sum(shape)))

# The loss, predictions and targets of n items, and the loss of each item, written out
def cross_entropy(p, y): return -p.log_softmax(-1).gather(-1, y[...,None])[...,0]
KINDS = dict(
    classes=(CrossEntropyLossFlat(), lambda n: rand(n, 3), lambda n: labels(3, n), cross_entropy),
    plain=(nn.CrossEntropyLoss(), lambda n: rand(n, 3), lambda n: labels(3, n), cross_entropy),
    regression=(MSELossFlat(), lambda n: rand(n, 1), lambda n: rand(n), lambda p,y: (p[:,0]-y)**2),
    several=(MSELossFlat(), lambda n: rand(n, 2), lambda n: rand(n, 2)*2, lambda p,y: ((p-y)**2).mean(1)),
    multi=(BCEWithLogitsLossFlat(), lambda n: rand(n, 4), lambda n: labels(2, n, 4).float(),
           lambda p,y: -(y*p.sigmoid().log() + (1-y)*(1-p.sigmoid()).log()).mean(1)),
    tokens=(CrossEntropyLossFlat(), lambda n: rand(n, 5, 7), lambda n: labels(7, n, 5), lambda p,y: cross_entropy(p, y).mean(1)),
    pixels=(CrossEntropyLossFlat(axis=1), lambda n: rand(n, 3, 4, 4), lambda n: labels(3, n, 4, 4),
            lambda p,y: cross_entropy(p.movedim(1, -1), y).mean((1, 2))))

@pytest.mark.parametrize('n', [1, 2, 15, 16, 17, 33, 64])
@pytest.mark.parametrize('kind', KINDS)
def test_each_part_has_the_loss_of_its_items(kind, n):
    f,preds,targets,of_items = KINDS[kind]
    p,y = preds(n),targets(n)
    loss = float(f(p, y))
    parts,sizes = part_losses(f, p, (y,), loss)
    assert len(parts) == min(n, 16) and sum(sizes) == n and max(sizes)-min(sizes) <= 1
    want = [float(part.mean()) for part in of_items(p, y).split(sizes)]
    np.testing.assert_allclose(parts, want, rtol=1e-5)
    assert np.average(parts, weights=sizes) == pytest.approx(loss, rel=1e-5)

def check_whole(f, p, yb, loss=None):
    "The batch is one part"
    loss = float(f(p, *yb)) if loss is None else loss
    assert part_losses(f, p, yb, loss) == ([loss], [16])

@pytest.mark.parametrize('f', [CrossEntropyLossFlat(weight=torch.tensor([1., 5., 9.])), CrossEntropyLossFlat(reduction='sum'),
                               CrossEntropyLossFlat(ignore_index=0), lambda p,y: p.std()], ids=['weighted', 'sum', 'ignored', 'other'])
def test_a_loss_that_is_no_mean_over_items_is_that_of_the_batch(f): check_whole(f, rand(16, 3), (labels(3, 16),))

def test_ignored_targets_of_whole_parts_are_no_error():
    "Of a part all of whose targets are ignored the loss is nan"
    y = labels(3, 16)
    y[:8] = -100
    check_whole(CrossEntropyLossFlat(), rand(16, 3), (y,))

def test_a_loss_that_something_else_computes_is_that_of_the_batch():
    "As by a callback, from what the model returns: the loss function is never called, or fails"
    def fail(*args): raise RuntimeError('no loss function')
    check_whole(fail, rand(16, 3), (labels(3, 16),), 1.5)
    check_whole(CrossEntropyLossFlat(), dict(logits=rand(16, 3)), (labels(3, 16),), 1.5)
    # It can be called, but is another loss
    check_whole(CrossEntropyLossFlat(), rand(16, 3), (labels(3, 16),), 99.)

@pytest.mark.parametrize('p,yb', [((rand(16, 3), torch.tensor(.5)), (labels(3, 16),)), (rand(5, 16, 3), (labels(3, 16, 5),)),
                                  ((rand(16, 3), rand(2, 16, 4)), (labels(3, 16),))], ids=['number', 'time first', 'hidden states'])
def test_what_is_not_by_items_is_not_cut(p, yb):
    def never(*args): raise AssertionError('called')
    check_whole(never, p, yb, .7)

@pytest.mark.parametrize('loss', [float('nan'), float('inf'), -float('inf')])
def test_no_part_of_a_loss_that_is_not_finite_is(loss):
    def never(*args): raise AssertionError('called')
    parts,sizes = part_losses(never, rand(20, 3), (labels(3, 20),), loss)
    assert len(parts) == 16 and sum(sizes) == 20 and all(l == loss or l != l for l in parts) and not np.isfinite(parts).any()

def test_predictions_in_tuples_lists_and_dicts():
    p,y,z = rand(16, 3),labels(3, 16),rand(16)
    def f(out, *yb): return CrossEntropyLossFlat()(out['a'], yb[0]) + MSELossFlat()(out['b'][0], yb[1][0])
    parts,sizes = part_losses(f, dict(a=p, b=(z+1,)), (y, (z,)), float(f(dict(a=p, b=(z+1,)), y, (z,))))
    assert sizes == [1]*16
    np.testing.assert_allclose(parts, cross_entropy(p, y)+1, rtol=1e-5)

def test_fastais_tensors_and_losses_of_their_own():
    "A loss of fastai's may look at the type of the targets"
    p,y = TensorBase(rand(16, 3)),TensorCategory(labels(3, 16))
    f = LabelSmoothingCrossEntropyFlat()
    seen = []
    def look(p, y):
        seen.append((type(p), type(y)))
        return f(p, y)
    parts,sizes = part_losses(look, p, (y,), float(f(p, y)))
    assert sizes == [1]*16 and set(seen) == {(TensorBase, TensorCategory)} and all(type(l) is float for l in parts)
    assert np.mean(parts) == pytest.approx(float(f(p, y)), rel=1e-5)

# Gathering them

def test_parts_of_batches_are_gathered_for_each_candidate():
    res = gather_losses([[([1., 2.], [3, 3]), ([3.], [2])], [([4., 5.], [3, 3]), ([6.], [2])]])
    assert res.parts.tolist() == [[1, 2, 3], [4, 5, 6]] and res.sizes.tolist() == [3, 3, 2] and res.parts.dtype == np.float64
    np.testing.assert_allclose(res.mean, [15/8, 39/8])

@pytest.mark.parametrize('order', [slice(None), slice(None, None, -1)])
def test_where_one_candidate_has_no_parts_those_of_the_others_are_merged(order):
    cut,whole = [([1., 4.], [3, 1]), ([3., 5.], [1, 1])],[([4.], [4]), ([6., 8.], [1, 1])]
    res = gather_losses([cut, whole][order])
    assert res.parts.tolist() == [[1.75, 3, 5], [4, 6, 8]][order] and res.sizes.tolist() == [4, 1, 1]

def test_what_is_not_finite_stays_so_when_merged():
    res = gather_losses([[([float('nan')]*2, [3, 1])], [([4.], [4])]])
    assert np.isnan(res.mean).tolist() == [True, False]
