"""The dtypes and shapes of values and cotangents."""

import jax
import jax.numpy as jnp
import numpy as np


def run(p, evaluation, findings):
    """Checks dtypes, weak types, float0 and shapes of the results, at the given dtypes and in the precision of the session."""
    with jax.enable_x64(evaluation.session.x64):
        _structure(findings, p._replace(dtypes=tuple(t and _canonical(t) for t in p.dtypes)))


def _canonical(dtype):
    return dtype if jnp.issubdtype(dtype, jax.dtypes.prng_key) else jax.dtypes.canonicalize_dtype(dtype)


def _structure(findings, p):
    leaves = [v if d.kind in ("static", "key") else jax.ShapeDtypeStruct(np.shape(v), t) for v, d, t in zip(p.leaves, p.domains, p.dtypes)]
    arrays = [i for i, d in enumerate(p.domains) if d.kind != "static" and i in p.wanted]

    def pulled(f):
        def run(*given):
            def g(*given):
                full = [np.asarray(v, t) if d.kind == "float" else v for v, d, t in zip(p.leaves, p.domains, p.dtypes)]
                for i, a in zip(arrays, given):
                    full[i] = a
                return [jnp.asarray(o) for o in p.outputs(f, full) if jnp.issubdtype(o.dtype, jnp.floating)]
            y, pull = jax.vjp(g, *given)
            return g(*given), y, pull([jnp.ones_like(o) for o in y])
        return jax.eval_shape(run, *(leaves[i] for i in arrays))
    try:
        want = pulled(p.reference)
    except Exception:
        return
    try:
        plain, y, g = pulled(p.f)
    except Exception as error:
        return findings.raised("structure", error, "differentiated with respect to all arguments, including integers, at the given dtypes")
    findings.saw("structure")
    for a, b in zip(plain, want[0]):
        if a.dtype != b.dtype:
            findings.fails("structure", f"the value is {_type(a)}, but that of the reference is {_type(b)}")
    for a, b in zip(plain, y):
        if a.dtype != b.dtype or a.weak_type != b.weak_type:
            findings.fails("structure", f"the value is {_type(a)}, but {_type(b)} under differentiation")
    for i, a, b in zip(arrays, g, want[2]):
        if p.domains[i].kind == "float" and (a.dtype != leaves[i].dtype or (a.weak_type and not b.weak_type)):
            findings.fails("structure", f"the cotangent of {p.names[i]} is {_type(a)}, but {p.names[i]} is {_type(leaves[i])}")
        if a.shape != b.shape:
            findings.fails("structure", f"the cotangent of {p.names[i]} must have shape {list(b.shape)}; got {list(a.shape)}")


def _type(a):
    return ("weakly typed " if getattr(a, "weak_type", False) else "") + str(a.dtype)
