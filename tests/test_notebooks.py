"Notebooks read as lessons: what is checked is folded away, pictures are small, and each says what it is for"
import ast
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1]/'nbs'
NOTEBOOKS = {p.name: json.loads(p.read_text()) for p in sorted(FOLDER.glob('*.ipynb'))}
COLAB = 'https://colab.research.google.com/github/fastai-discrim/fastai_discrim/blob/main/nbs/'
# Bytes, with all pictures
LARGEST = 150_000
HEADING = re.compile('^##', re.MULTILINE)

def source(cell): return ''.join(cell['source'])
def tags(cell): return cell['metadata'].get('tags', [])
def has_assert(cell):
    # Magics of IPython are no Python
    text = '\n'.join(line for line in source(cell).splitlines() if not line.startswith(('!', '%')))
    return any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text)))

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_it_begins_with_what_a_reader_will_be_able_to_do(name):
    title,badge,aim = source(NOTEBOOKS[name]['cells'][0]).split('\n\n')[:3]
    assert title.startswith('# ') and f'({COLAB}{name})' in badge and aim.startswith('After this notebook you can')
    # It installs the package on Colab, and nowhere else
    install = NOTEBOOKS[name]['cells'][1]
    assert source(install).startswith('![ -e /content ] && pip install') and 'download' in tags(install)

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_checks_stand_in_folded_cells_without_output(name):
    code = [c for c in NOTEBOOKS[name]['cells'] if c['cell_type'] == 'code']
    checks = [c for c in code if 'check' in tags(c)]
    assert checks and all(has_assert(c) or 'ExceptionExpected' in source(c) for c in checks)
    assert not [source(c) for c in code if c not in checks and has_assert(c)]
    for c in checks: assert c['metadata']['jupyter'] == {'source_hidden': True} and c['metadata']['cellView'] == 'form' and not c['outputs']

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_a_check_ends_a_section(name):
    cells = NOTEBOOKS[name]['cells']
    for c,following in zip(cells, cells[1:]):
        if 'check' in tags(c): assert following['cell_type'] == 'markdown' and HEADING.search(source(following)), source(following)

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_it_is_small_enough_to_load(name):
    assert (FOLDER/name).stat().st_size < LARGEST
