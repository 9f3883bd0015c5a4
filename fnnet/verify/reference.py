"""The plain function behind one with gradient rules: the same values, with every rule taken away."""

import os

import jax
from jax.extend import core

from fnnet.rule import Rule, autodiff

LIBRARY = os.path.dirname(jax.__file__)


def reference_of(f):
    """`f` as autodiff would see it had nobody written a rule: each custom_vjp and custom_jvp in it replaced by the function it decorates.

    Works on fnnet rules, jitted and partial functions, and on whole layers or losses that use rules somewhere inside. The rules
    that JAX itself has (of jax.nn.relu, logsumexp …) stay.
    """
    if isinstance(f, Rule):
        return f.reference

    def reference(*args, **settings):
        leaves, treedef = jax.tree.flatten(args)
        arrays = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array) or hasattr(leaf, "dtype")]

        def of_arrays(*given):
            full = list(leaves)
            for i, a in zip(arrays, given):
                full[i] = a
            return autodiff(f)(*treedef.unflatten(full), **settings)
        closed, out = jax.make_jaxpr(of_arrays, return_shape=True)(*[leaves[i] for i in arrays])
        return jax.tree.unflatten(jax.tree.structure(out), _run(closed, [leaves[i] for i in arrays]))
    return reference


def constants(closed):
    """The numbers written in a program: places where a function may change its mind."""
    found = set()

    def visit(jaxpr):
        for eqn in _open(jaxpr).eqns:
            for v in eqn.invars:
                if (isinstance(v, core.Literal) and getattr(v.val, "ndim", 0) == 0 and isinstance(v.val, int | float)) or (hasattr(v, "val") and getattr(v.val, "shape", None) == ()):
                    try:
                        found.add(float(v.val))
                    except (TypeError, ValueError):
                        pass
            for sub in core.jaxprs_in_params(eqn.params):
                visit(sub)
    visit(closed)
    return sorted(v for v in found if abs(v) < 1e4 and v == v)


def primitives(closed):
    """Every (primitive, equation) of a program, with those inside others."""
    for eqn in _open(closed).eqns:
        yield eqn
        for sub in core.jaxprs_in_params(eqn.params):
            yield from primitives(sub)


def _open(jaxpr):
    return getattr(jaxpr, "jaxpr", jaxpr)


def _run(closed, args):
    """Runs a program anew, with the rules in it left out."""
    jaxpr, env = _open(closed), {}

    def read(v):
        return v.val if isinstance(v, core.Literal) else env[v]
    names = [*jaxpr.constvars, *jaxpr.invars]
    values = [*closed.consts, *args]
    if len(names) != len(values):
        names = jaxpr.all_invars
    env.update(zip(names, values, strict=True))
    for eqn in jaxpr.eqns:
        given = [read(v) for v in eqn.invars]
        if eqn.primitive.name in ("custom_vjp_call", "custom_jvp_call") and not _from_library(eqn.params["call_jaxpr"]):
            out = _run(eqn.params["call_jaxpr"], given)
        elif eqn.primitive.name in ("jit", "pjit", "remat2", "checkpoint", "closed_call") and _has_rule(eqn):
            out = _run(eqn.params["jaxpr"], given)
        else:
            params = {name: _without_rules(value) if _is_program(value) and _has_rule(eqn) else
                      tuple(map(_without_rules, value)) if isinstance(value, tuple) and value and all(map(_is_program, value)) else value
                      for name, value in eqn.params.items()}
            out = eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(params))
            out = out if eqn.primitive.multiple_results else [out]
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _is_program(value):
    return isinstance(value, core.ClosedJaxpr) or (hasattr(value, "eqns") and hasattr(value, "consts"))


def _without_rules(closed):
    """The body of a loop or a branch, traced anew."""
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, weak_type=getattr(v.aval, "weak_type", False)) for v in _open(closed).invars]
    return jax.make_jaxpr(lambda *args: _run(closed, args))(*avals)


def _has_rule(eqn):
    return any(inner.primitive.name in ("custom_vjp_call", "custom_jvp_call") and not _from_library(inner.params["call_jaxpr"])
               for sub in core.jaxprs_in_params(eqn.params) for inner in primitives(sub))


def _from_library(closed):
    info = getattr(_open(closed), "debug_info", None)
    return str(getattr(info, "func_filename", "") or "").startswith(LIBRARY)
