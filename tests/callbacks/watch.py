"Callbacks that watch which groups train and which weights move"

from conftest import in_groups, moved, trains, weights
from fastai.callback.core import Callback


class Watch(Callback):
    "Watch which groups may train, and which weights moved, in each epoch"
    order = 100
    def before_fit(self): self.opened,self.moved = [],[]
    def before_train(self): self.before = weights(self.learn); self.opened.append(tuple(i for i,t in enumerate(trains(self.learn)) if t))
    def after_train(self): self.moved.append(moved(self.learn, self.before))

class Steps(Callback):
    "Watch which groups may train, and which weights moved, in each step, over all fits"
    run_valid,order = False,100
    def __init__(self): self.opened,self.moved = [],[]
    def before_fit(self):
        # Ignore a validation in the middle of a fit
        if not self.learn.lock.locked(): self.before = weights(self.learn)
    def before_batch(self): self.opened.append(tuple(i for i,t in enumerate(trains(self.learn)) if t))
    def after_batch(self):
        self.moved.append(moved(self.learn, self.before))
        self.before = weights(self.learn)

class Opened(Callback):
    "Watch which groups may train in each epoch, over all fits"
    order = 101
    def __init__(self): self.seen = []
    def before_train(self): self.seen.append(tuple(i for i,t in enumerate(trains(self.learn)) if t))

def watched(learn, cb, n_epoch=None, fit=None, cbs=(), **kw):
    "Fit under strategy `cb`, by default for two epochs more than there are groups, and return what moved"
    watch = Watch()
    n_epoch = n_epoch or len(learn.splitter(learn.model)) + 2
    with learn.no_bar(): (fit or learn.fit_one_cycle)(n_epoch, cbs=[cb, watch, *cbs], **kw)
    return watch

# Groups by epoch of a learner of three
def gradual(n_groups, n_epoch): return [tuple(range(max(n_groups-1-e, 0), n_groups)) for e in range(n_epoch)]
def chain(n_groups, n_epoch):
    every = tuple(range(n_groups))
    return [(n_groups-1,), *((i,) for i in range(n_groups-1)), *[every]*n_epoch][:n_epoch]

def names(learn, by_time): return [in_groups(learn, groups) for groups in by_time]
