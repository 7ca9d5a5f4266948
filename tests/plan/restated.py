"The formulas of the paper, of fastai 0.7 and of fastai 2, restated, and the rates of a whole plan by them"
from fractions import Fraction

import numpy as np


def paper_stlr(t, T, lr_max, cut_frac, ratio):
    "Howard & Ruder 2018, section 3.2, as printed, floor and all"
    cut = int(np.floor(T*cut_frac))
    p = t/cut if t < cut else 1 - (t-cut)/(cut*(1/cut_frac - 1))
    return lr_max * (1 + p*(ratio-1)) / ratio

def use_clr(t, T, lr, div, cut_div):
    "fastai 0.7's `use_clr=(div, cut_div)`: up to iteration T//cut_div, then down to the last"
    top = T//cut_div
    height = t/top if t <= top else 1 - (t-top)/(T-top)
    return lr/div + height*(lr - lr/div)

def use_clr_beta(t, T, lr, div, pct, max_mom, min_mom):
    "fastai 0.7's `use_clr_beta=(div, pct, max_mom, min_mom)`: a triangle over two half cycles, then a tail"
    half = int(T*(1-pct/100)/2)
    if t > 2*half: return lr/div * (1 - .99*(t-2*half)/(T-2*half)), max_mom
    height = t/half if t <= half else 2 - t/half
    return lr/div + height*(lr - lr/div), max_mom + height*(min_mom-max_mom)

def cosine(start, end, x): return (start+end)/2 + np.cos(np.pi*x)*(start-end)/2

def stlr(s, x):
    "The paper's formula, with `cut` where it lies instead of the step below it"
    p = x/s.cut_frac if x < s.cut_frac else 1 - (x-s.cut_frac) / (s.cut_frac*(1/s.cut_frac - 1))
    return (1 + p*(s.ratio-1)) / s.ratio

def clr_beta(s, x):
    tail = 1 - s.pct/100
    if x > tail: return (1 - .99*(x-tail)/(1-tail)) / s.div
    return 1/s.div + (1 - abs(2*x/tail - 1))*(1 - 1/s.div)

def one_cycle(s, x):
    if x < s.pct_start: return cosine(1/s.div, 1, x/s.pct_start)
    return cosine(1, 1/s.div_final, (x-s.pct_start) / (1-s.pct_start))

# By the name of the schedule: the part of its peak rate at place `x` of the cycle, in [0, 1)
SHAPES = dict(STLR=stlr, CLRBeta=clr_beta, OneCycle=one_cycle, Cos=lambda s, x: .01 if x < s.hold else cosine(1, 0, x),
              Flat=lambda s, x: 1.)

def tolerance(sched):
    "How far off, as a part of the peak rate: fastai puts its cosines together in single precision"
    return 1e-5 if type(sched).__name__ == 'OneCycle' else 1e-12

def phase_ends(epochs, n_iter):
    "Where each phase ends, in exact fractions: at the nearest step, but for as many steps as the phases before and after it need"
    exact = [Fraction(n).limit_denominator(1000) for n in epochs]
    nearest = [round(sum(exact[:i+1])*n_iter) for i in range(len(exact))]
    total = nearest[-1]
    pushed = [max(i+1, *(nearest[j] + i-j for j in range(i+1))) for i in range(len(exact))]
    return [min(end, total - (len(exact)-1-i)) for i,end in enumerate(pushed)]

def plan_lrs(plan, n_iter):
    "Rates of every layer group at every step, shape [steps, groups], from nothing but the fields of the plan"
    ends = phase_ends([p.epochs for p in plan.phases], n_iter)
    starts,lrs = [0, *ends[:-1]],np.zeros((ends[-1], len(plan.phases[0].lrs)))
    for i,p in enumerate(plan.phases):
        if p.sched is not None:
            going_on = [q.sched is None for q in plan.phases[i+1:]] + [False]
            sched,first,last = p.sched,starts[i],ends[i + going_on.index(False)]
        for step in range(starts[i], ends[i]):
            part = SHAPES[type(sched).__name__](sched, (step-first) / (last-first))
            for g in p.groups: lrs[step,g] = p.lrs[g]*part
    return lrs

def assert_ran(learn, plan, steps=slice(None)):
    "Raise unless the recorded rates are those of the plan: as it says itself, and as they are restated here"
    n_iter = len(learn.dls.train)
    got,want = learn.recorder.group_lrs,plan_lrs(plan, n_iter)[steps]
    np.testing.assert_array_equal(got, plan.lrs(n_iter)[steps])
    np.testing.assert_array_equal(got > 0, want > 0)
    peak,tol = max(max(p.lrs) for p in plan.phases),max(tolerance(p.sched) for p in plan.phases)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=tol*peak)
