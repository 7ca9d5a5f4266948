"Published hyper-parameters and their sources"
__all__ = ['recipes']

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from fastcore.basics import AttrDict

from ..plan.opening import chain_thaw, fill, gradual
from ..plan.schedules import STLR, CLRBeta, Cos, Flat, OneCycle
from .recipe import CLAS, LAYER_GROUPS, LM, Recipe, Step

PAPER = 'Howard & Ruder 2018'
SCRIPTS = 'fastai 0.7, courses/dl2/imdb_scripts/'
FINETUNE_LM,TRAIN_CLAS = SCRIPTS + 'finetune_lm.py at a418d78',SCRIPTS + 'train_clas.py at a455d3e'
NOTEBOOK = 'fastai 0.7, courses/dl2/imdb.ipynb at 4642673'
THREAD = 'forums.fast.ai/t/16819, "ULMFit Paper: Question on learning rates (section 3.2)"'
TUTORIAL = 'docs.fast.ai/tutorial.text.html'

# Index of the lowest layer group that trains, as in fastai's `freeze_to`
ALL,HEAD,TOP_TWO,TOP_THREE = 0,-1,-2,-3

def _step(kind, lowest, epochs, rates, sched, scale=1.):
    "Make a step in which the layer groups from `lowest` up train"
    return Step(epochs, tuple(range(len(LAYER_GROUPS[kind])))[lowest:], rates, sched, scale)

lm_step,clas_step = partial(_step, LM),partial(_step, CLAS)

def clas_steps(opening, rates, sched):
    "Make the steps of a classifier from `opening`: pairs of epochs and the groups that train in them"
    return tuple(Step(epochs, groups, rates, sched) for epochs,groups in opening)

def clr(div, cut_div):
    "Make fastai 0.7's `use_clr=(div, cut_div)`: the rate rises from `1/div` of its peak in `1/cut_div` of the cycle, and falls back"
    return STLR(cut_frac=1/cut_div, ratio=div)

def betas(beta1, beta2=0.99):
    "Return constant β1 and β2 of Adam as arguments of `Recipe`"
    return dict(moms=(beta1,)*3, sqr_mom=beta2)

def dropouts(input_p, output_p, weight_p, embed_p, hidden_p):
    "Return dropout probabilities as arguments of `Recipe`"
    return dict(drops=dict(input_p=input_p, output_p=output_p, weight_p=weight_p, embed_p=embed_p, hidden_p=hidden_p), drop_mult=1.)

# Columns that fit into a terminal, and into a notebook
TEXT_COLUMNS = ['kind', 'epochs', 'rates in the last phase']
HTML_COLUMNS = [*TEXT_COLUMNS, 'schedule', 'source']
MORE = 'All settings are in `recipes.table()`; `recipes.paper_clas` shows one recipe with its plan'

N_CLAS = len(LAYER_GROUPS[CLAS])
# The paper opens one more group each epoch (§3.3), and trains for 50 epochs (§5)
PAPER_GRADUAL = fill(gradual(N_CLAS, epochs=1), 50, 'gradual unfreezing')

# §4.1 states one set of dropouts, β1, β2 and batch size for both models
PAPER_SETTINGS = dict(**betas(0.7), **dropouts(0.4, 0.4, 0.5, 0.05, 0.3), bs=64, bptt=70)
LM_SETTINGS = dict(**betas(0.8), **dropouts(0.25, 0.1, 0.2, 0.02, 0.15), wd=1e-7, clip=0.3, bs=64, bptt=70)
CLAS_SETTINGS = dict(**betas(0.8), **dropouts(0.4, 0.4, 0.5, 0.05, 0.3), wd=1e-6, clip=25., bs=32, val_bs=64, bptt=70)

# Rates of `finetune_lm.py`: lr/6, lr/3, lr and lr/2
SIXTHS = (1/6, 1/3, 1, 1/2)
# Rates of `train_clas.py` with `chain_thaw=True`
TENTHS = (.1, .1, .1, .1, 1)

def _paper():
    "Return the recipes that the paper describes"
    return [
        Recipe('paper_lm', LM, f'{PAPER}, §3.2, §4.1', 4e-3, (lm_step(ALL, 25, 2.6, STLR()),), **PAPER_SETTINGS,
               note='the paper says that epochs were tuned for each task, and not how many: 25 are the default of finetune_lm.py'),
        Recipe('paper_clas', CLAS, f'{PAPER}, §3.2, §3.3, §4.1, §5', 1e-2, clas_steps(PAPER_GRADUAL, 2.6, STLR()), **PAPER_SETTINGS)]

def _scripts():
    "Return the recipes of the authors' scripts"
    long = '50 epochs for IMDb, says the README of imdb_scripts'
    half = 'the script halves its bs=64 for training'
    head_only = lm_step(HEAD, 1, SIXTHS, clr(6, 4))
    whole_lm = lm_step(ALL, 25, SIXTHS, clr(32, 10))
    clas = (clas_step(HEAD, 1, 2.6, clr(8, 3)), clas_step(TOP_TWO, 1, 2.6, clr(8, 3)), clas_step(ALL, 50, 2.6, clr(8, 8)))
    *each_group,_ = chain_thaw(N_CLAS)
    thaw = (*clas_steps(each_group, TENTHS, clr(8, 3)), clas_step(ALL, 50, TENTHS, clr(8, 8)))
    return [
        Recipe('scripts_lm', LM, FINETUNE_LM, 4e-3, (whole_lm,), **LM_SETTINGS, note=long),
        Recipe('scripts_lm_head_first', LM, f'{FINETUNE_LM}, with the lines that are commented out', 4e-3, (head_only, whole_lm),
               **LM_SETTINGS, note=long),
        Recipe('scripts_clas', CLAS, TRAIN_CLAS, 1e-2, clas, **CLAS_SETTINGS,
               note=f'the default is 1 epoch of all layers, and {long}; {half}'),
        Recipe('scripts_chain_thaw', CLAS, f'{TRAIN_CLAS}, chain_thaw=True', 1e-3, thaw, **CLAS_SETTINGS, note=half)]

def _notebook():
    "Return the recipes of the notebook of the course's lesson"
    lm = (lm_step(HEAD, 1, 1., clr(32, 2), scale=0.5), lm_step(ALL, 15, 1., clr(20, 10)))
    lm_settings = {**LM_SETTINGS, 'bs': 52, 'clip': None, 'drop_mult': 0.7}
    rates = (.01, .01, .01, .1, 1)
    clas = (clas_step(HEAD, 1, rates, clr(8, 3)), clas_step(TOP_TWO, 1, rates, clr(8, 3)), clas_step(ALL, 14, rates, clr(32, 10)))
    clas_settings = {**CLAS_SETTINGS, **betas(0.7), 'bs': 24, 'val_bs': 48, 'wd': 0., 'drop_mult': 0.5}
    note = ('it halves its bs=48 for training; clip is 25 in the lesson, .25 in this version; lr=3e-3 in powers of 2.6 stands '
            'before these rates, and is overwritten by them')
    return [Recipe('notebook_lm', LM, NOTEBOOK, 1e-3, lm, **lm_settings),
            Recipe('notebook_clas', CLAS, NOTEBOOK, 1e-2, clas, **clas_settings, note=note)]

def _forum():
    "Return the recipes that the forum's thread asks about"
    moms,sched = (0.95, 0.85, 0.95),CLRBeta(10, 10)
    as_asked = (3/2.6, 2/2.6, 1/2.6, 1)
    return [
        Recipe('forum_lm', LM, f'{THREAD}, corrected to powers', 4e-3, (lm_step(ALL, 15, 2.6, sched),), moms=moms),
        Recipe('forum_lm_as_asked', LM, THREAD, 4e-3, (lm_step(ALL, 15, as_asked, sched),), moms=moms,
               note='lr/2.6*3 is more than lr: the lowest layers would have been the fastest')]

def _tutorial():
    "Return the recipes of fastai's text tutorial"
    sched = OneCycle()
    lm = (lm_step(HEAD, 1, 1., sched), lm_step(ALL, 10, 1., sched, scale=0.1))
    clas = (clas_step(HEAD, 1, 1., sched, scale=2), clas_step(TOP_TWO, 1, 2.6, sched),
            clas_step(TOP_THREE, 1, 2.6, sched, scale=0.5), clas_step(ALL, 2, 2.6, sched, scale=0.1))
    settings = dict(moms=(0.8, 0.7, 0.8), bs=64, bptt=72)
    return [Recipe('tutorial_lm', LM, TUTORIAL, 1e-2, lm, **settings, wd=0.1, drop_mult=1.),
            Recipe('tutorial_clas', CLAS, TUTORIAL, 1e-2, clas, **settings, drop_mult=0.5)]

def _table6(row, rates, sched):
    "Make the recipe of a row of the paper's table 6"
    return Recipe(f'table6_{row}', LM, f'{PAPER}, §5, table 6', 4e-3, (lm_step(ALL, 25, rates, sched),), **PAPER_SETTINGS,
                  note='rate from §4.1, and epochs from finetune_lm.py, as §5 names neither')

def _table7(row, lr, steps, note='with early stopping'):
    "Make the recipe of a row of the paper's table 7"
    return Recipe(f'table7_{row}', CLAS, f'{PAPER}, §5, table 7', lr, steps, **PAPER_SETTINGS, note=note)

def _tables():
    "Return the rows of the paper's tables 6 and 7, except the language model without fine-tuning and the classifier from scratch"
    thaw = fill(chain_thaw(N_CLAS), 50, 'chain-thaw')
    from_scratch = 'with early stopping; the row "from scratch" is this without pretraining'
    return [
        _table6('full', 1., Flat()),
        _table6('full_discr', 2.6, Flat()),
        _table6('full_discr_stlr', 2.6, STLR()),
        # "η_L = 0.01 for discr, 0.001 and 0.0001 for the last and all other layers for chain-thaw, and 0.001 otherwise", 50 epochs
        _table7('full', 1e-3, (clas_step(ALL, 50, 1., Flat()),), note=from_scratch),
        _table7('full_discr', 1e-2, (clas_step(ALL, 50, 2.6, Flat()),)),
        _table7('last', 1e-3, (clas_step(HEAD, 50, 1., Flat()),)),
        _table7('chain_thaw', 1e-3, clas_steps(thaw, TENTHS, Flat())),
        _table7('freez', 1e-3, clas_steps(PAPER_GRADUAL, 1., Flat())),
        _table7('freez_discr', 1e-2, clas_steps(PAPER_GRADUAL, 2.6, Flat())),
        _table7('freez_stlr', 1e-3, clas_steps(PAPER_GRADUAL, 1., STLR())),
        _table7('freez_cos', 1e-3, clas_steps(PAPER_GRADUAL, 1., Cos(hold=0.05))),
        _table7('freez_discr_stlr', 1e-2, clas_steps(PAPER_GRADUAL, 2.6, STLR()), note='')]

def _row(recipe):
    "Return the row of `recipe` in the table"
    rates = ', '.join(f'{lr:.2g}' for lr in recipe.plan().phases[-1].lrs)
    # `fromkeys` keeps each schedule once, in order
    schedules = ', '.join(dict.fromkeys(str(s.sched) for s in recipe.steps))
    return {'kind': recipe.kind, 'epochs': ' + '.join(f'{s.epochs:g}' for s in recipe.steps), 'rates in the last phase': rates,
            'schedule': schedules, **recipe.settings(), 'source': recipe.source, 'note': recipe.note}

# Type checkers don't know fastcore's `AttrDict`
if TYPE_CHECKING: RecipeDict = dict[str, Recipe]
else: RecipeDict = AttrDict

class Recipes(RecipeDict):
    "Hold recipes by name, as keys and as attributes, and show them as one table. `recipes['mine'] = Recipe(...)` adds a recipe"
    def table(self) -> pd.DataFrame: # One row per recipe
        "Return a table of the published numbers and their sources"
        rows = {name: _row(recipe) for name,recipe in self.items()}
        last = ['source', 'note']
        in_order = dict.fromkeys(column for row in rows.values() for column in row)
        columns = [column for column in in_order if column not in last] + last
        return pd.DataFrame.from_dict(rows, orient='index', columns=columns).fillna('').rename_axis('recipe')

    def __setitem__(self, name, recipe):
        if not isinstance(recipe, Recipe): raise TypeError(f'recipes[{name!r}] is a {type(recipe).__name__}: expected a Recipe')
        super().__setitem__(name, recipe)

    def __getattr__(self, name) -> Recipe:
        if name in self: return self[name]
        raise AttributeError(f'there is no recipe {name!r}, only {", ".join(self)}')

    def __repr__(self):
        table = self.table()
        notes = [f'{name}: ' + '; '.join(part for part in (row.source, row.note) if part) for name,row in table.iterrows()]
        return '\n'.join([table[TEXT_COLUMNS].to_string(), MORE, '', *notes])

    def _repr_html_(self): return f'{self.table()[HTML_COLUMNS].to_html()}<p>{MORE.replace("`", "")}</p>'

recipes = Recipes({r.name: r for r in [*_paper(), *_scripts(), *_notebook(), *_forum(), *_tutorial(), *_tables()]})
