"""train --distributed: the command that watches over the process that trains, and what it says when a process is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from kill_processes import free_port, make_table

from fnnet import cli
from fnnet.cli import launch

ROOT, KILLS = Path(__file__).parents[2], Path(__file__).with_name("kill_processes.py")
TRAIN = ["train", "table.csv", "--target", "label", "--distributed"]


@pytest.fixture
def child(tmp_path, monkeypatch):
    """child(lines): makes a shell script with these lines run in place of the process that trains."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(launch.CONTROL, raising=False)

    def become(lines):
        script = tmp_path / "child"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
    return become


@pytest.mark.parametrize("lines, status, said", [
    ("exit 0", 0, ""),
    ("exit 1", 1, ""),                                                                      # it has said why
    ("kill -ABRT $$", 75, "because a process that took part in it was lost"),              # JAX does that
    ("exit 75", 75, "because a process that took part in it was lost"),
    ("kill -KILL $$", 75, "was ended by SIGKILL: it may have needed more memory than there is"),
    ("kill -SEGV $$", 75, "was ended by SIGSEGV: an error inside JAX or a library"),
])
def test_the_end_of_the_training_process_is_explained(child, capsys, lines, status, said):
    child(lines)
    assert cli.main(TRAIN) == status
    found = capsys.readouterr().err
    assert said in found and bool(found) == bool(said)
    assert not said or found.endswith("Nothing was saved yet: start the same command again in every process\n")


def test_what_was_saved_is_named(child, capsys, tmp_path):
    child("mkdir -p kept/7; exit 75")
    assert cli.main([*TRAIN, "--checkpoint", "kept"]) == 75
    assert capsys.readouterr().err.endswith("The training is saved in kept: start the same command again in every process, with --resume\n")
    assert cli.main([*TRAIN, "--checkpoint", "kept"]) == 1
    assert "kept holds a training already: write --resume to continue it, delete that folder, or" in capsys.readouterr().err
    assert cli.main([*TRAIN, "--checkpoint", "kept", "--resume"]) == 75


def signal_when(path, number):
    """Sends this process a signal once the file exists."""
    def wait():
        while not path.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)
    threading.Thread(target=wait, daemon=True).start()


READ = "touch began; number=$(dd bs=1 count=1 if=/dev/fd/$FNNET_CONTROL 2>/dev/null | od -An -tu1)"


@pytest.fixture
def heeded():
    """A process in the background of a shell ignores SIGINT, and what it starts does too."""
    before = {number: signal.signal(number, handler) for number, handler in
              ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handed_on_and_a_second_one_ends_the_training(child, tmp_path, number, heeded):
    before = signal.getsignal(number)
    child(f"{READ}; exit $((100 + number))")
    signal_when(tmp_path / "began", number)
    assert cli.main(TRAIN) == 100 + number
    child(f"{READ}; touch again; exec sleep 60")
    (tmp_path / "began").unlink()
    signal_when(tmp_path / "began", number)
    signal_when(tmp_path / "again", number)
    assert cli.main(TRAIN) == 128 + number and signal.getsignal(number) is before


def within(error, words, explains=False):
    """An error that was raised while another one was handled."""
    raised = RuntimeError(words)
    raised.__context__, raised.__cause__ = error, error if explains else None
    raised.__suppress_context__ = explains          # as `raise … from error` does
    return raised


@pytest.mark.parametrize("error, status", [
    (ValueError("UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:32153: Connection reset by peer"), launch.LOST),
    (RuntimeError("UNAVAILABLE: Failed to send RPC to the leader"), launch.LOST),
    (within(RuntimeError("UNAVAILABLE: Socket closed"), "Unable to initialize backend 'cpu': UNAVAILABLE: Socket closed"), launch.LOST),
    (within(RuntimeError("UNAVAILABLE: Socket closed"), "the coordinator must be reachable", explains=True), None),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"), None),
    (ValueError("--rate must be ≥ 0; got a Connection"), None),
])
def test_errors_about_lost_processes_are_recognized(error, status, capsys):
    def fail(args):
        raise error
    if status is None:
        with pytest.raises(type(error)):
            launch.watched(fail, None)
    else:
        assert launch.watched(fail, None) == status and str(error) in capsys.readouterr().err


@pytest.mark.parametrize("options, sentence", [
    (["--coordinator", "localhost:1"], "--coordinator is for training with other processes: write --distributed as well"),
    (["--processes", "2"], "--processes is for training with other processes: write --distributed as well"),
    (["--layout", "fsdp"], "--layout fsdp is for training with other processes: write --distributed as well"),
    (["--resume"], "--resume needs the folder of the saved training: write --checkpoint FOLDER as well"),
])
def test_options_that_need_others(options, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "digits", *options]) == 1
    assert sentence in capsys.readouterr().err


def test_examples_are_whole_batches_and_others_are_padded_with_weight_0():
    import jax
    mesh = jax.make_mesh((8,), ("data",))
    x, y = np.arange(42.0).reshape(21, 2), np.arange(21)
    assert [a.shape for a in launch.to_train_on(mesh, (x, y), 8)] == [(16, 2), (16,)]
    padded, labels, weights = launch.to_evaluate(mesh, (x, y))
    assert padded.shape == (24, 2) and np.array_equal(np.asarray(labels)[:21], y) and np.asarray(weights).tolist() == [1] * 21 + [0] * 3


def started(folder, *words, process=None, port=0, devices=1):
    """The command in a process of its own, alone or as one of two."""
    more = [] if process is None else ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process", str(process)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg", "JAX_ENABLE_X64": "1",
           "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    words = ["train", "table.csv", "--target", "label", "--hidden", "16", "--batch-size", "8", "--quiet", *words, *more]
    return subprocess.Popen([sys.executable, "-m", "fnnet", *words], cwd=folder, env=env, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def run(folder):
    """The history and the parameters of a saved run."""
    return json.loads((folder / "run.json").read_text()), np.load(folder / "params.npz")


@pytest.mark.slow           # about 100 s of computing
def test_two_processes_train_like_one_and_the_training_resumes_with_one(tmp_path):
    make_table(tmp_path)
    port = free_port()
    both = [started(tmp_path, "--epochs", "5", "--layout", "fsdp", "--save", "two", process=i, port=port) for i in (0, 1)]
    said = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[1][0] == "" and "wrote two/run.json" in said[0][0]
    alone = started(tmp_path, "--epochs", "5", "--save", "one")
    assert (alone.communicate(timeout=600), alone.returncode)[1] == 0
    (one, want), (two, got) = run(tmp_path / "one"), run(tmp_path / "two")
    assert all(got[name].dtype == np.float64 and np.abs(got[name] - want[name]).max() < 1e-12 for name in want.files)
    assert len(one["history"]) == 5
    for log, other in zip(one["history"], two["history"], strict=True):
        assert log.keys() == other.keys() and all(abs(log[name] - other[name]) < 1e-12 for name in log)
    assert all(abs(one[part][name] - two[part][name]) < 1e-12 for part in ("training", "validation", "test") for name in one[part])


@pytest.mark.slow           # about 60 s of computing
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_in_one_process_saves_and_ends_all(tmp_path, number, status, heeded):
    make_table(tmp_path)
    port = free_port()
    both = [started(tmp_path, "--epochs", "100000", "--patience", "100000", process=i, port=port) for i in (0, 1)]
    end = time.monotonic() + 600
    while not (tmp_path / "runs/table/checkpoint/1").exists():
        assert time.monotonic() < end and all(process.poll() is None for process in both)
        time.sleep(0.1)
    both[1].send_signal(number)
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [status, status], said
    assert f"{number.name} in another process: saving the training in" in said[0] and f"{number.name}: saving the training in" in said[1]


@pytest.mark.slow           # about 30 s of computing and up to 20 s of waiting for each kill
@pytest.mark.parametrize("kills", [3, 50])
def test_killed_and_resumed_trainings_equal_an_unbroken_one(tmp_path, kills):
    done = subprocess.run([sys.executable, KILLS, str(kills), tmp_path], capture_output=True, text=True, env={
        **os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "0"})
    assert done.returncode == 0, done.stderr[-5000:]
    met = json.loads(done.stdout.splitlines()[-1])
    assert met["kills"] == kills and met["bit-identical"] == met["trainings"] and met["longest wait"] < 60
