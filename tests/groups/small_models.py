"Small models of every shape, and checks of their layer groups"
import torch
from torch import nn


def linears(n): return [nn.Linear(2, 2) for _ in range(n)]
def tower(n): return nn.Sequential(nn.Linear(n, 8), nn.ReLU(), nn.Linear(8, 8))

class Net(nn.Module):
    "A module with the given children, in this order"
    def __init__(self, **children):
        super().__init__()
        for n,c in children.items(): setattr(self, n, c)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a,self.b = linears(2)

def blocks(n, cls=nn.ModuleList):
    bs = [Block() for _ in range(n)]
    return cls(bs) if cls is nn.ModuleList else cls(*bs)

def ids(groups): return [[id(p) for p in g] for g in groups]

def is_partition(model, groups):
    flat = [id(p) for g in groups for p in g]
    return len(flat) == len(set(flat)) and set(flat) == {id(p) for p in model.parameters()} and all(len(g) for g in groups)

def state(m):
    "Return everything that a split must not change"
    return ({k: v.clone() for k,v in m.state_dict().items()}, [p.requires_grad for p in m.parameters()], torch.get_rng_state(),
            [(o.training, len(o._forward_hooks)+len(o._forward_pre_hooks), type(o)) for o in m.modules()])

def same_state(a, b):
    return (a[0].keys() == b[0].keys() and all(torch.equal(v, b[0][k]) for k,v in a[0].items()) and a[1] == b[1]
            and torch.equal(a[2], b[2]) and a[3] == b[3])
