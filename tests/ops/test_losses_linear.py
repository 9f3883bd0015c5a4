"""linear_cross_entropy: the loss and gradient of scores that are never stored. Tests shared by all rules are in test_rules.py."""

from functools import partial

import chex
import jax
import jax.extend
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from drawn import normal

from fnnet import ops, verify

f32, f64 = jnp.float32, jnp.float64
N, D, K = 6, 5, 11


def arguments(dtype=f64):
    x, w, b = (normal(i, shape, dtype) for i, shape in enumerate([(N, D), (D, K), (K,)]))
    return x, w, jnp.int32([0, 10, 3, 4, 7, 3]), b


def gradients(loss, *args, over=(0, 1, 3)):
    return jax.jit(jax.value_and_grad(loss, over))(*args)


@pytest.mark.sweep(4)
@pytest.mark.parametrize("chunk", [1, 2, 4, 10, 11, 12, None])
def test_every_chunk_size_gives_the_same_cross_entropy(chunk):
    def apart(x, w, labels, b):
        return ops.softmax_cross_entropy(ops.dense(x, w, b), labels)
    x, w, labels, b = arguments()
    want = gradients(apart, x, w, labels, b)
    chex.assert_trees_all_close(gradients(partial(ops.linear_cross_entropy, chunk=chunk), x, w, labels, b), want, rtol=1e-12, atol=1e-15)
    value, (dx, dw, db) = gradients(partial(ops.linear_cross_entropy, chunk=chunk, classes_first=True), x, w.T, labels, b)
    chex.assert_trees_all_close((value, (dx, dw.T, db)), want, rtol=1e-12, atol=1e-15)


def distributions():
    return jax.nn.softmax(2 * normal(7, (N, K), f64)) * f64([1, 1, 0.5, 2, 1, 0])[:, None]      # not all of them sum to 1


@pytest.mark.sweep(5)
@pytest.mark.parametrize("chunk", [4, 1, 10, 12, None])
def test_distributions_with_every_chunk_size(chunk):
    def apart(x, w, t, b):
        return ops.softmax_cross_entropy(ops.dense(x, w, b), t, label_smoothing=0.1, z_loss=0.3)
    (x, w, _, b), t = arguments(), distributions()
    loss = partial(ops.linear_cross_entropy, label_smoothing=0.1, z_loss=0.3, chunk=chunk)
    want = gradients(apart, x, w, t, b, over=(0, 1, 2, 3))
    chex.assert_trees_all_close(gradients(loss, x, w, t, b, over=(0, 1, 2, 3)), want, rtol=1e-12, atol=1e-15)


def test_one_hot_distribution_matches_its_label():
    """In float32, with confident rows: 1 − p of the largest class is not lost in the sum."""
    rows, labels = f32([[40, 0, -1, 0], [0, 1, 90, 2], [17, 17, 0, 0], [-80, 1, 0, 1]]), jnp.int32([0, 2, 1, 3])
    loss = partial(ops.linear_cross_entropy, chunk=3, reduction="sum")
    got, want = (gradients(loss, rows, jnp.eye(4, dtype=f32), t, None, over=(0, 1)) for t in (jax.nn.one_hot(labels, 4, dtype=f32), labels))
    chex.assert_trees_all_close(got, want, rtol=1e-6)


def test_distributions_over_classes_masked_by_a_bias():
    """Chunks of only −∞, at the beginning, in the middle and at the end."""
    (x, w, _, b), there = arguments(), jnp.array([2, 3, 6, 7])
    masked, t = jnp.full(K, -jnp.inf).at[there].set(b[there]), jax.nn.softmax(normal(3, (N, 4), f64))
    value, (dx, dw, db) = gradients(partial(ops.linear_cross_entropy, chunk=2), x, w, jnp.zeros((N, K)).at[:, there].set(t), masked)
    want = gradients(ops.linear_cross_entropy, x, w[:, there], t, b[there])
    chex.assert_trees_all_close((value, (dx, dw[:, there], db[there])), want, rtol=1e-12, atol=1e-15)
    assert jnp.isfinite(dw).all() and not db[jnp.array([0, 1, 4, 5, 8, 9, 10])].any()


def test_distributions_of_weight_0_do_not_count():
    (x, w, _, b), t, weights = arguments(), distributions(), f64([1, 0, 2, 0, 1, 1])
    loss = partial(ops.linear_cross_entropy, weights=weights, chunk=4)
    want = gradients(loss, x, w, t, b, over=(0, 1, 2, 3))
    ruined = x.at[1].set(jnp.inf).at[3].set(jnp.nan)
    chex.assert_trees_all_close(gradients(loss, ruined, w, t, b, over=(0, 1, 2, 3)), want, rtol=1e-14)


def test_several_outputs_by_vmap():
    x, w, labels = normal(0, (N, D), f64), normal(1, (3, D, K), f64), jnp.arange(3 * N).reshape(N, 3) % K
    each = jax.vmap(partial(ops.linear_cross_entropy, chunk=4), (None, 0, -1))(x, w, labels)
    want = [ops.softmax_cross_entropy(x @ w[i], labels[:, i]) for i in range(3)]
    chex.assert_trees_all_close(each, jnp.stack(want), rtol=1e-12)


def test_smoothing_soft_cap_and_z_loss_match_the_docstring():
    x, w, labels, b = arguments()

    def by_hand(x, w, labels, b):
        z = 2 * jnp.tanh((x @ w + b[None, :]) / 2)
        target = 0.9 * jax.nn.one_hot(labels, K, dtype=f64) + 0.1 / K
        return (-(target * jax.nn.log_softmax(z)).sum(-1) + 0.3 * jax.nn.logsumexp(z, axis=-1) ** 2).mean()
    loss = partial(ops.linear_cross_entropy, label_smoothing=0.1, z_loss=0.3, softcap=2.0, chunk=4)
    chex.assert_trees_all_close(gradients(loss, x, w, labels, b), gradients(by_hand, x, w, labels, b), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_rows_match_leaving_them_out(weighted):
    x, w, labels, b = arguments()
    weights, left = f64([1, 2, 0.5, 3, 1, 2]) if weighted else None, jnp.array([0, 1, 3, 5])
    ignoring = partial(ops.linear_cross_entropy, ignore_index=-100, chunk=4)
    value, (dx, dw, db) = gradients(ignoring, x, w, labels.at[jnp.array([2, 4])].set(-100), b, weights)
    want, (dx0, dw0, db0) = gradients(ops.linear_cross_entropy, x[left], w, labels[left], b, weights[left] if weighted else None)
    chex.assert_trees_all_close((value, dx[left], dw, db), (want, dx0, dw0, db0), rtol=1e-12, atol=1e-15)
    assert not dx[jnp.array([2, 4])].any()


def test_only_ignored_rows():
    x, w, labels, b = arguments()
    found = gradients(partial(ops.linear_cross_entropy, ignore_index=3), x, w, 0 * labels + 3, b)
    assert not any(leaf.any() for leaf in jax.tree.leaves(found))


def test_confident_row_in_float32_matches_fifty_digits():
    """With W = 1 the scores are x. Whichever chunk the true class is in, its slope, the sum of the other classes, is not lost."""
    rows = np.repeat(np.float32([[m, 0, -1, 0] for m in (0, 1, 10, 17, 40, 80, -17, -80)] + [[1e4, 1e4 - 30, 0, 5]]), 4, 0)
    labels = np.tile(np.arange(4, dtype="int32"), len(rows) // 4)
    loss = partial(ops.linear_cross_entropy, chunk=3)
    each = loss(rows, jnp.eye(4, dtype=f32), labels, reduction="none")
    slope = jax.jit(jax.grad(partial(loss, reduction="sum")))(rows, jnp.eye(4, dtype=f32), labels)
    plain = jax.grad(partial(ops.linear_cross_entropy.reference, reduction="sum"))(rows, jnp.eye(4, dtype=f32), labels)
    assert (plain[(slope != 0)] == 0).any(), "the reason for keeping the true class separate"
    with mpmath.workdps(50):
        for row, label, value, found in zip(rows, labels, each, slope, strict=True):
            e = [mpmath.exp(mpmath.mpf(float(z))) for z in row]
            exact = [v / mpmath.fsum(e) - (j == label) for j, v in enumerate(e)]
            for got, want in [(value, -mpmath.log(e[label] / mpmath.fsum(e))), *zip(found, exact, strict=True)]:
                assert abs(float(got) - want) <= 1e-6 * abs(want) + 2e-38, (row, label)


def test_slope_of_the_soft_cap_in_the_tails():
    """1 − tanh² is 0 in float32 from 9 on."""
    x, w, label = f32([[12.0, 0]]), jnp.eye(2, dtype=f32), jnp.int32([1])
    slope = jax.grad(partial(ops.linear_cross_entropy, softcap=1.0))
    exact = jax.grad(partial(ops.linear_cross_entropy.reference, softcap=1.0))(x.astype(f64), w.astype(f64), label)
    chex.assert_trees_all_close(slope(x, w, label), exact.astype(f32), rtol=1e-5)
    assert slope(x, w, label)[0, 0] != 0


def test_classes_masked_by_a_bias():
    """A chunk of only −∞ at the beginning, in the middle and at the end: as if those classes did not exist."""
    x, w, _, b = arguments()
    there = jnp.array([2, 3, 6, 7])
    masked = jnp.full(K, -jnp.inf).at[there].set(b[there])
    labels = jnp.int32([0, 3, 1, 2, 2, 0])
    value, (dx, dw, db) = gradients(partial(ops.linear_cross_entropy, chunk=2), x, w, there[labels], masked)
    want = gradients(ops.linear_cross_entropy, x, w[:, there], labels, b[there])
    chex.assert_trees_all_close((value, (dx, dw[:, there], db[there])), want, rtol=1e-12, atol=1e-15)
    assert jnp.isfinite(dw).all() and not db[jnp.array([0, 1, 4, 5, 8, 9, 10])].any()


def test_scores_for_distributions_are_never_stored():
    n, k = 64, 4096
    x, w, t = jnp.ones((n, 8), f32), jnp.ones((8, k), f32), jnp.full((n, k), 1 / k, f32)
    loss = partial(ops.linear_cross_entropy, chunk=512)
    assert verify.saved_bytes(loss, x, w, t) == 3 * 4 * n
    temp = [jax.jit(jax.value_and_grad(f, (0, 1))).lower(x, w, t).compile().memory_analysis().temp_size_in_bytes
            for f in (loss, partial(loss.func.reference, **loss.keywords))]
    assert temp[0] < temp[1] / 2


@pytest.mark.parametrize("classes_first", [False, True])
def test_scores_are_never_stored(classes_first):
    """No array in the program is as large as the scores, and three numbers per row are saved."""
    n, k = 64, 4096
    x, w, labels = jnp.ones((n, 8), f32), jnp.ones((k, 8) if classes_first else (8, k), f32), jnp.zeros(n, "int32")
    loss = partial(ops.linear_cross_entropy, chunk=512, classes_first=classes_first)
    both = jax.value_and_grad(loss, (0, 1))

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (v.aval.size for v in equation.outvars)
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from sizes(inner)
    assert max(sizes(jax.make_jaxpr(both)(x, w, labels).jaxpr)) == max(w.size, n * 512)
    assert verify.saved_bytes(loss, x, w, labels) == 3 * 4 * n
    temp = [jax.jit(f).lower(x, w, labels).compile().memory_analysis().temp_size_in_bytes
            for f in (both, jax.value_and_grad(partial(loss.func.reference, **loss.keywords), (0, 1)))]
    assert temp[0] < temp[1] / 3


def test_half_precision_sums_in_float32():
    """Scores of 1000 classes and a gradient of 512 rows, in bfloat16: as accurate as their arguments."""
    keys = jax.random.split(jax.random.key(1), 3)
    x, w = jax.random.normal(keys[0], (512, 16), jnp.bfloat16), jax.random.normal(keys[1], (16, 1000), jnp.bfloat16)
    labels = jax.random.randint(keys[2], (512,), 0, 1000)
    found = jax.jit(jax.grad(partial(ops.linear_cross_entropy, chunk=256), (0, 1)))(x, w, labels)
    exact = jax.grad(ops.linear_cross_entropy.reference, (0, 1))(x.astype(f64), w.astype(f64), labels)
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == jnp.bfloat16
        assert jnp.linalg.norm(a.astype(f64) - b) < 4e-3 * jnp.linalg.norm(b)


@pytest.mark.parametrize("change, sentence", [
    ({"w": jnp.zeros((3, K))}, r"x \[\.\.\. d\] and w \[d k\]: x is \[6, 5\] and w is \[3, 11\]"),
    ({"w": jnp.zeros((K, D))}, r"for w \[k d\] write classes_first=True"),
    ({"b": jnp.zeros(3)}, r"a bias b \[11\] for 11 classes: b is \[3\]"),
    ({"labels": jnp.zeros(N)}, r"with x \[6, 5\] takes integer labels \[6\] or distributions \[6, 11\]; got float64\[6\]"),
    ({"labels": jnp.zeros((N, K), int)}, r"takes integer labels \[6\] or distributions \[6, 11\]; got int64\[6, 11\]"),
    ({"labels": jnp.zeros((N, K)), "ignore_index": 0}, r"needs integer labels; got distributions \[6, 11\]: give the rows to ignore"),
    ({"labels": jnp.full(N, 11)}, "takes labels 0 to 10; got the label 11: count from 0"),
    ({"labels": jnp.full(N, -1)}, "got the label -1: for rows without a label write ignore_index=-1"),
    ({"x": jnp.zeros((N, D), int)}, "takes real x; got int64"),
    ({"weights": jnp.ones(2)}, r"one weight for each example, \[6\]; got weights \[2\]"),
    ({"label_smoothing": 1.5}, "the label_smoothing of .* must be a number ≥ 0 and < 1; got 1.5"),
    ({"z_loss": -1.0}, "the z_loss of .* must be a number ≥ 0"), ({"softcap": 0.0}, "softcap of .* must be None or a positive number"),
    ({"chunk": 0}, "chunk of .* must be None or a number of classes"), ({"reduction": "max"}, "reduction of .* must be .*; got 'max'"),
])
def test_wrong_arguments_raise(change, sentence):
    given = dict(zip(("x", "w", "labels", "b"), arguments(), strict=True))
    with pytest.raises((TypeError, ValueError), match=sentence) as caught:
        ops.linear_cross_entropy(**{**given, **change})
    assert "\n" not in str(caught.value)
