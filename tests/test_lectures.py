"""Every worked number of the lectures, and a whole training run with rules and with autodiff."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, layers, ops, optim, train, verify

SCORES, LABELS = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]]), jnp.array([0, 1, 2])
W1, W2, X = jnp.array([1.0, 0, 0, 0]), jnp.full(4, 0.25), jnp.ones(4)
CANDIDATES = {1.0: 2.0, 2.0: 5.0, 3.0: 0.5}             # w: L(w)


def penalised():
    return {w: loss + float(ops.l1({"w": jnp.array(w)})) for w, loss in CANDIDATES.items()}


def neuron(w):
    return ops.squared_error(ops.identity(ops.dense(jnp.array([[3.0]]), w)), jnp.array([[1.0]]))


def gate(x, y, z):
    q = x + y
    return ops.dense(q[None, None], z[None, None])[0, 0]


def slide(w):
    """A loss with the slide's values at its four points, in float64."""
    return 1.25347 - 2.5 * w[0] + 0.6 * w[1] + 0.0 * w[2]


def rounded(gradient):
    """As computed on the slide: from losses with five decimal places."""
    return [round((round(float(slide(jnp.zeros(3).at[i].set(1e-4))), 5) - 1.25347) / 1e-4, 6) for i in range(len(gradient))]


W0 = jnp.array([[0.1]])
NUMBERS = {
    "neuron: prediction": (lambda: ops.dense(jnp.array([[3.0]]), W0)[0, 0], 0.3),
    "neuron: loss": (lambda: neuron(W0), 0.49),
    "neuron: dL/dw": (lambda: jax.grad(neuron)(W0)[0, 0], -4.2),
    "neuron: new w, rate 1": (lambda: (W0 + optim.sgd(1.0).update(jax.grad(neuron)(W0), optim.sgd(1.0).init(W0))[0])[0, 0], 4.3),
    "hinge of three images": (lambda: ops.multiclass_hinge(SCORES, LABELS, reduction="none"), [2.9, 0.0, 12.9]),
    "hinge: mean": (lambda: ops.multiclass_hinge(SCORES, LABELS), 15.8 / 3),
    "hinge of W, once 0": (lambda: ops.multiclass_hinge(SCORES[1:2], LABELS[1:2]), 0.0),
    "hinge of 2W, once 0": (lambda: ops.multiclass_hinge(2 * SCORES[1:2], LABELS[1:2]), 0.0),
    "scores of w₁ and w₂": (lambda: jnp.stack([W1 @ X, W2 @ X]), [1.0, 1.0]),
    "L2 of w₁ and w₂": (lambda: jnp.stack([ops.l2(W1), ops.l2(W2)]), [1.0, 0.25]),
    "L(w) + ‖w‖": (lambda: jnp.array(list(penalised().values())), [3.0, 7.0, 3.5]),
    "best w without ‖w‖": (lambda: min(CANDIDATES, key=CANDIDATES.get), 3.0),
    "best w with ‖w‖": (lambda: min(penalised(), key=penalised().get), 1.0),
    "losses after a step of 1e-4": (lambda: [slide(jnp.zeros(3).at[i].set(1e-4)) for i in range(3)], [1.25322, 1.25353, 1.25347]),
    "forward differences": (lambda: verify.forward_difference(slide, jnp.zeros(3)), [-2.5, 0.6, 0.0]),
    "forward differences, by the slide": (lambda: rounded([0, 0, 0]), [-2.5, 0.6, 0.0]),
    "(x + y)z: value": (lambda: gate(*map(jnp.array, (-2.0, 5.0, -4.0))), -12.0),
    "(x + y)z: ∂f/∂x, ∂f/∂y, ∂f/∂z": (lambda: jnp.stack(jax.grad(gate, (0, 1, 2))(*map(jnp.array, (-2.0, 5.0, -4.0)))), [-4.0, -4.0, 3.0]),
    "learning-rate decay": (lambda: [optim.inverse_time_decay(0.2, 1.0)(e) for e in range(4)], [0.2, 0.1, 0.2 / 3, 0.05]),
    "largest σ′": (lambda: jax.grad(ops.sigmoid)(0.0), 0.25),
    "cross-entropy of probability": (lambda: jax.grad(ops.binary_cross_entropy)(jnp.array([0.8]), jnp.array([1.0]))[0], -1 / 0.8),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_worked_number(name):
    compute, expected = NUMBERS[name]
    np.testing.assert_allclose(np.asarray(compute(), np.float64), expected, rtol=1e-8, atol=1e-7)


def random(shape, seed):
    return normal(seed, shape, jnp.float64)


def test_three_layer_sigmoid_network_of_the_slide():
    """∂J/∂W³ = (ŷ − y)a³,  ∂J/∂W² = (ŷ − y)W³σ′(z³)a²,  ∂J/∂W¹ = (ŷ − y)W³σ′(z³)W²σ′(z²)X, with one unit per layer."""
    x, y, (w1, w2, w3) = 0.7, 0.2, (0.5, -1.3, 0.8)

    def loss(w1, w2, w3):
        a3 = ops.sigmoid(w2 * ops.sigmoid(w1 * x))
        return ops.squared_error((w3 * a3)[None], jnp.array([y]), scale=0.5)

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))
    z2, z3 = w1 * x, w2 * sigmoid(w1 * x)
    a2, a3 = sigmoid(z2), sigmoid(z3)
    slope = lambda z: sigmoid(z) * (1 - sigmoid(z))
    d = w3 * a3 - y
    expected = d * w3 * slope(z3) * w2 * slope(z2) * x, d * w3 * slope(z3) * a2, d * a3
    np.testing.assert_allclose(jax.grad(loss, (0, 1, 2))(*map(jnp.array, (w1, w2, w3))), expected, rtol=1e-12)


@pytest.mark.parametrize("hidden, output, delta_out", [
    (ops.tanh, ops.identity, lambda y, t: y - t),
    (ops.sigmoid, ops.sigmoid, lambda y, t: y * (1 - y) * (y - t)),
], ids=["tanh, identity", "sigmoid, sigmoid"])
def test_deltas_of_the_two_layer_networks(hidden, output, delta_out):
    x, t, w1, w2 = random((1, 3), 0), random((1, 2), 1), random((3, 4), 2), random((4, 2), 3)
    z = hidden(x @ w1)
    y = output(z @ w2)
    slope = 1 - z**2 if hidden is ops.tanh else z * (1 - z)
    delta_k = delta_out(y, t)
    delta_j = slope * (delta_k @ w2.T)

    def loss(w1, w2):
        return ops.squared_error(output(ops.dense(hidden(ops.dense(x, w1)), w2)), t, scale=0.5, features="sum", reduction="sum")
    chex.assert_trees_all_close(jax.grad(loss, (0, 1))(w1, w2), (x.T @ delta_j, z.T @ delta_k), rtol=1e-12)


def test_delta_of_a_sigmoid_or_softmax_with_cross_entropy_is_prediction_minus_target():
    z, t = random((4, 3), 0), jax.nn.softmax(random((4, 3), 1))
    total = {"reduction": "sum"}
    close = partial(chex.assert_trees_all_close, rtol=1e-9)
    close(jax.grad(lambda z: ops.softmax_cross_entropy(z, t, **total))(z), ops.softmax(z) - t)
    close(jax.grad(lambda z: ops.binary_cross_entropy_with_logits(z, t, features="sum", **total))(z), ops.sigmoid(z) - t)
    close(jax.grad(lambda z: ops.binary_cross_entropy(ops.sigmoid(z), t, features="sum", **total))(z), ops.sigmoid(z) - t)


def small_run(transform=lambda f: f, dtype=jnp.float64):
    """Ten losses of a small network on synthetic data: dropout, batch norm, penalty, clipping and Adam."""
    x, y = random((64, 8), 0).astype(dtype), jax.random.randint(jax.random.key(1), (64,), 0, 3)
    # No bias before the batch norm: its gradient is 0, and Adam would turn its rounding errors into steps.
    net = layers.Serial(layers.Dense(16, bias=False), layers.BatchNorm(), ops.relu, layers.Dropout(0.3), layers.Dense(3))
    objective = transform(train.supervised(net, ops.softmax_cross_entropy, penalty=lambda p: 1e-3 * ops.l2(ops.weights_of(p))))
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(1e-2))
    chex.clear_trace_counter()
    run, losses = train.init(net, optimizer, jax.random.key(2), x), []
    one = train.make_step(objective, optimizer)
    step = jax.jit(chex.assert_max_traces(lambda run, batch: one(run, batch), n=1))
    for _ in range(10):
        run, metrics = step(run, (x, y))
        losses.append(float(metrics["loss"]))
    return losses, run.params


def test_golden_run_with_rules_and_with_autodiff():
    with_rules, set_aside = small_run(), small_run(autodiff)
    chex.assert_trees_all_close(with_rules, set_aside, rtol=1e-9)
    np.testing.assert_allclose(with_rules[0], set_aside[0], rtol=1e-12)
    assert with_rules[0][-1] < with_rules[0][0]


def test_equal_networks_share_a_trace():
    @partial(jax.jit, static_argnums=0)
    @partial(chex.assert_max_traces, n=1)
    def forward(net, params, state, x):
        return net.apply(params, state, x)[0]
    for _ in range(2):
        net = layers.Serial(layers.Dense(4), ops.relu, layers.Residual(layers.Dense(4)))
        x = jnp.ones((2, 3))
        forward(net, *net.init(jax.random.key(0), x), x)


def test_vanishing_gradients_through_sigmoids():
    """σ′ ≤ ¼, layer after layer."""
    def first_slope(depth):
        def deep(x):
            for _ in range(depth):
                x = ops.sigmoid(x)
            return x
        return float(jax.grad(deep)(0.0))
    slopes = [first_slope(depth) for depth in (1, 2, 4, 8)]
    assert all(slope <= 0.25**depth for slope, depth in zip(slopes, (1, 2, 4, 8), strict=True))
