"The tables of texts and of cost in README.md and benchmarks/README.md are those that text.py and cost.py make of the results that are kept"
import json
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP/'benchmarks/results'

@pytest.fixture(autouse=True)
def _importable(monkeypatch): monkeypatch.syspath_prepend(TOP/'benchmarks')

def rows(text):
    "Rows of the tables in Markdown"
    return [o for o in text.splitlines() if o.startswith('|')]

def section(title):
    "Rows of the tables in a section of benchmarks/README.md"
    return rows((TOP/'benchmarks/README.md').read_text().split(f'\n## {title}\n')[1].split('\n## ')[0])

@pytest.mark.parametrize('title, studies', [('Against what a fastai user does today', ['today']),
                                            ("The paper's tables 6 and 7", ['table7', 'table6']), ('The factor 2.6', ['factor', 'near'])])
def test_text(title, studies):
    from text_report import report
    assert section(title) == rows(report(RESULTS, studies)) != []

def test_cost():
    from cost import PARTS
    kept = json.loads((RESULTS/'cost.json').read_text())
    made = [o for k,(_,table) in PARTS.items() for o in rows(table(kept[k]['result']))]
    assert section('Cost') == made != []

def test_readme():
    "It shows some rows of the first table"
    from text_report import report
    shown = rows((TOP/'README.md').read_text().split('\n## Does it help?\n')[1].split('\n## ')[0])
    left = iter(rows(report(RESULTS, ['today'])))
    assert shown and all(o in left for o in shown)
