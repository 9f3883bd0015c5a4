"""The plain function behind one with gradient rules: the same values, with every rule removed."""

import contextlib
import os
import types
from typing import Any

import jax
import numpy as np
from jax.extend import core

from fnnet.rule import Rule, autodiff

RULES = ("custom_vjp_call", "custom_jvp_call")
LIBRARY = os.path.dirname(jax.__file__)
WRAPPERS = ("f", "f_transformed", "transforms", "func", "fun", "jvp", "args", "keywords", "__wrapped__")


def reference_of(f):
    """`f` as autodiff would see it without rules: each custom_vjp and custom_jvp in it replaced by the function it decorates.

    Works on fnnet rules, jitted and partial functions, and on whole layers or losses that use rules somewhere inside. JAX's own
    rules (of jax.nn.relu, logsumexp, …) are kept.
    """
    if isinstance(f, Rule):
        return f.reference

    def reference(*args, **settings):
        closed, out, arrays = _traced(autodiff(f), args, settings)
        return jax.tree.unflatten(jax.tree.structure(out), _run(closed, arrays))
    return reference


def _traced(f, args, settings):
    """(program, types of the results, arrays) of a call."""
    leaves, treedef = jax.tree.flatten(args)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array) or hasattr(leaf, "dtype")]

    def of_arrays(*given):
        full = list(leaves)
        for i, a in zip(places, given):
            full[i] = a
        return f(*treedef.unflatten(full), **settings)
    arrays = [leaves[i] for i in places]
    return *jax.make_jaxpr(of_arrays, return_shape=True)(*arrays), arrays


def has_forward_rule(f, args, settings):
    """Whether f contains a user-defined custom_jvp, and no custom_vjp that would rule out forward mode."""
    names = [e.primitive.name for e in primitives(_traced(f, args, settings)[0]) if e.primitive.name in RULES and not _from_library(e)]
    return "custom_jvp_call" in names and "custom_vjp_call" not in names


def tells_what_is_asked(p):
    """Whether a rule in f is told which arguments are differentiated and which cotangents are 0: it may be wrong for only some of them."""
    return any(bool(e.params.get("symbolic_zeros")) for e in primitives(_traced(p.f, p.arguments(p.leaves), p.settings)[0]))


def constants(closed):
    """The constants in a program: points where a function may branch."""
    found = set()

    def visit(jaxpr):
        for eqn in _open(jaxpr).eqns:
            for v in eqn.invars:
                if isinstance(v, core.Literal) and np.shape(v.val) == ():
                    with contextlib.suppress(TypeError, ValueError):
                        found.add(float(v.val))
            for sub in core.jaxprs_in_params(eqn.params):
                visit(sub)
    visit(closed)
    return sorted(v for v in found if abs(v) < 1e4 and v == v)


def plain_program(p):
    """The program of only the reference's value: in that of its gradient, a segment sum that drops indices shows up as a filling gather."""
    return _traced(p.reference, p.arguments(p.leaves), p.settings)[0]


def compared(closed):
    """The integers that a program compares others with, and for order comparisons also the next smaller ones: padding, labels to
    ignore. The comparison of each index with 0, by which negative ones count from the end, is left out."""
    found = set()
    for eqn in primitives(closed):
        name = eqn.primitive.name
        for v in eqn.invars if name in ("eq", "ne", "ge", "gt", "le", "lt") else ():
            if not isinstance(v, core.Literal) or np.shape(v.val) or not np.issubdtype(np.asarray(v.val).dtype, np.integer):
                continue
            value = int(v.val)
            if name in ("eq", "ne"):
                found.add(value)
            elif (name, value) != ("lt", 0):
                found |= {value - 1, value}
    return sorted(found)


def fills(closed):
    """Whether a program defines what an out-of-bounds index means."""
    return any((e.primitive.name == "gather" and "CLIP" in str(e.params.get("mode"))) or
               e.params.get("fill_value") is not None for e in primitives(closed))


def endless(closed):
    """Whether a program has a loop that runs until something has converged, and perhaps forever: one without a counter, or one that
    compares real numbers in addition to a capped counter."""
    def kinds(cond):
        return [getattr(v.aval, "dtype", np.dtype(np.float64)) for e in primitives(cond) for v in e.invars]

    def converges(cond):
        found = kinds(cond)
        return not any(np.issubdtype(t, np.integer) for t in found) or any(np.issubdtype(t, np.floating) for t in found)
    return any(e.primitive.name == "while" and converges(e.params["cond_jaxpr"]) for e in primitives(closed))


def primitives(closed):
    """Every equation of a program, including nested ones."""
    for eqn in _open(closed).eqns:
        yield eqn
        for sub in core.jaxprs_in_params(eqn.params):
            yield from primitives(sub)


def _open(jaxpr):
    return getattr(jaxpr, "jaxpr", jaxpr)


def _run(closed, args):
    """Re-runs a program with the rules in it removed."""
    jaxpr, env = _open(closed), {}

    def read(v):
        return v.val if isinstance(v, core.Literal) else env[v]
    names = [*jaxpr.constvars, *jaxpr.invars]
    values = [*getattr(closed, "consts", ()), *args]
    if len(names) != len(values):
        names = jaxpr.all_invars
    env.update(zip(names, values, strict=True))
    for eqn in jaxpr.eqns:
        given = [read(v) for v in eqn.invars]
        if eqn.primitive.name in RULES and not _from_library(eqn):
            out = _run(eqn.params["call_jaxpr"], given)
        elif eqn.primitive.name in ("jit", "pjit", "remat2", "checkpoint", "closed_call") and _has_rule(eqn):
            out = _run(eqn.params["jaxpr"], given)
        elif eqn.primitive.name == "shard_map" and _has_rule(eqn):
            out = _sharded(eqn.params)(*given)
        else:
            params = {name: _without_rules_inside(value) for name, value in eqn.params.items()} if _has_rule(eqn) else eqn.params
            out = eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(params))
            out = out if eqn.primitive.multiple_results else [out]
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _sharded(params):
    """The body of a shard_map without rules, mapped as before."""
    return jax.shard_map(lambda *args: tuple(_run(params["jaxpr"], args)), mesh=params["mesh"], in_specs=params["in_specs"],
                         out_specs=params["out_specs"], check_vma=params["check_vma"], axis_names=set(params["newly_manual_axes"]))


def _is_program(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr) or (hasattr(value, "eqns") and hasattr(value, "consts"))


def _without_rules(closed):
    """The body of a loop or a branch, retraced without rules."""
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, weak_type=getattr(v.aval, "weak_type", False)) for v in _open(closed).invars]
    return jax.make_jaxpr(lambda *args: _run(closed, args))(*avals)


def _without_rules_inside(value: Any):
    """The same for a parameter of a primitive: a program, a tuple or named tuple of programs, or anything else."""
    if _is_program(value):
        return _without_rules(value)
    if isinstance(value, tuple) and value and all(_is_program(part) for part in value):
        return getattr(value, "_make", tuple)(map(_without_rules, value))
    return value


def _has_rule(eqn):
    return any(inner.primitive.name in RULES and not _from_library(inner)
               for sub in core.jaxprs_in_params(eqn.params) for inner in primitives(sub))


def _from_library(eqn):
    """Whether the rule of a call comes with JAX rather than from a user, who may well decorate jnp.sin itself."""
    rules = [v for name, v in eqn.params.items() if name in ("bwd", "jvp_jaxpr_fun")]
    info = getattr(_open(eqn.params["call_jaxpr"]), "debug_info", None)
    return str(getattr(info, "func_filename", "") or "").startswith(LIBRARY) and all(map(_of_library, rules))


def _of_library(thing, seen=None, depth=12):
    """Whether all the functions inside something, through closures and wrappers, are JAX's."""
    seen = seen if seen is not None else set()
    if id(thing) in seen or not depth:
        return True
    seen.add(id(thing))
    if isinstance(thing, types.FunctionType):
        inside = [cell.cell_contents for cell in thing.__closure__ or () if _is_full(cell)]
        return thing.__code__.co_filename.startswith(LIBRARY) and all(_of_library(i, seen, depth - 1) for i in inside)
    inside = thing if isinstance(thing, tuple | list) else [getattr(thing, n) for n in WRAPPERS if hasattr(thing, n)]
    return all(_of_library(i, seen, depth - 1) for i in inside)


def _is_full(cell):
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
