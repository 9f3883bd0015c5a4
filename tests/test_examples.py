"""Every example runs and asserts its own claims."""

import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.gpt import gpt, next_symbol
from examples.resnet import resnet
from fnnet import autodiff, layers, ops, optim, train

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = [*sorted(FOLDER.glob("[0-9]*.py")), FOLDER / "pipeline.py"]
LONG = {"08", "10", "11", "12", "13", "14", "15", "16", "pi"}   # half a CPU minute each, and more than the rest of the examples together
ALIKE = {"02", "04", "05", "06", "09"}              # a check as in the README, `train digits`; tables whose claims other tests check


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem[:2] in LONG | ALIKE))
                                  for path in EXAMPLES])
def test_example(path, tmp_path):
    assert len(path.read_text().splitlines()) <= 80
    environment = {**os.environ, "PYTHONPATH": str(path.parents[1]), "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and not done.stderr.strip(), done.stderr


@pytest.mark.slow
def test_gpt_generates_from_its_cache_and_learns_without_storing_scores():
    net = gpt(symbols=7, d=8, heads=2)
    prompts = jnp.asarray(np.random.default_rng(0).integers(0, 7, (3, 4)), jnp.int32)
    params, state = net.init(jax.random.key(0), prompts)
    params = jax.tree.map(lambda a: a.astype(jnp.float64), params)
    written, text = layers.generate(net, params, state, prompts, 5, temperature=0), np.pad(prompts, ((0, 0), (0, 5)))
    scores = jax.jit(lambda text: net.apply(params, state, text)[0])    # all of the same length, so that it is compiled once
    for t in range(3, 8):                                       # the whole text again for each symbol: nothing sees later symbols
        text[:, t + 1] = scores(text)[:, t].argmax(-1)
    chex.assert_trees_all_equal(written, text[:, 4:])
    assert len({tuple(row) for row in written.tolist()}) > 1

    def draw(key, temperature):
        many = jnp.repeat(prompts[:1], 2000, 0)
        return layers.generate(net, params, state, many, 1, key=jax.random.key(key), temperature=temperature)[:, 0]
    share = jnp.bincount(draw(1, 2.0), length=7) / 2000
    p = jax.nn.softmax(scores(text)[0, 3] / 2)
    assert (abs(share - p) < 5 * jnp.sqrt(p * (1 - p) / 2000) + 1e-3).all()
    assert (draw(2, 1e-3) == written[0, 0]).all()

    loss, (after, _) = next_symbol(net, ignore_index=6)(params, state, (text[:, :-1], text[:, 1:]))
    want = ops.softmax_cross_entropy(scores(text)[:, :-1], text[:, 1:], (text[:, 1:] != 6).astype(jnp.float64))
    chex.assert_trees_all_close(loss, want, rtol=1e-12)
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.slow
def test_resnet_halves_the_image_at_each_stage_and_matches_autodiff():
    rng = np.random.default_rng(0)
    images, labels = jnp.asarray(rng.standard_normal((8, 8, 8, 3))), jnp.arange(8) % 4
    net, whole = resnet(4, widths=(4, 6), depth=1), jax.ShapeDtypeStruct((2, 32, 32, 3), "float32")
    params, state = jax.eval_shape(resnet(10).init, jax.random.key(0), whole)
    assert jax.eval_shape(resnet(10).apply, params, state, whole)[0].shape == (2, 10)
    assert sum(a.size for a in jax.tree.leaves(params)) == 272_474        # ResNet-20, its shortcuts 1×1 convolutions
    step = train.make_step(train.supervised(net, ops.softmax_cross_entropy), optim.adam(1e-2))
    run = train.init(net, optim.adam(1e-2), jax.random.key(0), images)
    hand, auto = (jax.jit(f)(run, (images, labels)) for f in (step, autodiff(step)))
    chex.assert_trees_all_close((hand[0].params, hand[0].state), (auto[0].params, auto[0].state), rtol=1e-9, atol=1e-10)
    step = jax.jit(step)
    for _ in range(60):
        run, metrics = step(run, (images, labels))
    assert metrics["loss"] < 0.1 < hand[1]["loss"]
