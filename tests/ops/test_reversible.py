"""A reversible stack: recovered inputs, active rules inside, constant memory. Tests shared by all rules are in test_rules.py."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, ops
from fnnet.measure.compare import saved_bytes
from fnnet.rule import rule, used


def layer(w, x):
    return ops.tanh(x @ w)


def noisy(weights, x):
    w, key = weights
    return ops.dropout(ops.tanh(x @ w), key, rate=0.5)


def arguments(depth=3, n=4, d=5, dtype=jnp.float64, seed=0):
    return [normal(4 * seed + i, shape, dtype) * scale
            for i, (shape, scale) in enumerate([((n, d), 1), ((n, d), 1), ((depth, d, d), d**-0.5), ((depth, d, d), d**-0.5)])]


STACK = partial(ops.reversible, f=layer, g=layer)


def test_by_hand():
    """Two blocks for one number: f multiplies by v, g by w."""
    def times(w, x):
        return w * x
    x1, x2, v, w = (jnp.asarray(a) for a in (2.0, 3.0, [0.5, 2.0], [1.0, -1.0]))
    y1, y2 = ops.reversible(x1, x2, v, w, f=times, g=times)
    assert (y1, y2) == (3.5 + 2 * 6.5, 6.5 - (3.5 + 2 * 6.5))              # first 2 + 0.5·3 = 3.5 and 3 + 3.5 = 6.5


def test_small_inputs_are_recovered_from_large_sums_in_bfloat16():
    def gradient(dtype):
        args = [(scale * a).astype(jnp.bfloat16).astype(dtype) for scale, a in zip((1, 1, 200, 3), arguments(n=20, d=8), strict=True)]

        def second(x1, x2, v, w):
            return ops.reversible(x1, x2, v, w, f=lambda v, x: x @ v, g=layer)[1].astype(jnp.float64).sum()
        return jax.tree.map(lambda a: a.astype(jnp.float64), jax.jit(jax.grad(second, (0, 1, 2, 3)))(*args))
    for got, want in zip(gradient(jnp.bfloat16), gradient(jnp.float64), strict=True):
        assert abs(got - want).max() < 0.02 * abs(want).max()


def test_rules_inside_stay_active():
    args = arguments()
    assert used(STACK, *args) == [ops.reversible, ops.tanh]
    calls = []

    @rule
    def cube(x):
        """y = x³,   y′ = 3x²"""
        return x**3

    @cube.slope
    def _(x):
        calls.append(1)
        return 3 * x**2

    def f(w, x):
        return cube(0.1 * (x @ w))
    got = jax.grad(lambda *a: ops.reversible(*a, f=f, g=f)[0].sum())(*args)
    assert calls
    want = jax.grad(lambda *a: autodiff(partial(ops.reversible, f=f, g=f))(*a)[0].sum())(*args)
    chex.assert_trees_all_close(got, want, rtol=1e-11)


def test_random_numbers_are_redrawn_in_the_backward_pass():
    x1, x2, v, w = arguments()
    def total(f, v, w):
        keys = jax.random.split(jax.random.key(5), 6)
        return jnp.sin(jnp.stack(f(x1, x2, (v, keys[:3]), (w, keys[3:]), f=noisy, g=noisy))).sum()
    got, want = (jax.jit(jax.grad(partial(total, f), (0, 1)))(v, w) for f in (ops.reversible, autodiff(ops.reversible)))
    chex.assert_trees_all_close(got, want, rtol=1e-11)


def test_gradient_of_a_gradient():
    def twice(f, x):
        return jax.grad(lambda x: jnp.sin(jax.grad(lambda x: f(x, *arguments()[1:])[1].sum())(x)).sum())(x)
    x = arguments()[0]
    chex.assert_trees_all_close(twice(STACK, x), twice(autodiff(STACK), x), rtol=1e-11)


@pytest.mark.parametrize("size", [1.0, 0.001])
def test_64_blocks_in_float32(size):
    """Recovered inputs are accurate even where they are small compared to the outputs. 64 blocks amplify rounding errors,
    sometimes more in the rule and sometimes more in autodiff: on average over several draws, neither is worse."""
    @partial(jax.jit, static_argnums=(0, 1))
    def gradient(f, dtype, args):
        return jax.grad(lambda *a: jnp.sin(f(*a)[1]).sum(), (0, 1, 2, 3))(*jax.tree.map(lambda a: a.astype(dtype), args))

    forms = (autodiff(STACK), jnp.float64), (STACK, jnp.float32), (autodiff(STACK), jnp.float32)

    def errors(seed):
        x1, x2, *weights = arguments(64, 8, 16, jnp.float32, seed)
        args = size * x1, size * x2, *weights
        truth, found, plain = (jax.tree.map(lambda g: np.asarray(g, np.float64), gradient(*form, args)) for form in forms)
        return [[np.linalg.norm(g - want) / np.linalg.norm(want) for g, want in zip(gradients, truth)] for gradients in (found, plain)]
    ours, theirs = np.mean([errors(seed) for seed in range(4)], 0)
    assert (ours < 2 * theirs).all() and (theirs < 1e-3).all()


def test_memory_does_not_grow_with_the_depth():
    def bytes_of(f, depth):
        args = arguments(depth, 256, 32, jnp.float32)
        program = jax.jit(jax.value_and_grad(lambda *a: f(*a)[1].sum(), (0, 1, 2, 3))).lower(*args).compile()
        return saved_bytes(f, *args), program.memory_analysis().temp_size_in_bytes
    (kept, temp), (kept_deep, temp_deep), (_, autodiff_temp) = bytes_of(STACK, 4), bytes_of(STACK, 64), bytes_of(autodiff(STACK), 64)
    assert kept == kept_deep == 4 * 256 * 32 * 4
    assert temp_deep < temp + 1000 and autodiff_temp > 20 * temp_deep


@pytest.mark.parametrize("change, sentence", [
    (lambda x1, x2, v, w: (x1, x2[:2], v, w), r"two halves of one shape and dtype: x1 is float64\[4, 5\] and x2 is float64\[2, 5\]"),
    (lambda x1, x2, v, w: (x1, x2, v[:2], w), r"one entry for each block; .* shapes \[2, 5, 5\], \[3, 5, 5\]"),
])
def test_wrong_arguments_raise(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        STACK(*change(*arguments()))
