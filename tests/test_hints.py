"""The errors of a module for a name that it does not have."""

import copy
import inspect
import operator
import pickle
import subprocess
import sys
import traceback

import pytest

import fnnet
from fnnet import hints, layers, ops, optim

ROOMS = [fnnet, *(getattr(fnnet, room) for room in hints.ROOMS)]
SAID = {
    "layers.Linear": "module 'fnnet.layers' has no attribute 'Linear': write layers.Dense",
    "layers.ReLU": "write ops.relu",
    "layers.Conv2d": "write layers.Conv",
    "layers.Conv2D": "write layers.Conv",
    "layers.BatchNorm2d": "write layers.BatchNorm",
    "layers.Softmax": "write ops.softmax",
    "layers.Sequential": "write layers.Serial",
    "layers.dense": "write layers.Dense",
    "layers.SGD": "write optim.",
    "layers.CrossEntropyLoss": "write ops.softmax_cross_entropy",
    "layers.Dens": "did you mean layers.Dense?",
    "ops.mse": "write ops.squared_error",
    "ops.NLLLoss": "write ops.nll",
    "ops.CategoricalCrossentropy": "write ops.softmax_cross_entropy, which takes logits",
    "ops.Hardshrink": "write ops.hard_shrink",
    "train.roc_auc_score": "write train.auc",
    "ops.Dense": "write ops.dense",
    "ops.LayerNorm": "write ops.layer_norm",
    "ops.rleu": "did you mean ops.relu?",
    "ops.sofmax": "did you mean ops.softmax?",
    "optim.SGD": "write optim.sgd",
    "optim.Adam": "write optim.adam",
    "optim.AdamW": "write optim.adamw",
    "optim.CosineAnnealingLR": "write optim.cosine",
    "optim.cosine_decay_schedule": "write optim.cosine",
    "optim.clip_grad_norm_": "write optim.clip_by_global_norm",
    "optim.adma": "did you mean optim.adam?",
    "train.Trainer": "write train.fit",
    "train.train_step": "write train.make_step",
    "data.DataLoader": "write data.batches",
    "data.load_digits": "write data.digits",
    "verify.check_grads": "write fnnet.gradient_check",
    "diagnostics.confusion_matrix": "write diagnostics.confusion",
    "Dense": "module 'fnnet' has no attribute 'Dense': write layers.Dense",
    "relu": "write ops.relu",
    "fit": "write train.fit",
    "custom_vjp": "write fnnet.rule",
    "grad_check": "write fnnet.gradient_check",
    "autodif": "did you mean fnnet.autodiff?",
}


@pytest.mark.parametrize("path, said", SAID.items(), ids=SAID)
def test_an_unknown_name_gets_a_hint(path, said):
    with pytest.raises(AttributeError) as caught:
        operator.attrgetter(path)(fnnet)
    assert said in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value)).lower()
    assert shown.count("did you mean") + shown.count("write ") == 1         # Python does not add its own suggestion


@pytest.mark.parametrize("target", hints.ELSEWHERE)
def test_each_target_exists(target):
    path, _, _ = target.partition(",")
    operator.attrgetter(path)(fnnet)
    for name in hints.ELSEWHERE[target].split():
        assert name == hints.plain(name)


def test_each_third_party_name_has_one_target():
    names = [name for names in hints.ELSEWHERE.values() for name in names.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", hints.SETTINGS)
def test_each_setting_that_is_suggested_exists(name):
    known = [parameter for thing in [*ops.rules(), *(getattr(layers, name) for name in layers.__all__),
                                     *(getattr(optim, name) for name in optim.__all__)] if callable(thing)
             for parameter in inspect.signature(thing).parameters]
    assert name in known


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_modules_still_behave_as_modules(room):
    for name in ("Linear", "xyzzy", "__wrapped__", "_private", "__path_of_something__", "__copy__"):
        assert not hasattr(room, name) and getattr(room, name, 7) == 7
    assert set(room.__all__) <= set(dir(room)) and "Linear" not in dir(room)
    with pytest.raises(AttributeError, match="has no attribute '__wrapped__'$"):
        operator.attrgetter("__wrapped__")(room)
    assert sys.modules[room.__name__] is room
    names = {}
    exec(f"from {room.__name__} import *", names)
    assert set(names) - {"__builtins__"} == set(room.__all__)


def test_contents_of_modules_are_still_pickled_and_copied():
    net = layers.Serial(layers.Dense(3), layers.Dropout(0.5))
    assert pickle.loads(pickle.dumps(net)) == net and copy.deepcopy(net) == net
    assert pickle.loads(pickle.dumps(ops.weights_of)) is ops.weights_of


def test_importing_an_unknown_name_is_an_import_error():
    with pytest.raises(ImportError, match="cannot import name 'Linear'"):
        from fnnet.layers import Linear  # noqa: F401
    from fnnet import cli
    assert cli.main


def test_import_loads_little_more_than_jax():
    """Modules are loaded when they are first used, be it in a function that is being traced; difflib with the first hint, which knows
    names of modules not yet loaded."""
    code = ("import sys, jax; before = set(sys.modules); import fnnet; print(*set(sys.modules) - before, sep='\\n')\n"
            "load = lambda x: [getattr(fnnet, room) for room in fnnet.hints.ROOMS] and x\n"
            "with jax.checking_leaks(): jax.jit(load)(2.0)\n"
            "try: fnnet.Conv2d\nexcept AttributeError as error: print('said', error)\n"
            "assert fnnet.summary is fnnet.diagnostics.summary and 'summary' in vars(fnnet)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, _, said = done.stdout.partition("said")
    loaded = set(names.split())
    assert "fnnet.hints" in loaded and len(loaded) <= 12
    assert not loaded & {"difflib", "fnnet.cli", *(f"fnnet.{room}" for room in hints.ROOMS)}
    assert "write layers.Conv" in said
