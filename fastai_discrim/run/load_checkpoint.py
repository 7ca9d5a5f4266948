"Go on from a checkpoint under another plan, as with lower rates after a loss that exploded"
__all__ = []

from fastai.learner import Learner
from fastai.torch_core import get_model
from fastcore.basics import patch

from ..groups.by_hand import renew_opt
from .checkpoint_file import check_checkpoint, checkpoint_file


def _check_same_weights(file, weights, own):
    "Raise unless the tensors by name in a checkpoint are those of the model"
    shapes,own = ({n: tuple(t.shape) for n,t in o.items()} for o in (weights, own))
    names = [n for n in {**own, **shapes} if own.get(n) != shapes.get(n)]
    if names:
        n = names[0]
        raise ValueError(f'{file} is of another model: {len(names)} tensors differ, such as {n}, {shapes.get(n, "none")} there and '
                         f'{own.get(n, "none")} here: expected the same model; load it into a learner like the one that wrote it')

@patch
def load_checkpoint(self:Learner,
    name:str, # What the checkpoint is called: what `checkpoint=` was
) -> Learner: # Itself
    """Load the weights of a checkpoint, to go on under another plan. The optimiser begins without state, as the one of a fit that diverged
    is of no use. Raise `ValueError` where there is no such checkpoint, or where it is of another model"""
    # It imports fastai.callback.progress, which changes the default callbacks
    from .checkpointing import learner_part, read_checkpoint
    check_checkpoint(name)
    file,state = checkpoint_file(self, name),read_checkpoint(self, name)
    if state is None: raise ValueError(f'there is no checkpoint {file}: expected one that a fit with `checkpoint={name!r}` wrote')
    weights,model = learner_part(state)['model'],get_model(self.model)
    _check_same_weights(file, weights, model.state_dict())
    model.load_state_dict(weights)
    if self.opt is not None: renew_opt(self)
    return self
