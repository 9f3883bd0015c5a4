"""Training on a stream takes less memory than the stream's size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

STREAM = """
import json, resource
import jax, numpy as np
from fnnet import layers, ops, optim, train

def batches():
    draw = np.random.default_rng(0)
    for _ in range(COUNT):
        x = draw.integers(0, 255, (1024, 1024), dtype=np.uint8).astype(np.float32)      # 4 MB
        yield x, (x[:, 0] > 127).astype(np.int32)

net, optimizer = layers.Serial(layers.Dense(64), ops.relu, layers.Dense(2)), optim.sgd(1e-6)
objective = train.supervised(net, ops.softmax_cross_entropy)
run = train.init(net, optimizer, jax.random.key(0), np.zeros((1, 1024), np.float32))
epoch = train.make_epoch(train.make_step(objective, optimizer))
started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fit = train.fit(run, epoch, DATA, epochs=1)
print(json.dumps([int(fit.run.step), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started) / 1024]))
"""


@pytest.mark.parametrize("data", ["batches", "train.prefetch(batches)"])
@pytest.mark.parametrize("count", [pytest.param(500, marks=pytest.mark.slow)])
def test_stream_of_2_gigabytes_takes_less_than_500_megabytes(count, data):
    text = STREAM.replace("COUNT", str(count)).replace("DATA", data)
    done = subprocess.run([sys.executable, "-c", text], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    steps, megabytes = json.loads(done.stdout)
    assert steps == count and megabytes < 500, f"{megabytes:.0f} MB after {steps} steps"
