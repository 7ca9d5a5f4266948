"Links of README.md and the documentation lead somewhere, and there is one address of the repository and one of the site"
import configparser
import re

import pytest
from pages import PAGES, TOP

FILES = [*PAGES, TOP/'CONTRIBUTING.md', TOP/'CHANGELOG.md', TOP/'benchmarks/README.md']
CONFIG = configparser.ConfigParser()
CONFIG.read(TOP/'setup.cfg', encoding='utf-8')
URLS = dict(o.split(' = ') for o in CONFIG['metadata']['project_urls'].strip().splitlines())
REPO,SITE = CONFIG['metadata']['url'],URLS['Documentation']
RAW = REPO.replace('github.com', 'raw.githubusercontent.com') + '/main/'
LINK = re.compile(r'\]\(([^)\s]+)\)')
# Where a page of the site lies in the repository, if not in docs/
SOURCES = {'evidence.md': 'benchmarks/README.md', 'changelog.md': 'CHANGELOG.md', 'contributing.md': 'CONTRIBUTING.md'}

def name_of(p): return str(p.relative_to(TOP))

def links(p): return LINK.findall(p.read_text(encoding='utf-8'))

def anchors(path):
    "Anchors of a page: headings as GitHub and MkDocs make them, and those that it names"
    text = re.sub(r'^```.*?^```$', '', path.read_text(encoding='utf-8'), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r'^#+ (.*?)(?: \{ #\S+ \})?$', text, re.MULTILINE)
    own = re.findall(r'\{ #(\S+) \}', text) + re.findall(r'^::: (\S+)$', text, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', t.lower()).strip().replace(' ', '-') for t in titles} | set(own)

def site_source(page):
    "Return the file that a page of the site is made from"
    if page.startswith('nbs/'): return TOP/page
    return TOP/SOURCES[page] if page in SOURCES else TOP/'docs'/page

def check(path, anchor, where):
    assert path.exists(), where
    if anchor and path.suffix == '.md': assert anchor in anchors(path), where

@pytest.mark.parametrize('path', FILES, ids=name_of)
def test_links_lead_somewhere(path):
    for link in links(path):
        target,_,anchor = link.partition('#')
        where = f'{name_of(path)}: {link}'
        if link.startswith(SITE):
            page = target.removeprefix(SITE) or 'index.html'
            check(site_source(page.replace('.html', '.ipynb' if page.startswith('nbs/') else '.md')), anchor, where)
        elif link.startswith(RAW): check(TOP/link.removeprefix(RAW), '', where)
        elif link.startswith(f'{REPO}/blob/main/'): check(TOP/target.removeprefix(f'{REPO}/blob/main/'), anchor, where)
        elif link.startswith(f'{REPO}#'): check(TOP/'README.md', anchor, where)
        elif link.startswith(f'{REPO}/actions/workflows/'):
            check(TOP/'.github/workflows'/target.removesuffix('/badge.svg').split('/')[-1], '', where)
        elif not link.startswith('http'):
            lies = path.parent/target if target else path
            # A page of the site links only to pages of the site; the sources of some of these are elsewhere, as `from_docs` knows
            if path.is_relative_to(TOP/'docs'): assert lies.resolve().is_relative_to(TOP/'docs'), where
            if not lies.exists() and path.is_relative_to(TOP/'docs'): lies = from_docs(path, target)
            check(lies, anchor, where)

def from_docs(path, target):
    "Return the source of a page of the site whose source lies outside of docs/"
    page = (path.parent/target).resolve().relative_to(TOP/'docs')
    return site_source(str(page))

def test_readme_links_are_absolute():
    "PyPI shows README.md, and nothing beside it"
    assert [o for o in links(TOP/'README.md') if not o.startswith('https://')] == []

def test_addresses_agree():
    assert REPO.startswith('https://github.com/') and SITE.endswith('/')
    site = (TOP/'mkdocs.yml').read_text()
    assert f'repo_url: {REPO}\n' in site and f'site_url: {SITE}\n' in site
    assert {re.sub(r'#.*', '', o) for o in URLS.values()} >= {SITE, f'{REPO}/issues'}
    hosted,owner = re.compile(r'https://(?:raw\.githubusercontent|github)\.com/(\S+?)/fastai_discrim'),REPO.split('/')[3]
    for p in [*FILES, TOP/'CITATION.cff']: assert set(hosted.findall(p.read_text(encoding='utf-8'))) <= {owner}, p

def test_readme_is_short(): assert len((TOP/'README.md').read_text().splitlines()) <= 150
