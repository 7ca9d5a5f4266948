"The driver of benchmarks/real_models.py on tiny fakes: its arithmetic, what it does not run again, and what the arms of a seed share"
import json
import math
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from torch import nn

pytest.importorskip('transformers')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'benchmarks'))

import bag_of_words
import real_models as driver
import real_models_data as data
import real_models_report as report
import sentences
import text_data

from fastai_discrim.all import layerwise_split

CELL = 'minilm_trec6_100'
RATES = ('2e-5', '5e-5', '1e-4', '2e-4', '5e-4')

def run_of(arm, seed, error, valid_loss=1., cell=CELL, **kwargs):
    return dict(cell=cell, arm=arm, seed=seed, labelled=100, valid_loss=valid_loss, test_error=error, chance=0.7, **kwargs)

def write(folder, *runs):
    for r in runs:
        with (folder/f'{r["cell"]}.jsonl').open('a') as f: f.write(json.dumps(r) + '\n')

def row(text, arm, at=0):
    "Cells of the row of `arm` in the table number `at`"
    return [r.strip() for r in [o for o in text.splitlines() if o.startswith(f'| {arm} |')][at].split('|')[2:-1]]

def t_interval(xs):
    "Mean and half of the 95 % interval of three values: Student's t with two degrees of freedom is 4.3027"
    assert len(xs) == 3
    return statistics.mean(xs), 4.302652730*statistics.stdev(xs)/math.sqrt(3)

def test_tables_equal_an_independent_restatement(tmp_path):
    a,b = [0.30, 0.20, 0.25],[0.20, 0.19, 0.12]
    write(tmp_path, *(run_of('fine_tune', s, e) for s,e in enumerate(a)), *(run_of('ulmfit', s, e) for s,e in enumerate(b)))
    text = report.report(tmp_path)
    mean,half = t_interval([100*e for e in b])
    assert row(text, '`fit_ulmfit(n)`') == [f'{mean:.1f} ± {half:.1f} (3 seeds)']
    mean,half = t_interval([100*(y-x) for x,y in zip(a, b)])
    assert row(text, '`fit_ulmfit(n)`', 1) == [f'{mean:+.1f} ± {half:.1f} (3 seeds)']
    assert row(text, '`fit_ulmfit(n)`', 2) == [f'{100*(sum(b)/sum(a)-1):+.0f} %'] == ['-32 %']

def test_the_best_rate_is_chosen_by_validation_loss_seed_by_seed(tmp_path):
    loss = {'2e-5': (3, 3), '5e-5': (1, 3), '1e-4': (2, 0.5), '2e-4': (math.nan, 2), '5e-4': (9, 9)}
    # The lowest test error belongs to a rate that does not have the lowest validation loss
    error = {'2e-5': (.1, .1), '5e-5': (.3, .9), '1e-4': (.9, .4), '2e-4': (.0, .9), '5e-4': (.9, .9)}
    write(tmp_path, *(run_of(f'adamw_{r}', s, error[r][s], loss[r][s]) for r in RATES for s in (0, 1)))
    best = report.read(tmp_path)[CELL]['adamw_best']
    assert {s: (r['arm'], r['test_error']) for s,r in best.items()} == {0: ('adamw_5e-5', .3), 1: ('adamw_1e-4', .4)}
    # Until all rates have a seed, it has no best one
    assert set(report.best_of({f'adamw_{r}': {s: run_of(r, s, .1) for s in (range(2) if r == '2e-5' else (0,))} for r in RATES})) == {0}
    assert report.best_of({f'adamw_{r}': {0: run_of(r, 0, .1)} for r in RATES[1:]}) == {}

def test_what_collapsed_counts_only_where_another_arm_has_learnt():
    def _arms(ours, other):
        return dict(ulmfit={s: run_of('ulmfit', s, e) for s,e in enumerate(ours)}, fine_tune={0: run_of('fine_tune', 0, other)})
    # Chance level is 0.7, so the limit is 0.6
    assert report.collapsed('ulmfit', _arms([.59, .61, .7], .3)) == 2
    assert report.collapsed('ulmfit', _arms([.59, .61, .7], .65)) == 0

def test_targets(tmp_path):
    other = 'minilm_trec6_300'
    write(tmp_path, *(run_of('fine_tune', s, .30 + .01*s, cell=c) for c in (CELL, other) for s in range(3)),
          *(run_of('one_cycle', s, .20 + .01*s, cell=c) for c in (CELL, other) for s in range(3)),
          # Better than both by more than chance, and worse than both
          *(run_of('ulmfit', s, .10 + .01*s + .001*(s == 1)) for s in range(3)),
          *(run_of('ulmfit', s, .65 + .01*s + .001*(s == 1), cell=other) for s in range(3)),
          *(run_of('floor', s, .40, cell=c) for c in (CELL, other) for s in range(3)))
    table = report.targets(report.read(tmp_path))
    cells = [o.strip() for o in next(o for o in table.splitlines() if '`fit_ulmfit(n)`' in o).split('|')[2:-1]]
    relative = [100*(m/.31-1) for m in (.11 + .001/3, .66 + .001/3)]
    assert cells == ['`fit_ulmfit(n)`', '2', '3', '1', '1', f'{sum(relative)/2:+.0f} %', '1', '', '1 of 2']
    last = [o.strip() for o in table.splitlines()[-1].split('|')[2:-1]]
    assert last == ['the best arm of each cell, by test error', '2', '', '', '', f'{100*((.11 + .001/3 + .21)/.62 - 1):+.0f} %', '', '', '']

def test_the_best_arm_has_all_seeds_and_is_no_bag_of_words(tmp_path):
    write(tmp_path, *(run_of('fine_tune', s, .4) for s in range(3)), *(run_of('one_cycle', s, .3) for s in range(3)),
          *(run_of('ulmfit', s, .2) for s in range(2)), *(run_of('floor', s, .1) for s in range(3)))
    assert report.in_hindsight(report.read(tmp_path), 'minilm') == [pytest.approx(-25)]
    assert report.in_hindsight(report.read(tmp_path), 'awd') == []

def test_a_line_that_was_cut_short_is_left_out(tmp_path, capsys):
    write(tmp_path, run_of('fine_tune', 0, .1))
    path = tmp_path/f'{CELL}.jsonl'
    path.write_text(path.read_text() + '{"cell": "mini')
    assert [r['seed'] for r in report.read_lines(path)] == [0]
    assert 'not whole' in capsys.readouterr().out

def test_plot(tmp_path):
    cells,arms = (CELL, 'minilm_trec6_300'),('floor', 'fine_tune', 'ulmfit')
    write(tmp_path, *(run_of(arm, s, .3, cell=c) for c in cells for arm in arms for s in (0, 1)))
    report.plot(tmp_path, tmp_path/'figure.png')
    assert (tmp_path/'figure.png').stat().st_size > 1000
    with pytest.raises(SystemExit, match='no model has results'): report.plot(tmp_path/'none', tmp_path/'other.png')

# The bag of words

@pytest.fixture
def three_words(monkeypatch):
    "A cell of texts of which the network reads three words, though the last one has the label"
    texts = pd.DataFrame(dict(label=['a', 'b']*20, text=[f'One two {w} {w} more {y}' for w,y in zip('cdefg'*8, ['yes', 'no']*20)]))
    monkeypatch.setitem(data.TEXTS, 'words', lambda: (texts[:30], texts[30:]))
    monkeypatch.setitem(text_data.KEPT, 'words', slice(3))
    monkeypatch.setitem(bag_of_words.CELLS, 'words', data.Cell('awd', 'words', None, 1, 8))
    for f in (data.texts, bag_of_words.as_read): f.cache_clear()
    yield texts
    for f in (data.texts, bag_of_words.as_read): f.cache_clear()

def test_a_bag_of_words_reads_no_more_than_the_network(three_words, tmp_path):
    pytest.importorskip('sklearn')
    train,test = bag_of_words.as_read(data.CELLS['words'], tmp_path)
    assert list(train.label) == list(three_words.label[:30]) and list(test.label) == list(three_words.label[30:])
    # The tokens are `xxbos`, `xxmaj` and the first word
    assert set(train.text) == {'one'}
    assert bag_of_words.floor('words', 0, tmp_path, whole=True) == (0, 30)
    error,n = bag_of_words.floor('words', 0, tmp_path, whole=False)
    assert (error, n) == (.5, 30)

def test_sentences_are_in_one_of_two_parts(monkeypatch, tmp_path):
    folder = tmp_path/'data/sentences'
    folder.mkdir(parents=True)
    lines = [f'{i % 2} the sentence {i}' for i in range(2000)]
    (folder/'subj.all').write_text('\n'.join([*lines, lines[7], '1 ', '']))
    monkeypatch.setattr(sentences, 'fastai_cfg', lambda: SimpleNamespace(path=lambda name: tmp_path/name))
    train,test = sentences.read('subj')
    assert len(test) == 1500 and len(train) == 500 and sorted([*train.text, *test.text]) == sorted(o[2:] for o in lines)
    assert all(label == str(int(text.split()[-1]) % 2) for label,text in zip(test.label, test.text))

# What follows trains

@pytest.fixture
def tiny(monkeypatch, tmp_path):
    "A cell of points in two classes, its arms, and where results go"
    g = torch.Generator().manual_seed(0)
    x = torch.randn(80, 4, generator=g)
    items = list(zip(x, (x.sum(1) > 0).long()))
    def _learner(name, seed, args, pretrained=True):
        data.set_seed(seed)
        train,valid = data.draw(60, 40, seed)
        dls = data.loaders([items[i] for i in train], [items[i] for i in valid], items[60:], 8)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        return Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, splitter=layerwise_split, path=tmp_path)
    monkeypatch.setattr(driver, 'learner', _learner)
    monkeypatch.setitem(driver.ARMS, 'floor', driver.ARMS['floor']._replace(fit=lambda name, seed, cache: (.5, 40)))
    monkeypatch.setattr(driver, 'CELLS', {CELL: data.Cell('minilm', 'trec6', 40, 2, 8)})
    arms = ['floor', 'fine_tune', 'one_cycle_found', 'adamw_5e-4']
    return SimpleNamespace(out=tmp_path/'results', arms=arms, seeds=2, first_seed=0, cache=tmp_path, weights=None, how=dict(commit='x'))

def test_a_run_says_what_was_found_and_is_not_run_again(tiny, monkeypatch):
    driver.run_cell(CELL, tiny)
    path = tiny.out/f'{CELL}.jsonl'
    runs = report.read_lines(path)
    assert [(r['arm'], r['seed']) for r in runs] == [(arm, s) for s in (0, 1) for arm in tiny.arms]
    labels = [y.item() for _,y in driver.learner(CELL, 0, tiny).dls.loaders[2].dataset]
    for r in runs:
        assert r['commit'] == 'x' and r['labelled'] == 40
        if r['arm'] == 'floor': continue
        # The test error is of 20 items, the validation error of 8
        for part,n in dict(test=20, valid=8).items(): assert r[f'{part}_error']*n == pytest.approx(round(r[f'{part}_error']*n))
        assert r['chance'] == pytest.approx(1 - max(labels.count(0), labels.count(1))/20) and not r['diverged']
    def _fail(*args): raise AssertionError('a run that is there was run again')
    monkeypatch.setattr(driver, 'trained', _fail)
    before = path.read_text()
    driver.run_cell(CELL, tiny)
    assert path.read_text() == before
    # One that is new is run
    tiny.seeds = 3
    with pytest.raises(AssertionError, match='run again'): driver.run_cell(CELL, tiny)

def test_a_run_gives_the_same_again(tiny):
    first,second = (driver.trained(CELL, 'one_cycle_found', 0, tiny) for _ in range(2))
    assert {**first, 'seconds': 0} == {**second, 'seconds': 0}

def test_arms_share_the_weights_and_batches_of_a_seed(tiny, monkeypatch):
    seen = {}
    def _spy(name, fit):
        def _fit(learn, n):
            seen[name] = [p.detach().clone() for p in learn.model.parameters()],[learn.dls.train.dataset, learn.dls.valid.dataset]
            return fit(learn, n)
        return driver.Arm(_fit, ['minilm'])
    monkeypatch.setattr(driver, 'ARMS', {k: _spy(k, driver.ARMS[k].fit) for k in tiny.arms[1:]})
    for arm in tiny.arms[1:]: driver.trained(CELL, arm, 0, tiny)
    weights,sets = zip(*seen.values())
    for w in weights[1:]: assert all(map(torch.equal, w, weights[0]))
    for s in sets[1:]: assert all(torch.equal(x, y) for a,b in zip(s, sets[0]) for (x,_),(y,_) in zip(a, b, strict=True))

def test_lr_find_leaves_the_order_of_the_batches(tiny):
    def _order(find):
        learn = driver.learner(CELL, 0, tiny)
        data.set_seed(0)
        with learn.no_bar(),learn.no_logging():
            if find: driver.valley(learn)
        return torch.cat([b[0] for b in learn.dls.train]),torch.rand(3)
    assert all(map(torch.equal, _order(False), _order(True)))

def test_adamw_warms_up_over_a_tenth_and_falls_to_zero(tiny):
    learn = driver.learner(CELL, 0, tiny)
    with learn.no_bar(),learn.no_logging(): driver.adamw(learn, 5, 1e-3)
    lrs = learn.recorder.lrs
    assert len(lrs) == 20 and isinstance(learn.opt.opt, torch.optim.AdamW)
    for i,lr in enumerate(lrs): assert lr == pytest.approx(1e-3*(i/20/.1 if i/20 < .1 else (1-i/20)/.9), abs=1e-9)
    assert {g['weight_decay'] for g in learn.opt.opt.param_groups} == {0.}

def test_a_run_that_diverges_counts_as_its_error(tiny, monkeypatch):
    def _nan(learn, n):
        learn.fit(1, 1e-3)
        with torch.no_grad(): learn.model[-1].weight.fill_(math.nan)
    monkeypatch.setattr(driver, 'ARMS', dict(broken=driver.Arm(_nan, ['minilm'])))
    r = driver.trained(CELL, 'broken', 0, tiny)
    assert r['diverged'] and 0 < r['test_error'] < 1
    json.loads(json.dumps(r))

def test_images_are_drawn_class_by_class():
    labels = [i % 3 for i in range(60)]
    train,valid = data.draw_images(labels, 10, 1)
    assert [sorted(labels[i] for i in o) for o in (train, valid)] == [[0]*8 + [1]*8 + [2]*8, [0]*2 + [1]*2 + [2]*2]
    assert not set(train) & set(valid) and data.draw_images(labels, 10, 1) == (train, valid) != data.draw_images(labels, 10, 2)

def test_padded_ids_are_masked():
    seen = {}
    class Model(nn.Module):
        def forward(self, ids, attention_mask):
            seen['mask'] = attention_mask
            return SimpleNamespace(logits=ids)
    ids,labels = data._padded([(torch.tensor([5, 6, 7]), torch.tensor(0)), (torch.tensor([8]), torch.tensor(1))])
    data.Logits(Model())(ids)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]] and seen['mask'].tolist() == [[1, 1, 1], [1, 0, 0]] and labels.tolist() == [0, 1]

def test_weights_of_another_version_are_refused(tmp_path):
    (tmp_path/'w').write_bytes(b'x')
    with pytest.raises(ValueError, match='has the sha256 2d711642'): data.checked(tmp_path/'w', data.MINILM)
