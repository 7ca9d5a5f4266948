"Load the weights of a checkpoint to train under another plan, such as lower rates after an exploding loss"
__all__ = []

from fastai.learner import Learner
from fastai.torch_core import get_model
from fastcore.basics import patch

from ..groups.by_hand import renew_opt
from .checkpoint_file import check_checkpoint, checkpoint_file, read_checkpoint


def _check_same_weights(file, weights, own):
    "Raise `ValueError` unless the tensors of a checkpoint have the names and shapes of the model's own"
    there = {n: tuple(t.shape) for n,t in weights.items()}
    here = {n: tuple(t.shape) for n,t in own.items()}
    names = [n for n in {**here, **there} if here.get(n) != there.get(n)]
    if names:
        n = names[0]
        raise ValueError(f'{file} belongs to another model: {len(names)} tensors differ, such as {n}, {there.get(n, "none")} there and '
                         f'{here.get(n, "none")} here: expected the same model; load it into a learner like the one that wrote it')

@patch
def load_checkpoint(self:Learner,
    name:str, # Name of the checkpoint, as in `checkpoint=`
) -> Learner: # The same learner
    """Load the weights of a checkpoint, to train on under another plan. The optimiser starts without state, as the state after a fit that
    diverged is useless. Raise `ValueError` if there is no such checkpoint, or if it belongs to another model"""
    check_checkpoint(name)
    file,state = checkpoint_file(self, name),read_checkpoint(self, name)
    if state is None: raise ValueError(f'there is no checkpoint {file}: expected one from a fit with `checkpoint={name!r}`')
    weights,model = state['learner']['model'],get_model(self.model)
    _check_same_weights(file, weights, model.state_dict())
    model.load_state_dict(weights)
    if self.opt is not None: renew_opt(self)
    return self
