"Execute the notebooks, each in a temporary folder, without cells tagged `download`. --save keeps the outputs, without execution counts"
import argparse
import base64
import io
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

# Number of colours, enough for lines, strips and their smoothed edges; a picture becomes a fifth as large. Colours differ by at least
# `APART` in red, green or blue, as Pillow doesn't tell nearer ones apart
COLORS,APART = 48,8
# Dots per inch. matplotlib's default is 100; at 80 a picture is as wide as a page
DPI = 80


def palette(picture):
    "Return the most frequent colours as a flat list of red, green and blue"
    chosen = []
    for _,color in sorted(picture.getcolors(picture.width*picture.height), reverse=True):
        if all(max(abs(a-b) for a,b in zip(color, o)) >= APART for o in chosen): chosen.append(color)
        if len(chosen) == COLORS: break
    return [v for color in chosen + [chosen[0]]*(256-len(chosen)) for v in color]

def small(png):
    "Reduce the colours of a picture in base64"
    picture,colors,file = Image.open(io.BytesIO(base64.b64decode(png))).convert('RGB'),Image.new('P', (1, 1)),io.BytesIO()
    colors.putpalette(palette(picture))
    picture.quantize(palette=colors, dither=Image.Dither.NONE).save(file, 'PNG', optimize=True)
    return base64.b64encode(file.getvalue()).decode()

def is_shown(output):
    "Tell whether an output shows anything; a progress bar that has ended leaves an empty output"
    return output.get('data', {}).get('text/html') != ''

def slim(output):
    "Remove what a page doesn't show (the execution count, the Markdown form of a table), and make a picture small"
    data = output.get('data', {})
    if 'image/png' in data: data['image/png'] = small(data['image/png'])
    if 'text/html' in data: data.pop('text/markdown', None)
    if output.output_type == 'execute_result': output.execution_count = None
    else: output.pop('execution_count', None)
    return output

def execute(path, save):
    "Execute a notebook, and `save` its outputs if asked to"
    nb = nbformat.read(path, as_version=4)
    skipped = [c for c in nb.cells if 'download' in c.metadata.get('tags', [])]
    run = nbformat.from_dict({**nb, 'cells': [c for c in nb.cells if c not in skipped]})
    with tempfile.TemporaryDirectory() as top:
        cwd,results = Path(top)/'nbs',path.resolve().parents[1]/'benchmarks/results'
        cwd.mkdir()
        (cwd/'matplotlibrc').write_text(f'figure.dpi: {DPI}\n')
        # Notebooks read the results by their relative path in the repository
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
    parser.add_argument('paths', nargs='*', type=Path, help='notebooks to execute (default: all in nbs/)')
    parser.add_argument('--save', action='store_true', help='write the outputs into the notebooks')
    args = parser.parse_args()
    for path in args.paths or sorted((Path(__file__).parent.parent/'nbs').glob('*.ipynb')): execute(path, args.save)
