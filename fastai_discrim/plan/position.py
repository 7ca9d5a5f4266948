"Convert a position in a fit, a number of epochs that may be fractional, to a step and to a phase"
__all__ = []

from bisect import bisect_right
from itertools import accumulate

# Epochs: a sum of fractions of an epoch counts as a whole number if it is nearer than this to one
ROUNDING = 1e-6

def as_epochs(n:float) -> float:
    "Convert a number of epochs to a plain number, an int where it is whole, so that equal numbers are shown and written alike"
    n = float(n)
    return int(n) if n.is_integer() else n

def step_at(epochs:float, n_iter:int) -> int:
    "Return the step nearest to the position `epochs`, counted from 0, where an epoch has `n_iter` steps"
    # The inner rounding keeps an error of 1e-16, as in 0.1 + 0.2, from moving a half to the other step
    return round(round(epochs*n_iter, 6))

def phase_ends(
    epochs:list, # Length of each phase in epochs
    n_iter:int, # Steps per epoch
) -> list: # One step per phase
    "Return the step at which each phase ends: `round(epochs so far * n_iter)`, but at least one step after the phase before it"
    total,ends = step_at(sum(epochs), n_iter),[]
    if len(epochs) > total:
        raise ValueError(f'{len(epochs)} phases in {total} steps: expected at least one step for each; train for more epochs, with smaller '
                         'batches, or with fewer layer groups, `learn.regroup(n_groups=...)`')
    for i,done in enumerate(accumulate(epochs)):
        earliest = ends[-1]+1 if ends else 1
        # Leave a step for each later phase
        latest = total - (len(epochs)-1-i)
        ends.append(min(max(step_at(done, n_iter), earliest), latest))
    return ends

def phase_at(step:float, ends:list) -> int:
    "Return the index of the phase that `step`, counted from 0, lies in, by the `phase_ends`; a step beyond the end is in the last phase"
    return min(bisect_right(ends, step), len(ends)-1)

class Timeline:
    "Lay phases out in steps: where each phase begins and ends, and where each cycle of a schedule does"
    def __init__(self,
        epochs:list, # Length of each phase in epochs
        begins_cycle:list, # For each phase, whether it begins a cycle; otherwise it continues the cycle of the phase before it
        n_iter:int, # Steps per epoch
    ):
        self.ends = phase_ends(epochs, n_iter)
        self.starts = [0, *self.ends[:-1]]
        # For each phase, the index of the phase that begins its cycle, and the step at which the cycle ends
        self.leader = list(accumulate((i if begins else 0 for i,begins in enumerate(begins_cycle)), max))
        last_end = dict(zip(self.leader, self.ends))
        self.cycle_ends = [last_end[leader] for leader in self.leader]

    def phase(self, step:int) -> int: # Index of the phase
        "Return the phase that `step` lies in"
        return phase_at(step, self.ends)

    def cycle(self, step:int) -> tuple: # Index of the phase that begins the cycle, and the position in the cycle, in [0, 1)
        "Return the cycle that `step` lies in, and the position of `step` in it"
        phase = self.phase(step)
        leader,end = self.leader[phase],self.cycle_ends[phase]
        start = self.starts[leader]
        # Count in whole steps, as fastai's `pct_train` accumulates rounding errors
        return leader,(step-start)/(end-start)
