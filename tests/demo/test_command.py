"The command line of the demo"
import runpy
import sys

import pytest

from fastai_discrim.demo import command, transformer_demo, ulmfit_demo


@pytest.fixture
def runs(monkeypatch, tmp_path):
    "What would run, with which arguments"
    seen = []
    for module in (transformer_demo, ulmfit_demo): monkeypatch.setattr(module, 'run', lambda args, m=module: seen.append((m, args)))
    monkeypatch.chdir(tmp_path)
    def _main(*args):
        monkeypatch.setattr(sys, 'argv', ['fastai_discrim', *args])
        command.main()
        return seen[-1]
    return _main

def test_a_transformer_unless_the_paper_is_asked_for(runs, tmp_path):
    module,args = runs()
    assert (module, args.model, args.epochs, args.labels) == (transformer_demo, None, None, [60, 300])
    assert (tmp_path/'fastai_discrim_demo'/'models').is_dir()
    module,args = runs('--model', 'roberta-base', '--labels', '50', '--epochs', '3', '--out', 'here')
    assert (module, args.model, args.epochs, args.labels) == (transformer_demo, 'roberta-base', 3, [50]) and (tmp_path/'here').is_dir()
    module,args = runs('--model', 'awd_lstm')
    assert (module, args.epochs) == (ulmfit_demo, 6)

@pytest.mark.parametrize('args,match', [(['--epochs', '1'], '--epochs 1: expected at least 2'),
                                        (['--labels', '5'], '--labels 5: expected at least 40')])
def test_too_little(runs, capsys, args, match):
    with pytest.raises(SystemExit) as e: runs(*args)
    assert e.value.code == 2 and match in capsys.readouterr().err

def test_python_m_runs_it(monkeypatch):
    calls = []
    monkeypatch.setattr(command, 'main', lambda: calls.append(1))
    runpy.run_module('fastai_discrim', run_name='__main__')
    assert calls == [1]
    # Importing it does not
    runpy.run_module('fastai_discrim.__main__', run_name='imported')
    assert calls == [1]
