"""The main test: every rule, on every one of its examples, against everything it must agree with."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import ops, sample, verify
from fnnet.rule import autodiff, rule

RULES = pytest.mark.parametrize("op", ops.rules(), ids=lambda op: op.__name__)
# Compiling for several devices takes a second or two; further examples of a rule differ from its first in settings and
# arguments, but hardly in sharding: `pytest -m slow`.
EXAMPLES = pytest.mark.parametrize("op, example", [pytest.param(op, example, id=f"{op.__name__}-{i}", marks=[pytest.mark.slow] * (i > 0))
                                                   for op in ops.rules() for i, example in enumerate(op.examples)])


@pytest.mark.sweep(10)                                   # the next test covers every rule
@RULES
def test_audit(op):
    example(op, 0)
    verify.audit(op, examples=1).raise_if_failed()


@RULES
def test_value_and_gradient_with_other_settings(op):
    """The second example, in one program; the audit of every example is a slow test. The value of a value_and_grad
    must have the rule's derivative."""
    arrays, settings = sample.inputs(op, example(op, 1), dtype=jnp.float64)
    cotangents = cotangents_of(partial(op, **settings), arrays)

    def both(arrays):
        over = real_arguments(arrays)
        ours, plain = (jax.value_and_grad(total(partial(f, **settings), cotangents), over) for f in (op, op.reference))
        return ours(*arrays), plain(*arrays), jax.grad(lambda *arrays: ours(*arrays)[0], over)(*arrays)
    got, want, again = jax.device_get(jax.jit(both)(arrays))
    chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-13)
    chex.assert_trees_all_close(again, got[1], rtol=1e-11, atol=1e-13)


def is_key(a):
    return jnp.issubdtype(jnp.result_type(a), jax.dtypes.prng_key)


def is_scalar(op, example):
    arrays = jax.eval_shape(lambda: sample.inputs(op, example)[0])
    return all(is_key(a) or jnp.ndim(a) == 0 for a in jax.tree.leaves(arrays))


SCALARS = [pytest.param(op, example, id=f"{op.__name__}-{i}")
           for op in ops.rules() for i, example in enumerate(op.examples) if is_scalar(op, example)]


@pytest.mark.sweep(8)
@pytest.mark.parametrize("op, example", SCALARS)
def test_python_numbers_work_as_arrays(op, example):
    arrays, settings = sample.inputs(op, example, dtype=jnp.float64)
    numbers = [a.item() if a is not None and not is_key(a) else a for a in arrays]
    over = real_arguments(arrays)
    for f in (partial(op, **settings), autodiff(partial(op, **settings))):
        for g in (f, jax.grad(f, over)):
            want = g(*arrays)
            chex.assert_trees_all_close(g(*numbers), want, rtol=1e-14)
            chex.assert_trees_all_close(jax.jit(g)(*numbers), want, rtol=1e-12)


@pytest.mark.slow                                       # as in `python -m fnnet audit`
@RULES
def test_audit_of_every_example_in_every_precision(op):
    verify.audit(op, precisions=("float32", "bfloat16")).raise_if_failed()


@RULES
def test_is_documented_and_has_examples(op):
    assert "=" in op.formula and any(sign in op.formula for sign in "′d∂"), (
        f"{place(op)} must have its formula and its derivative as the first paragraph of its docstring")
    example(op, 2)


def place(op):
    """Where a rule is defined: hard_shrink in ops/activations/kinked.py."""
    return f"{op.__name__} in {op.reference.__module__.removeprefix('fnnet.').replace('.', '/')}.py"


def example(op, i):
    """The i-th example of a rule. A rule has at least three, so that it is checked with several sizes and settings."""
    if len(op.examples) <= i:
        have = {0: "no example", 1: "one example"}.get(len(op.examples), f"{len(op.examples)} examples")
        pytest.fail(f"{place(op)} has {have}: write three, {op.__name__}.example(...)", pytrace=False)
    return op.examples[i]


@pytest.mark.sweep(12)
@RULES
def test_large_sizes_fit_a_small_machine(op):
    """The memory that autodiff of the reference saves: `python -m bench rules` computes it several times."""
    for example in op.examples:
        arrays = jax.eval_shape(lambda example=example: sample.inputs(op, example, large=True)[0])
        assert verify.saved_bytes(partial(op.reference, **sample.inputs(op, example)[1]), *arrays) < 2 * 2**30, example


def real_arguments(arrays):
    return tuple(i for i, a in enumerate(arrays) if a is not None and
                 all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(a)))


def total(f, cotangents):
    """A scalar of the outputs of f, by fixed random cotangents. Outputs may differ in dtype."""
    return lambda *args: sum(jnp.vdot(y, c).astype(jnp.float64) for y, c in zip(jax.tree.leaves(f(*args)), cotangents, strict=True))


def cotangents_of(f, arrays):
    leaves = jax.tree.leaves(jax.eval_shape(f, *arrays))
    return [np.random.default_rng(i).normal(size=leaf.shape).astype(leaf.dtype) for i, leaf in enumerate(leaves)]


@pytest.mark.sweep(12)
@EXAMPLES
def test_on_an_explicit_mesh_with_the_examples_sharded(op, example):
    arrays, settings = sample.inputs(op, example, dtype=jnp.float64)
    f, n = partial(op, **settings), sample.SIZES["n"][0]
    over = real_arguments(arrays)
    if not any(jnp.ndim(leaf) and leaf.shape[0] == n for leaf in jax.tree.leaves(arrays)):
        return                                          # a scalar or a penalty: there is nothing to shard
    scalar = total(f, cotangents_of(f, arrays))
    want = jax.jit(jax.grad(scalar, over))(*arrays)
    mesh = jax.make_mesh((n,), ("data",), devices=jax.devices()[:n])
    with jax.set_mesh(mesh):
        def place(leaf):
            return jax.device_put(leaf, jax.P("data") if jnp.ndim(leaf) and leaf.shape[0] == n else jax.P())
        sharded = [a if a is None else jax.tree.map(place, a) for a in arrays]
        got = jax.jit(jax.grad(scalar, over))(*sharded)
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(want), rtol=1e-11, atol=1e-13)


def summed(op):
    """Whether a rule has sums: activations are elementwise, and were found to be as accurate as autodiff."""
    return op.reference.__module__.rpartition(".")[2] not in ("gates", "kinked", "smooth")


@pytest.mark.sweep(12)
@pytest.mark.parametrize("op, dtype", [pytest.param(op, dtype, id=f"{dtype.__name__}-{op.__name__}", marks=[pytest.mark.slow] * slow)
                                       for op in ops.rules() for dtype, slow in ((jnp.bfloat16, not summed(op)), (jnp.float16, True))])
def test_low_precision_is_no_worse_than_autodiff(op, dtype):
    """Against float64 at the same (rounded) inputs; the cotangents come back in the dtype of their arguments. In bfloat16 with 1000
    examples and positive cotangents, so that a sum not in float32 stalls, except for rules whose kinks must be avoided."""
    kinked = any(getattr(maker, "__qualname__", "").startswith("apart") for maker in example(op, 0).values())
    long = {letter: small for letter, (small, _) in sample.SIZES.items()} | {"n": 1000} if dtype == jnp.bfloat16 and not kinked else False
    arrays, settings = sample.inputs(op, op.examples[0], dtype=dtype, large=long)
    over, cotangents = real_arguments(arrays), cotangents_of(partial(op, **settings), arrays)
    cotangents = [abs(c) for c in cotangents] if long else cotangents

    def gradients(arrays, cotangents):                  # one program, as compilation takes nearly all the time
        def of(f, wide):
            widen = partial(jax.tree.map, lambda a: a.astype(jnp.float64) if wide and jnp.issubdtype(a.dtype, jnp.floating) else a)
            return jax.grad(total(partial(f, **settings), widen(cotangents)), over)(*(a if a is None else widen(a) for a in arrays))
        return of(op.reference, True), of(op, False), of(op.reference, False)
    found = jax.jit(gradients)(arrays, cotangents)
    for grads in found[1:]:
        assert jax.tree.map(jnp.result_type, grads) == jax.tree.map(jnp.result_type, tuple(arrays[i] for i in over))
    truth, *both = ([leaf.astype("float64") for leaf in jax.tree.leaves(jax.device_get(grads))] for grads in found)
    errors = [max(abs(a - b).max() / max(abs(b).max(), 1e-30) for a, b in zip(leaves, truth, strict=True)) for leaves in both]
    ours, theirs = errors
    assert ours <= 2 * max(theirs, float(jnp.finfo(dtype).eps)), f"{ours:.1e} against autodiff's {theirs:.1e}"


def broken(op, change):
    """A rule with a mistake in its backward pass."""
    wrong = rule(op.reference)
    forward, backward = op.forward, op.backward
    wrong.fwd(lambda *arrays, **settings: forward(*arrays, **settings))
    wrong.bwd(lambda dy, *saved, **settings: change(backward(dy, *saved, **settings), dy, saved))
    wrong.examples = op.examples
    return wrong


def first(f):
    return lambda cotangents, dy, saved: (f(cotangents[0], dy), *cotangents[1:]) if isinstance(cotangents, tuple) else f(cotangents, dy)


MISTAKES = {
    "sign": first(lambda g, dy: -g),
    "factor of two": first(lambda g, dy: 2 * g),
    "a thousandth off": first(lambda g, dy: 1.001 * g),
    "one element": first(lambda g, dy: g.at[(0,) * g.ndim].multiply(1 + 1e-6)),
    "nothing": first(lambda g, dy: 0 * g),
    "upside down": first(lambda g, dy: g[::-1]),
    "second argument dropped": lambda c, dy, saved: (c[0], 0 * c[1], *c[2:]),
    "cotangent used twice": first(lambda g, dy: g * (1 + 0.01 * dy.mean())),
    "half precision": first(lambda g, dy: g.astype(jnp.float16).astype(g.dtype)),
    "detached from the cotangent": first(lambda g, dy: jax.lax.stop_gradient(g)),
}


GROSS = "factor of two", "nothing", "upside down"       # an error of a thousandth, a single wrong element, and more


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in GROSS)) for name in MISTAKES])
def test_rule_broken_on_purpose_is_caught(name):
    report = verify.audit(broken(ops.dense, MISTAKES[name]), examples=1)
    assert not report.ok, report
    assert "FAILED" in str(report)
    with pytest.raises(AssertionError, match="FAILED"):
        report.raise_if_failed()


def test_an_intact_copy_passes():
    assert verify.audit(broken(ops.dense, lambda c, dy, saved: c)).ok


@pytest.mark.slow
def test_different_mask_in_the_backward_pass_is_caught():
    def other_mask(cotangents, dy, saved):
        return ops.dropout.backward(dy, jax.random.fold_in(saved[0], 1), rate=0.5)
    assert not verify.audit(broken(ops.dropout, other_mask)).ok


def test_sum_that_stalls_in_bfloat16_is_caught():
    def one_by_one(cotangents, dy, saved):
        db, _ = jax.lax.scan(lambda total, row: (total + row, None), jnp.zeros_like(cotangents[2]), dy)
        return *cotangents[:2], db
    test_low_precision_is_no_worse_than_autodiff(broken(ops.dense, lambda c, dy, saved: c), jnp.bfloat16)
    with pytest.raises(AssertionError, match="against autodiff's"):
        test_low_precision_is_no_worse_than_autodiff(broken(ops.dense, one_by_one), jnp.bfloat16)


@pytest.mark.parametrize("dtype, lost", [(jnp.float32, 2.0**6), (jnp.bfloat16, float("nan")),     # one of each; the others are slow tests
                                         pytest.param(jnp.float32, float("nan"), marks=pytest.mark.slow),
                                         pytest.param(jnp.bfloat16, 2.0**6, marks=pytest.mark.slow)])
def test_loss_of_accuracy_only_in_low_precision_is_caught(dtype, lost):
    def rounded(cotangents, dy, saved):
        wrong = 1 + lost * float(jnp.finfo(dtype).eps) if dy.dtype == dtype else 1.0
        return jax.tree.map(lambda g: g * wrong, cotangents)
    name = jnp.dtype(dtype).name
    report = verify.audit(broken(ops.dense, rounded), precisions=(name,))
    assert {(check.name, check.example) for check in report.failures} == {(name, 0), (name, 1), (name, 2)}


@pytest.mark.parametrize("given, message", [({"precisions": "float16"}, "float32, bfloat16, .* got float16"),
                                            ({"examples": 0}, "the examples of audit must be at least 1; got 0")])
def test_audit_without_cases_raises(given, message):
    with pytest.raises(ValueError, match=message):
        verify.audit(ops.dense, **given)


def test_nan_at_extreme_inputs_is_caught():
    @rule
    def soft(x):
        """y = log(1 + eˣ)"""
        return jnp.logaddexp(x, 0)
    soft.slope(lambda x: jnp.exp(x) / (1 + jnp.exp(x)))
    soft.example(x="n d")
    report = verify.audit(soft)
    assert [check.name for check in report.failures] == ["corners"] and "not finite" in str(report)


def test_missing_example_or_formula_is_reported_by_name():
    @rule
    def hard_shrink(x):
        return jnp.where(abs(x) > 1, x, 0)
    for call in (test_is_documented_and_has_examples, test_audit, test_value_and_gradient_with_other_settings):
        with pytest.raises((AssertionError, pytest.fail.Exception), match="hard_shrink in test_rules.py (has no example|must have its)"):
            call(hard_shrink)
    hard_shrink.example(x="n d")
    with pytest.raises(pytest.fail.Exception, match="hard_shrink in test_rules.py has one example: write three"):
        test_value_and_gradient_with_other_settings(hard_shrink)
