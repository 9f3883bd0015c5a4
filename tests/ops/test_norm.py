"""Normalization: by hand, far from 0, constant, huge, tiny and half-precision inputs, and saved values. Tests shared by all rules are
in test_rules.py."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import config, ops

f32, f64 = jnp.float32, jnp.float64


@pytest.fixture(params=["cpu", "gpu"])
def backend(request):
    """On a CPU a second pass is made where it is needed; elsewhere one pass computes both."""
    with config.use(backend=request.param):
        yield request.param


def pulled(f, args, cotangents):
    """y and the cotangents of the arguments, as float64."""
    y, pull = jax.jit(lambda args, c: (lambda y, pull: (y, pull(c)))(*jax.vjp(f, *args)))(args, cotangents)
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves((y, pull))], [leaf.dtype for leaf in jax.tree.leaves((y, pull))]


def arguments(shape, offset=0.0, dtype=f32):
    x, gamma, beta, dy, *others = (normal(i, s) for i, s in enumerate([shape, shape[-1:], shape[-1:]] * 2))
    return to(dtype, ((x + offset, gamma, beta), (dy + 1, *others)))


def to(dtype, tree):
    return jax.tree.map(lambda a: a.astype(dtype), tree)


def test_by_hand():
    x = f64([[1, 0], [3, 0], [5, 6]])
    y, mean, var = ops.batch_norm(x, f64([1, 2]), f64([0, 1]), eps=0.0)
    chex.assert_trees_all_close((mean, var), (f64([3, 2]), f64([8 / 3, 8])), rtol=1e-15)      # ÷ n: the biased variance
    chex.assert_trees_all_close(y, f64([[-1.5**0.5, 1 - 2**0.5], [0, 1 - 2**0.5], [1.5**0.5, 1 + 8**0.5]]), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 3), (2, 1, 3, 3)])
def test_reduces_all_axes_but_the_last(shape):
    x = normal(0, shape, f64)
    y, mean, var = ops.batch_norm(x, jnp.ones(3), jnp.zeros(3))
    flat = x.reshape(6, 3)
    chex.assert_trees_all_close((mean, var), (flat.mean(0), flat.var(0)), rtol=1e-13)
    chex.assert_trees_all_close(y.reshape(6, 3), ops.batch_norm(flat, jnp.ones(3), jnp.zeros(3))[0], rtol=1e-13)


@pytest.mark.parametrize("part", ["y", "mean", "var"])
def test_cotangents_of_all_outputs_are_used(part):
    args, cotangents = arguments((7, 3), dtype=f64)
    only = tuple(c if name == part else 0 * c for name, c in zip(("y", "mean", "var"), cotangents, strict=True))
    got, want = pulled(ops.batch_norm, args, only)[0], pulled(ops.batch_norm.reference, args, only)[0]
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-14)
    assert np.abs(got[3]).max() > 0.01


@pytest.mark.sweep(4)
@pytest.mark.parametrize("offset", [0.0, 100.0, 3000.0, -1e5])
@pytest.mark.parametrize("shape", [(4096, 8), (7, 8), (16, 4, 4, 8)])
def test_accurate_far_from_0_in_float32(shape, offset):
    """Against float64 at the same float32 numbers: outputs and gradients agree to a few roundings, however far the channel is from 0."""
    args, cotangents = arguments(shape, offset)
    truth, found = pulled(ops.batch_norm.reference, *to(f64, (args, cotangents)))[0], pulled(ops.batch_norm, args, cotangents)[0]
    for name, got, want in zip(("y", "mean", "var", "dx", "dgamma", "dbeta"), found, truth, strict=True):
        size = max(np.abs(want).max(), name == "mean")          # numbers of magnitude 1 that cancel have the rounding error of 1
        assert np.abs(got - want).max() < 1e-6 * size, name


def test_autodiff_is_less_accurate_there():
    """The reason for saving the rounding error of the mean."""
    args, cotangents = arguments((4096, 8), 3000.0)
    truth = pulled(ops.batch_norm.reference, *to(f64, (args, cotangents)))[0][4]
    assert np.abs(pulled(ops.batch_norm.reference, args, cotangents)[0][4] - truth).max() > 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize("value", [0.0, 0.1, 3000.1])
def test_constant_channel(value):
    x = jnp.full((50, 2), value, f32).at[:, 1].set(jnp.arange(50, dtype=f32))
    (y, mean, var, dx, dgamma, dbeta), _ = pulled(ops.batch_norm, (x, f32([2, 1]), f32([3, 0])), arguments((50, 2))[1])
    assert all(np.isfinite(a).all() for a in (y, mean, var, dx, dgamma, dbeta))
    np.testing.assert_allclose(y[:, 0], 3, rtol=1e-6)
    np.testing.assert_allclose(mean[0], np.float32(value), rtol=1e-7)
    assert var[0] < 1e-12 and abs(dgamma[0]) < 1e-4


@pytest.mark.parametrize("op, count", [(ops.batch_norm, 3), (ops.batch_norm_inference, 5)])
def test_one_example_gives_finite_gradients(op, count):
    args = (f32([[3, 4]]), f32([1, 2]), f32([0, 1]), f32([0, 0]), f32([1, 0]))[:count]
    grads = jax.grad(lambda *args: jnp.sum(jax.tree.leaves(op(*args))[0]), tuple(range(count)))(*args)
    assert all(jnp.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_computes_in_float32(dtype):
    """The result is that of float64 rounded once (dγ sums 4096 rounded dy, which the expected value takes into account)."""
    args, (dy, *rest) = arguments((4096, 8), 20.0, dtype)
    cotangents = dy, *to(f32, rest)
    got, dtypes = pulled(ops.batch_norm, args, cotangents)
    assert dtypes == [dtype, f32, f32, dtype, dtype, dtype]         # statistics last longer than a step
    for a, b in zip(got, pulled(ops.batch_norm.reference, *to(f64, (args, cotangents)))[0], strict=True):
        assert np.abs(a - b).max() < float(jnp.finfo(dtype).eps) * np.abs(b).max()


def test_half_precision_with_float32_parameters():
    """The result has the dtype of x, each cotangent that of its argument."""
    (x, gamma, beta), _ = arguments((64, 8))
    x, mean, var = x.astype(jnp.bfloat16), jnp.zeros(8, f32), jnp.ones(8, f32)
    for f, args in ((ops.batch_norm, (x, gamma, beta)), (ops.batch_norm_relu, (x, gamma, beta)), (ops.layer_norm, (x, gamma, beta)),
                    (ops.rms_norm, (x, gamma)), (ops.batch_norm_inference, (x, gamma, beta, mean, var))):
        y, pull = jax.vjp(lambda *args, f=f: jax.tree.leaves(f(*args))[0], *args)
        assert [y.dtype, *(d.dtype for d in pull(y))] == [jnp.bfloat16, *(a.dtype for a in args)], f


def test_only_statistics_are_saved():
    """x, the argument itself, and three numbers for each channel. No other array of the size of x is created."""
    x, gamma = jnp.ones((1000, 64), f32), jnp.ones(64, f32)
    pull = jax.vjp(ops.batch_norm, x, gamma, gamma)[1]
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(pull) if leaf is not x) <= 5 * 64 * 4
    both = jax.jit(lambda args, c: (lambda y, pull: (y, pull(c)))(*jax.vjp(ops.batch_norm, *args)))
    compiled = both.lower((x, gamma, gamma), (x, gamma, gamma)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < x.nbytes / 20


def test_inference_with_batch_statistics_matches_training():
    args, _ = arguments((9, 4), dtype=f64)
    y, mean, var = ops.batch_norm(*args)
    chex.assert_trees_all_close(ops.batch_norm_inference(*args, mean, var), y, rtol=1e-12)


@pytest.mark.parametrize("call", [
    lambda: ops.batch_norm(jnp.zeros(3), jnp.zeros(3), jnp.zeros(3)),
    lambda: ops.batch_norm(jnp.zeros((0, 3)), jnp.zeros(3), jnp.zeros(3)),
    lambda: ops.batch_norm(jnp.zeros((2, 0)), jnp.zeros(0), jnp.zeros(0)),
    lambda: ops.batch_norm(jnp.zeros((2, 3)), jnp.zeros(2), jnp.zeros(3)),
    lambda: ops.batch_norm_inference(jnp.zeros((2, 3)), jnp.zeros(3), jnp.zeros(3), jnp.zeros(3), jnp.zeros((1, 3))),
])
def test_wrong_arguments_raise(call):
    with pytest.raises(ValueError, match=r"batch norm takes x \[... d\] with at least one example, .* one number for each channel"):
        call()


def test_numpy_integers_are_accepted():
    x = normal(0, (2, 3, 4), f64)
    chex.assert_trees_all_equal(ops.l2_norm(x, axis=np.int64(1)), ops.l2_norm(x, axis=1))
    chex.assert_trees_all_equal(ops.group_norm(x, groups=np.int64(2)), ops.group_norm(x, groups=2))


def normalized(x, axes, eps=1e-5):
    """The definition in NumPy."""
    x = np.asarray(x, np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


IMAGES = normal(5, (3, 4, 5, 6), f64) + 2


@pytest.mark.parametrize("name, f, want", [
    ("layer", lambda x, *ab: ops.layer_norm(x, *ab), normalized(IMAGES, -1)),
    ("rms", lambda x, a, b: ops.rms_norm(x, a) + b[None, None, None],
     np.asarray(IMAGES) / np.sqrt((np.asarray(IMAGES) ** 2).mean(-1, keepdims=True) + 1e-6)),
    ("group", lambda x, *ab: ops.group_norm(x, *ab, groups=3), normalized(IMAGES.reshape(3, 20, 3, 2), (1, 3)).reshape(IMAGES.shape)),
    ("one group", lambda x, *ab: ops.group_norm(x, *ab, groups=1), normalized(IMAGES, (1, 2, 3))),
    ("instance", lambda x, *ab: ops.instance_norm(x, *ab), normalized(IMAGES, (1, 2))),
    ("batch and relu", lambda x, *ab: ops.batch_norm_relu(x, *ab)[0], normalized(IMAGES, (0, 1, 2))),
], ids=lambda v: v if isinstance(v, str) else "")
def test_each_matches_its_definition(name, f, want):
    gamma, beta = jnp.arange(1.0, 7), jnp.linspace(-1, 1, 6)
    want = want * np.asarray(gamma) + np.asarray(beta)
    chex.assert_trees_all_close(f(IMAGES, gamma, beta), np.maximum(want, 0) if "relu" in name else want, rtol=1e-11, atol=1e-12)


def test_layer_norm_by_hand():
    """x = (0, 2): μ = 1, σ = 1, z = (−1, 1), and every dx is 0: for two numbers, z depends only on which is larger."""
    y, pull = jax.vjp(lambda x, g, b: ops.layer_norm(x, g, b, eps=0.0), f64([[0, 2]]), f64([3, 5]), f64([1, 1]))
    chex.assert_trees_all_close(y, f64([[-2, 6]]))
    chex.assert_trees_all_close(pull(f64([[1, 10]])), (f64([[0, 0]]), f64([-1, 10]), f64([1, 10])), atol=1e-15)


FAR = {                                                                     # the rule, and the usual formula
    "layer_norm": (lambda x: ops.layer_norm(x), lambda x: plain(x, -1)),
    "group_norm": (lambda x: ops.group_norm(x, groups=2), lambda x: plain(x.reshape(16, 64, 2, 16), (1, 3)).reshape(x.shape)),
    "instance_norm": (lambda x: ops.instance_norm(x), lambda x: plain(x, 1)),
    "batch_norm_relu": (lambda x: ops.batch_norm_relu(x)[0], lambda x: jnp.maximum(plain(x, (0, 1)), 0)),
    "weight_standardize": (lambda x: ops.weight_standardize(x), lambda x: plain(x, (0, 1))),
    "variance": (lambda x: ops.variance(x), lambda x: (x * x).mean(-1) - x.mean(-1) ** 2),
    "standard_deviation": (lambda x: ops.standard_deviation(x, axis=0, ddof=1), lambda x: jnp.sqrt(fast_variance(x, 0)[0] * 16 / 15)),
}


def fast_variance(x, axes):
    """⟨x²⟩ − μ², clipped at 0."""
    return jnp.maximum((x * x).mean(axes, keepdims=True) - x.mean(axes, keepdims=True) ** 2, 0)


def plain(x, axes):
    return (x - x.mean(axes, keepdims=True)) / jnp.sqrt(fast_variance(x, axes) + 1e-5)


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", FAR)
def test_far_from_0_the_rule_is_right_where_the_usual_formula_fails(name):
    rule, usual = FAR[name]
    draw = normal(1, (16, 64, 32), f32)

    def errors(f, offset):
        x = draw + f32(offset)
        c = normal(2, jax.eval_shape(rule, x).shape, f32)
        (truth, _), (found, _) = pulled(rule, (x.astype(f64),), c.astype(f64)), pulled(f, (x,), c)
        return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, truth, strict=True))
    for offset in (0, 100, 3000, -1e5):
        assert errors(rule, offset) < 2e-6, offset
    assert errors(usual, 0) < 2e-5 and errors(usual, 3000) > 0.01


@pytest.mark.sweep(2)
@pytest.mark.parametrize("f", [ops.layer_norm, lambda *args: ops.group_norm(*args, groups=4),
                               lambda *args: ops.instance_norm(*args), lambda *args: ops.batch_norm_relu(*args)[0]])
def test_the_gradients_of_gamma_and_beta_far_from_0(f):
    args, (dy, *_) = arguments((16, 32, 8), 3000.0)
    found, truth = pulled(f, args, dy)[0], pulled(f, *to(f64, (args, dy)))[0]
    for a, b in zip(found, truth, strict=True):
        assert np.abs(a - b).max() < 4e-6 * np.abs(b).max()


HUGE_AND_TINY = [1e25, 1.0, 1e-25]


@pytest.mark.parametrize("scale", HUGE_AND_TINY)
def test_lengths_whose_squares_overflow_or_underflow(scale, backend):
    """‖x‖ and x/‖x‖ in float32, where √Σ x² is ∞ or 0; other rows, of ordinary length or 0, are not affected."""
    rows = np.array([[1, 2, 2], [0, 0, 0], [3, 0, -4]])
    x = jnp.asarray(rows * np.array([[scale], [1], [1]]), f32)
    c = np.array([[1.0, 0, 0], [1, 1, 1], [0, 0, 5]])
    y, dx = ops.l2_norm(x), jax.grad(lambda x: (ops.l2_norm(x) * f32([2, 2, 2])).sum())(x)
    np.testing.assert_allclose(y, [3 * scale, 0, 5], rtol=1e-6)
    np.testing.assert_allclose(dx, 2 * rows / np.array([[3], [1], [5]]), rtol=1e-6)                 # 0 at 0
    y, pull = jax.vjp(ops.l2_normalize, x)
    unit = rows / np.array([[3], [1], [5]])
    np.testing.assert_allclose(y, unit, rtol=1e-6)
    wanted = (c - unit * (unit * c).sum(1, keepdims=True)) / (np.array([[3], [np.inf], [5]]) * np.array([[scale], [1], [1]]))
    np.testing.assert_allclose(pull(f32(c))[0] / f32([[1 / scale], [1], [1]]), wanted * np.array([[scale], [1], [1]]), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(ops.l2_norm(x[:1]), 3 * scale, rtol=1e-6)                            # without a row of zeros
    plain = jax.grad(lambda x: jnp.sqrt((x * x).sum(-1)).sum())(x)
    assert np.isnan(plain[1]).all() and (scale == 1 or not np.allclose(plain[0], rows[0] / 3))


@pytest.mark.parametrize("scale", [2e-38, 7e37])
def test_lengths_at_the_limits_of_float32(scale):
    x, c = jnp.asarray(np.array([[0.6, 0.8]]) * scale, f32), f32([[4, 0]])
    y, pull = jax.vjp(ops.l2_normalize, x)
    np.testing.assert_allclose(y, [[0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(pull(c)[0], np.float64) * scale, [[2.56, -1.92]], rtol=1e-6)
    for factor in 1e-3, 1.0, 1e3:
        norm, pull = jax.vjp(ops.l2_norm, x)
        np.testing.assert_allclose(pull(f32([factor]))[0], factor * np.array([[0.6, 0.8]]), rtol=1e-6)
    np.testing.assert_allclose(ops.l2_norm(f32([[1.8e38, 2.4e38]])), 3e38, rtol=1e-6)


def test_infinite_and_nan_lengths_propagate():
    x = f32([[jnp.inf, 1], [jnp.nan, 1]])
    assert ops.l2_norm(x)[0] == jnp.inf and jnp.isnan(ops.l2_norm(x)[1]) and jnp.isnan(ops.l2_normalize(x)[1]).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e5 + 0.1])
def test_standard_deviation_of_equal_numbers_and_its_gradient_are_0(value):
    x = jnp.full((3, 7), value, f32).at[1, 2].add(1)
    s, dx = jax.value_and_grad(lambda x: (ops.standard_deviation(x) * f32([1, 1, 1])).sum())(x)
    dx = np.asarray(dx)
    assert (dx[0] == 0).all() and (dx[2] == 0).all() and np.isfinite(dx).all() and dx[1, 2] > 0
    np.testing.assert_allclose(s, np.std(np.asarray(x[1], np.float64)), rtol=1e-6)
    many = jnp.repeat(jnp.exp(5 * normal(0, (500, 1), f32)), 7, 1)       # half of the means are rounded
    s, pull = jax.vjp(ops.standard_deviation, many)
    assert (s == 0).all() and (pull(s + 1)[0] == 0).all()
    assert not np.isfinite(jax.grad(lambda x: jnp.std(x, -1).sum())(jnp.zeros((3, 7), f32))).any()


def test_power_iteration_finds_the_largest_singular_value_and_its_gradient():
    """W = U·S·Vᵀ: dσ/dW = u·vᵀ; σ(ŵ) = 1, so ŵ does not change along W."""
    w = normal(3, (3, 3, 4, 6), f64)
    left, sigma, right = np.linalg.svd(np.asarray(w).reshape(36, 6), full_matrices=False)
    u, v = ops.power_iteration(w, jnp.ones(6), steps=400)
    np.testing.assert_allclose(np.abs(np.asarray(u) @ right[0]), 1, rtol=1e-12)
    np.testing.assert_allclose(np.abs(np.asarray(v) @ left[:, 0]), 1, rtol=1e-12)
    unit, pull = jax.vjp(lambda w: ops.spectral_normalize(w, u, v), w)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(unit).reshape(36, 6), 2), 1, rtol=1e-12)
    dw = pull(jnp.cos(w))[0]
    assert abs(float((dw * w).sum())) < 1e-12
    zero, pull = jax.vjp(lambda w: ops.spectral_normalize(w, *ops.power_iteration(w, jnp.ones(6))), 0 * w)
    assert (zero == 0).all() and (pull(w)[0] == w).all()                    # nothing to divide by


@pytest.mark.parametrize("f, bytes_kept", [
    (lambda x, a, b: ops.batch_norm_relu(x, a, b)[0], 3 * 64), (ops.layer_norm, 3 * 500), (lambda x, a, b: ops.rms_norm(x, a), 500),
    (lambda x, a, b: ops.group_norm(x.reshape(4, 125, 64), a, b, groups=8), 3 * 32),
    (lambda x, a, b: ops.l2_normalize(x), 500), (lambda x, a, b: ops.variance(x, axis=0), 2 * 64)])
def test_only_statistics_and_arguments_are_saved(f, bytes_kept):
    x, gamma = jnp.ones((500, 64), f32), jnp.ones(64, f32)
    pull = jax.vjp(f, x, gamma, gamma)[1]
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf is not x and leaf is not gamma]
    assert sum(leaf.nbytes for leaf in kept if leaf.shape != (4, 125, 64)) <= 4 * bytes_kept + 3 * 64 * 4


@pytest.mark.parametrize("call, sentence", [
    (lambda: ops.layer_norm(jnp.zeros((2, 3)), jnp.zeros(2)), r"layer_norm takes x \[\.\.\. d\] .* x is \[2, 3\], the others are \[2\]"),
    (lambda: ops.rms_norm(jnp.zeros(())), "rms_norm takes x .* the others are not given"),
    (lambda: ops.group_norm(jnp.zeros((2, 3, 6)), groups=4), r"so groups must divide 6; got groups=4 for x \[2, 3, 6\]"),
    (lambda: ops.group_norm(jnp.zeros((2, 3, 6))), "without groups"),
    (lambda: ops.instance_norm(jnp.zeros((2, 3))), r"x \[n ... c\] with positions between"),
    (lambda: ops.l2_norm(jnp.zeros((2, 3)), axis=2), "axis=2 for x"),
    (lambda: ops.l2_normalize(jnp.zeros((2, 0))), "must be an axis of x with at least one number"),
    (lambda: ops.variance(jnp.zeros((2, 3)), axis=0, ddof=2), "got ddof=2 for x .*: write ddof=0 or ddof=1"),
    (lambda: ops.l2_norm(jnp.zeros((2, 3)), axis=1.0), r"axis=1.0 for x"),
    (lambda: ops.group_norm(jnp.zeros((2, 3, 6)), groups=True), "groups must divide 6; got groups=True"),
    (lambda: ops.power_iteration(jnp.zeros((2, 3), int), jnp.zeros(3)), "power_iteration takes real weights and a vector; got int64"),
    (lambda: ops.power_iteration(jnp.zeros((2, 3)), jnp.zeros(2)), r"w is \[2, 3\] and u is \[2\]"),
    (lambda: ops.layer_norm(jnp.zeros((2, 3), int)), r"takes real numbers; got int64: write .astype\(jnp.float32\)"),
    (lambda: ops.batch_norm(jnp.zeros((2, 3)), jnp.ones(3, int)), "takes real numbers; got int64"),
    (lambda: ops.group_norm(jnp.zeros((2, 3), bool), groups=1), "takes real numbers; got bool"),
    (lambda: ops.l2_norm(jnp.zeros((2, 3), complex)), "takes real numbers; got complex128"),
    (lambda: ops.weight_standardize(jnp.zeros(3)), r"got \[3\]"),
    (lambda: ops.spectral_normalize(jnp.zeros((2, 3)), jnp.zeros(3), jnp.zeros(3)), r"u is \[3\] and v is \[3\]"),
])
def test_other_wrong_arguments_raise(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()


@pytest.mark.sweep(3)
@pytest.mark.parametrize("op", [ops.batch_norm, ops.batch_norm_relu], ids=lambda op: op.__name__)
@pytest.mark.parametrize("scale", [1e15, 1e25, 1e30])
def test_batch_norm_where_squares_overflow(op, scale, backend):
    """z is about 1 whatever the scale; 1/σ is 10⁻³⁰ and 1/σ² is 0. One of three channels has ordinary magnitude."""
    (x, gamma, beta), (dy, *_) = arguments((16, 3), dtype=f64)
    x = x * jnp.array([[scale, 1.0, scale]])

    def both(f, dtype):
        given = to(dtype, (x, gamma, beta, dy))
        y, pull = jax.vjp(lambda x, gamma, beta: f(x, gamma, beta)[0], *given[:3])
        return y, *pull(given[3])
    got, want = both(op, f32), both(lambda *args: op.reference(*args, eps=1e-5), f64)
    for ours, true in zip(got, want, strict=True):
        assert (abs(ours.astype(f64) - true) <= 5e-6 * abs(true).max(0, keepdims=True)).all()


LARGE = {"layer_norm": (ops.layer_norm, (6, 8), {}), "rms_norm": (ops.rms_norm, (6, 8), {}),
         "group_norm": (ops.group_norm, (6, 4, 8), {"groups": 2}), "instance_norm": (ops.instance_norm, (6, 4, 8), {})}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("scale", [1e15, pytest.param(1e20, marks=pytest.mark.slow), 1e30])
@pytest.mark.parametrize("op, shape, settings", LARGE.values(), ids=LARGE)
def test_layer_and_group_norms_where_squares_overflow(op, shape, settings, scale, backend):
    """y used to be 0 or NaN. Every second example has ordinary magnitude."""
    (x, *channels), (dy, *_) = arguments(shape, dtype=f64)
    x = x * jnp.where(jnp.arange(shape[0]) % 2, scale, 1.0).reshape((-1,) + (1,) * (len(shape) - 1))
    channels = channels[:1] if op is ops.rms_norm else channels

    def both(f, dtype):
        given = to(dtype, (x, *channels, dy))
        y, pull = jax.vjp(lambda *given: f(*given, **settings), *given[:-1])
        return y, *pull(given[-1])
    got, want = both(op, f32), both(op.reference, f64)
    for ours, true in zip(got, want, strict=True):
        axes = tuple(range(1, true.ndim)) if true.ndim > 1 else 0
        assert (abs(ours.astype(f64) - true) <= 1e-5 * abs(true).max(axes, keepdims=True)).all()


def test_nan_stays_in_its_channel_of_batch_norm():
    y, mean, var = ops.batch_norm(jnp.ones((4, 2)).at[0, 0].set(jnp.nan))
    assert jnp.isnan(y[:, 0]).all() and jnp.isnan(var[0]) and (y[:, 1] == 0).all() and var[1] == 0


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_weight_standardization_does_not_depend_on_scale(scale, backend):
    w, dy = normal(0, (7, 3), "float32"), normal(1, (7, 3), "float32")
    y, pull = jax.vjp(lambda w: ops.weight_standardize(w, eps=0.0), w * scale)
    want, plain = jax.vjp(lambda w: ops.weight_standardize(w, eps=0.0), w)
    chex.assert_trees_all_close(y, want, rtol=1e-5)
    chex.assert_trees_all_close(pull(dy)[0] * scale, plain(dy)[0], rtol=1e-4, atol=1e-6)
