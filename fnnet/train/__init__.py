"""Training: make_step, make_epoch (one compiled, shuffled scan), epochs (a generator), fit. Networks and optimizers are used
only through their protocols, init/apply and init/update."""

from fnnet import hints as _hints
from fnnet.train import augment, distributed, sharding
from fnnet.train.choose import RangeTest, SizeCurve, range_test, size_curve
from fnnet.train.epoch import Epoch, make_epoch
from fnnet.train.evaluate import Evaluate, make_evaluate
from fnnet.train.fit import Fit, epochs, fit
from fnnet.train.loading import Prefetched, prefetch
from fnnet.train.metrics import Mean, OverAll
from fnnet.train.nonfinite import explain
from fnnet.train.objective import Objective, supervised
from fnnet.train.plan import MemoryPlan, memory_plan
from fnnet.train.scores import auc, f1, precision, r2, recall, top_k
from fnnet.train.step import Step, TrainState, init, make_step
from fnnet.train.sweep import Sweep, sweep
from fnnet.train.watch import jsonl, on_step, tensorboard

__all__ = ["Epoch", "Evaluate", "Fit", "Mean", "MemoryPlan", "Objective", "OverAll", "Prefetched", "RangeTest", "SizeCurve", "Step",
           "Sweep", "TrainState", "auc", "augment", "distributed", "epochs", "explain", "f1", "fit", "init", "jsonl", "make_epoch",
           "make_evaluate", "make_step", "memory_plan", "on_step", "precision", "prefetch", "r2", "range_test", "recall", "sharding",
           "size_curve", "supervised", "sweep", "tensorboard", "top_k"]

_hints.give(__name__)
