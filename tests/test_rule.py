"""The machinery of rules: they are right under every transformation, and every mistake in a rule raises a clear error."""

import copy
import gc
import pickle
import threading
import weakref
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal
from jax import lax, random
from jax.sharding import AxisType

import fnnet as fn
from fnnet.rule import Recorder, Rule, autodiff, rule, used
from fnnet.rule.definition import BUILT


@rule
def affine(x, w, b):
    """Y = X·W + b,   dX = dY·Wᵀ,   dW = Xᵀ·dY,   db = Σ dY"""
    return x @ w + b[None, :]


@affine.bwd
def affine_bwd(dy, x, w):
    return dy @ w.T, x.T @ dy, dy.sum(0)


@rule
def swell(x, *, alpha=1.0):
    """y = α x²,   y′ = 2αx"""
    return alpha * x * x


@swell.slope
def swell_slope(x, *, alpha):
    return 2 * alpha * x


@rule
def mask(x, key, *, rate=0.5):
    """y = x where kept"""
    return jnp.where(random.bernoulli(key, 1 - rate, x.shape), x, 0) if rate else x


@mask.bwd
def mask_bwd(dy, key, *, rate):
    # Calls the rule itself, and depends on the key even if y does not.
    return mask(dy, key, rate=rate) + 0 * random.uniform(key, dy.shape, dy.dtype), None


@rule
def pick(x, labels):
    """y = x[labels] along the last axis"""
    return jnp.take_along_axis(x, labels[:, None], -1)[:, 0]


@pick.bwd
def pick_bwd(dy, x, labels):
    return jnp.where(jnp.arange(x.shape[-1])[None, :] == labels[:, None], dy[:, None], 0), None


def arrays(dtype=jnp.float64):
    return tuple(normal(i, shape, dtype) for i, shape in enumerate([(8, 4), (4, 3), (3,)]))


def loss(x, w, b, key=None):
    """Every kind of rule once: several arrays, pointwise, random, integer arguments."""
    y = swell(affine(x, w, b), alpha=0.5)
    y = mask(y, random.key(3) if key is None else key)
    return (pick(y, jnp.arange(x.shape[0]) % y.shape[-1]) ** 2).sum()


ALL = (0, 1, 2)
close = partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)


def grad(f):
    return jax.grad(f, ALL)


TRANSFORMED = {
    "eager": grad,
    "jit": lambda f: jax.jit(grad(f)),
    "jit inside": lambda f: grad(jax.jit(f)),
    "remat": lambda f: grad(jax.checkpoint(f)),
    "scan": lambda f: grad(lambda x, w, b: lax.scan(lambda c, t: (c + f(x * t, w, b), None), 0.0, jnp.arange(3.0))[0]),
    "cond": lambda f: grad(lambda x, w, b: lax.cond(x[0, 0] > 9, f, lambda x, w, b: f(2 * x, w, b), x, w, b)),
    "map": lambda f: grad(lambda x, w, b: lax.map(lambda r: f(r[None], w, b), x).sum()),
    "grad of grad": lambda f: grad(lambda x, w, b: sum((g**2).sum() for g in grad(f)(x, w, b))),
    "ahead of time": lambda f: lambda *a: jax.jit(grad(f)).lower(*a).compile()(*a),
    "hessian": lambda f: jax.hessian(f, ALL),
    "the value of value_and_grad": lambda f: grad(lambda *a: jax.value_and_grad(f, ALL)(*a)[0]),
}


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", TRANSFORMED)
def test_rule_matches_its_reference_under(name):
    transform = TRANSFORMED[name]
    close(transform(loss)(*arrays()), transform(autodiff(loss))(*arrays()))


@rule
def rounded(x):
    """y = round(x),   y′ = 1: a straight-through gradient, unknown to autodiff"""
    return jnp.round(x)


@rounded.slope
def rounded_slope(x):
    return jnp.ones_like(x)


def value(f):
    return lambda *args: jax.value_and_grad(f)(*args)[0]


VALUES = {
    "grad": lambda f, x: jax.grad(value(f))(x),
    "jit": lambda f, x: jax.jit(jax.grad(value(jax.jit(f))))(x),
    "a Python number": lambda f, x: jax.grad(value(f))(float(x)),
    "value of the value": lambda f, x: jax.grad(value(value(value(f))))(x),
    "vmap": lambda f, x: jax.vmap(jax.grad(value(f)))(x[None])[0],
    "vmap inside": lambda f, x: jax.grad(lambda x: jax.vmap(value(f))(x).sum())(x[None])[0],
    "scan": lambda f, x: jax.grad(lambda x: lax.scan(lambda c, _: (c + value(f)(x), None), 0 * x, None, 2)[0])(x) / 2,
    "remat": lambda f, x: jax.grad(jax.checkpoint(value(f)))(x),
    "forward mode": lambda f, x: jax.jvp(value(f), (x,), (jnp.ones_like(x),))[1],
    "shard_map": lambda f, x: jax.shard_map(
        jax.vmap(jax.grad(value(f))), mesh=jax.make_mesh((8,), ("data",), (AxisType.Auto,)), in_specs=jax.P("data"),
        out_specs=jax.P("data"))(jnp.full(8, x))[0],
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("transform", VALUES.values(), ids=VALUES)
def test_derivative_of_a_differentiated_value_is_the_rules(transform):
    close(transform(rounded, jnp.asarray(1.3)), jnp.asarray(1.0))
    close(transform(lambda x: swell(rounded(x), alpha=0.5), jnp.asarray(2.7)), jnp.asarray(3.0))
    assert jax.hessian(rounded)(1.3) == 0 and jax.hessian(lambda x: rounded(x) ** 2)(1.3) == 2


def test_derivative_of_a_value_follows_a_saved_y():
    @rule
    def kept(x):
        return jnp.round(x)
    kept.bwd(lambda dy, y: dy * y)                                  # y′ = y, so that y″ = y too
    assert jax.hessian(kept)(2.7) == 3 and jax.grad(jax.grad(kept))(2.7) == 3


def test_single_differentiation_adds_nothing_to_the_custom_vjp():
    """The derivative of a differentiated value adds no steps to the program and no saved values."""
    x = jnp.ones((3, 4))
    jaxpr = jax.make_jaxpr(lambda x: swell(x))(x)
    assert "custom_jvp" not in str(jaxpr)
    saved = [leaf for leaf in jax.tree.leaves(jax.vjp(swell, x)[1]) if leaf is not x]
    assert not saved

    def layers(x):
        return lax.scan(lambda h, _: (tanh(h), None), x, None, 5)[0].sum()

    @rule
    def tanh(x):
        return jnp.tanh(x)
    tanh.bwd(lambda dy, y: dy * (1 - y * y))
    stacked = [leaf.shape for leaf in jax.tree.leaves(jax.vjp(layers, x)[1]) if leaf.shape[:1] == (5,)]
    assert stacked == [(5, 3, 4)]                                   # y of every layer, once


def test_python_and_numpy_numbers_work_as_arrays():
    @rule
    def shaped(x, y):
        return x.astype(x.dtype) * y.reshape(y.shape)
    shaped.bwd(lambda dy, x, y: ((dy.astype(x.dtype) * y).reshape(x.shape), (dy * x.astype(dy.dtype)).reshape(y.shape)))
    for number in (float, np.float64, np.asarray, jnp.asarray):
        args = number(2.0), number(3.0)
        for f in (shaped, autodiff(shaped)):
            assert f(*args) == jax.jit(f)(*args) == 6
            for transform in (lambda g: g, jax.jit):
                assert transform(jax.grad(f, (0, 1)))(*args) == (3, 2) and jax.hessian(f, 0)(*args) == 0


def test_an_array_named_y_is_that_array_and_not_the_output():
    named = rule(lambda x, y: x * y)
    named.bwd(lambda dy, x, y: (dy * y, dy * x))
    assert jax.grad(named, (0, 1))(2.0, 3.0) == (3, 2)


def test_rule_inside_while_loop():
    def doubled(x):
        return lax.while_loop(lambda c: c.sum() < 100, lambda c: swell(c, alpha=2.0), x)
    close(doubled(jnp.ones(3)), autodiff(doubled)(jnp.ones(3)))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("mapped", range(1, 8), ids="{:03b}".format)
def test_vmap_over_every_subset_of_arguments(mapped):
    axes = tuple(0 if mapped >> i & 1 else None for i in ALL)
    batch = [jnp.stack([a, 2 * a, -a]) if ax == 0 else a for a, ax in zip(arrays(), axes, strict=True)]

    def total(f):
        return grad(lambda *a: jax.vmap(f, axes)(*a).sum())(*batch)
    close(total(loss), total(autodiff(loss)))
    close(jax.vmap(grad(loss), axes)(*batch), jax.vmap(grad(autodiff(loss)), axes)(*batch))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_vmap_over_an_argument_that_the_output_does_not_depend_on(rate):
    keys = random.split(random.key(0), 5)

    def total(x):
        return jax.vmap(partial(mask, rate=rate), (None, 0))(x, keys).sum()
    close(jax.grad(total)(jnp.ones(3)), jax.grad(autodiff(total))(jnp.ones(3)))


def test_tie_of_output_to_arguments_is_compiled_away():
    program = jax.jit(grad(lambda x, w, b: affine(x, w, b).sum())).lower(*arrays()).compile().as_text()
    assert "select" not in program and "compare" not in program


@pytest.fixture(params=[AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def mesh(request):
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(request.param,))) as mesh:
        yield mesh


def test_on_a_mesh(mesh):
    whole = arrays()
    sharded = [jax.device_put(a, s) for a, s in zip(whole, [jax.P("data", None), jax.P(), jax.P()], strict=True)]
    for f in (grad(loss), jax.jit(grad(loss))):
        close(jax.device_get(f(*sharded)), jax.device_get(grad(autodiff(loss))(*whole)))
    assert jax.jit(grad(loss)).lower(*sharded).compile().as_text().count(" all-reduce(") <= 2       # the loss is DCE'd


def test_in_shard_map_each_sum_over_devices_is_one_all_reduce():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x, w, b = arrays()

    def total(w, b, x):
        return lax.psum(swell(affine(x, w, b)).sum(), "data")

    def sharded(total):
        split = jax.shard_map(lambda w, b, x: jax.grad(total, (0, 1))(w, b, x), mesh=mesh,
                              in_specs=(jax.P(), jax.P(), jax.P("data")), out_specs=jax.P())
        return jax.jit(split)
    close(sharded(total)(w, b, x), jax.grad(lambda w, b: autodiff(swell)(affine.reference(x, w, b)).sum(), (0, 1))(w, b))
    count = [sharded(t).lower(w, b, x).compile().as_text().count(" all-reduce(") for t in (total, autodiff(total))]
    assert count[0] <= count[1]
    rows = jax.shard_map(jax.grad(lambda x: swell(affine(x, w, b)).sum()), mesh=mesh, in_specs=jax.P("data"),
                         out_specs=jax.P("data"))
    close(rows(x), jax.grad(lambda x: swell(affine(x, w, b)).sum())(x))


def test_constant_cotangent_works_in_shard_map():
    @rule
    def second(x, y):
        return 2 * y
    second.bwd(lambda dy, x: (jnp.zeros(x.shape, x.dtype), 2 * dy))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.shard_map(jax.grad(lambda x, y: second(x, y).sum(), (0, 1)), mesh=mesh, in_specs=jax.P("data"),
                          out_specs=jax.P("data"))
    close(split(jnp.ones(8), jnp.ones(8)), (jnp.zeros(8), jnp.full(8, 2.0)))


def count(f, *args):
    return str(jax.make_jaxpr(f)(*args)).count("custom_vjp_call")


def test_autodiff_works_on_already_jitted_functions():
    jitted = jax.jit(loss)
    jitted(*arrays())
    assert [count(jitted, *arrays()), count(autodiff(jitted, swell), *arrays()), count(autodiff(jitted), *arrays())] == [4, 3, 0]
    assert count(autodiff(autodiff(jitted, swell), mask), *arrays()) == 2
    with pytest.raises(TypeError, match="fn.autodiff"):
        jax.jacfwd(loss)(*arrays())
    close(jax.jacfwd(autodiff(loss))(*arrays()), jax.grad(loss)(*arrays()))


def test_autodiff_affects_only_its_thread():
    seen = []
    with_rules = threading.Thread(target=lambda: seen.append(count(loss, *arrays())))
    autodiff(lambda: (with_rules.start(), with_rules.join()))()
    assert seen == [4]


def test_used_lists_the_rules_of_a_function_even_if_already_compiled():
    x, w, b = arrays()
    f = jax.jit(lambda x, w, b, alpha: swell(affine(swell(x), w, b), alpha=alpha), static_argnames="alpha")
    for _ in range(2):
        assert used(f, x, w, b, alpha=2.0) == [swell, affine]
        f(x, w, b, alpha=2.0)
    assert used(jnp.sum, x) == [] and used(autodiff(f), x, w, b, alpha=2.0) == []


def test_recorders_never_match_in_a_cache():
    """Caches compare by ==, by != and, before, by a few bits of the hash: a match in any of them would sometimes reuse a trace."""
    one, other = Recorder(), Recorder()
    assert one != other and not one == other and one != frozenset() and not frozenset() == one and one == one  # noqa: SIM201


def test_differentiated_call_has_the_value_of_a_plain_call():
    @rule
    def square(x):
        return x * x

    @square.fwd
    def _(x):
        return x * x * (1 + 1e-9), (x,)

    @square.bwd
    def _(dy, x):
        return 2 * x * dy
    assert jax.value_and_grad(square)(3.0)[0] == square(3.0)


def test_rule_inside_a_rule_uses_its_reference():
    @rule
    def outer(x):
        return swell(x, alpha=3.0)

    @outer.fwd
    def _(x):
        return swell(x, alpha=3.0), (swell(x),)

    @outer.bwd
    def _(dy, square):
        return 6 * jnp.sqrt(square) * dy
    assert count(outer, 2.0) == 1
    assert jax.grad(outer)(2.0) == 12 and jax.hessian(outer)(2.0) == 6


def test_equal_calls_share_a_trace_and_eager_calls_are_compiled():
    traced = []

    @rule
    def noted(x, *, alpha=1.0):
        traced.append(alpha)
        return x * alpha
    noted.slope(lambda x, *, alpha: alpha)
    for _ in range(3):
        noted(1.0, alpha=2.0)
    assert traced == [2.0]
    noted(1.0, alpha=2)                     # an integer and an equal float are different settings
    assert len(traced) == 2


def test_arrays_by_keyword_optional_arrays_and_trees():
    x, w, b = arrays()
    close(affine(x, b=b, w=w), affine(x, w, b))

    @rule
    def total(tree, scale=None):
        s = sum(leaf.sum() for leaf in jax.tree.leaves(tree))
        return s if scale is None else s * scale

    @total.bwd
    def _(dy, tree, scale):
        one = dy if scale is None else dy * scale
        ds = None if scale is None else dy * sum(leaf.sum() for leaf in jax.tree.leaves(tree))
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, one), tree), ds
    tree = {"w": w, "b": [b]}
    close(jax.grad(total)(tree), jax.tree.map(jnp.ones_like, tree))
    close(jax.grad(total, (0, 1))(tree, 3.0), jax.grad(autodiff(total), (0, 1))(tree, 3.0))
    assert count(total, tree) == 1


def test_rules_pickle_and_copy_by_name():
    assert pickle.loads(pickle.dumps(swell)) is swell and copy.deepcopy(swell) is swell
    assert repr(swell) == "<rule swell(x, *, alpha=1.0)>" and isinstance(swell, Rule)


@rule
def product(x, y):
    return x * y


product.bwd(lambda dy, x, y: (dy * y, dy * x))
x32 = jnp.ones(3, jnp.float32)
plain, two = rule(lambda x, *, eps=1: x), rule(lambda x, y: x)


@pytest.mark.parametrize("call, sentence", [
    (lambda: swell(x32, beta=1), r"beta is not a setting of <rule swell\(x, \*, alpha=1.0\)>"),
    (lambda: swell(x32, 0.5), r"swell takes x as arrays \(alpha: by keyword\); got 2 positional"),
    (lambda: swell(x32, alpha=jnp.ones(3)), r"alpha is a setting of swell and must be hashable; got an array"),
    (lambda: swell(x32, alpha=np.ones(3)), r"alpha is a setting of swell .* got an array"),
    (lambda: swell(x32, alpha=[1]), r"alpha is a setting of swell .* got the list \[1\]"),
    (lambda: jax.jit(lambda a: swell(x32, alpha=a))(1.0), r"to differentiate or trace alpha, make it an array argument"),
    (lambda: affine(x32, x32), r"affine\(x, w, b\)> was called without b"),
    (lambda: product(x32, x32, x=x32), r"product got x twice"),
    (lambda: autodiff(3), r"autodiff takes a function; got 3"),
    (lambda: autodiff(loss, jnp.tanh), r"autodiff sets rules aside; .* is not a rule"),
    (lambda: product.example(x="n", z="n"), r"z is neither an array nor a setting"),
    (lambda: rule(lambda x, y: x)(1.0, 2.0), r"has no gradient yet: write a @<lambda>.bwd"),
    (lambda: rule(lambda *x: x), r"name every array"),
    (lambda: plain.bwd(lambda dy, q: dy),
     r"bwd of <lambda> asks for q, which is neither one of its arrays \(x\) nor y, its output: write a @<lambda>.fwd"),
    (lambda: plain.bwd(lambda dy, *, beta: dy), r"the bwd of <lambda> asks for beta, which is not a setting"),
    (lambda: two.slope(lambda x: x), r"takes x, y: a slope is for pointwise rules"),
    (lambda: plain.slope(lambda dy, x: dy), r"must return only y′, .* multiplied by dy; it takes dy: leave dy out"),
    (lambda: plain.bwd(lambda x: x), r"bwd of <lambda> must take dy, .* it takes x: write def <lambda>_bwd\(dy, x\)"),
    (lambda: plain.bwd(lambda dy, x, eps: dy),
     r"takes eps by position, which is a setting: .* write def <lambda>_bwd\(dy, x, \*, eps\)"),
    (lambda: plain.slope(lambda x, eps: x), r"slope of <lambda> takes eps by position, which is a setting"),
    (lambda: plain.check(lambda x, eps: x), r"check of <lambda> takes eps by position, which is a setting"),
    (lambda: two.bwd(lambda dy, x, *, y: dy),
     r"asks for y, which is not a setting .*; y is an array of it, as there is no bare \* in def <lambda>\(x, y\)"),
    (lambda: rule(lambda x, mode="a": x),
     r"mode='a' is among the arrays of <lambda>, .* a bare \* before it, def <lambda>\(x, \*, mode"),
    (lambda: two.fwd(lambda x: x), r"must take its arrays, x, y; it takes x: write def <lambda>_fwd\(x, y\)"),
    (lambda: two.check(lambda x: x), r"check of <lambda> must take its arrays, x, y; it takes x"),
])
def test_wrong_calls_raise(call, sentence):
    with pytest.raises(TypeError, match=sentence):
        call()


def test_traced_setting_raises_before_a_check_uses_its_value():
    scaled = rule(lambda x, *, rate: x * rate)
    scaled.slope(lambda x, *, rate: jnp.full_like(x, rate))
    asked = []
    scaled.check(lambda x, *, rate: asked.append(rate > 0))
    with pytest.raises(TypeError, match="rate is a setting of <lambda> and must be hashable; got an array"):
        jax.jit(lambda rate: scaled(x32, rate=rate))(0.5)
    assert not asked
    scaled(x32, rate=0.5)
    assert asked == [True]


def test_bwd_with_args_needs_a_fwd():
    square = rule(lambda x, *, k=2: x**k)
    square.bwd(lambda *saved, **settings: saved[:1])
    with pytest.raises(TypeError, match="do not say what is saved: write named parameters, or a @<lambda>.fwd"):
        jax.grad(square)(3.0)
    square.fwd(lambda x, *, k: (x**k, (k * x ** (k - 1),)))
    square.bwd(lambda dy, *saved, **settings: (dy * saved[0],))
    assert jax.grad(square)(3.0) == 6
    with pytest.raises(TypeError, match="do not say what is saved: write named parameters, as in def"):
        rule(lambda x: x).slope(lambda *saved, **settings: saved[0])


@pytest.mark.parametrize("backward, sentence", [
    (lambda dy, x, y: (dy * y,), r"takes x, y but its bwd returned 1 cotangent: return one for each, None for an array without"),
    (lambda dy, x, y: dy, r"takes x, y but its bwd returned 1 cotangent"),
    (lambda dy, x, y: (dy, dy, dy), r"takes x, y but its bwd returned 3 cotangents"),
    (lambda dy, x, y: (dy * y, (dy * x).astype(jnp.float16)), r"for y a cotangent float16\[3\], but y is float32\[3\]"),
    (lambda dy, x, y: ((dy * y).astype(jnp.complex64), dy * x), r"for x a cotangent complex64\[3\], but x is float32\[3\]"),
    (lambda dy, x, y: (dy.astype(jnp.float64), dy * x), r"for x a cotangent float64\[3\]"),
    (lambda dy, x, y: (dy * y, dy.sum()), r"for y a cotangent float32\[\], but y is float32\[3\]"),
    (lambda dy, x, y: ({"x": dy, "z": dy}, dy), r"for x a cotangent of structure"),
    (lambda dy, x, y: {"x": dy}, r"must return a cotangent for each of x, y; it returned none for y: write None"),
    (lambda dy, x, y: {"x": dy, "z": dy}, r"it returned none for y and named z"),
])
def test_wrong_cotangents_raise(backward, sentence):
    wrong = rule(product.reference)
    wrong.bwd(backward)
    with pytest.raises(TypeError, match=f"product.*{sentence}"):
        jax.grad(lambda *a: wrong(*a).sum(), (0, 1))(x32, x32)


def test_cotangents_by_name():
    named = rule(lambda x, w, labels: x * w)
    named.bwd(lambda dy, x, w: {"w": dy * x, "labels": None, "x": dy * w})
    close(jax.grad(lambda x, w: named(x, w, jnp.arange(3)).sum(), (0, 1))(2 * x32, 3 * x32), (3 * x32, 2 * x32))
    tree = rule(lambda parts: parts["a"] * parts["b"])                    # for a single array, a dictionary is its tree
    tree.bwd(lambda dy, parts: {"a": dy * parts["b"], "b": dy * parts["a"]})
    close(jax.grad(tree)({"a": 2.0, "b": 3.0}), {"a": 3.0, "b": 2.0})


def test_cast_changes_only_precision():
    def made(backward, cast):
        op = rule(cast=cast)(lambda x, w: x * w)
        op.bwd(backward)
        return lambda *args: jax.grad(lambda x, w: op(x, w).sum(), (0, 1))(*args)

    def wide(dy, x, w):
        return (dy * w).astype("float64"), (dy * x).astype("bfloat16")
    args = x32, 3 * x32
    got = made(wide, True)(*args)
    close(got, (3 * x32, x32))
    assert [a.dtype for a in got] == ["float32", "float32"]
    with pytest.raises(TypeError, match=r"for x a cotangent float64\[3\], .* or write @rule\(cast=True\)"):
        made(wide, False)(*args)
    for wrong, sentence in ((lambda dy, x, w: (dy.sum(), dy), r"for x a cotangent float32\[\]"),
                            (lambda dy, x, w: (dy.astype("complex64"), dy), r"for x a cotangent complex64\[3\]"),
                            (lambda dy, x, w: (dy.astype("int32"), dy), r"for x a cotangent int32\[3\]")):
        with pytest.raises(TypeError, match=sentence):
            made(wrong, True)(*args)


def test_operations_of_many_settings_are_released():
    lots = rule(lambda x, *, alpha: alpha * x)
    lots.slope(lambda x, *, alpha: jnp.full_like(x, alpha))
    first = weakref.ref(lots._built((("alpha", float, 0.0),)))
    for i in range(BUILT):
        assert lots(1.0, alpha=float(i)) == i
    assert first() is not None and lots._built.cache_info().currsize == BUILT
    lots(1.0, alpha=-1.0)
    gc.collect()
    assert first() is None, "the jitted operation and its programs were not released"
    assert lots._built.cache_info().currsize == BUILT and lots(1.0, alpha=0.0) == 0


def with_captured(s, x=2.0):
    @rule
    def scaled(x):
        return x * s
    scaled.slope(lambda x: s)
    return scaled(x)


@pytest.mark.parametrize("f", [
    lambda: jax.grad(with_captured)(3.0),
    lambda: jax.jit(lambda s: jax.grad(lambda x: with_captured(s, x))(2.0))(3.0),
    lambda: jax.vmap(lambda s: jax.grad(lambda x: with_captured(s, x))(2.0))(jnp.ones(3)),
    lambda: lax.scan(lambda c, s: (c + jax.grad(lambda x: with_captured(s, x))(c), None), 1.0, jnp.ones(3)),
], ids=["grad", "jit", "vmap", "scan"])
def test_captured_traced_value_raises_with_its_name(f):
    with pytest.raises(TypeError, match=r"scaled uses s, a traced value from outside, .*: make it an array argument"):
        f()


def test_captured_traced_value_works_without_differentiation():
    assert jax.jit(with_captured)(3.0) == 6
    close(jax.vmap(with_captured)(jnp.arange(3.0)), 2 * jnp.arange(3.0))


def test_forward_mode_error_names_autodiff():
    for f in (lambda: jax.jvp(swell, (1.0,), (1.0,)), lambda: jax.jacfwd(swell)(1.0)):
        with pytest.raises(TypeError, match=r"swell has a rule for reverse mode, .* write fn.autodiff\(f\)"):
            f()
    assert jax.jvp(autodiff(swell), (3.0,), (1.0,))[1] == jax.jacfwd(autodiff(swell))(3.0) == 6


def test_physics_informed_network_trains_with_forward_mode_inside_reverse_mode():
    """The example in `rule`'s docstring: u′ = cos(x), u(0) = 0, whose solution is sin."""
    net = fn.layers.Serial(fn.layers.Dense(16), fn.ops.tanh, fn.layers.Dense(1))
    x = jnp.linspace(0.0, 3.0, 24)[:, None]
    params, _ = net.init(random.key(0), x)

    def u(params, x):
        return net.apply(params, ((), (), ()), x)[0]

    def loss(params):
        _, slope = jax.jvp(fn.autodiff(lambda x: u(params, x)), (x,), (jnp.ones_like(x),))
        return ((slope - jnp.cos(x)) ** 2).mean() + (u(params, jnp.zeros((1, 1))) ** 2).mean()
    optimizer = fn.optim.adam(0.02)

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (jax.tree.map(jnp.add, params, updates), state), None
        return lax.scan(step, (params, optimizer.init(params)), None, 600)[0][0]
    assert abs(u(train(params), x) - jnp.sin(x)).max() < 0.02


def test_fwd_without_a_tuple_raises():
    wrong = rule(product.reference)
    wrong.fwd(lambda x, y: x * y)
    wrong.bwd(lambda dy: (dy, dy))
    with pytest.raises(TypeError, match=r"the fwd of product must return y and a tuple of what is saved"):
        wrong(x32, x32)


def test_none_means_no_gradient_and_integers_keys_and_flags_need_none():
    @rule
    def gate(x, y, labels, flags, key):
        return x * flags * labels * random.uniform(key, x.shape, x.dtype).round() + y

    gate.bwd(lambda dy: (dy, None, dy, 3.0, dy))         # whatever is returned for the last three, they have no gradient
    args = x32, x32, jnp.arange(3), jnp.ones(3, bool), random.key(0)
    strict = jax.numpy_dtype_promotion("standard")
    with strict:
        dx, dy = jax.grad(lambda *a: gate(*a).sum(), (0, 1))(*args)
    close((dx, dy), (x32, 0 * x32))


def test_check_runs_before_every_call_even_with_the_rule_set_aside():
    checked = rule(product.reference)
    checked.bwd(product.backward)

    @checked.check
    def _(x, y):
        if jnp.shape(x) != jnp.shape(y):
            raise ValueError(f"product of {jnp.shape(x)} and {jnp.shape(y)}: give two arrays of one shape")
    for call in (checked, jax.jit(checked), autodiff(checked)):
        with pytest.raises(ValueError, match=r"product of \(3,\) and \(2,\)"):
            call(x32, x32[:2])


def test_slope_keeps_an_earlier_fwd():
    @rule
    def square(x):
        """y = x²,   y′ = 2x"""
        return x * x

    @square.fwd
    def _(x):
        return x * x, (2 * x,)

    @square.slope
    def _(twice):
        return twice
    chex.assert_trees_all_equal(jax.value_and_grad(square)(3.0), (jnp.array(9.0), jnp.array(6.0)))
