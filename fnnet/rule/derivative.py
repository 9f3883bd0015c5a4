"""A rule with fixed settings as a jax.custom_vjp, correct under every transformation, with its results checked."""

import functools
from numbers import Integral, Number
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from fnnet.rule.signature import listed, pick, split

EVERY = "every rule"
set_aside = jax.make_user_context(frozenset())      # rules set aside, or EVERY; part of the key of every jit cache


@jax.tree_util.register_static
class _Types(NamedTuple):
    """What the cotangents must look like. A static pytree: it is among the saved values and takes no memory."""
    types: tuple            # jax.typeof of each leaf
    treedefs: tuple         # one per array argument


def differentiable(rule, key):
    """The jax.custom_vjp of a rule with fixed settings, given as (name, type, value), since 2 and 2.0 are different
    settings."""
    settings = {name: value for name, _, value in key}
    if rule.backward is None:
        raise TypeError(f"{rule!r} has no gradient yet: write a @{rule.__name__}.bwd")
    if rule.forward is None:                                # a bwd with *args, which names nothing to save
        raise TypeError(f"the bwd of {rule.__name__} takes *args, whose names do not say what is saved: write named "
                        f"parameters, or a @{rule.__name__}.fwd")
    for_fwd, for_bwd = (pick(settings, split(f)[1]) for f in (rule.forward, rule.backward))

    def plain_forward(*arrays):
        with inside(rule):
            result = rule.forward(*arrays, **for_fwd)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], tuple)):
            raise TypeError(f"the fwd of {rule.__name__} must return y and a tuple of what is saved; "
                            f"got {type(result).__name__}: write return y, (x, w)")
        return result

    def primal(*arrays):
        y, _ = plain_forward(*arrays)
        return _tie(y, arrays) if len(arrays) > 1 else y

    def forward(*arrays):
        if names := _captured(rule, settings):
            raise TypeError(_of_captured(rule, names))
        arrays = jax.tree.map(as_array, arrays)
        y, saved = plain_forward(*arrays)
        leaves, treedefs = zip(*(jax.tree.flatten(a) for a in arrays))
        leaves = [leaf for group in leaves for leaf in group]
        residuals = saved, _Types(tuple(jax.typeof(leaf) for leaf in leaves), treedefs)
        value = with_derivative(_tie(y, arrays) if len(arrays) > 1 else y, residuals, leaves)
        # If y itself is saved, save the very array that is returned: then a scan stores it once.
        same = {id(a): b for a, b in zip(jax.tree.leaves(y), jax.tree.leaves(value))}
        for leaf in leaves:
            same.pop(id(leaf), None)
        return value, (jax.tree.map(lambda leaf: same.get(id(leaf), leaf), saved), residuals[1])

    def backward(residuals, dy):
        found, (_, types) = iter(cotangents(residuals, dy)), residuals
        leaves = iter([next(found) if real(t) else None for t in types.types])
        return tuple(treedef.unflatten([next(leaves) for _ in range(treedef.num_leaves)]) for treedef in types.treedefs)

    def cotangents(residuals, dy):
        """One cotangent for each leaf of the arrays that has a gradient."""
        saved, types = residuals
        dy, saved = jax.tree.map(as_array, (dy, saved))

        def computed(dy, saved):
            with inside(rule):
                return _checked(rule, rule.backward(dy, *saved, **for_bwd), types)
        if explicit := [t.sharding for t in types.types if _explicit(t)]:
            # On a mesh with Explicit axes, let the partitioner choose the collectives inside, as it does for autodiff.
            whole = jax.sharding.NamedSharding(explicit[0].mesh, jax.P())
            wanted = tuple(t.sharding if _explicit(t) else whole for t in types.types if real(t))
            automatic: Any = jax.sharding.auto_axes(computed, out_sharding=wanted)      # typed as a decorator, too
            return automatic(dy, saved)
        return computed(dy, saved)

    with_derivative = _with_derivative(cotangents)
    primal.__name__ = rule.__name__                 # the name seen in jaxprs and profiles
    op = jax.custom_vjp(primal)
    op.defvjp(forward, backward)

    def call(*arrays):
        return op(*varying_alike(arrays))
    call.__name__ = rule.__name__
    # A bare custom_vjp is traced at every eager call, 100 µs; a jitted one takes 5. Under an outer jit it is inlined.
    return jax.jit(call, inline=True)


def _with_derivative(cotangents):
    """A function (y, residuals, leaves) -> y that gives y the derivative that `cotangents(residuals, dy)` transposes.

    Once differentiated, a `jax.custom_vjp` is replaced by its forward pass. Differentiating that again (the value of
    value_and_grad, a hessian) would differentiate the formulas of the forward pass, which are right for y but need not
    have the rule's derivative: rounding has derivative 0 instead of the straight-through 1. The tangent J·ẋ is the
    transpose of the backward pass, linear in ẋ, and can itself be transposed, so that both modes work.
    """
    @jax.custom_jvp
    def with_derivative(y, residuals, leaves):
        return y

    @with_derivative.defjvp
    def with_derivative_jvp(primals, tangents):
        y, residuals, leaves = primals
        ys, treedef = jax.tree.flatten(y)
        # Integer outputs have tangents and cotangents of type float0, which hold nothing.
        nothing = [None if real(jax.typeof(a)) else np.zeros(jnp.shape(a), jax.dtypes.float0) for a in ys]

        def filled(some):
            some = iter(some)
            return treedef.unflatten([next(some) if blank is None else blank for blank in nothing])

        def pulled(dys):
            return cotangents(residuals, filled(dys))
        _, push = jax.vjp(pulled, [jnp.zeros_like(a) for a, blank in zip(ys, nothing) if blank is None])
        dxs = tuple(t for t, a in zip(tangents[2], leaves) if real(jax.typeof(a)))
        return with_derivative(y, residuals, leaves), filled(*push(dxs))
    return with_derivative


def inside(rule):
    """Inside a rule, all rules are set aside: a rule in a rule would be differentiated twice, which forward mode cannot
    do."""
    return set_aside(set_aside.value if rule.keeps_rules else EVERY)


def _checked(rule, cotangents, types):
    """The cotangents of the leaves that have a gradient, each with the shape and dtype of its primal; an error if the
    bwd returned something else."""
    names = rule.arrays
    if isinstance(cotangents, dict) and len(names) > 1:
        if cotangents.keys() != {*names}:
            missing, unknown = listed({*names} - cotangents.keys()), listed({*map(str, cotangents)} - {*names})
            found = " and ".join(([f"returned none for {missing}"] if missing else [])
                                 + ([f"named {unknown}"] if unknown else []))
            raise TypeError(f"the bwd of {rule.__name__} must return a cotangent for each of {listed(names)}; "
                            f"it {found}: write None for an array without a gradient")
        cotangents = tuple(cotangents[name] for name in names)
    if len(names) == 1 and not (isinstance(cotangents, tuple) and len(cotangents) == 1):
        cotangents = (cotangents,)
    if not isinstance(cotangents, tuple | list) or len(cotangents) != len(names):
        count = len(cotangents) if isinstance(cotangents, tuple | list) else 1
        raise TypeError(f"{rule.__name__} takes {listed(names)} but its bwd returned {count} "
                        f"cotangent{'s' * (count != 1)}: return one for each, None for an array without a gradient")
    wanted, found = iter(types.types), []
    for name, cotangent, treedef in zip(names, cotangents, types.treedefs):
        if cotangent is None:
            parts = [None] * treedef.num_leaves
        else:
            try:
                parts = treedef.flatten_up_to(cotangent)
                alike = all(part is None or jax.tree_util.treedef_is_leaf(jax.tree.structure(part)) for part in parts)
            except ValueError:
                alike = False
            if not alike:
                raise TypeError(f"the bwd of {rule.__name__} returned for {name} a cotangent of structure "
                                f"{jax.tree.structure(cotangent)}, but {name} has {treedef}")
        found += [_as(rule, name, part, t) for part, t in zip(parts, wanted) if real(t)]
    return tuple(found)


KINDS = jnp.floating, jnp.complexfloating


def _as(rule, name, cotangent, t):
    """One cotangent, checked against the type of its primal."""
    if cotangent is None:
        cotangent = jnp.zeros(t.shape, t.dtype)
    given = jax.typeof(cotangent)
    same_kind = any(jnp.issubdtype(given.dtype, kind) and jnp.issubdtype(t.dtype, kind) for kind in KINDS)
    weak = given.weak_type and jnp.can_cast(given.dtype, t.dtype, "same_kind")
    alike = given.dtype == t.dtype or weak or (rule.cast and same_kind)
    if given.shape != t.shape or not alike:
        raise TypeError(f"the bwd of {rule.__name__} returned for {name} a cotangent {given.dtype}{list(given.shape)}, "
                        f"but {name} is {t.dtype}{list(t.shape)}: return one of the same shape and dtype"
                        + (", or write @rule(cast=True) for a cast" if given.shape == t.shape and same_kind else ""))
    cotangent = jnp.asarray(cotangent).astype(t.dtype)
    lacking = _varying(t) - _varying(jax.typeof(cotangent))
    return lax.pcast(cotangent, tuple(sorted(lacking)), to="varying") if lacking else cotangent


def _tie(y, arrays):
    """y, made to depend on every array. If y did not depend on a batched array, vmap of a custom_vjp would count the
    gradient of the others once per element of the batch. The compiler removes the choice between two equal values."""
    leaves = [jax.random.key_data(a) if jnp.issubdtype(jax.typeof(a).dtype, jax.dtypes.prng_key) else a
              for a in jax.tree.leaves(arrays)]
    either = functools.reduce(jnp.logical_or, [jnp.any(jnp.asarray(a) != a) for a in leaves])
    return jax.tree.map(lambda leaf: jnp.where(either, leaf, leaf), y)


def varying_alike(arrays):
    """Inside shard_map, makes every real array vary over all axes that any of them varies over. The sum over devices
    that share an array (autodiff's psum) is then the transpose of this cast, and no rule needs to know about it, nor
    does a reference whose loop or condition would otherwise mix arrays that vary with arrays that do not."""
    axes = frozenset().union(*(_varying(jax.typeof(leaf)) for leaf in jax.tree.leaves(arrays)))
    if not axes:
        return arrays

    def cast(leaf):
        t = jax.typeof(leaf)
        lacking = axes - _varying(t)
        return lax.pcast(leaf, tuple(sorted(lacking)), to="varying") if lacking and real(t) else leaf
    return jax.tree.map(cast, arrays)


def _varying(t):
    return getattr(getattr(t, "manual_axis_type", None), "varying", frozenset())


def _explicit(t):
    sharding = getattr(t, "sharding", None)
    return sharding is not None and jax.sharding.AxisType.Explicit in (sharding.mesh.axis_types or ())


def as_array(a):
    """Python's and NumPy's numbers as arrays, which rules are written for."""
    return a if isinstance(a, jax.Array) or getattr(a, "dtype", None) == jax.dtypes.float0 else jnp.asarray(a)


def as_taken(rule, a):
    """An array as the rule takes it. Derivatives that depend on a sign or an order are wrong for complex numbers."""
    dtype = a.dtype if isinstance(a, jax.Array) else jnp.result_type(a)
    if _is(dtype, jnp.floating):
        return a
    if _is(dtype, jnp.complexfloating):
        raise TypeError(f"{rule.__name__} takes real numbers; got {dtype}: pass the real and the imaginary part")
    return jnp.asarray(a).astype(float) if rule.takes == "floats" else a


@functools.cache
def _is(dtype, kind):
    """jnp.issubdtype, cached, as it takes 5 µs."""
    return jnp.issubdtype(dtype, kind)


def real(t):
    return jnp.issubdtype(t.dtype, jnp.inexact)


def explained(error, rule, settings):
    """What JAX's error means for a call of a rule, if more can be said about it than JAX does; otherwise None."""
    if isinstance(error, TypeError) and "forward-mode" in str(error):
        return (f"{rule.__name__} has a rule for reverse mode, but was differentiated in forward mode (jax.jvp, "
                "jax.jacfwd, jax.linearize): write fn.autodiff(f) instead of f, which differentiates the plain "
                "definitions")
    leaked = isinstance(error, jax.errors.UnexpectedTracerError) or any(
        part in str(error) for part in ("closed-over value", "No constant handler"))
    if names := _captured(rule, settings) if leaked else []:
        return _of_captured(rule, names)
    odd = [name for name, value in settings.items() if not _of_a_kind(value, rule.settings[name])]
    if odd and not isinstance(error, ValueError):
        name, default = odd[0], rule.settings[odd[0]]
        return (f"{name} of {rule.__name__} must be of the same kind as its default, {default!r}; got "
                f"{settings[name]!r}: write {name}={default!r}, or another {type(default).__name__}")
    return None


def _of_a_kind(value, default):
    """Whether a setting is of the same kind as its default: a truth value, a whole number, a number or a string."""
    for kind in (bool, Integral, Number, str):
        if isinstance(default, kind):
            return isinstance(value, kind) and isinstance(value, bool) == isinstance(default, bool)
    return True


def _of_captured(rule, names):
    return (f"{rule.__name__} uses {listed(names)}, a traced value from outside, for which it has no gradient: make it "
            f"an array argument of {rule.__name__}, and return a cotangent for it, or None")


def _captured(rule, settings):
    """The names of traced values in the closures of a rule's functions, and of functions among its settings."""
    found, seen = [], set()
    todo = [rule.reference, rule.forward, rule.backward, *settings.values()]
    while todo:
        f = todo.pop()
        if id(f) in seen:
            continue
        seen.add(id(f))
        if isinstance(f, functools.partial):
            todo += [f.func, *f.args, *f.keywords.values()]
        names = getattr(getattr(f, "__code__", None), "co_freevars", ())
        for name, cell in zip(names, getattr(f, "__closure__", None) or ()):
            try:
                value = cell.cell_contents
            except ValueError:                      # a name without a value yet
                continue
            if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
                found.append(name)
            elif callable(value) and not isinstance(value, type(rule)):
                todo.append(value)
    return sorted(set(found))
