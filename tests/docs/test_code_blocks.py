"Every code block of README.md and the documentation runs, prints what the page says, and raises the errors that it shows"
import ast
import re
import subprocess

import pytest
from conftest import needs_stock_export_transforms, needs_stock_load_text
from pages import PAGES, TOP, agrees, blocks, executed, plain
from stand_ins import install, names, needs_transformer, prepare, save_tiny_transformer

# A page whose blocks don't follow from each other: each starts with a new session
FRESH = {'docs/errors.md'}
# Texts that train the learner of a page; one page shows what follows from their number
FEW,N_TEXTS = 16,{'docs/concepts.md': 400}
# Those that are compiled alone; more than a few would say that pages aren't tested
MOST_NOT_RUN = 3
BLOCKS = {p: blocks(p.read_text(encoding='utf-8')) for p in PAGES}
WITH_PYTHON = [p for p,bs in BLOCKS.items() if any(b.lang == 'python' for b in bs)]

def name_of(p): return str(p.relative_to(TOP))

@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    install(monkeypatch, tmp_path)
    return tmp_path

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('path', WITH_PYTHON, ids=name_of)
def test_blocks_run(path, folder, monkeypatch):
    # Pages are for a stock fastai that loads and exports what it saves
    needs_stock_load_text()
    needs_stock_export_transforms()
    if needs_transformer(''.join(b.text for b in BLOCKS[path])):
        pytest.importorskip('transformers')
        monkeypatch.syspath_prepend(TOP/'tests/huggingface')
        save_tiny_transformer(folder)
    page = names(folder, N_TEXTS.get(name_of(path), FEW))
    for block in BLOCKS[path]:
        if block.lang != 'python' or not block.is_run: continue
        if name_of(path) in FRESH: page = names(folder, FEW)
        prepare(block, page, folder)
        run_block(block, path, page)

def run_block(block, path, page):
    "Run a block, and compare with what the page says"
    where,error = f'{name_of(path)}, line {block.line}',None
    if block.expected: error = re.match(r'(\w+Error): (.*)', block.expected, re.DOTALL)
    if not error:
        out = executed(block, path, page)
        if block.expected is not None: assert plain(out) == plain(block.expected), where
        return
    with pytest.raises(Exception) as raised: executed(block, path, page)
    assert raised.type.__name__ == error[1], where
    assert agrees(str(raised.value), error[2]), f'{where}: {raised.value}'

@pytest.mark.parametrize('path', [p for p,bs in BLOCKS.items() if bs], ids=name_of)
def test_blocks_have_a_language_that_is_tested(path):
    for b in BLOCKS[path]:
        assert b.lang in ('python', 'bash'), f'{name_of(path)}, line {b.line}'
        if b.lang == 'python': ast.parse(b.text)
        else:
            subprocess.run(['bash', '-n'], input=b.text, text=True, check=True)
            for script in re.findall(r'\b(?:examples|benchmarks|\.ci)/\S+\.py', b.text): assert (TOP/script).exists(), script

@pytest.mark.parametrize('path', PAGES, ids=name_of)
def test_lines_of_code_fit_a_window(path):
    width = 118 if path.name == 'README.md' else 100
    assert [o for b in BLOCKS[path] for o in b.text.splitlines() if len(o) > width] == []

def test_nearly_all_blocks_run():
    assert sum(not b.is_run for bs in BLOCKS.values() for b in bs) <= MOST_NOT_RUN
    assert sum(b.lang == 'python' for bs in BLOCKS.values() for b in bs) > 30

def test_the_runner_tells_what_is_wrong(folder):
    block, = blocks('```python\nx = 1\nx+1\n```\n\n```text\n2\n```\n')
    run_block(block, TOP/'README.md', {})
    with pytest.raises(AssertionError, match=r'README.md, line 1'): run_block(block._replace(expected='3\n'), TOP/'README.md', {})
    block, = blocks('```python\nint("x")\n```\n\n```text\nValueError: invalid literal … \'x\'\n```\n')
    run_block(block, TOP/'README.md', {})
    with pytest.raises(AssertionError, match='invalid literal'):
        run_block(block._replace(expected='ValueError: another …'), TOP/'README.md', {})
    marked,free = blocks('<!-- not run: it downloads -->\n\n```python\nx\n```\n\ntext\n\n```python\ny\n```\n')
    assert (marked.is_run, free.is_run) == (False, True)
