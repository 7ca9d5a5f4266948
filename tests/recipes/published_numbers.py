"The published numbers, written down once more: what `test_published`, `test_recipe` and `test_apply` compare the recipes with"
import numpy as np


def clr(div, cut_div):
    "fastai 0.7's `CircularLR`, step by step: a share of the peak rate at iteration `i` of `nb`"
    def share(i, nb):
        cut = nb//cut_div
        up = i/cut if i <= cut else 1 - (i-cut)/(nb-cut)
        return (1 + up*(div-1))/div
    return share

def clr_beta(div, pct):
    "fastai 0.7's `CircularLR_beta`"
    def share(i, nb):
        half = int(nb*(1 - pct/100)/2)
        if i > 2*half: return (1 - 0.99*(i - 2*half)/(nb - 2*half))/div
        return (1 + (i/half if i <= half else 1 - (i-half)/half)*(div-1))/div
    return share

def cos_anneal(i, nb):
    "fastai 0.7's `CosAnneal`"
    return 0.01 if i < nb/20 else (np.cos(np.pi*i/nb) + 1)/2

def paper(i, nb):
    "Equation 3 of the paper, without its floor, with cut_frac=0.1 and ratio=32"
    cut = nb*0.1
    p = i/cut if i < cut else 1 - (i-cut)/(nb-cut)
    return (1 + p*31)/32

def flat(i, nb): return 1.

def half_cos(a, b, pos): return a + (b-a)*(1 - np.cos(np.pi*pos))/2
def one_cycle(i, nb):
    "fastai's `fit_one_cycle` with its defaults"
    pos = i/nb
    return half_cos(1/25, 1, pos/0.25) if pos < 0.25 else half_cos(1, 1e-5, (pos-0.25)/0.75)

E4,E3 = [1e-2/2.6**4, 1e-2/2.6**3, 1e-2/2.6**2, 1e-2/2.6, 1e-2],[1e-3]*5
LM26 = [4e-3/2.6**3, 4e-3/2.6**2, 4e-3/2.6, 4e-3]
SIXTHS = [4e-3/6, 4e-3/3, 4e-3, 2e-3]
THAW = [1e-4, 1e-4, 1e-4, 1e-4, 1e-3]
BOOK = [1e-4, 1e-4, 1e-4, 1e-3, 1e-2]
ALL4,ALL5 = [0, 1, 2, 3],[0, 1, 2, 3, 4]

def gradual(n, lrs, share): return [(1, ALL5[-k:], lrs, share) for k in range(1, 5)] + [(n-4, ALL5, lrs, share)]
def thaw(n, share, last): return [(1, [g], THAW, share) for g in (4, 0, 1, 2, 3)] + [(n, ALL5, THAW, last)]
def top(lrs, *phases): return [(n, ALL5[k:], lrs, share) for n,k,share in phases]

# Every phase: epochs, groups that train, peak rates, the original's schedule
PHASES = dict(
    paper_lm=[(25, ALL4, LM26, paper)],
    paper_clas=gradual(50, E4, paper),
    scripts_lm=[(25, ALL4, SIXTHS, clr(32, 10))],
    scripts_lm_head_first=[(1, [3], SIXTHS, clr(6, 4)), (25, ALL4, SIXTHS, clr(32, 10))],
    scripts_clas=top(E4, (1, -1, clr(8, 3)), (1, -2, clr(8, 3)), (50, 0, clr(8, 8))),
    scripts_chain_thaw=thaw(50, clr(8, 3), clr(8, 8)),
    notebook_lm=[(1, [3], [5e-4]*4, clr(32, 2)), (15, ALL4, [1e-3]*4, clr(20, 10))],
    notebook_clas=top(BOOK, (1, -1, clr(8, 3)), (1, -2, clr(8, 3)), (14, 0, clr(32, 10))),
    forum_lm=[(15, ALL4, LM26, clr_beta(10, 10))],
    forum_lm_as_asked=[(15, ALL4, [0.004/2.6*3, 0.004/2.6*2, 0.004/2.6, 0.004], clr_beta(10, 10))],
    tutorial_lm=[(1, [3], [1e-2]*4, one_cycle), (10, ALL4, [1e-3]*4, one_cycle)],
    tutorial_clas=[(1, [4], [2e-2]*5, one_cycle), (1, [3, 4], E4, one_cycle), (1, [2, 3, 4], np.array(E4)/2, one_cycle),
                   (2, ALL5, np.array(E4)/10, one_cycle)],
    table6_full=[(25, ALL4, [4e-3]*4, flat)],
    table6_full_discr=[(25, ALL4, LM26, flat)],
    table6_full_discr_stlr=[(25, ALL4, LM26, paper)],
    table7_full=[(50, ALL5, E3, flat)],
    table7_full_discr=[(50, ALL5, E4, flat)],
    table7_last=[(50, [4], E3, flat)],
    table7_chain_thaw=thaw(45, flat, flat),
    table7_freez=gradual(50, E3, flat),
    table7_freez_discr=gradual(50, E4, flat),
    table7_freez_stlr=gradual(50, E3, paper),
    table7_freez_cos=gradual(50, E3, cos_anneal),
    table7_freez_discr_stlr=gradual(50, E4, paper))

PAPER = dict(moms=(.7, .7, .7), sqr_mom=.99, wd=None, clip=None, bs=64, val_bs=None, bptt=70, drop_mult=1,
             drops=dict(input_p=.4, output_p=.4, weight_p=.5, embed_p=.05, hidden_p=.3))
SCRIPT_LM = dict(moms=(.8, .8, .8), sqr_mom=.99, wd=1e-7, clip=.3, bs=64, val_bs=None, bptt=70, drop_mult=1,
                 drops=dict(input_p=.25, output_p=.1, weight_p=.2, embed_p=.02, hidden_p=.15))
SCRIPT_CLAS = dict(moms=(.8, .8, .8), sqr_mom=.99, wd=1e-6, clip=25, bs=32, val_bs=64, bptt=70, drop_mult=1, drops=PAPER['drops'])
FORUM = dict(moms=(.95, .85, .95), sqr_mom=None, wd=None, clip=None, bs=None, val_bs=None, bptt=None, drop_mult=None, drops=None)
TUTORIAL = dict(FORUM, moms=(.8, .7, .8), bs=64, bptt=72)
SETTINGS = dict(
    scripts_lm=SCRIPT_LM, scripts_lm_head_first=SCRIPT_LM, scripts_clas=SCRIPT_CLAS, scripts_chain_thaw=SCRIPT_CLAS,
    notebook_lm=dict(SCRIPT_LM, bs=52, clip=None, drop_mult=.7),
    notebook_clas=dict(SCRIPT_CLAS, moms=(.7, .7, .7), bs=24, val_bs=48, wd=0, drop_mult=.5),
    forum_lm=FORUM, forum_lm_as_asked=FORUM, tutorial_lm=dict(TUTORIAL, wd=.1, drop_mult=1), tutorial_clas=dict(TUTORIAL, drop_mult=.5))

def rates(phases, n_iter):
    "Rate of every group at every step, `n_iter` an epoch, as the original has it"
    return np.array([np.array(lrs)*share(i, epochs*n_iter)*np.isin(range(len(lrs)), groups)
                     for epochs,groups,lrs,share in phases for i in range(epochs*n_iter)])
