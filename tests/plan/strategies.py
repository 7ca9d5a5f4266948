"Random schedules and plans"
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st

from fastai_discrim.plan.phase import EarlyStop, Phase
from fastai_discrim.plan.plan import Plan
from fastai_discrim.plan.schedules import STLR, CLRBeta, Cos, Flat, OneCycle

quick = settings(max_examples=40, deadline=None)

def between(low, high): return st.floats(low, high, allow_nan=False)

schedules = st.one_of(st.builds(STLR, between(.01, .99), between(1, 100)), st.builds(CLRBeta, between(1, 50), between(1, 99)),
                      st.builds(OneCycle, between(.5, 50), between(.5, 1e5), between(.05, .95)), st.builds(Cos, between(0, .99)),
                      st.just(Flat()))

# Small denominators: no end of a phase is within rounding of a half, unless it is one
fractions = st.builds(Fraction, st.integers(1, 30), st.integers(1, 12))

@st.composite
def lengths(draw, most=6):
    "Lengths of phases, as fractions, that make whole epochs"
    first = draw(st.lists(fractions, max_size=most-1))
    left = draw(st.integers(1, 3)) - sum(first) % 1
    return [*first, left]

moms = st.none() | st.tuples(*[between(0, .99)]*3)
early_stops = st.none() | st.builds(EarlyStop, st.integers(1, 4), st.sampled_from(['valid_loss', 'accuracy']), between(0, 1), st.booleans(),
                                    st.none() | st.booleans())

@st.composite
def plans(draw):
    "Plans of fractional phases, cycles that go on, and phases that may end early where they can"
    epochs,n_groups,done,phases = draw(lengths()),draw(st.integers(1, 4)),Fraction(0),[]
    for n in epochs:
        done += n
        goes_on = bool(phases) and phases[-1].early_stop is None and draw(st.booleans())
        groups = draw(st.sets(st.integers(0, n_groups-1), min_size=1))
        lrs = draw(st.lists(between(1e-6, 1), min_size=n_groups, max_size=n_groups))
        shape = dict(sched=None) if goes_on else dict(sched=draw(schedules), moms=draw(moms))
        phases.append(Phase(float(n), groups, lrs, **shape, early_stop=draw(early_stops) if done.denominator == 1 else None))
    return Plan(phases, train_bn=draw(st.none() | st.booleans()), clip=draw(st.none() | between(1e-3, 100)))
