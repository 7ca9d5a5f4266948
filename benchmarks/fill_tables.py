"""Write tables of the saved results into README.md, benchmarks/README.md and docs/.

    python benchmarks/fill_tables.py [--check]

The script replaces what is between `<!-- table: NAME -->` and `<!-- end -->`. Run it after new results. It computes no results, but needs
the packages that the benchmarks import."""
import argparse
import json
import re
from functools import partial
from pathlib import Path

import cost
import kill_resume
import peers
import rates
import real_models_headline
import real_models_report
import search_cost
import text_report
import vision

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP/'benchmarks/results'
MARKED = re.compile(r'(?<=<!-- table: )(\w+)( -->\n).*?(?=<!-- end -->)', re.DOTALL)
# Names of vision.py's arms in the table for readers; arms that aren't here are left out
VISION = {'one rate': 'one rate', 'fine_tune': '`fine_tune`', '/2.6': '/2.6 a layer, one cycle',
          'all three': '/2.6, gradual unfreezing, slanted triangles', 'all, span=100': 'the same with `span=100`',
          'fine_tune(n)': 'without a rate: `fine_tune(n)`'}

def kept(name): return json.loads((RESULTS/name).read_text())

def real_models(f):
    "Make a part of the report of benchmarks/real_models.py"
    return f(real_models_report.read(RESULTS/'real_models'))

def vision_summary() -> str:
    "Make the table of vision.py's arms that readers are shown, without the rates that were tuned"
    head,line,*rows = re.sub(r' \(\de-\d\d\)', '', vision.table(kept('vision.json')['runs'])).splitlines()
    made = {r.split(' | ')[0].strip('| '): r for r in rows}
    return '\n'.join([head, line, *(made[arm].replace(f'| {arm} |', f'| {name} |', 1) for arm,name in VISION.items())])

# Functions that make the tables as Markdown, by name
TABLES = dict(
    headline=partial(real_models, real_models_headline.headline),
    headline_sentences=partial(real_models, real_models_headline.sentences),
    real_models=lambda: real_models_report.report(RESULTS/'real_models').strip(),
    rates=lambda: rates.table(rates.read(RESULTS/'rates.jsonl')),
    search_cost=lambda: search_cost.table(rates.read(RESULTS/'search_cost.jsonl')),
    vision=vision_summary,
    kill_resume=lambda: kill_resume.table(kept('kill_resume.json')['kills']))
TABLES |= {o: lambda o=o: text_report.tables(o, text_report.read(RESULTS)) for o in ('table7', 'table6', 'factor')}
TABLES |= {f'cost_{k}': lambda k=k, table=table: table(kept('cost.json')[k]['result']) for k,(_,table) in cost.PARTS.items()}
TABLES |= {f'peers_{k}': lambda k=k: peers.table(kept('peers.json'), k) for k in peers.MODELS}
TABLES = {k.lower().replace('-', '_'): f for k,f in TABLES.items()}

def filled(text) -> str:
    "Replace the tables between the marks"
    if text.count('<!-- table:') != len(MARKED.findall(text)):
        raise ValueError('a mark `<!-- table: NAME -->` has no end: expected `<!-- end -->` below the table; add it')
    def _made(m):
        if m[1] not in TABLES: raise ValueError(f'table {m[1]!r}: expected one of {", ".join(TABLES)}')
        # Without blank lines Markdown treats a table that follows a comment as HTML
        return f'{m[1]}{m[2]}\n{TABLES[m[1]]()}\n\n'
    return MARKED.sub(_made, text)

def files() -> list:
    "List the files that have marks"
    paths = [TOP/'README.md', TOP/'benchmarks/README.md', *sorted((TOP/'docs').rglob('*.md'))]
    return [p for p in paths if '<!-- table:' in p.read_text(encoding='utf-8')]

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='only list the files whose tables differ from the results')
    args = parser.parse_args()
    differ = {p: new for p in files() if (new := filled(text := p.read_text(encoding='utf-8'))) != text}
    for p,new in differ.items():
        print(f'{p.relative_to(TOP)}: ' + ('its tables differ from the results' if args.check else 'filled'))
        if not args.check: p.write_text(new, encoding='utf-8')
    if args.check and differ: raise SystemExit(1)

if __name__ == '__main__': main()
