"Running statistics of batch norms hold the batches of the fit, and nothing of what was before"
import pytest
import torch
from conftest import make_mlp
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException
from fastai.callback.training import BnFreeze
from fastai.learner import load_learner
from fastai.torch_core import set_seed
from torch import nn

from fastai_discrim.callbacks.batch_norms import DebiasBatchNorm, biased_norms
from fastai_discrim.callbacks.unfreezing import GradualUnfreezing
from fastai_discrim.run import fit_plan  # noqa: F401, for `learn.fit_plan`

# The momentum of an EfficientNet
LOW = 0.01


class NormInputs(Callback):
    "Keep what goes into the batch norm, for each batch that it trains on, and its running mean as the model validates"
    def __init__(self): self.inputs,self.validated = [],[]
    def before_fit(self):
        def keep(m, args):
            if m.training: self.inputs.append(args[0].detach().clone())
        self.hook = self.model[3].register_forward_pre_hook(keep)
    def before_validate(self): self.validated.append(self.model[3].running_mean.clone())
    def after_fit(self): self.hook.remove()

def make(path, momentum=LOW, **kwargs):
    "Make a learner whose pretrained statistics are far from those of its data"
    learn = make_mlp(path, norm=True, **kwargs)
    bn = learn.model[3]
    bn.momentum = momentum
    bn.running_mean += 50
    bn.running_var += 20
    bn.num_batches_tracked += 1000
    return learn,bn

def mean_of(values, momentum=LOW):
    "Average as momentum does, with weights that sum to 1"
    weights = torch.tensor([momentum*(1-momentum)**i for i in range(len(values))][::-1])
    return (torch.stack(values)*weights[:, None]).sum(0)/weights.sum()

def check_stats(bn, inputs, momentum=LOW):
    torch.testing.assert_close(bn.running_mean, mean_of([x.mean(0) for x in inputs], momentum), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(bn.running_var, mean_of([x.var(0) for x in inputs], momentum), rtol=1e-3, atol=1e-4)

def fit(learn, n_epoch=3, cbs=None, **kwargs):
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(n_epoch, 1e-2, cbs=cbs, **kwargs)

@pytest.mark.parametrize('n_epoch,momentum', [(1, LOW), (3, LOW), (3, .1), (1, .1)])
def test_running_statistics_are_the_mean_over_the_batches_of_the_fit(tmp_path, n_epoch, momentum):
    learn,bn = make(tmp_path, momentum)
    fit(learn, n_epoch, cbs=[seen := NormInputs(), DebiasBatchNorm()])
    assert len(seen.inputs) == 8*n_epoch
    check_stats(bn, seen.inputs, momentum)

def test_without_it_running_statistics_are_still_the_pretrained_ones(tmp_path):
    learn,bn = make(tmp_path)
    fit(learn)
    assert bn.running_mean.min() > 30

def test_each_epoch_validates_with_statistics_of_the_batches_so_far(tmp_path):
    learn,_ = make(tmp_path)
    fit(learn, cbs=[seen := NormInputs(), DebiasBatchNorm()])
    for i,mean in enumerate(seen.validated, 1):
        torch.testing.assert_close(mean, mean_of([x.mean(0) for x in seen.inputs[:8*i]]), rtol=1e-3, atol=1e-4)

def test_the_callback_changes_no_weights(tmp_path):
    params = []
    for cbs in ([], [DebiasBatchNorm()]):
        learn,_ = make(tmp_path)
        set_seed(0)
        fit(learn, cbs=cbs)
        params.append([p.detach().clone() for p in learn.model.parameters()])
    assert all(map(torch.equal, *params))

def test_norms_that_forget_in_time_stay_as_they_are(tmp_path):
    "At a momentum of 0.1, 44 steps leave less than 1 %"
    states = []
    for cbs in ([], [DebiasBatchNorm()]):
        learn,_ = make(tmp_path, .1)
        set_seed(0)
        fit(learn, 6, cbs=cbs)
        states.append(learn.model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])

def test_processes_share_the_batches(tmp_path, monkeypatch):
    "At a momentum of 0.1, 48 batches are enough, but not for two processes"
    def _means(n):
        monkeypatch.setattr('fastai_discrim.callbacks.batch_norms.n_processes', lambda: n)
        learn,_ = make(tmp_path, .1)
        set_seed(0)
        fit(learn, 6, cbs=DebiasBatchNorm())
        return learn.model[3].running_mean
    alone,shared = _means(1),_means(2)
    assert not torch.equal(alone, shared) and alone.abs().max() > shared.abs().max()

@pytest.mark.parametrize('momentum,n_steps,want', [(.01, 458, 1), (.01, 459, 0), (.1, 43, 1), (.1, 44, 0), (None, 1, 0), (0., 1, 0),
                                                   (1., 1, 0)])
def test_which_norms_are_biased(momentum, n_steps, want):
    others = nn.LayerNorm(2),nn.BatchNorm1d(2, track_running_stats=False)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, momentum=momentum), *others)
    model[1].running_var += .1
    assert list(biased_norms(model, n_steps)) == ['1'][:want]

def test_a_new_norm_stays_as_it_is(tmp_path):
    "It has nothing pretrained to forget; one whose weights came without a count of batches has"
    learn = make_mlp(tmp_path, norm=True)
    assert not biased_norms(learn.model, 1)
    learn.model[3].running_mean[0] = .1
    assert learn.model[3].num_batches_tracked == 0 and list(biased_norms(learn.model, 1)) == ['3']

@pytest.mark.parametrize('how', ['train_bn', 'BnFreeze'])
def test_statistics_that_a_fit_keeps_are_kept(tmp_path, how):
    learn,bn = make(tmp_path)
    kept = [t.clone() for t in (bn.running_mean, bn.running_var, bn.num_batches_tracked)]
    if how == 'BnFreeze':
        bn.requires_grad_(False)
        cbs = [BnFreeze()]
    else: cbs = [GradualUnfreezing(1, down_to=2, train_bn=False)]
    fit(learn, cbs=[*cbs, DebiasBatchNorm()])
    assert all(map(torch.equal, kept, (bn.running_mean, bn.running_var, bn.num_batches_tracked)))

def test_a_norm_that_is_unfrozen_late_has_the_batches_since_then(tmp_path):
    learn,bn = make(tmp_path)
    fit(learn, 3, cbs=[GradualUnfreezing(1, train_bn=False), seen := NormInputs(), DebiasBatchNorm()])
    assert len(seen.inputs) == 16
    check_stats(bn, seen.inputs)

def test_a_fit_that_ends_within_an_epoch(tmp_path):
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.train_iter == 11: raise CancelFitException()
    learn,bn = make(tmp_path)
    fit(learn, cbs=[Stop(), seen := NormInputs(), DebiasBatchNorm()])
    assert len(seen.inputs) == 11
    check_stats(bn, seen.inputs)

class LoadFirst(Callback):
    "Load the weights of the first epoch after the second one, as a phase does that ends with its best weights"
    def after_epoch(self):
        if self.epoch == 0: self.first = {k: t.clone() for k,t in self.model.state_dict().items()}
        if self.epoch == 1: self.model.load_state_dict(self.first)

def test_weights_of_an_earlier_epoch_have_its_batches(tmp_path):
    learn,bn = make(tmp_path)
    fit(learn, cbs=[seen := NormInputs(), DebiasBatchNorm(), LoadFirst()])
    check_stats(bn, seen.inputs[:8] + seen.inputs[16:])

@pytest.mark.parametrize('cancel', [CancelTrainException, CancelEpochException])
def test_an_epoch_that_is_cancelled(tmp_path, cancel):
    class Cut(Callback):
        order = 10
        def after_batch(self):
            if self.training and (self.epoch, self.iter) == (0, 3): raise cancel()
    learn,bn = make(tmp_path)
    fit(learn, 2, cbs=[seen := NormInputs(), DebiasBatchNorm(), Cut()])
    assert len(seen.inputs) == 12
    check_stats(bn, seen.inputs)

def test_a_fit_that_is_cancelled_before_it_begins(tmp_path):
    class Cancel(Callback):
        order = -20
        def before_fit(self): raise CancelFitException()
    learn,bn = make(tmp_path)
    before = bn.running_mean.clone()
    fit(learn, cbs=[Cancel(), DebiasBatchNorm()])
    assert torch.equal(bn.running_mean, before)

def test_ctrl_c_leaves_nothing_for_the_next_fit(tmp_path):
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.train_iter == 11: raise KeyboardInterrupt()
    learn,bn = make(tmp_path, cbs=DebiasBatchNorm())
    with pytest.raises(KeyboardInterrupt): fit(learn, cbs=Stop())
    learn.remove_cbs([cb for cb in learn.cbs if isinstance(cb, Stop)])
    seen = NormInputs()
    fit(learn, 2, cbs=seen)
    check_stats(bn, seen.inputs)

def test_two_of_them_correct_once(tmp_path):
    learn,bn = make(tmp_path, cbs=DebiasBatchNorm())
    fit(learn, cbs=[seen := NormInputs(), DebiasBatchNorm()])
    check_stats(bn, seen.inputs)

def test_a_second_fit_forgets_the_first(tmp_path):
    learn,bn = make(tmp_path, cbs=DebiasBatchNorm())
    fit(learn)
    seen = NormInputs()
    fit(learn, cbs=seen)
    assert len(seen.inputs) == 24
    check_stats(bn, seen.inputs)

def test_a_validation_is_no_fit(tmp_path):
    learn,bn = make(tmp_path, cbs=DebiasBatchNorm())
    before = bn.running_mean.clone()
    with learn.no_bar():
        learn.validate()
        learn.get_preds()
    assert torch.equal(bn.running_mean, before)

def test_a_variance_of_zero_is_not_negative(tmp_path):
    "An inactive unit has a variance of 0; in single precision, the sign of rounding errors depends on the momentum"
    learn,bn = make(tmp_path, .1)
    bn.running_var.copy_(torch.linspace(1, 50, len(bn.running_var)))
    learn.model[2].register_forward_hook(lambda m, args, out: out*0)
    fit(learn, cbs=DebiasBatchNorm())
    assert (bn.running_var >= 0).all() and bn.running_var.max() < 1e-4 and bn.running_mean.abs().max() < 1e-4

@pytest.mark.filterwarnings('ignore')
def test_export_has_no_tensors_of_it(clas):
    clas.add_cb(DebiasBatchNorm())
    fit(clas, 1)
    # Ctrl-C leaves tensors behind
    clas.debias_batch_norm.earlier = {'1.layers.0': [torch.zeros(1)]}
    clas.dls.new_empty = lambda: clas.dls # these loaders hold plain lists, which fastai can't empty
    clas.export('norms.pkl')
    assert load_learner(clas.path/'norms.pkl').debias_batch_norm.earlier == {}

@pytest.mark.parametrize('n', [8, 11, 16])
def test_a_run_that_goes_on_ends_as_one_in_one_go(tmp_path, n):
    "Stopped after an epoch, and within one"
    class Stop(Callback):
        order = 2000
        def after_batch(self):
            if self.training and self.train_iter == n: raise KeyboardInterrupt()
    def run(stop=False):
        learn,_ = make(tmp_path)
        set_seed(1)
        with learn.no_bar(),learn.no_logging():
            cbs = [DebiasBatchNorm(), *([Stop()] if stop else [])]
            learn.fit_plan(learn.ulmfit_plan(3, 1e-2), cbs=cbs, checkpoint=name, checkpoint_every=1)
        return learn.model.state_dict()
    name = 'whole'
    want = run()
    name = 'parts'
    with pytest.raises(KeyboardInterrupt): run(stop=True)
    got = run()
    assert all(torch.equal(want[k], got[k]) for k in want)
