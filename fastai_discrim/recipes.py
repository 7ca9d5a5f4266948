"Everyone's numbers: who used which rates, and where that is written"
__all__ = ['recipes']

import pandas as pd
from fastcore.basics import AttrDict

from .recipe import GROUPS, Recipe, Step
from .schedule import STLR, CLRBeta, Cos, Flat, OneCycle
from .unfreeze import ChainThaw, GradualUnfreezing

LM,CLAS = 'language model','classifier'
SCRIPTS = 'fastai 0.7, courses/dl2/imdb_scripts/'
NOTEBOOK = 'fastai 0.7, courses/dl2/imdb.ipynb at 4642673'
THREAD = 'forums.fast.ai/t/16819, "ULMFit Paper: Question on learning rates (section 3.2)"'
TUTORIAL = 'docs.fast.ai/tutorial.text.html'

def clr(div, cut_div):
    "fastai 0.7's `use_clr=(div, cut_div)`: up in one part in `cut_div` of the iterations, from and to `1/div` of the peak rate"
    return STLR(cut_frac=1/cut_div, ratio=div)

def _upper(kind, n): return tuple(range(len(GROUPS[kind])))[n:] # what trains after `freeze_to(n)`
def _stages(opening, n_epoch, rates, sched): return tuple(Step(e, g, rates, sched) for e,g in opening.spread(len(GROUPS[CLAS]), n_epoch))
def _lm(n_epoch, rates, sched): return (Step(n_epoch, _upper(LM, 0), rates, sched),)
def _head(kind, rates, sched, scale=1.): return Step(1, _upper(kind, -1), rates, sched, scale)
def _script_clas(rates, n_epoch, sched):
    return (_head(CLAS, rates, clr(8, 3)), Step(1, _upper(CLAS, -2), rates, clr(8, 3)), Step(n_epoch, _upper(CLAS, 0), rates, sched))

def _beta(b1, b2=0.99): return dict(moms=(b1,)*3, sqr_mom=b2)
def _drops(input_p, output_p, weight_p, embed_p, hidden_p):
    return dict(input_p=input_p, output_p=output_p, weight_p=weight_p, embed_p=embed_p, hidden_p=hidden_p)

# §4.1. It names one set of dropouts; β1, β2 and the batch size hold for both models
PAPER = dict(**_beta(0.7), bs=64, bptt=70, drop_mult=1., drops=_drops(0.4, 0.4, 0.5, 0.05, 0.3))
SCRIPT_LM = dict(**_beta(0.8), wd=1e-7, clip=0.3, bs=64, bptt=70, drop_mult=1., drops=_drops(0.25, 0.1, 0.2, 0.02, 0.15))
SCRIPT_CLAS = dict(**_beta(0.8), wd=1e-6, clip=25., bs=32, val_bs=64, bptt=70, drop_mult=1., drops=_drops(0.4, 0.4, 0.5, 0.05, 0.3))
# The rates of `finetune_lm.py`: lr/6, lr/3, lr and lr/2
SIXTHS = (1/6, 1/3, 1, 1/2)

def _published():
    "The language models and classifiers of the paper, the authors' scripts and notebook, the forum and fastai's tutorial"
    lm,clas = SCRIPTS + 'finetune_lm.py at a418d78',SCRIPTS + 'train_clas.py at a455d3e'
    long = '50 epochs for IMDb, says the README of imdb_scripts'
    half = 'the script halves its bs=64 for training'
    yield Recipe('paper_lm', LM, 'Howard & Ruder 2018, §3.2, §4.1', 4e-3, _lm(25, 2.6, STLR()), **PAPER,
                 note='the paper says that epochs were tuned for each task, and not how many: 25 are the default of finetune_lm.py')
    yield Recipe('paper_clas', CLAS, 'Howard & Ruder 2018, §3.2, §3.3, §4.1, §5', 1e-2, _stages(GradualUnfreezing(), 50, 2.6, STLR()),
                 **PAPER)
    yield Recipe('scripts_lm', LM, lm, 4e-3, _lm(25, SIXTHS, clr(32, 10)), **SCRIPT_LM, note=long)
    yield Recipe('scripts_lm_head_first', LM, f'{lm}, with the lines that are commented out', 4e-3,
                 (_head(LM, SIXTHS, clr(6, 4)), *_lm(25, SIXTHS, clr(32, 10))), **SCRIPT_LM, note=long)
    yield Recipe('scripts_clas', CLAS, clas, 1e-2, _script_clas(2.6, 50, clr(8, 8)), **SCRIPT_CLAS,
                 note=f'the default is 1 epoch of all layers, and {long}; {half}')
    yield Recipe('scripts_chain_thaw', CLAS, f'{clas}, chain_thaw=True', 1e-3,
                 (*_stages(ChainThaw(), 6, (.1, .1, .1, .1, 1), clr(8, 3))[:-1], Step(50, _upper(CLAS, 0), (.1, .1, .1, .1, 1), clr(8, 8))),
                 **SCRIPT_CLAS, note=half)
    yield Recipe('notebook_lm', LM, NOTEBOOK, 1e-3, (_head(LM, 1., clr(32, 2), 0.5), *_lm(15, 1., clr(20, 10))),
                 **{**SCRIPT_LM, 'bs': 52, 'clip': None, 'drop_mult': 0.7})
    yield Recipe('notebook_clas', CLAS, NOTEBOOK, 1e-2, _script_clas((.01, .01, .01, .1, 1), 14, clr(32, 10)),
                 **{**SCRIPT_CLAS, **_beta(0.7), 'bs': 24, 'val_bs': 48, 'wd': 0., 'drop_mult': 0.5},
                 note='it halves its bs=48 for training; clip is 25 in the lesson, .25 in this version; lr=3e-3 in powers of 2.6 stands '
                      'before these rates, and is overwritten by them')
    yield Recipe('forum_lm', LM, f'{THREAD}, corrected to powers', 4e-3, _lm(15, 2.6, CLRBeta(10, 10)), moms=(0.95, 0.85, 0.95))
    yield Recipe('forum_lm_as_asked', LM, THREAD, 4e-3, _lm(15, (3/2.6, 2/2.6, 1/2.6, 1), CLRBeta(10, 10)), moms=(0.95, 0.85, 0.95),
                 note='lr/2.6*3 is more than lr: the lowest layers would have been the fastest')
    yield Recipe('tutorial_lm', LM, TUTORIAL, 1e-2, (_head(LM, 1., OneCycle()), Step(10, _upper(LM, 0), 1., OneCycle(), 0.1)),
                 moms=(0.8, 0.7, 0.8), wd=0.1, bs=64, bptt=72, drop_mult=1.)
    steps = (Step(e, _upper(CLAS, n), 2.6, OneCycle(), scale) for e,n,scale in ((1, -2, 1), (1, -3, 0.5), (2, 0, 0.1)))
    yield Recipe('tutorial_clas', CLAS, TUTORIAL, 1e-2, (_head(CLAS, 1., OneCycle(), 2), *steps),
                 moms=(0.8, 0.7, 0.8), bs=64, bptt=72, drop_mult=0.5)

def _tables():
    "The rows of the paper's tables 6 and 7, but for the two that are no fine-tuning: without that of the language model, and from scratch"
    lm = {'full': _lm(25, 1., Flat()), 'full_discr': _lm(25, 2.6, Flat()), 'full_discr_stlr': _lm(25, 2.6, STLR())}
    for k,steps in lm.items():
        yield Recipe(f'table6_{k}', LM, 'Howard & Ruder 2018, §5, table 6', 4e-3, steps, **PAPER,
                     note='rate from §4.1, and epochs from finetune_lm.py, as §5 names neither')
    # "η_L = 0.01 for discr, 0.001 and 0.0001 for the last and all other layers for chain-thaw, and 0.001 otherwise", 50 epochs
    gradual,every = GradualUnfreezing(),lambda rates: (Step(50, _upper(CLAS, 0), rates, Flat()),)
    clas = {'full': (1e-3, every(1.)), 'full_discr': (1e-2, every(2.6)),
            'last': (1e-3, (Step(50, _upper(CLAS, -1), 1., Flat()),)),
            'chain_thaw': (1e-3, _stages(ChainThaw(), 50, (.1, .1, .1, .1, 1), Flat())),
            'freez': (1e-3, _stages(gradual, 50, 1., Flat())), 'freez_discr': (1e-2, _stages(gradual, 50, 2.6, Flat())),
            'freez_stlr': (1e-3, _stages(gradual, 50, 1., STLR())), 'freez_cos': (1e-3, _stages(gradual, 50, 1., Cos(warm=0.05))),
            'freez_discr_stlr': (1e-2, _stages(gradual, 50, 2.6, STLR()))}
    notes = {'freez_discr_stlr': '', 'full': 'with early stopping; the row "from scratch" is this without pretraining'}
    for k,(lr,steps) in clas.items():
        yield Recipe(f'table7_{k}', CLAS, 'Howard & Ruder 2018, §5, table 7', lr, steps, **PAPER, note=notes.get(k, 'with early stopping'))

class Recipes(AttrDict):
    "Recipes by name, as keys and as attributes. It shows itself as one table"
    def table(self) -> pd.DataFrame: # One row a recipe
        "Who used which numbers, and where that is written"
        def _rates(r): return ', '.join(f'{lr:.2g}' for lr in r.plan().phases[-1].lrs)
        def _scheds(r): return ', '.join(dict.fromkeys(str(s.sched) for s in r.steps))
        rows = {r.name: {'kind': r.kind, 'epochs': ' + '.join(str(s.epochs) for s in r.steps), 'rates in the last phase': _rates(r),
                         'schedule': _scheds(r), **r.settings(), 'source': r.source, 'note': r.note} for r in self.values()}
        columns = list(dict.fromkeys(k for r in self.values() for k in rows[r.name]))
        res = pd.DataFrame.from_dict(rows, orient='index', columns=columns).fillna('').rename_axis('recipe')
        return res[[c for c in res if c not in ('source', 'note')] + ['source', 'note']]
    def __getattr__(self, k):
        if k in self: return self[k]
        raise AttributeError(f'there is no recipe {k!r}, only {", ".join(self)}')
    def __repr__(self):
        table = self.table()
        notes = (f'{k}: {"; ".join(filter(None, row))}' for k,row in zip(table.index, table[['source', 'note']].values))
        return '\n'.join([table.drop(columns=['source', 'note', 'dropout']).to_string(), '', *notes])
    def _repr_html_(self): return self.table().to_html()

recipes = Recipes({r.name: r for r in (*_published(), *_tables())})
