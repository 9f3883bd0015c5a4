"""Where gradients are lost, and how it is reported."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import diagnostics, layers, ops, train

init = layers.initializers
X, Y = normal(1, (32, 8), jnp.float32), jnp.arange(32) % 3


def flow(net, x=X):
    params, state = jax.jit(lambda key: net.init(key, X))(jax.random.key(0))
    return diagnostics.gradient_flow(train.supervised(net, ops.softmax_cross_entropy), params, state, (x, Y))


def deep(*block, depth):
    return layers.Serial(*block * depth, layers.Dense(3))


NETS = {                        # a network, what is found, and words of the diagnosis and of the remedy
    "sigmoid": (deep(layers.Dense(16, weights=init.glorot()), ops.sigmoid, depth=8), ["vanishing"],
                ("σ′ ≤ ¼", "each of the 8 sigmoid layers", "layers.Residual")),
    "relu": (deep(layers.Dense(16), ops.relu, depth=8), [], ("gradient flow looks healthy", "0 Dense(16)", "16 Dense(3)")),
    "large weights": (deep(layers.Dense(16, weights=init.normal(2.0)), ops.relu, depth=6), ["exploding"], ("clip_by_global_norm", "by ")),
    "dead": (layers.Serial(layers.Dense(16, biases=init.constant(-9.0)), ops.relu, layers.Dense(3)), ["dead"],
             ("1 relu", "100 % of the units", "leaky_relu")),
    "saturated": (layers.Serial(layers.Dense(16, weights=init.normal(9.0)), ops.tanh, layers.Dense(3)), ["saturated"],
                  ("1 tanh", "where the slope is almost 0", "glorot")),
    "constant": (deep(layers.Dense(16, weights=init.constant(0.1)), ops.relu, depth=2), ["identical units"],
                 ("0 Dense(16)", "all 0.1", "1 more layers", "copies of a single unit", "random initial weights")),
    "zeros": (deep(layers.Dense(16, weights=init.zeros()), ops.tanh, depth=3), ["identical units"], ("0 Dense(16)", "all 0", "symmetry")),
    "zeros on the output": (layers.Serial(layers.Dense(16), ops.relu, layers.Dense(3, weights=init.zeros())), [], ("healthy",)),
    "linear": (layers.Serial(layers.Dense(16), layers.Dropout(0.0), layers.Dense(8), layers.BatchNorm(), layers.Dense(3)), ["linear"],
               ("the 3 layers together are one linear layer", "ops.relu")),
    "one layer": (layers.Serial(layers.Dense(3)), [], ("healthy",)),
    "relu on the output": (layers.Serial(layers.Dense(16), ops.tanh, layers.Dense(3), ops.relu), ["output"],
                           ("ends with 3 relu", "scores without an activation")),
    "no gradient": (layers.Serial(layers.Dense(16), ops.relu, layers.Dense(3), lambda x: 0 * x), ["no gradient"], ("δ is 0 at every",)),
}
FOUND = {}


def found(name):
    if name not in FOUND:
        FOUND[name] = flow(NETS[name][0])
    return FOUND[name]


@pytest.mark.sweep(6)
@pytest.mark.parametrize("name", NETS)
def test_faults_are_reported_with_a_remedy(name):
    _, kinds, words = NETS[name]
    assert found(name).kinds == kinds and found(name).ok == (not kinds)
    for word in words:
        assert word in str(found(name))


def test_reported_rate_matches_the_layers():
    seen = found("sigmoid").inside
    own = [i for i, name in enumerate(seen.names) if "Dense" in name]
    assert f"by a factor of {(seen.delta[own[0]] / seen.delta[own[-1]]) ** (1 / 8):.2g} from" in str(found("sigmoid"))


def test_nonfinite_values_are_reported_first():
    net = layers.Serial(layers.Dense(4), ops.relu, layers.Dense(3))
    said = flow(net, X.at[0, 0].set(jnp.nan))
    assert said.kinds[0] == "not finite" and "the first of them at 0 Dense(4)" in str(said)


def test_picture_from_figures_read_from_a_file(tmp_path):
    record = json.loads(json.dumps(found("dead").record()))
    assert record["names"] == ["0 Dense(16)", "2 Dense(3)"] and record["dead"] == [1.0, None] and record["kinds"] == ["dead"]
    assert diagnostics.flow.draw_flow(record, tmp_path / "a.png").stat().st_size > 5000
    assert found("relu").draw(tmp_path / "new" / "b.png").stat().st_size > 5000


def test_normalization_layers_are_left_out_of_the_comparison():
    net = deep(layers.Dense(8), layers.BatchNorm(), ops.relu, depth=2)
    assert flow(net).record()["names"] == ["0 Dense(8)", "3 Dense(8)", "6 Dense(3)"]


def test_network_without_weights_is_examined_too():
    said = flow(layers.Serial(ops.tanh, lambda x: x[:, :3]))
    assert np.isfinite(said.inside.delta).all() and said.record()["names"][0] == "0 tanh"
