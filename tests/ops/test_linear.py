"""The linear map: errors, dtypes, and the forms of its product. Tests shared by all rules are in test_rules.py."""

import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal
from jax import lax
from jax.sharding import AxisType

from fnnet import autodiff, ops, verify
from fnnet.ops.linear import FORMS, cpu_form, transposed_product

SHAPES = {"plain": (5, 8, 7), "from the right": (6, 24, 10), "transpose first": (4, 256, 128)}        # n, d, k
EVERY_FORM = pytest.mark.parametrize("form", SHAPES)


def xwb(n, d, k, dtype=jnp.float64):
    return tuple(normal(i, shape, dtype) for i, shape in enumerate(((n, d), (d, k), (k,))))


def loss(x, w, b):
    return jnp.sin(ops.dense(x, w, b) / math.sqrt(w.shape[0])).sum()


gradient = jax.grad(loss, (0, 1, 2))
close = partial(chex.assert_trees_all_close, rtol=1e-11, atol=1e-12)


def test_every_form_is_chosen_for_some_shape():
    assert set(SHAPES) == {form.name for form in FORMS}
    assert {form: cpu_form(*shape).name for form, shape in SHAPES.items()} == {form: form for form in SHAPES}


@EVERY_FORM
def test_every_form_matches_the_product_under_every_transformation(form):
    arrays = xwb(*SHAPES[form])

    def transformed(*arrays):
        """Pairs that must agree, in one program, as compilation takes nearly all the time."""
        plain = autodiff(gradient)
        want = plain(*arrays)
        yield from ((f(*arrays), want) for f in (gradient, jax.grad(jax.checkpoint(loss), (0, 1, 2))))
        stacked = [jnp.stack([a, 0.5 * a, 2 * a]) for a in arrays]
        for batched in ((0, 1, 2), (0,), (1,), (2,), (0, 1)):
            axes = tuple(0 if i in batched else None for i in range(3))
            given = [stacked[i] if i in batched else arrays[i] for i in range(3)]
            yield jax.vmap(gradient, axes)(*given), jax.vmap(plain, axes)(*given)
        yield tuple(lax.scan(lambda w, x: (w - f(x, w, arrays[2])[1], None), arrays[1], stacked[0])[0] for f in (gradient, plain))
    pairs = jax.jit(lambda *arrays: list(transformed(*arrays)))(*arrays)
    for got, want in [*pairs, (gradient(*arrays), pairs[0][1])]:
        close(got, want)


@EVERY_FORM
def test_every_form_can_be_differentiated_again(form):
    arrays = xwb(*SHAPES[form])

    def length(f):
        return jax.grad(lambda *a: sum(jnp.vdot(g, jnp.cos(g)) for g in f(*a)), (0, 1, 2))

    def further(f, *arrays):
        return length(f)(*arrays), jax.jvp(f, arrays, tuple(jnp.cos(a) for a in arrays))[1]
    close(*jax.jit(lambda *arrays: [further(f, *arrays) for f in (gradient, autodiff(gradient))])(*arrays))


@EVERY_FORM
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_every_form_on_a_mesh(form, kind):
    """Examples sharded over one axis, the columns of w over the other."""
    arrays = xwb(*SHAPES[form])
    mesh = jax.make_mesh((SHAPES[form][0] if form == "plain" else 2, 1), ("data", "model"), axis_types=(kind,) * 2,
                         devices=jax.devices()[: SHAPES[form][0] if form == "plain" else 2])
    with jax.set_mesh(mesh):
        specs = jax.P("data", None), jax.P(None, "model"), jax.P("model")
        placed = [jax.device_put(a, jax.sharding.NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
        got = jax.jit(gradient)(*placed)
    assert [g.shape for g in got] == [a.shape for a in arrays]
    close(jax.device_get(got), jax.device_get(autodiff(gradient)(*arrays)))


@EVERY_FORM
def test_every_form_inside_shard_map(form):
    x, w, b = xwb(*SHAPES[form])
    x = jnp.concatenate([x, -x])
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    split = jax.P("data"), jax.P(), jax.P()

    def local(x, w, b):
        return lax.psum(loss(x, w, b), "data")
    total = jax.shard_map(local, mesh=mesh, in_specs=split, out_specs=jax.P(), check_vma=True)
    inside = jax.shard_map(gradient, mesh=mesh, in_specs=split, out_specs=split, check_vma=True)
    want = autodiff(gradient)(x, w, b)
    close(jax.jit(jax.grad(total, (0, 1, 2)))(x, w, b), want)
    close(jax.jit(inside)(x, w, b), want)


@EVERY_FORM
def test_only_the_chosen_form_is_compiled_on_a_cpu(form):
    n, d, k = SHAPES[form]
    program = jax.jit(transposed_product).lower(*xwb(n, d, k)[:1], jnp.ones((n, k))).compile()
    if jax.default_backend() == "cpu":
        assert "conditional" not in program.as_text()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_any_number_of_leading_axes(shape):
    x, w, b = jnp.ones((*shape, 3)), jnp.arange(6.0).reshape(3, 2), jnp.array([1.0, -1.0])
    chex.assert_shape(ops.dense(x, w, b), (*shape, 2))
    close(gradient(x, w, b), autodiff(gradient)(x, w, b))


def test_zero_input_or_output_features():
    for d, k in (0, 2), (3, 0):
        arrays = jnp.ones((4, d)), jnp.ones((d, k)), jnp.ones(k)
        want = jnp.full((4, d), float(k)), jnp.full((d, k), 4.0), jnp.full(k, 4.0)
        close(jax.grad(lambda *a: ops.dense(*a).sum(), (0, 1, 2))(*arrays), want)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_sums_accumulate_in_float32(dtype):
    """8192 summands: adding them in the dtype itself would lose two digits."""
    x, w, b = xwb(8192, 32, 8, dtype)
    grads = jax.jit(jax.grad(lambda *a: ops.dense(*a).sum(), (1, 2)))(x, w, b)
    exact = np.repeat(np.asarray(x, np.float64).sum(0)[:, None], 8, 1), np.full(8, 8192.0)
    for g, truth in zip(grads, exact, strict=True):
        assert g.dtype == dtype
        assert np.abs(np.asarray(g, np.float64) - truth).max() <= float(jnp.finfo(dtype).eps) * np.abs(truth).max()


def test_cotangents_have_the_dtypes_of_the_arguments():
    with jax.numpy_dtype_promotion("standard"):
        x, w, b = xwb(4, 24, 3, jnp.float32)
        for i in range(3):
            given = [a.astype(jnp.bfloat16) if i == j else a for j, a in enumerate((x, w, b))]
            assert [g.dtype for g in gradient(*given)] == [a.dtype for a in given]


def test_float32_weights_with_bfloat16_products():
    """The exact value is that for the rounded inputs. Autodiff of the cast rounds dW to bfloat16, with an error of about 2⁻⁹."""
    x, w, b = (normal(i, s, jnp.float32) for i, s in enumerate([(512, 64), (64, 32), (32,)]))
    dy = normal(3, (512, 32), jnp.bfloat16)

    def pulled(f):
        y, pull = jax.vjp(lambda *a: f(*a, compute_dtype="bfloat16"), x, w, b)
        assert y.dtype == jnp.bfloat16
        return pull(dy)
    rounded = [np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (x, w)]
    g = np.asarray(dy, np.float64)
    truth = g @ rounded[1].T, rounded[0].T @ g, g.sum(0)
    for mine, auto, right in zip(pulled(ops.dense), pulled(ops.dense.reference), truth, strict=True):
        error, others = (np.linalg.norm(np.asarray(a, np.float64) - right) / np.linalg.norm(right) for a in (mine, auto))
        assert mine.dtype == jnp.float32 and error < 1e-6 and others > 1e-3


@pytest.mark.parametrize("dtype", ["int32", "bf16", 16])
def test_invalid_compute_dtype_raises(dtype):
    with pytest.raises(ValueError, match=f'must be a dtype of real numbers, such as "bfloat16", or None; got {dtype!r}'):
        ops.dense(*xwb(4, 3, 2), compute_dtype=dtype)


def test_only_the_arguments_are_saved():
    x, w, b = xwb(64, 32, 16)
    assert verify.saved_bytes(ops.dense, x, w, b) == 0


@pytest.mark.parametrize("shapes, message", [
    (((4, 3), (2, 5), (5,)), r"x is \[4, 3\] and w is \[2, 5\], so x has 3 features but w needs 2"),
    (((4, 8, 8), (64, 5), (5,)), r"x is \[4, 8, 8\] and w is \[64, 5\]"),
    (((4, 3), (3,), (3,)), r"w is \[3\]"),
    (((), (3, 2), (2,)), r"x is \[\]"),
    (((4, 3), (3, 5), (4,)), r"takes a bias b \[5\] for w \[3, 5\]: b is \[4\]"),
    (((4, 3), (3, 5), (1, 5)), r"takes a bias b \[5\] for w \[3, 5\]: b is \[1, 5\]"),
])
def test_wrong_shapes_raise(shapes, message):
    with pytest.raises(ValueError, match=message):
        ops.dense(*map(jnp.ones, shapes))
