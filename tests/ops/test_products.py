"""Products by letters, of pairs and of low rank: against NumPy and their definitions, and errors. The rest is in test_rules.py."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, ops


def arrays(*shapes, dtype=jnp.float64):
    return [normal(i, shape, dtype) for i, shape in enumerate(shapes)]


@pytest.mark.sweep(4)
@pytest.mark.parametrize("letters, a, b", [
    ("i j, j k -> i k", (2, 3), (3, 4)), ("i j, j k -> k i", (2, 3), (3, 4)), ("i j, i j -> i j", (2, 3), (2, 3)),
    ("i, j -> i j", (2,), (3,)), ("i j, k l ->", (2, 3), (4, 5)), ("i j, i k -> k", (2, 3), (2, 4)),
    (",i->i", (), (3,)), ("b i j,b j k->b i k", (5, 2, 3), (5, 3, 4)),
    ("...i, i j->... j", (4, 5, 2), (2, 3)), ("i j, ... j -> ... i", (2, 3), (4, 5, 3)), ("... i j, ... j -> i ...", (4, 2, 3), (4, 3)),
    ("...,... -> ...", (2, 3), (2, 3)), ("b...i, i... -> ...b", (4, 3, 2), (2, 3)),
])
def test_einsum_matches_numpy(letters, a, b):
    a, b = arrays(a, b)
    y, pull = jax.vjp(lambda a, b: ops.einsum(a, b, letters=letters), a, b)
    np.testing.assert_allclose(y, np.einsum(letters.replace(" ", ""), a, b), rtol=1e-13)
    dy = jnp.cos(jnp.arange(1.0, y.size + 1).reshape(y.shape))
    want = jax.vjp(lambda a, b: jnp.einsum(letters.replace(" ", ""), a, b), a, b)[1](dy)
    chex.assert_trees_all_close(pull(dy), want, rtol=1e-12)


def test_einsum_sums_half_precision_in_float32():
    a, b = arrays((4, 2000), (4, 2000, 3), dtype=jnp.bfloat16)
    exact = np.einsum("ij,ijk->ik", *(np.asarray(x, float) for x in (a, b)))
    y, pull = jax.vjp(lambda a, b: ops.einsum(a, b, letters="i j, i j k -> i k"), a, b)
    np.testing.assert_allclose(np.asarray(y, float), exact, rtol=2**-8)
    assert [g.dtype for g in pull(y)] == [jnp.bfloat16] * 2


def test_bilinear_is_one_bilinear_form_per_feature():
    x, z, w, b = arrays((2, 5, 3), (2, 5, 4), (3, 4, 6), (6,))
    want = np.stack([[[x[i, j] @ w[:, :, k] @ z[i, j] + b[k] for k in range(6)] for j in range(5)] for i in range(2)])
    np.testing.assert_allclose(ops.bilinear(x, z, w, b), want, rtol=1e-12)
    assert ops.bilinear(x[0, 0], z[0, 0], w).shape == (6,)


def test_bilinear_of_one_output_does_not_form_pairs():
    x, z, w, b = arrays((2, 3, 4), (2, 3, 5), (4, 5, 1), (1,))
    got, want = (jax.jit(jax.grad(lambda *args, f=f: jnp.sin(f(*args)).sum(), (0, 1, 2, 3)))(x, z, w, b)
                 for f in (ops.bilinear, ops.bilinear.reference))
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-13)
    of_x = jax.make_jaxpr(jax.grad(lambda x: ops.bilinear(x, z, w, b).sum()))
    assert "[6,20]" not in str(of_x(x)) and "[2,3,20]" not in str(of_x(x))


def test_low_rank_change_matches_a_dense_map():
    x, w, down, up, b = arrays((5, 8), (8, 7), (8, 2), (2, 7), (7,))
    merged = lambda x, w, down, up, b: ops.dense(x, w + 0.5 * down @ up, b)
    ours = lambda *args: ops.dense_low_rank(*args, scale=0.5)
    total = lambda f: lambda *args: jnp.sin(f(*args)).sum()
    got, want = (jax.value_and_grad(total(f), tuple(range(5)))(x, w, down, up, b) for f in (ours, merged))
    chex.assert_trees_all_close(got, want, rtol=1e-12)


def test_unused_gradient_of_the_large_matrix_is_not_computed():
    x, w, down, up = arrays((64, 128), (128, 128), (128, 2), (2, 128))
    loss = lambda *args: jnp.sin(ops.dense_low_rank(*args)).sum()
    flops = [jax.jit(jax.grad(loss, over)).lower(x, w, down, up).compile().cost_analysis()["flops"] for over in ((2, 3), (1, 2, 3))]
    assert flops[1] - flops[0] >= 0.9 * 2 * 64 * 128 * 128


a, b = arrays((2, 3), (3, 4))


@pytest.mark.parametrize("call, sentence", [
    (lambda: ops.einsum(a, b, letters="i j, j k"), "write lowercase letters, a comma between the two arrays, and an arrow"),
    (lambda: ops.einsum(a, b, letters="i j -> i"), "a comma between the two arrays"),
    (lambda: ops.einsum(a, b, letters="I j, j k -> I k"), "lowercase letters"),
    (lambda: ops.einsum(a, b, letters="i i, j k -> i k"), "i occurs twice in one array; take its diagonal first"),
    (lambda: ops.einsum(a, b, letters="i j, j k -> i l"), "l is in the product but in neither array"),
    (lambda: ops.einsum(a, b, letters="i j, k j -> i k"), r"for arrays \[2, 3\] and \[3, 4\]: j is 3 in one and 4 in the other"),
    (lambda: ops.einsum(a, b, letters="i j l, j k -> i k"), "i?jl has 3 letters for 2 axes"),
    (lambda: ops.einsum(a, b, letters="i, j k -> i k"), "i has 1 letters for 2 axes"),
    (lambda: ops.einsum(a, b, letters="... j, j k -> k"), r"the axes of '...' are not summed"),
    (lambda: ops.einsum(a, b, letters="... , ... -> ..."), r"'...' is \[2, 3\] in one and \[3, 4\] in the other"),
    (lambda: ops.bilinear(a, b, jnp.ones((3, 4, 2))), r"x is \[2, 3\], z is \[3, 4\] and w is \[3, 4, 2\]"),
    (lambda: ops.bilinear(a, a, jnp.ones((3, 3, 2)), jnp.ones(3)), r"a bias b \[2\] for w \[3, 3, 2\]: b is \[3\]"),
    (lambda: ops.dense_low_rank(a, b, jnp.ones((3, 2)), jnp.ones((3, 4))), r"down is \[3, 2\] and up is \[3, 4\]"),
    (lambda: ops.dense_low_rank(a, b, jnp.ones((3, 2)), jnp.ones((2, 4)), jnp.ones(3)), r"a bias b \[4\] for w \[3, 4\]: b is \[3\]"),
])
def test_wrong_arguments_raise(call, sentence):
    for f in call, autodiff(call):
        with pytest.raises(ValueError, match=sentence):
            f()
