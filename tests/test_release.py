"What a release consists of agrees: version, changelog, citation, extras, and the workflows with the scripts that `.ci/run` runs"
import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from fastai_discrim import __version__

TOP = Path(__file__).resolve().parents[1]
CHANGELOG = (TOP/'CHANGELOG.md').read_text(encoding='utf-8')
WORKFLOWS = {p.name: yaml.safe_load(p.read_text()) for p in sorted((TOP/'.github/workflows').glob('*.yml'))}
# https://keepachangelog.com/en/1.1.0/
KINDS = {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}

def release(*args): return subprocess.run([TOP/'.ci/release', *args], capture_output=True, text=True)

def test_the_version_is_ready(): assert release(f'v{__version__}').returncode == 0 and 'ready' in release().stdout

@pytest.mark.parametrize('tag', ['v9.9.9', __version__])
def test_another_tag_is_refused(tag):
    res = release(tag)
    assert res.returncode == 1 and f'the tag is {tag} and the package is {__version__}' in res.stderr

def test_changelog_has_the_form_of_keep_a_changelog():
    versions = re.findall(r'^## \[(.*?)\]', CHANGELOG, re.MULTILINE)
    assert versions[:2] == ['Unreleased', __version__] and len(set(versions)) == len(versions)
    assert set(re.findall(r'^### (.*)$', CHANGELOG, re.MULTILINE)) <= KINDS
    # Each version is a link
    for v in versions: assert re.search(rf'^\[{re.escape(v)}\]: https://', CHANGELOG, re.MULTILINE)

def test_citation_has_the_package_and_the_paper():
    cff = yaml.safe_load((TOP/'CITATION.cff').read_text(encoding='utf-8'))
    assert {'cff-version', 'message', 'title', 'authors', 'version', 'date-released', 'license', 'repository-code'} <= set(cff)
    paper, = cff['references']
    assert [o['family-names'] for o in paper['authors']] == ['Howard', 'Ruder'] and paper['url'].endswith('1801.06146')

def runs():
    "List the shell lines of all workflows"
    return [step['run'] for w in WORKFLOWS.values() for job in w['jobs'].values() for step in job['steps'] if 'run' in step]

def test_steps_of_workflows_are_scripts_that_ci_runs_too():
    ci = (TOP/'.ci/run').read_text()
    assert len(runs()) > 4
    for line in runs():
        script = line.split()[0]
        if script == 'pip': continue
        assert script.startswith('.ci/') and os.access(TOP/script, os.X_OK), line
        assert script == '.ci/run' or re.search(rf'^{re.escape(script)}\b', ci, re.MULTILINE), f'{script} is not in .ci/run'

def test_workflows_test_each_python_of_the_metadata():
    config = configparser.ConfigParser()
    config.read(TOP/'setup.cfg', encoding='utf-8')
    pythons = re.findall(r'Python :: (3\.\d+)', config['metadata']['classifiers'])
    assert WORKFLOWS['ci.yml']['jobs']['tests']['strategy']['matrix']['python'] == pythons
    extras = set(config['options.extras_require'])
    assert set(re.findall(r'^\| `(\w+)` \|', (TOP/'docs/getting-started.md').read_text(), re.MULTILINE)) == extras
