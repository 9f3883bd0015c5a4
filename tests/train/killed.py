"""Training runs that are killed and resumed until they end: python killed.py KILLS FOLDER [SEED]. Prints when the kills happened.

Each training is a forked process, so that JAX is imported only once, and compiles into a cache.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[2]))
from fnnet import layers, ops, optim, train

X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
EPOCHS = 12
SECONDS = 300       # more than any step here takes


def training(folder=None, every=None, epochs=EPOCHS, pause=0.0):
    net = layers.Serial(layers.Dropout(0.1), layers.Dense(2))
    objective, optimizer = train.supervised(net, ops.softmax_cross_entropy), optim.adam(1e-2)
    epoch = train.make_epoch(train.make_step(objective, optimizer), 4)
    measure = train.make_evaluate(objective, (X, Y))

    pauses = iter([0.0])                    # none in the first epoch

    def evaluate(run):
        time.sleep(next(pauses, pause))
        return measure(run)
    return train.fit(train.init(net, optimizer, jax.random.key(0), X), epoch, (X, Y), epochs=epochs, evaluate=evaluate,
                     checkpoint=folder, checkpoint_every=every)


def digest(fit):
    leaves = jax.tree.leaves(fit.run._replace(key=jax.random.key_data(fit.run.key)))
    numbers = b"".join(np.asarray(leaf).tobytes() for leaf in leaves)
    return hashlib.sha256(numbers + json.dumps([fit.history, fit.stopped]).encode()).hexdigest()


def forked(result: Path, **settings):
    """The pid of a process that trains and writes its digest into a file."""
    if child := os.fork():
        return child
    code = 1
    try:
        warnings.simplefilter("error")
        text = digest(training(**settings))
        result.with_suffix(".part").write_text(text)
        result.with_suffix(".part").rename(result)
        code = 0
    except BaseException as error:
        result.with_suffix(".error").write_text(repr(error))
    os._exit(code)


def wait_for(condition, child):
    """Whether the condition came true before the process ended."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if condition():
            return True
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        time.sleep(0.002)
    raise TimeoutError("a training neither saved nor ended")


def numbers(folder):
    return {int(path.name) for path in folder.iterdir() if path.name.isdigit()} if folder.exists() else set()


def saving(folder):
    return folder.exists() and any("orbax-checkpoint-tmp" in path.name for path in folder.iterdir())


def inside(folder):
    """Whether the newest checkpoint was saved inside an epoch."""
    if not numbers(folder):
        return False
    log = json.loads((folder / str(max(numbers(folder))) / "log" / "metadata").read_text())
    return log["position"] is not None


def main(kills, root, seed=0):
    jax.config.update("jax_compilation_cache_dir", str(root / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    dice = random.Random(seed)
    os.waitpid(forked(root / "whole"), 0)
    whole = (root / "whole").read_text()
    met = {"kills": 0, "during a save": 0, "inside an epoch": 0, "trainings": 0, "bit-identical": 0}
    while met["kills"] < kills:
        folder, result = root / f"training{met['trainings']}", root / f"result{met['trainings']}"
        while not result.exists():
            before = max(numbers(folder), default=0)
            child = forked(result, folder=folder, every=dice.choice(["4 steps", "7 steps", 1]))
            if met["kills"] < kills:
                # After some progress, so that the training eventually ends; half of the kills while something is being written.
                wait_for(lambda: max(numbers(folder), default=0) > before + dice.randrange(2), child)
                if met["kills"] % 2:
                    wait_for(lambda: saving(folder), child)
                time.sleep(dice.random() * 0.03)
                os.kill(child, signal.SIGKILL)
            killed = os.waitpid(child, 0)[1] == signal.SIGKILL
            if result.with_suffix(".error").exists():
                raise AssertionError(result.with_suffix(".error").read_text())
            if killed:
                met["kills"] += 1
                met["during a save"] += saving(folder)
                met["inside an epoch"] += inside(folder)
        met["trainings"] += 1
        if result.read_text() != whole:
            raise AssertionError(f"training {met['trainings']} ended otherwise than the one that was not killed")
        met["bit-identical"] = met["kills"]
    print(json.dumps(met))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
