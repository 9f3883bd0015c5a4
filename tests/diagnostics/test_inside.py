"""Figures of every layer, compared with values computed by NumPy and plain JAX."""

import functools
import json
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import diagnostics, layers, ops, optim, train
from fnnet.diagnostics.layer_stats import DELTAS, VALUES

NET = layers.Serial(layers.Dense(6), ops.relu, layers.Dropout(0.0), layers.Dense(5), ops.tanh, layers.Dense(3))
X, Y = jax.random.normal(jax.random.key(0), (8, 4), jnp.float64), jnp.arange(8) % 3
OBJECTIVE = train.supervised(NET, ops.softmax_cross_entropy)
OPTIMIZER = optim.adam(1e-2)
STEP = train.make_step(OBJECTIVE, OPTIMIZER)


@functools.cache
def start():
    run = train.init(NET, OPTIMIZER, jax.random.key(1), X)
    first, *rest = run.params
    # Some units dead, some outputs saturated.
    return run._replace(params=({"w": first["w"], "b": first["b"].at[:2].set(-50.0)}, rest[0], rest[1],
                                {"w": 3 * rest[2]["w"], "b": rest[2]["b"]}, *rest[3:]))


def by_hand(params, scale=1.0):
    """Outputs and δ of the five parts, in plain JAX: δ is the gradient of what is added to an output."""
    first, _, _, second, _, third = params

    def forward(added):
        a = X @ first["w"] + first["b"][None] + added[0]
        z = jnp.maximum(a, 0) + added[1]
        b = z @ second["w"] + second["b"][None] + added[2]
        t = jnp.tanh(b) + added[3]
        y = t @ third["w"] + third["b"][None] + added[4]
        return -scale * jax.nn.log_softmax(y)[jnp.arange(8), Y].mean(), [a, z, b, t, y]
    zeros = [jnp.zeros((8, d)) for d in (6, 6, 5, 5, 3)]
    deltas, outputs = jax.grad(forward, has_aux=True)(zeros)
    return jax.device_get((outputs, deltas))


def test_figures_match_the_arrays():
    run = start()
    after, metrics = jax.jit(diagnostics.inside(STEP, every=1))(run, (X, Y))
    seen, (outputs, deltas) = metrics["inside"], by_hand(run.params)
    assert seen.names == ("0 Dense(6)", "1 relu", "3 Dense(5)", "4 tanh", "5 Dense(3)")
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
    close(seen.mean, [y.mean() for y in outputs])
    close(seen.rms, [np.sqrt((y**2).mean()) for y in outputs])
    close(seen.delta, [np.sqrt((d**2).mean()) for d in deltas])
    dead, saturated = (outputs[1] <= 0).all(0).mean(), (1 - outputs[3]**2 < 0.05).mean()
    assert dead >= 2 / 6 and 0 < saturated < 1
    close(seen.dead, [np.nan, dead, np.nan, np.nan, np.nan])
    close(seen.saturated, [np.nan, np.nan, np.nan, saturated, np.nan])
    for figure, tree in (("weight", after.params), ("gradient", jax.grad(lambda p: OBJECTIVE(p, run.state, (X, Y))[0])(run.params)),
                         ("update", jax.tree.map(jnp.subtract, after.params, run.params))):
        norms = [np.sqrt(sum((np.asarray(leaf)**2).sum() for leaf in jax.tree.leaves(part))) for part in tree]
        close(getattr(seen, figure), [norms[0], 0, norms[3], 0, norms[5]])
    close(seen.ratio[0], seen.update[0] / seen.weight[0])
    for y, d, values, sizes in zip(outputs, deltas, seen.values, seen.deltas, strict=True):
        d = np.log10(np.abs(d[d != 0]))
        close(values, np.histogram(np.clip(y, -3.9, 3.9), VALUES)[0] / y.size)
        close(sizes, np.histogram(np.clip(d, -11.9, 3.9), DELTAS)[0] / max(d.size, 1))


@pytest.mark.slow
def test_measuring_changes_nothing():
    run, looked = start(), start()
    for _ in range(3):
        run, metrics = jax.jit(STEP)(run, (X, Y))
        looked, more = jax.jit(diagnostics.inside(STEP, every=2))(looked, (X, Y))
    chex.assert_trees_all_close(run[:4], looked[:4], rtol=1e-12)
    assert more.keys() == {*metrics, "inside"}


@pytest.mark.slow
def test_every_third_step_is_measured_and_means_cover_only_those():
    step, one = diagnostics.inside(STEP, every=3), diagnostics.inside(STEP, every=1)
    _, metrics = jax.lax.scan(lambda run, _: step(run, (X, Y)), start(), None, length=7)
    _, each = jax.lax.scan(lambda run, _: one(run, (X, Y)), start(), None, length=7)
    seen, places = metrics["inside"].steps()
    assert places.tolist() == [0, 3, 6]
    chex.assert_trees_all_close(seen.figures, np.asarray(each["inside"].figures)[[0, 3, 6]], rtol=1e-5)
    together = jax.tree.map(lambda a: a.mean(0), metrics["inside"])
    np.testing.assert_allclose(together.delta, seen.delta.mean(0), rtol=1e-5)
    np.testing.assert_allclose(together.values.sum(-1), 1, rtol=1e-5)


@pytest.mark.slow
def test_delta_whose_square_underflows_float32_is_measured():
    objective = lambda *args, **kw: (lambda found: (1e-30 * found[0], found[1]))(OBJECTIVE(*args, **kw))
    run = start()
    seen = diagnostics.inside(objective)(run.params, run.state, (X, Y))[1][1]["inside"]
    np.testing.assert_allclose(seen.delta, [np.sqrt((d**2).mean()) for d in by_hand(run.params, 1e-30)[1]], rtol=1e-5)


@pytest.mark.slow
def test_many_runs_at_once():
    runs = [start(), jax.tree.map(lambda a: 2 * a if a.dtype == jnp.float64 else a, start())]
    step = jax.jit(diagnostics.inside(STEP, every=1))
    alone = [step(run, (X, Y))[1]["inside"] for run in runs]
    params, state, opt_state = (jax.tree.map(lambda *a: jnp.stack(a), *(run[i] for run in runs)) for i in range(3))
    both = jax.vmap(lambda p, s, o: step(runs[0]._replace(params=p, state=s, opt_state=o), (X, Y))[1]["inside"])(params, state, opt_state)
    for i in range(2):
        chex.assert_trees_all_close(jax.tree.map(lambda a: a[i], both), alone[i], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_layer_applied_twice_is_measured_as_one():
    """As when a network is applied to each half of the batch: sums accumulate, fractions cover both."""
    def halves(params, state, batch, *, key=None, train=True):
        found = [OBJECTIVE(params, state, jax.tree.map(lambda a: a[rows], batch), key=key, train=train)
                 for rows in (slice(0, 4), slice(4, 8))]
        return (found[0][0] + found[1][0]) / 2, found[0][1]
    run = start()
    whole, both = (diagnostics.inside(objective)(run.params, run.state, (X, Y))[1][1]["inside"] for objective in (OBJECTIVE, halves))
    for name in ("mean", "rms", "delta", "dead", "saturated", "gradient"):
        np.testing.assert_allclose(getattr(both, name), getattr(whole, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [pytest.param(jax.sharding.AxisType.Auto, marks=pytest.mark.slow), jax.sharding.AxisType.Explicit],
                         ids=["auto", "explicit"])
def test_batch_sharded_over_several_devices(kind):
    step, run = diagnostics.inside(STEP, every=2), start()
    alone = jax.jit(step)(run, (X, Y))[1]["inside"]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,), devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        batch = jax.device_put((X, Y), jax.NamedSharding(mesh, jax.P("data")))
        spread = jax.jit(step)(jax.device_put(run, jax.NamedSharding(mesh, jax.P())), batch)[1]["inside"]
    chex.assert_trees_all_close(jax.device_get(spread), jax.device_get(alone), rtol=1e-5, atol=1e-6)


def test_nonfinite_values_are_counted_and_null_in_json():
    bad = X.at[2, 1].set(jnp.nan)
    seen = jax.jit(diagnostics.inside(STEP, every=1))(start(), (bad, Y))[1]["inside"]
    assert (seen.nonfinite[[0, 2, 4]] >= 1).all()
    text = seen.to_json()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["mean"][0] is None and json.loads(text)["names"][0] == "0 Dense(6)"


def test_table_shows_only_the_figures_a_layer_has():
    seen = jax.jit(diagnostics.inside(STEP, every=1))(start(), (X, Y))[1]["inside"]
    lines = str(seen).splitlines()
    assert len(lines) == 2 + 5 and "rms δ" in lines[0]
    assert [line.count("%") for line in lines[2:]] == [0, 1, 0, 1, 0]


@pytest.mark.slow
def test_fit_keeps_the_figures_and_they_can_be_drawn(tmp_path):
    epoch = train.make_epoch(diagnostics.inside(STEP, every=2), batch_size=4)
    for data in ((X, Y), [(X, Y)] * 3):
        history = train.fit(start(), epoch, data, epochs=3).history
        assert all(isinstance(log["loss"], float) and log["inside"].figures.shape == (8, 5) for log in history)
    paths = [diagnostics.heat_map(history, tmp_path / "new" / "h.png"), diagnostics.heat_map(history, tmp_path / "d.png", what="dead"),
             diagnostics.histograms(history, tmp_path / "v.png")]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("call, sentence", [
    (lambda: diagnostics.inside(lambda p, s, b, *, key, train: ((p**2).sum(), (s, {})))(jnp.ones(3), (), ()), "applies none"),
    (lambda: diagnostics.heat_map([], what="delta"), "list to draw must not be empty"),
    (lambda: diagnostics.heat_map([], what="loss"), "what must be one of mean, rms"),
    (lambda: jax.tree.map(jnp.zeros_like, diagnostics.inside(OBJECTIVE)(start().params, start().state, (X, Y))[1][1]["inside"]).steps(),
     "write inside(step, every=1)")])
def test_invalid_call_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()
