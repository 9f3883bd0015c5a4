"""A row that does not count, because of weight 0 or an ignored label, adds exactly 0 to the value and the gradients, whatever it holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import layers, ops, optim, train

N, D, K = 6, 4, 3
Z, T = normal(0, (N, K), jnp.float64), jax.nn.softmax(normal(1, (N, K), jnp.float64))
LABELS = jnp.arange(N, dtype=jnp.int32) % K
W = jnp.array([1.0, 0.0, 2.0, 0.5, 0.0, 1.0])
BAD = jnp.array([1, 4])
SEQUENCES = normal(2, (N, 5, K), jnp.float64)
SPELLED = jnp.tile(jnp.array([1, 2], jnp.int32), (N, 1))
LINEAR = normal(3, (K, 7), jnp.float64)

# (loss as a function of the differentiated arrays and the weights, these arrays)
LOSSES = {
    "softmax_cross_entropy": (lambda z, w, r: ops.softmax_cross_entropy(z, LABELS, w, reduction=r), (Z,)),
    "distributions": (lambda z, t, w, r: ops.softmax_cross_entropy(z, t, w, reduction=r, z_loss=0.1), (Z, T)),
    "multiclass_hinge": (lambda z, w, r: ops.multiclass_hinge(z, LABELS, w, reduction=r), (Z,)),
    "multiclass_focal": (lambda z, w, r: ops.multiclass_focal(z, LABELS, w, reduction=r), (Z,)),
    "kl_divergence": (lambda q, t, w, r: ops.kl_divergence(q, t, w, reduction=r), (jnp.log(T), T)),
    "linear_cross_entropy": (lambda x, m, w, r: ops.linear_cross_entropy(x, m, LABELS, None, w, reduction=r), (Z, LINEAR)),
    "ctc": (lambda z, w, r: ops.ctc(z, SPELLED, w, reduction=r), (SEQUENCES,)),
    "triplet": (lambda a, p, n, w, r: ops.triplet(a, p, n, w, reduction=r), (Z, Z + 0.1, T)),
    "cosine_distance": (lambda a, b, w, r: ops.cosine_distance(a, b, w, reduction=r), (Z, T)),
    "binary_cross_entropy": (lambda p, t, w, r: ops.binary_cross_entropy(p, t, w, reduction=r), (T, T)),
    "with_logits": (lambda z, t, w, r: ops.binary_cross_entropy_with_logits(z, t, w, reduction=r), (Z, T)),
    "binary_focal": (lambda z, t, w, r: ops.binary_focal(z, t, w, reduction=r), (Z, T)),
    "binary_hinge": (lambda z, t, w, r: ops.binary_hinge(z, t, w, reduction=r), (Z, T)),
    "gaussian_nll": (lambda p, v, t, w, r: ops.gaussian_nll(p, v, t, w, reduction=r), (Z, T, T)),
    **{f.__name__: (lambda p, t, w, r, f=f: f(p, t, w, reduction=r), (Z, T))
       for f in (ops.squared_error, ops.absolute_error, ops.huber, ops.log_cosh, ops.pinball, ops.poisson_nll)},
}


@pytest.mark.sweep(6)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss, arrays", LOSSES.values(), ids=LOSSES)
def test_row_with_weight_0_adds_nothing_whatever_it_holds(loss, arrays, reduction):
    gradient = jax.jit(jax.value_and_grad(lambda arrays: loss(*arrays, W, reduction)))
    value, grads = gradient(arrays)
    rows = [len(a) == N for a in arrays]
    for number in jnp.nan, jnp.inf, -jnp.inf:
        spoiled, found = gradient([a.at[BAD].set(number) if own else a for a, own in zip(arrays, rows, strict=True)])
        np.testing.assert_allclose(spoiled, value, rtol=1e-12)
        for own, got, expected in zip(rows, found, grads, strict=True):
            assert not own or (got[BAD] == 0).all()
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", [ops.softmax_cross_entropy, lambda z, y, **s: ops.linear_cross_entropy(z, LINEAR, y, **s)],
                         ids=["softmax", "linear"])
def test_ignored_row_adds_nothing_whatever_it_holds(loss):
    gradient = jax.value_and_grad(lambda z: loss(z, LABELS, ignore_index=1))
    (value, grad), (spoiled, found) = gradient(Z), gradient(Z.at[BAD].set(jnp.nan))
    np.testing.assert_allclose(spoiled, value, rtol=1e-12)
    np.testing.assert_allclose(found, grad, rtol=1e-9)
    assert (found[BAD] == 0).all()


def test_impossible_label_sequences():
    """Two steps for two equal labels: ∞, or 0 on request, as with PyTorch's zero_infinity."""
    labels, lengths = SPELLED.at[2].set(1), jnp.array([5, 5, 2, 5, 5, 5], jnp.int32)

    def of(z, weights=None, **settings):
        return ops.ctc(z, labels, weights, lengths, **settings)
    assert of(SEQUENCES) == jnp.inf
    each = of(SEQUENCES, reduction="none", infeasible="zero")
    assert each[2] == 0 and (each[jnp.array([0, 1, 3, 4, 5])] > 0).all()
    np.testing.assert_allclose(of(SEQUENCES, infeasible="zero"), each.mean(), rtol=1e-12)
    weights = jnp.ones(N).at[2].set(0)
    np.testing.assert_allclose(of(SEQUENCES, weights), each.sum() / 5, rtol=1e-12)
    grad = jax.grad(lambda z: of(z, infeasible="zero"))(SEQUENCES)
    assert jnp.isfinite(grad).all() and (grad[2] == 0).all()
    with pytest.raises(ValueError, match="infeasible must be 'inf' or 'zero'; got True"):
        of(SEQUENCES, infeasible=True)


X = normal(4, (N, D), jnp.float64)
NET = layers.Serial(layers.Dense(8), ops.relu, layers.Dense(K))


@pytest.mark.parametrize("loss, batch", [
    (ops.softmax_cross_entropy, (X, LABELS, W)), (functools.partial(ops.softmax_cross_entropy, ignore_index=1), (X, LABELS)),
    (ops.squared_error, (X, T, W))], ids=["weights", "ignored", "regression"])
def test_training_ignores_the_features_of_uncounted_rows(loss, batch):
    optimizer = optim.adam(0.1)
    step = jax.jit(train.make_step(train.supervised(NET, loss), optimizer))
    run = train.init(NET, optimizer, jax.random.key(0), X)
    after, metrics = step(run, batch)
    for number in jnp.nan, jnp.inf:
        spoiled, found = step(run, (X.at[BAD].set(number), *batch[1:]))
        np.testing.assert_allclose(found["loss"], metrics["loss"], rtol=1e-12)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), spoiled.params, after.params)


def fit(data, loss=ops.softmax_cross_entropy, net=NET, batch_size=N):
    optimizer = optim.adam(0.1)
    epoch = train.make_epoch(train.make_step(train.supervised(net, loss), optimizer), batch_size)
    return train.fit(train.init(net, optimizer, jax.random.key(0), data[0]), epoch, data, epochs=2)


def test_row_with_infinite_loss_is_named():
    """Even if its gradient is finite: a loss of ∞ whose derivative is 0."""
    labels = jnp.tile(jnp.array([1, 2], jnp.int32), (N, 1)).at[3].set(1)
    x, net = normal(5, (N, 2, D), jnp.float64), layers.Dense(K)
    with pytest.raises(FloatingPointError, match="the loss is not finite at step 0: row 3 of the data has a loss of inf; give it weight"):
        fit((x, labels), ops.ctc, net)
    assert np.isfinite(fit((x, labels), functools.partial(ops.ctc, infeasible="zero"), net).history[-1]["loss"])
    assert np.isfinite(fit((x, labels, jnp.ones(N).at[3].set(0)), ops.ctc, net).history[-1]["loss"])


def test_row_at_fault_is_named_with_the_layer():
    def loss(prediction, target):
        return jnp.log(jnp.where(target == 7, prediction * 0, prediction**2 + 1)).mean()
    target = jnp.zeros((N, K)).at[2].set(7)
    with pytest.raises(FloatingPointError, match=r"of layer 2, Dense\(3\).*; row 2 of the data has a loss of -inf"):
        fit((X, target), loss)


def test_row_with_weight_0_is_not_blamed():
    x = X.at[1].set(jnp.nan)
    assert np.isfinite(fit((x, LABELS, W)).history[-1]["loss"])
    with pytest.raises(FloatingPointError, match=r"data\[0\] has NaN or infinity in row 2"):
        fit((x.at[2].set(jnp.nan), LABELS, W))
