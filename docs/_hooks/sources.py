"A hook of MkDocs: pages whose sources lie outside of docs/, with their links"
import posixpath
import re
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url

TOP = Path(__file__).resolve().parents[2]
# Where a page is on the site, by its source in the repository
PAGES = {'benchmarks/README.md': 'evidence.md', 'CHANGELOG.md': 'changelog.md', 'CONTRIBUTING.md': 'contributing.md'}
LINK = re.compile(r'(?<=\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))')

def site_page(path):
    "Return the page of a file of the repository, relative to docs/, or None if it has none"
    if path in PAGES: return PAGES[path]
    if path.startswith('docs/'): return path.removeprefix('docs/')
    return path if path.startswith('nbs/') and path.endswith(('.ipynb', '.png')) else None

def with_links(text, source, repo_url):
    "Let the links of a page point to pages of the site, or to the repository where there is none"
    page = site_page(source)
    def _target(m):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), m[1]))
        if not (TOP/path).exists(): raise ValueError(f'{source} links to {m[1]}: expected a file of the repository')
        if to := site_page(path): return posixpath.relpath(to, posixpath.dirname(page) or '.') + (m[2] or '')
        return f'{repo_url}/blob/main/{path}{m[2] or ""}'
    return LINK.sub(_target, text)

# Before mkdocs-jupyter looks for notebooks
@event_priority(100)
def on_files(files, config):
    for source,page in PAGES.items():
        text = with_links((TOP/source).read_text(encoding='utf-8'), source, config.repo_url)
        files.append(File.generated(config, page, content=text))
    for nb in sorted((TOP/'nbs').glob('*.ipynb')):
        files.append(File(f'nbs/{nb.name}', str(TOP), config.site_dir, config.use_directory_urls))
    for image in sorted((TOP/'nbs/images').glob('*.png')):
        files.append(File(f'nbs/images/{image.name}', str(TOP), config.site_dir, config.use_directory_urls))
    return files

# What the theme has for search in a folder lies on a server of others; docs/folder-search.js takes its place
SHIM = '<script src="https://unpkg.com/iframe-worker/shim"></script>'

def on_post_page(output, page, config):
    return output.replace(SHIM, f'<script src="{get_relative_url("folder-search.js", page.url)}"></script>')

def on_post_template(output_content, template_name, config): return output_content.replace(SHIM, '')
