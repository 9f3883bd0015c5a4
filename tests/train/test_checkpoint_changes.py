"""Resuming with other settings, unusable paths, and two training runs in one folder."""

import functools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from fnnet import layers, ops, optim, train
from fnnet.train.checkpoint.every import Every
from fnnet.train.checkpoint.fingerprint import changes, fingerprint
from fnnet.train.checkpoint.folder import Folder

X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
DATA = (X, Y)


def halved(prediction, y):
    return ops.softmax_cross_entropy(prediction, y) * 0.5


@functools.cache
def training(rate=0.1, seed=0, dropout=0.1, activation=ops.relu, batch_size=8, loss=ops.softmax_cross_entropy):
    net = layers.Serial(layers.Dense(4), activation, layers.Dropout(dropout), layers.Dense(2))
    optimizer, objective = optim.momentum(rate), train.supervised(net, loss)
    run = train.init(net, optimizer, jax.random.key(seed), X)
    return run, train.make_epoch(train.make_step(objective, optimizer), batch_size), train.make_evaluate(objective, DATA)


@pytest.mark.sweep(4)
@pytest.mark.parametrize("settings, data, sentence", [
    ({"rate": 0.2}, DATA, r"optimizer.*rate: 0.1 → 0.2"),
    ({"seed": 1}, DATA, "key: key.* → key"),
    ({"dropout": 0.2}, DATA, r"net.*rate: 0.1 → 0.2"),
    ({"activation": ops.tanh}, DATA, r"relu → .*tanh"),
    ({"batch_size": 6}, DATA, "epoch.batch_size: 8 → 6"),
    ({"loss": halved}, DATA, "loss: .*softmax_cross_entropy → .*halved"),
    ({}, (X[:20], Y[:20]), r"data\[0\]: float32\[24, 3\] .* → float32\[20"),
    ({}, (X, 1 - Y), r"data\[1\]: int32\[24\] #.* → int32\[24\] #"),
    ({}, [(X[:8], Y[:8])], "data.*: .* → ")],
    ids=["rate", "seed", "dropout", "activation", "batch size", "loss", "fewer data", "other labels", "a list"])
def test_resuming_with_other_settings_warns(tmp_path, settings, data, sentence):
    run, epoch, _ = training()
    train.fit(run, epoch, DATA, epochs=1, checkpoint=tmp_path)
    run, epoch, _ = training(**settings)
    with pytest.warns(UserWarning, match=f"1 was saved with other settings.*Changed: .*{sentence}"):
        assert len(train.fit(run, epoch, data, epochs=2, checkpoint=tmp_path).history) == 2


def test_resuming_with_another_rate_uses_it(tmp_path):
    run, epoch, _ = training()
    saved = train.fit(run, epoch, DATA, epochs=1, checkpoint=tmp_path).run
    still = training(rate=0.0)
    with pytest.warns(UserWarning, match="rate: 0.1 → 0.0"):
        resumed = train.fit(still[0], still[1], DATA, epochs=2, checkpoint=tmp_path).run
    assert optim.hyperparams(resumed.opt_state)["rate"] == 0
    fast = training(rate=5.0)
    there = optim.with_hyperparams(saved.opt_state, rate=0.01)          # set by hand: kept as long as the optimizer's own rate is unchanged
    kept, _ = epoch(saved._replace(opt_state=there), DATA)
    assert float(optim.hyperparams(kept.opt_state)["rate"]) == pytest.approx(0.01)
    other, _ = fast[1](saved._replace(opt_state=there), DATA)
    assert float(optim.hyperparams(other.opt_state)["rate"]) == 5


def test_resuming_with_equal_settings_does_not_warn(tmp_path):
    run, epoch, _ = training()
    train.fit(run, epoch, DATA, epochs=1, checkpoint=tmp_path)
    training.cache_clear()
    run, epoch, _ = training()
    train.fit(run, epoch, tuple(a.copy() for a in DATA), epochs=2, checkpoint=tmp_path)


def test_fingerprint_is_the_same_in_another_process():
    code = ("import sys; sys.path[:0] = ['tests/train', '.']\nfrom test_checkpoint_changes import *\n"
            "run, epoch, _ = training(loss=halved)\nprint(fingerprint(run, epoch, DATA))")
    root = Path(__file__).parents[2]
    outputs = [subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True,
                              env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")]
    assert outputs[0] == outputs[1] and "halved.code" not in outputs[0] and ".code" in outputs[0]


def test_fingerprint_covers_closures_and_functions():
    def made(rate, factor):
        def loss(p, y):
            return factor(p) * rate
        return loss
    run = training()[0]

    def of(f):
        return fingerprint(run, functools.partial(f), [])
    assert changes(of(made(1, lambda p: 2 * p)), of(made(2, lambda p: 2 * p))) == ["epoch.func.rate: 1 → 2"]
    (line,) = changes(of(made(1, lambda p: 2 * p)), of(made(1, lambda p: 3 * p)))
    assert line.startswith("epoch.func.factor.code: ")
    loop = [1]
    loop.append(loop)
    assert fingerprint(run, functools.partial(print, loop), iter([]))["epoch.args[0][0]"] == "1"
    assert changes({"python": "3.11", "f.code": "1", "a": "1"}, {"python": "3.12", "f.code": "2", "a": "2"}) == ["a: 1 → 2"]
    assert changes({}, {str(i): "1" for i in range(20)})[-1] == "and 12 more"


def test_evaluation_and_patience_can_start_on_resuming(tmp_path):
    run, epoch, evaluate = training()
    train.fit(run, epoch, DATA, epochs=2, checkpoint=tmp_path)
    losses = iter([3.0, 1.0, 2.0, 2.0])
    result = train.fit(run, epoch, DATA, epochs=9, evaluate=lambda run: {"valid_loss": next(losses)}, patience=2, checkpoint=tmp_path)
    assert len(result.history) == 6 and "since epoch 4" in result.stopped and int(result.run.step) == 4 * 3


def test_evaluation_can_stop_on_resuming(tmp_path):
    run, epoch, _ = training()
    train.fit(run, epoch, DATA, epochs=2, evaluate=lambda run: {"valid_loss": float(run.step)}, checkpoint=tmp_path)
    result = train.fit(run, epoch, DATA, epochs=3, checkpoint=tmp_path)
    assert int(result.run.step) == 3 * 3                    # the last one: nothing is monitored


def test_changing_the_monitor_discards_the_old_best_state(tmp_path):
    run, epoch, _ = training()
    scores = iter([(1, 5), (2, 4), (3, 3), (4, 2)])

    def evaluate(run):
        return dict(zip(("valid_loss", "valid_other"), map(float, next(scores)), strict=True))
    first = train.fit(run, epoch, DATA, epochs=3, evaluate=evaluate, checkpoint=tmp_path)
    assert int(first.run.step) == 1 * 3
    same = train.fit(run, epoch, DATA, epochs=3, evaluate=evaluate, checkpoint=tmp_path)
    assert int(same.run.step) == 1 * 3
    other = train.fit(run, epoch, DATA, epochs=3, evaluate=evaluate, monitor="valid_other", checkpoint=tmp_path)
    assert int(other.run.step) == 3 * 3                     # the better by this monitor of the two saved states, 1 and 3
    more = train.fit(run, epoch, DATA, epochs=4, evaluate=evaluate, monitor="valid_other", mode="max", checkpoint=tmp_path)
    assert int(more.run.step) == 1 * 3


def test_best_state_equal_to_the_last_is_stored_once(tmp_path):
    run, epoch, _ = training()
    losses = iter([3.0, 2.0, 4.0])
    for epochs, stored in ((1, {"last"}), (2, {"last"}), (3, {"last", "best"})):
        train.fit(run, epoch, DATA, epochs=epochs, evaluate=lambda run: {"valid_loss": next(losses)}, checkpoint=tmp_path)
        log = json.loads((tmp_path / str(epochs) / "log" / "metadata").read_text())
        assert {name.split("'")[1] for name, _ in log["names"]} == stored


def test_tree_metrics_are_restored(tmp_path):
    run, epoch, _ = training()

    def seen(run, data):
        run, metrics = epoch(run, data)
        return run, metrics | {"tree": {"a": np.arange(3), "b": (metrics["loss"],)}}
    whole = train.fit(run, seen, DATA, epochs=2).history
    train.fit(run, seen, DATA, epochs=1, checkpoint=tmp_path)
    assert str(train.fit(run, seen, DATA, epochs=2, checkpoint=tmp_path).history) == str(whole)


def test_two_trainings_in_one_folder_raise(tmp_path):
    run, epoch, _ = training()
    code = ("import sys, time; from pathlib import Path; from fnnet.train.checkpoint.lock import Lock\n"
            "lock = Lock(Path(sys.argv[1])); print('locked', flush=True); time.sleep(600)")
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == b"locked\n"
            with pytest.raises(RuntimeError, match=f"another training is using {tmp_path}: process {other.pid} on .*, since 20"):
                train.fit(run, epoch, DATA, epochs=1, checkpoint=tmp_path)
        finally:
            other.kill()
    assert len(train.fit(run, epoch, DATA, epochs=1, checkpoint=tmp_path).history) == 1        # released when the process ends
    with Folder(tmp_path), pytest.raises(RuntimeError, match="another training is using"):
        train.fit(run, epoch, DATA, epochs=2, checkpoint=tmp_path)                             # also within one process


def test_lock_without_flock_checks_for_a_living_process(tmp_path, monkeypatch):
    import errno
    import fcntl

    from fnnet.train.checkpoint.lock import Lock

    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "not supported")
    monkeypatch.setattr(fcntl, "flock", unsupported)
    lock = Lock(tmp_path)
    with pytest.raises(RuntimeError, match="another training is using"):
        Lock(tmp_path)
    lock.release()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    text = (tmp_path / "lock")
    lock = Lock(tmp_path)
    text.write_text(text.read_text().replace(str(lock.pid), str(ended.pid)))
    Lock(tmp_path).release()
    text.write_text("process 1 on another-host, since 2026-01-01 00:00:00")
    with pytest.raises(RuntimeError, match="process 1 on another-host"):
        Lock(tmp_path)


def a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    return tmp_path / "file"


@pytest.mark.parametrize("path, error, sentence", [
    (a_file, NotADirectoryError, "must be a folder; got .*file, which is a file"),
    (lambda tmp_path: a_file(tmp_path) / "below", NotADirectoryError, "which is a file or lies below one"),
    (lambda _: "gs://bucket/a", ValueError, 'got "gs://bucket/a"; mount the bucket'),
    (lambda _: "s3://bucket/a", ValueError, 'got "s3://bucket/a"'), (lambda _: "", ValueError, 'got ""; write checkpoint="runs/a"'),
    (lambda _: 3, TypeError, "must be the path of a folder; got 3"), (lambda _: True, TypeError, "got True")])
def test_path_that_is_not_a_folder_raises(tmp_path, path, error, sentence):
    run, epoch, _ = training()
    with pytest.raises(error, match=sentence):
        train.fit(run, epoch, DATA, epochs=1, checkpoint=path(tmp_path))


@pytest.mark.parametrize("value, every", [
    (None, Every()), (5, Every(5, "epochs")), ("5 epochs", Every(5, "epochs")), ("1 epoch", Every(1, "epochs")),
    ("500 steps", Every(500, "steps")), ("10 minutes", Every(600, "seconds")), ("0.5 hours", Every(1800, "seconds")),
    ("90 seconds", Every(90, "seconds"))])
def test_checkpoint_every_is_parsed(value, every):
    assert Every.parse(value) == every


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "5", "steps", "1.5 steps", "0 seconds", "5 weeks", "-5 steps", "nan seconds"])
def test_invalid_checkpoint_every_raises(value, tmp_path):
    run, epoch, _ = training()
    with pytest.raises(ValueError, match="checkpoint_every must be a number of epochs, steps"):
        train.fit(run, epoch, DATA, checkpoint=tmp_path / "never", checkpoint_every=value)
    assert not (tmp_path / "never").exists()
    with pytest.raises(ValueError, match="needs a folder to save in"):
        train.fit(run, epoch, DATA, checkpoint_every=value)


def test_saves_happen_when_due():
    now = {"epochs": 2, "steps": 30, "seconds": 5.0, "took": 0.1, "idle": 1.0, "ended": True}
    assert Every().due(**now) and not Every().due(**now | {"took": 0.2}) and not Every().due(**now | {"ended": False})
    assert Every(2, "epochs").due(**now) and not Every(3, "epochs").due(**now) and not Every(2, "epochs").due(**now | {"ended": False})
    assert Every(30, "steps").due(**now | {"ended": False}) and not Every(31, "steps").due(**now)
    assert Every(5, "seconds").due(**now | {"ended": False}) and not Every(6, "seconds").due(**now)


def test_epochs_between_saves_are_counted(tmp_path):
    run, epoch, _ = training()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train.fit(run, epoch, DATA, epochs=7, checkpoint=tmp_path, checkpoint_every=3)
    logs = [json.loads((tmp_path / n / "log" / "metadata").read_text()) for n in ("2", "3")]
    assert [len(log["history"]) for log in logs] == [6, 7]                  # and the end is always saved
