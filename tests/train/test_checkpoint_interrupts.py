"""Training runs that end at any moment, by a signal, SIGKILL or an error, inside an epoch or between two."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import autodiff, diagnostics, layers, ops, optim, train
from fnnet.train import epoch as epochs_module
from fnnet.train.checkpoint import keeper as keeper_module
from fnnet.train.checkpoint import storage

KILLED = Path(__file__).parent / "killed.py"
FLAGS = "--xla_backend_optimization_level=0" + " --xla_cpu_use_fusion_emitters=false" * jax.__version__.startswith("0.10.")
X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
DATA = (X, Y)


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """A shell that starts the tests in the background makes them ignore Ctrl-C, which fnnet then does not handle."""
    before = {number: signal.signal(number, handler)
              for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@functools.cache
def training(batch_size=8, look=False, rate=1e-2):
    net = layers.Serial(layers.Dense(8), layers.BatchNorm(), ops.relu, layers.Dropout(0.1), layers.Dense(2))
    objective, optimizer = train.supervised(net, ops.softmax_cross_entropy), optim.adam(rate)
    step = train.make_step(objective, optimizer)
    return train.init(net, optimizer, jax.random.key(0), X), train.make_epoch(diagnostics.inside(step) if look else step, batch_size)


def plain(tree):
    """Keys as numbers, everything on the host."""
    return jax.device_get(jax.tree.map(lambda a: jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a, tree))


@pytest.mark.sweep(4)
@pytest.mark.parametrize("batch_size, look, copied", [(8, False, 2**22), (8, True, 0), (30, False, 0), (60, False, 2**22)])
@pytest.mark.parametrize("length", [1, 3])
def test_epoch_in_parts_equals_the_whole_epoch_bit_for_bit(monkeypatch, batch_size, look, copied, length):
    monkeypatch.setattr(epochs_module, "COPIED", copied)
    run, epoch = training(batch_size, look)
    epoch = train.make_epoch(epoch.step, batch_size)                # its programs depend on COPIED
    data = jax.tree.map(jnp.asarray, DATA)
    whole = epoch(run, data)
    rows, seen, after = epoch.order(run, data), epoch.metrics_of(run, data), run
    for start in range(0, len(rows), length):
        after, seen = epoch.part(after, data, rows, seen, start, min(len(rows), start + length))
    chex.assert_trees_all_equal(plain((after, epoch.means(seen))), plain(whole))


def interrupted_at(monkeypatch, number, start):
    """The signal arrives while the part that starts at this step is running."""
    part = train.Epoch.part

    def one(self, run, data, rows, seen, begin, stop):
        if begin == start:
            monkeypatch.setattr(train.Epoch, "part", part)
            signal.raise_signal(number)
        return part(self, run, data, rows, seen, begin, stop)
    monkeypatch.setattr(train.Epoch, "part", one)
    monkeypatch.setattr(keeper_module, "PART", 1e-9)                # each step is a part


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("start", [0, 3, 6])
def test_signal_inside_an_epoch_saves_and_the_same_call_resumes(tmp_path, monkeypatch, capfd, number, start):
    run, epoch = training()
    whole = train.fit(run, epoch, DATA, epochs=3)
    interrupted_at(monkeypatch, number, start)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)         # instead of ending pytest
    try:
        with pytest.raises(KeyboardInterrupt):
            train.fit(run, epoch, DATA, epochs=3, checkpoint=tmp_path)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capfd.readouterr().err
    assert f"{number.name}: saving the training in {tmp_path} now, then exiting" in said
    assert re.search(r"saved (in epoch 1, after \d of its 7 steps,|after epoch 1) in .*: the same call of fit resumes there", said)
    rest = train.fit(run, epoch, DATA, epochs=3, checkpoint=tmp_path)
    assert rest.history == whole.history
    chex.assert_trees_all_equal(plain(rest.run), plain(whole.run))


def test_handler_that_continues_gets_the_state_so_far(tmp_path, monkeypatch):
    run, epoch = training()
    interrupted_at(monkeypatch, signal.SIGTERM, 3)
    met = []
    before = signal.signal(signal.SIGTERM, lambda *_: met.append(1))
    try:
        result = train.fit(run, epoch, DATA, epochs=3, checkpoint=tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert met == [1] and result.history == [] and "SIGTERM: saved in epoch 1, after 4 of its 7 steps" in result.stopped


def test_training_in_another_thread_leaves_signal_handlers_alone(tmp_path):
    run, epoch = training()
    found = []
    thread = threading.Thread(target=lambda: found.append(train.fit(run, epoch, DATA, epochs=1, checkpoint=tmp_path)))
    thread.start()
    thread.join()
    assert len(found[0].history) == 1


def test_batches_from_an_iterable_are_saved_between_epochs(tmp_path):
    run, epoch = training()
    batches = [(X[:8], Y[:8]), (X[8:16], Y[8:16])]
    whole = train.fit(run, epoch, batches, epochs=3)
    train.fit(run, epoch, batches, epochs=2, checkpoint=tmp_path, checkpoint_every="1 step")
    assert train.fit(run, epoch, batches, epochs=3, checkpoint=tmp_path).history == whole.history


def test_wrapped_epoch_is_saved_between_epochs_and_stays_wrapped(tmp_path):
    run, epoch = training()
    wrapped = autodiff(epoch)
    whole = train.fit(run, wrapped, DATA, epochs=2)
    train.fit(run, wrapped, DATA, epochs=1, checkpoint=tmp_path, checkpoint_every="1 step")
    assert train.fit(run, wrapped, DATA, epochs=2, checkpoint=tmp_path).history == whole.history


def cut_inside(tmp_path, monkeypatch, data=DATA):
    """A folder whose newest checkpoint was saved inside the first epoch, after 4 steps."""
    run, epoch = training()
    interrupted_at(monkeypatch, signal.SIGINT, 3)
    with pytest.raises(KeyboardInterrupt):
        train.fit(run, epoch, data, epochs=2, checkpoint=tmp_path)


def test_slow_save_stores_the_history_as_of_its_start(tmp_path, monkeypatch):
    run, epoch = training(batch_size=30)
    train.fit(run, epoch, DATA, epochs=1, checkpoint=tmp_path)
    write, written, ended = storage.write, [], threading.Event()

    def slowly(path, shot, log):
        ended.wait(60)                  # it starts inside the second epoch and ends after it
        written.append((len(log["history"]), log["position"] and log["position"]["start"]))
        write(path, shot, log)
    monkeypatch.setattr(storage, "write", slowly)
    train.fit(run, epoch, DATA, epochs=3, checkpoint=tmp_path, checkpoint_every="1 steps",
              on_epoch=lambda *_: ended.set())
    assert written and all(position is None or position == 2 * done for done, position in written), written


def test_changed_batches_inside_an_epoch_start_a_new_one(tmp_path, monkeypatch):
    cut_inside(tmp_path, monkeypatch)
    run, epoch = training(batch_size=6)
    with pytest.warns(UserWarning) as caught:
        result = train.fit(run, epoch, DATA, epochs=1, checkpoint=tmp_path)
    assert any("a new epoch begins from there" in str(w.message) for w in caught) and int(result.run.step) == 4 + 10


def test_changed_metrics_inside_an_epoch_cover_the_rest_of_it(tmp_path, monkeypatch):
    cut_inside(tmp_path, monkeypatch)
    run, epoch = training(look=True)
    with pytest.warns(UserWarning) as caught:
        result = train.fit(run, epoch, DATA, epochs=1, checkpoint=tmp_path)
    assert any("the metrics of this epoch cover only the rest of it" in str(w.message) for w in caught) and int(result.run.step) == 7
    assert 0.1 < result.history[0]["loss"] < 2


def test_nonfinite_state_is_not_saved_and_is_explained_after_resuming(tmp_path, monkeypatch):
    x = X.copy()
    x[np.asarray(training()[1].order(training()[0], DATA))[5, 0]] = np.nan         # in the sixth batch
    cut_inside(tmp_path, monkeypatch, (x, Y))
    run, epoch = training()
    for every in (None, "1 step"):
        with pytest.raises(FloatingPointError, match=r"at step 5: data\[0\] has NaN or infinity in row 0"):
            train.fit(run, epoch, (x, Y), epochs=2, checkpoint=tmp_path, checkpoint_every=every)


def started(folder, *more):
    """A training in a separate process that has completed one epoch."""
    code = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.path.insert(0, sys.argv[1]); import killed\n"
            "killed.training(killed.Path(sys.argv[2]), 1, epochs=10_000, pause=float(sys.argv[3]))")
    child = subprocess.Popen([sys.executable, "-c", code, KILLED.parent, folder, *more], stderr=subprocess.PIPE, text=True,
                             env={**os.environ, "XLA_FLAGS": FLAGS})
    end = time.monotonic() + 300
    while not any(path.name.isdigit() for path in (folder.iterdir() if folder.exists() else ())):
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.05)
    return child


def test_sigterm_saves_and_ends_the_process(tmp_path):
    with started(tmp_path / "a", "0.01") as child:
        child.send_signal(signal.SIGTERM)
        said = child.communicate(timeout=300)[1]
    assert child.returncode == -signal.SIGTERM
    assert "SIGTERM: saving the training in" in said and re.search(r"saved (in|after) epoch \d+.*the same call of fit resumes there", said)


def test_second_signal_ends_the_process_immediately(tmp_path):
    with started(tmp_path / "a", "1000") as child:                  # during an evaluation that would take long
        assert child.stderr is not None
        child.send_signal(signal.SIGINT)
        late = threading.Timer(120, child.kill)                     # instead of waiting forever
        late.start()
        while "saving the training in" not in child.stderr.readline():
            assert child.poll() is None
        late.cancel()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode in (-signal.SIGINT, 1)


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_and_resumed_trainings_equal_an_uninterrupted_one(tmp_path, kills):
    done = subprocess.run([sys.executable, KILLED, str(kills), tmp_path], capture_output=True, text=True,
                          env={**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr[-3000:]
    met = json.loads(done.stdout)
    assert met["bit-identical"] == met["kills"] == kills
    assert met["during a save"] >= 0.4 * kills and met["inside an epoch"] >= 0.25 * kills
