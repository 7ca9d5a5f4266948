"""Summarise benchmarks/real_models.py for README: a table of four rows, and a sentence for each model over all cells

The choice of cells does not depend on their errors: cells with the most seeds come first, then cells that no design was chosen on."""
import numpy as np
from real_models_data import CELLS
from real_models_report import MODELS, NAMES, beyond_chance, collapsed, errors, minus, signed, title
from text_report import markdown, shown

# Number of rows for each model
N_ROWS = dict(awd=1, minilm=2, lite0=1)
ARMS = 'floor', 'fine_tune', 'one_cycle', 'adamw_2e-4', 'ulmfit'
# Cells on which designs were chosen, so their results are weaker evidence
DESIGN = ('awd_trec6_100', 'awd_trec6_500', 'awd_ag_100', 'awd_ag_1000', 'awd_imdb_100', 'awd_imdb_2000',
          'awd_cr_800', 'awd_mpqa_800', 'awd_mr_800', 'awd_sst_800',
          'minilm_trec6_100', 'minilm_trec6_300', 'minilm_ag_300', 'minilm_sst_300', 'minilm_mr_200',
          'lite0_cifar10_10', 'lite0_cifar10_50', 'lite0_digits_10', 'lite0_digits_50')

def compared(res, model) -> dict:
    "Return the cells of `model` in which `fit_ulmfit` and `fine_tune` share a seed"
    return {k: c for k,c in res.items() if CELLS[k].model == model and minus(c.get('ulmfit', {}), c.get('fine_tune', {}))}

def rows(res) -> list:
    "Choose the cells to show, model by model"
    known = list(CELLS)
    def _rank(cells, k): return -len(minus(cells[k]['ulmfit'], cells[k]['fine_tune'])), k in DESIGN, known.index(k)
    return [k for model,n in N_ROWS.items() for cells in [compared(res, model)] for k in sorted(cells, key=lambda k: _rank(cells, k))[:n]]

def headline(res) -> str:
    "Make README's table: test error, %, of `fit_ulmfit` and of the alternatives"
    head = 'model, data, labels', *(NAMES.get(o, o) for o in ARMS), 'minus `fine_tune`'
    def _cells(c): return *(shown(errors(c[o])) if o in c else '' for o in ARMS),signed(minus(c['ulmfit'], c['fine_tune']))
    return markdown(head, *((f'{MODELS[CELLS[k].model]}, {title(k)}', *_cells(res[k])) for k in rows(res)))

def counted(n, what) -> str: return f'{n} {what}' + 's'*(n != 1)

def sentences(res) -> str:
    "Describe for each model how `fit_ulmfit` compares with `fine_tune` over all cells, as a list in Markdown"
    lines = []
    for model,name in MODELS.items():
        if not (cells := compared(res, model)): continue
        diffs = [minus(c['ulmfit'], c['fine_tune']) for c in cells.values()]
        lower,worse = sum(np.mean(d) < 0 for d in diffs),sum(map(beyond_chance, diffs))
        runs,lost = sum(len(c['ulmfit']) for c in cells.values()),sum(collapsed('ulmfit', c) for c in cells.values())
        lines.append(f'- {name}: `fit_ulmfit` has a lower mean error than `fine_tune` in {lower} of {counted(len(cells), "setting")}, '
                     f'and a higher one beyond chance in {worse}; {lost} of its {counted(runs, "run")} ended at chance level.')
    return '\n'.join(lines)
