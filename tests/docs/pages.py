"""The code blocks of README.md and the documentation, and how they are run

A page is a session: its blocks run one after the other in one namespace. A `text` block right below a `python` block is what that prints,
or the error that it raises, with `…` for what differs. `<!-- not run: REASON -->` above a block has it compiled alone."""
import ast
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parents[2]
PAGES = [TOP/'README.md', *sorted((TOP/'docs').rglob('*.md'))]
FENCE = re.compile(r'^```(\w*)[^\n]*\n(.*?)^```$', re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r'<!-- not run: .+ -->\s*$')

class Block(NamedTuple):
    "A code block of a page"
    lang: str
    text: str
    line: int # Where it begins
    is_run: bool # Or compiled alone
    expected: str|None # What stands in the `text` block below it

def blocks(text) -> list:
    "List the code blocks of a page; a `text` block belongs to the one above it"
    found,res = list(FENCE.finditer(text)),[]
    for i,m in enumerate(found):
        before = text[found[i-1].end() if i else 0:m.start()]
        if m[1] == 'text':
            assert i and res[-1].lang == 'python' and not before.strip(), f'a text block belongs right below a python block: {m[2]}'
            res[-1] = res[-1]._replace(expected=m[2])
        else: res.append(Block(m[1], m[2], text[:m.start()].count('\n')+1, not NOT_RUN.search(before), None))
    return res

def executed(block, path, names) -> str:
    "Run a block in `names`, and return what it prints and what its last line evaluates to, as a notebook shows it"
    tree,last,out = ast.parse(block.text, str(path)),None,StringIO()
    # Tracebacks have the line of the page
    ast.increment_lineno(tree, block.line)
    if isinstance(tree.body[-1], ast.Expr): last = ast.Expression(tree.body.pop().value)
    with redirect_stdout(out):
        exec(compile(tree, str(path), 'exec'), names)
        if last is not None:
            value = eval(compile(last, str(path), 'eval'), names)
            if value is not None: print(value)
    return out.getvalue()

def plain(text): return '\n'.join(o.rstrip() for o in text.strip().splitlines())

def agrees(text, expected) -> bool:
    "Tell whether `text` is what a page says, where `…` stands for anything; how lines are broken doesn't matter"
    pattern = '.*'.join(map(re.escape, ' '.join(expected.split()).split('…')))
    return re.fullmatch(pattern, ' '.join(text.split()), re.DOTALL) is not None
