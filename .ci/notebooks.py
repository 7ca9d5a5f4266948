"Execute the notebooks, each in a scratch folder; cells tagged `download` are left out. --save keeps the outputs, without execution counts"
import argparse
import base64
import io
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

# As many colours as lines, strips and their smoothed edges need: a picture is a fifth as large. They differ by so much in red, green or
# blue, as Pillow doesn't tell nearer ones apart
COLORS,APART = 48,8
# Dots an inch; matplotlib has 100, and a picture is as wide as a page at less
DPI = 80


def palette(picture):
    "Return the most frequent colours, red, green and blue in a row"
    chosen = []
    for _,color in sorted(picture.getcolors(picture.width*picture.height), reverse=True):
        if all(max(abs(a-b) for a,b in zip(color, o)) >= APART for o in chosen): chosen.append(color)
        if len(chosen) == COLORS: break
    return [v for color in chosen + [chosen[0]]*(256-len(chosen)) for v in color]

def small(png):
    "Return a picture, in base64, with few colours"
    picture,colors,file = Image.open(io.BytesIO(base64.b64decode(png))).convert('RGB'),Image.new('P', (1, 1)),io.BytesIO()
    colors.putpalette(palette(picture))
    picture.quantize(palette=colors, dither=Image.Dither.NONE).save(file, 'PNG', optimize=True)
    return base64.b64encode(file.getvalue()).decode()

def is_shown(output):
    "Tell whether there is anything to see: a progress bar that has ended leaves an empty output"
    return output.get('data', {}).get('text/html') != ''

def slim(output):
    "Leave out what a page doesn't show, the number of the execution and a second form of a table, and make a picture small"
    data = output.get('data', {})
    if 'image/png' in data: data['image/png'] = small(data['image/png'])
    if 'text/html' in data: data.pop('text/markdown', None)
    if output.output_type == 'execute_result': output.execution_count = None
    else: output.pop('execution_count', None)
    return output

def execute(path, save):
    nb = nbformat.read(path, as_version=4)
    skipped = [c for c in nb.cells if 'download' in c.metadata.get('tags', [])]
    run = nbformat.from_dict({**nb, 'cells': [c for c in nb.cells if c not in skipped]})
    with tempfile.TemporaryDirectory() as top:
        cwd,results = Path(top)/'nbs',path.resolve().parents[1]/'benchmarks/results'
        cwd.mkdir()
        (cwd/'matplotlibrc').write_text(f'figure.dpi: {DPI}\n')
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
        c.outputs = [slim(o) for o in c.outputs if is_shown(o)]
        c.metadata.pop('execution', None)
    nbformat.write(nb, path)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('paths', nargs='*', type=Path, help='notebooks; all in nbs/ if none is given')
    parser.add_argument('--save', action='store_true', help='write the outputs into the notebooks')
    args = parser.parse_args()
    for path in args.paths or sorted((Path(__file__).parent.parent/'nbs').glob('*.ipynb')): execute(path, args.save)
