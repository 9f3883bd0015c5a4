"""Every operation with integers, empty arrays, and settings of the wrong kind."""

import chex
import jax
import jax.numpy as jnp
import pytest

from fnnet import autodiff, ops, sample

PROMOTING = [op for op in ops.rules() if op.takes == "floats"]


@pytest.mark.sweep(8)
@pytest.mark.parametrize("op", PROMOTING, ids=lambda op: op.__name__)
@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_integers_are_promoted_as_in_jnp(op, dtype):
    whole = [jnp.ones((4, 6), dtype) for name in op.arrays if name not in op.defaults]
    if op is ops.prelu:
        whole[1] = jnp.ones((), dtype)
    if op is ops.log1mexp:
        whole = [-a.astype("int32") for a in whole]
    want = op(*(a.astype(float) for a in whole))
    for f in (op, jax.jit(op), autodiff(op)):
        chex.assert_trees_all_close(f(*whole), want, rtol=1e-12)
        assert f(*whole).dtype == want.dtype


@pytest.mark.parametrize("name", ["relu", "relu6", "hard_tanh", "identity"])
def test_integers_stay_integers_if_elements_are_only_selected(name):
    x = jnp.array([-2, 0, 1], jnp.int32)
    assert getattr(ops, name)(x).dtype == jnp.int32


@pytest.mark.parametrize("call", [
    lambda x: ops.bilinear(x, x, jnp.ones((3, 3, 2), jnp.int32)), ops.layer_norm, ops.batch_norm, ops.l2_norm,
    lambda x: ops.softmax_cross_entropy(x, x[:, 0]), lambda x: ops.variance(x), ops.rms_norm,
])
def test_other_operations_reject_integers_with_a_remedy(call):
    with pytest.raises(TypeError, match=r"real .*int32.*astype\(jnp.float32\)"):
        call(jnp.ones((2, 3), jnp.int32))


@pytest.mark.parametrize("name", ["relu", "relu_squared", "hard_tanh", "tanh", "softmax", "gelu"])
def test_complex_numbers_raise(name):
    with pytest.raises(TypeError, match="got complex64"):
        getattr(ops, name)(jnp.ones(3, jnp.complex64))


def test_a_complex_gate_raises():
    with pytest.raises(TypeError, match="got complex64"):
        ops.reglu(jnp.ones(3, jnp.complex64), jnp.ones(3, jnp.complex64))


@pytest.mark.parametrize("op", [op for op in ops.rules() if ".losses." in op.reference.__module__], ids=lambda op: op.__name__)
def test_losses_reject_complex_numbers_in_each_argument(op):
    arrays, settings = sample.inputs(op, op.examples[0])
    arrays = [jnp.ones(arrays[0].shape[:1]) if name == "weights" else a for name, a in zip(op.arrays, arrays, strict=True)]
    for i, a in enumerate(arrays):
        if a is not None and jnp.issubdtype(a.dtype, jnp.floating):
            with pytest.raises((TypeError, ValueError), match="complex64"):
                op(*arrays[:i], a.astype("complex64"), *arrays[i + 1:], **settings)


@pytest.mark.parametrize("op", [op for op in ops.rules() if "eps" in op.settings], ids=lambda op: op.__name__)
def test_invalid_eps_raises(op):
    arrays, settings = sample.inputs(op, op.examples[0])
    for eps in (-1e-5, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"the eps of .* must be ≥ 0 and finite; got .*: write eps=1e-5"):
            op(*arrays, **settings | {"eps": eps})


EMPTY = {
    "sparsemax": (ops.sparsemax, (2, 0)), "entmax15": (ops.entmax15, (2, 0)),
    "rope": (lambda x: ops.rope(x, jnp.ones((0, 4))), (2, 0, 3, 8)),
    "softmax": (ops.softmax, (2, 0)), "log_softmax": (ops.log_softmax, (2, 0)),
    "group_norm": (lambda x: ops.group_norm(x, groups=2), (0, 3, 4)), "group_norm of rows": (lambda x: ops.group_norm(x, groups=2), (0, 4)),
    "instance_norm": (ops.instance_norm, (0, 3, 4)), "bilinear": (lambda x: ops.bilinear(x, x, jnp.ones((4, 4, 2))), (0, 4)),
    "nt_xent": (lambda x: ops.nt_xent(x, x, reduction="none"), (0, 4)),
}


@pytest.mark.parametrize("f", [ops.cosine_distance, ops.triplet], ids=lambda op: op.__name__)
def test_vectors_without_features_have_length_0(f):
    """Their cosine is defined as 0, and their distance is 0: the reference has 0/0 for the cosine."""
    rows = [jnp.ones((3, 0))] * len([name for name in f.arrays if name != "weights"])
    assert f(*rows) == 1
    assert jax.grad(f)(*rows).shape == (3, 0)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", EMPTY)
def test_empty_inputs_give_empty_values_and_gradients(name):
    f, shape = EMPTY[name]
    x = jnp.ones(shape)
    y = f(x)
    assert y.size == 0 and autodiff(f)(x).shape == y.shape
    assert jax.grad(lambda x: f(x).sum())(x).shape == shape


@pytest.mark.parametrize("call, said", [
    (lambda x: ops.instance_norm(x[:, None], eps=()), r"eps of instance_norm must be of the same kind as its default, 1e-05; got \(\)"),
    (lambda x: ops.elu(x, alpha="mean"), r"alpha of elu must be of the same kind as its default, 1.0; got 'mean'"),
    (lambda x: autodiff(ops.elu)(x, alpha="mean"), r"alpha of elu must be of the same kind as its default, 1.0; got 'mean'"),
    (lambda x: ops.maxout(x, axis=0.5), r"axis of maxout must be of the same kind as its default, -1; got 0.5"),
    (lambda x: ops.einsum(x, x, letters=2), r"letters of einsum must be a string; got 2"),
    (lambda x: ops.dense_stack(x.astype(int), x.astype(int)[None], x.astype(int)), r"takes real arrays; got int"),
    (lambda x: ops.attention(*[x[None, None]] * 3, scale=(0,)), r"scale of attention must be a number, .*; got \(0,\)"),
    (lambda x: ops.attention(*[x[None, None]] * 3, softcap="sum"), r"softcap of attention must be a number, or None; got 'sum'"),
    (lambda x: ops.softmax_cross_entropy(x, jnp.zeros(2, "int32"), ignore_index="x"), r"must be a whole number or None; got 'x'"),
    (lambda x: ops.softmax_cross_entropy(x, jnp.zeros(2, "int32"), ignore_index=float("nan")), r"must be a whole number or None; got nan"),
    (lambda x: ops.reversible(x, x, x, x, f=True, g=0.5), r"f and g of reversible must be functions .*; got True"),
    (lambda x: ops.celu(x, alpha=None), r"alpha of celu must be of the same kind as its default, 1.0; got None"),
])
def test_setting_of_the_wrong_kind_raises(call, said):
    with pytest.raises(TypeError, match=said):
        call(jnp.ones((2, 3)))


def test_incomparable_setting_raises():
    with pytest.raises(ValueError, match="the softcap of .* must be None or a positive number; got 'sum'"):
        ops.linear_cross_entropy(jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.zeros(2, "int32"), softcap="sum")
    with pytest.raises(ValueError, match="at least one step"):
        ops.ctc(jnp.ones((2, 0, 3)), jnp.ones((2, 1), "int32"))
