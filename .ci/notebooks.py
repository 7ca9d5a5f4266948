"Execute the notebooks, each in a scratch folder; cells tagged `download` are left out. --save keeps the outputs, without execution counts"
import argparse
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(path, save):
    nb = nbformat.read(path, as_version=4)
    skipped = [c for c in nb.cells if 'download' in c.metadata.get('tags', [])]
    run = nbformat.from_dict({**nb, 'cells': [c for c in nb.cells if c not in skipped]})
    with tempfile.TemporaryDirectory() as top:
        cwd,results = Path(top)/'nbs',path.resolve().parents[1]/'benchmarks/results'
        cwd.mkdir()
        # As it lies beside a notebook in the repository
        if results.exists(): shutil.copytree(results, Path(top)/'benchmarks/results')
        NotebookClient(run, timeout=900, kernel_name='python3', resources={'metadata': {'path': str(cwd)}}).execute()
    print(f'{path.name}: {sum(c.cell_type == "code" for c in run.cells)} cells executed, {len(skipped)} need a download')
    if not save: return
    done = iter(run.cells)
    for i,c in enumerate(nb.cells):
        if c not in skipped: nb.cells[i] = next(done)
    for c in nb.cells:
        if c.cell_type != 'code': continue
        c.execution_count = None
        for o in c.outputs: o.pop('execution_count', None) if o.output_type != 'execute_result' else o.update(execution_count=None)
        c.metadata.pop('execution', None)
    nbformat.write(nb, path)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('paths', nargs='*', type=Path, help='notebooks; all in nbs/ if none is given')
    parser.add_argument('--save', action='store_true', help='write the outputs into the notebooks')
    args = parser.parse_args()
    for path in args.paths or sorted((Path(__file__).parent.parent/'nbs').glob('*.ipynb')): execute(path, args.save)
