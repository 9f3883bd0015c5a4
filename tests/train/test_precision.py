"""precision="bfloat16" and "float16": products in the compute dtype in every layer, everything stored or summed in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import layers, ops, optim, train

N, D, K = 64, 8, 3
X = jax.random.normal(jax.random.key(0), (N, D), jnp.float32)
Y = jnp.argmax(X[:, :K], 1).astype(jnp.int32)
IMAGES = jax.random.normal(jax.random.key(1), (N, 6, 6, 2), jnp.float32)
TOKENS = jax.random.randint(jax.random.key(2), (N, 5), 0, 7, jnp.int32)
LAST = layers.Dense(K)
NETS = {
    "dense": (layers.Serial(layers.Dense(16), layers.BatchNorm(), ops.relu, layers.Dropout(0.1), layers.LayerNorm(), LAST), X),
    "conv": (layers.Serial(layers.Conv(4, kernel=3), ops.relu, layers.Flatten(), LAST), IMAGES),
    "attention": (layers.Serial(layers.Embedding(7, 8), layers.transformer_block(layers.MultiHeadAttention(2), 8), layers.Flatten(), LAST),
                  TOKENS),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("net, x", NETS.values(), ids=NETS)
def test_layers_compute_in_the_dtype_and_results_stay_float32(net, x, precision):
    optimizer = optim.adam(1e-3)
    run = train.init(net, optimizer, jax.random.key(0), x[:1])
    objective, seen = train.supervised(net, ops.softmax_cross_entropy, precision=precision), set()

    def see(path, layer, y):
        seen.add(y.dtype)
        return y
    step = layers.watch(train.make_step(objective, optimizer), see)
    after, metrics = jax.eval_shape(step, run, (x, Y))
    assert seen == {jnp.dtype(precision)}
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after._replace(key=None)) == jax.tree.map(lambda a: (a.shape, a.dtype),
                                                                                                 run._replace(key=None))
    kept = jax.tree.leaves((after.params, after.state, after.opt_state, metrics))
    assert not {leaf.dtype for leaf in kept} & {jnp.dtype("bfloat16"), jnp.dtype("float16")}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains_like_float32(precision):
    net, optimizer, losses = NETS["dense"][0], optim.adam(1e-2), {}
    for chosen in None, precision:
        objective = train.supervised(net, ops.softmax_cross_entropy, precision=chosen)
        epoch = train.make_epoch(train.make_step(objective, optimizer), 16)
        history = train.fit(train.init(net, optimizer, jax.random.key(0), X), epoch, (X, Y), epochs=8).history
        losses[chosen] = [log["loss"] for log in history]
    np.testing.assert_allclose(losses[precision], losses[None], rtol=0.05, atol=0.01)
    assert losses[precision][-1] < 0.5 * losses[precision][0]


def test_loss_scale_preserves_gradients_below_float16():
    """1e-8 is 0 in float16; scaling the loss by 2¹⁵ preserves it."""
    net, optimizer = layers.Dense(1, bias=False), optim.sgd(1.0)
    x, y = jnp.ones((4, 1), jnp.float32), jnp.zeros((4, 1), jnp.float32)
    run = train.init(net, optimizer, jax.random.key(0), x)
    loss = lambda prediction, y: 1e-8 * prediction.mean()
    after, _ = jax.jit(train.make_step(train.supervised(net, loss, precision="float16"), optimizer))(run._replace(
        params={"w": jnp.zeros((1, 1), jnp.float32)}), (x, y))
    np.testing.assert_allclose(after.params["w"], -1e-8, rtol=1e-2)


def test_overflowing_step_is_skipped_and_halves_the_scale():
    net, optimizer = layers.Dense(1, bias=False), optim.adam(0.1)
    x, y = jnp.ones((4, 1), jnp.float32), jnp.zeros((4, 1), jnp.float32)
    step = jax.jit(train.make_step(train.supervised(net, lambda p, y: 1e3 * p.sum(), precision="float16"), optimizer))
    run = train.init(net, optimizer, jax.random.key(0), x)
    after, metrics = step(run, (x, y))
    assert after.scale == run.scale / 2 and after.step == 1 and jnp.isfinite(float(metrics["loss"]))
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state), (run.params, run.opt_state))
    for _ in range(20):
        after, _ = step(after, (x, y))
    assert (after.params["w"] < run.params["w"] - 0.1).all() and 1 <= after.scale < run.scale
    grown, _ = step(after._replace(step=jnp.int32(1999), scale=jnp.float32(2)), (x, y))
    assert grown.scale == 4


def test_unknown_precision_raises():
    with pytest.raises(ValueError, match="precision must be .* or None; got 'half'"):
        train.supervised(LAST, ops.softmax_cross_entropy, precision="half")
