"The tables in README.md and benchmarks/README.md are those that the benchmarks make of the results that are kept"
import json
import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP/'benchmarks/results'

@pytest.fixture(autouse=True)
def _importable(monkeypatch): monkeypatch.syspath_prepend(TOP/'benchmarks')

def rows(text):
    "Rows of the tables in Markdown"
    return [o for o in text.splitlines() if o.startswith('|')]

def section(title, of='benchmarks/README.md'):
    "Rows of the tables in a section of benchmarks/README.md, or of another file"
    return rows((TOP/of).read_text().split(f'\n## {title}\n')[1].split('\n## ')[0])

@pytest.mark.parametrize('title, studies', [("The paper's tables 6 and 7", ['table7', 'table6']), ('The factor 2.6', ['factor'])])
def test_text(title, studies):
    from text_report import report
    assert section(title) == rows(report(RESULTS, studies)) != []

def test_cost():
    from cost import PARTS
    kept = json.loads((RESULTS/'cost.json').read_text())
    made = [o for k,(_,table) in PARTS.items() for o in rows(table(kept[k]['result']))]
    assert section('Cost') == made != []

def test_peers():
    from peers import MODELS, table
    kept = json.loads((RESULTS/'peers.json').read_text())
    assert section('Peers') == [o for name in MODELS for o in rows(table(kept, name))] != []

def test_real_models():
    "README shows the summary, benchmarks/README.md all tables"
    from real_models_report import read, report, summary
    folder = RESULTS/'real_models'
    assert section('Does it help?', 'README.md') == rows(summary(read(folder))) != []
    assert section('Real pretrained models') == rows(report(folder)) != []

def test_rates():
    from rates import read, table
    assert section('The rates of head and body') == rows(table(read(RESULTS/'rates.jsonl'))) != []

# README's names of vision.py's arms; of the others it shows none
VISION = {'one rate': 'one rate', '`fine_tune`': 'fine_tune', '/2.6 a layer, one cycle': '/2.6',
          '/2.6, gradual unfreezing, slanted triangles': 'all three', 'the same with `span=100`': 'all, span=100',
          'without a rate: `fine_tune(n)`': 'fine_tune(n)'}

def test_vision():
    "README leaves out the rates that were tuned"
    from vision import table
    made = re.sub(r' \(\de-\d\d\)', '', table(json.loads((RESULTS/'vision.json').read_text())['runs']))
    made = {arm: cells for arm,*cells in (r.strip('| ').split(' | ') for r in rows(made))}
    # The section has tables of models, too
    shown = {arm: cells for arm,*cells in (r.strip('| ').split(' | ') for r in section('Any model', 'README.md') if '±' in r)}
    assert shown == {arm: made[o] for arm,o in VISION.items()}

def test_kill_resume():
    from kill_resume import table
    made = rows(table(json.loads((RESULTS/'kill_resume.json').read_text())['kills']))
    assert section('Stopped, killed, in several processes', 'README.md')[-len(made):] == made != []
