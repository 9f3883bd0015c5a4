"""A failure as a two-line program: the arguments; and the rule's result, with the correct value in a comment."""

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify.case.case import MIXED, SWALLOWED

MOST = 300              # elements: a longer script would not be readable
PULL = "jax.vjp(g, *args)[1](cts)"


def script(finding):
    """The two lines, in which `f` is the function checked; "" if they would be too long or cannot be written."""
    p, f = finding.case, finding.fault
    if f is None or any(np.size(v) > MOST for v in finding.leaves):
        return ""
    if p.complex:
        return ""
    if any(not isinstance(p.leaves[i], bool | int | float | str) for i in p.fixed):
        return ""
    leaves, cts, text = _second_line(finding)
    if not text:
        return ""
    args = p.treedef.unflatten([_Text(_leaf(finding, i, v)) for i, v in enumerate(leaves)])
    given = "*a"
    if p.fixed:                                         # not arrays, so they are written into the call
        if p.treedef.num_leaves != len(args):
            return ""
        places = iter(range(len(args)))
        given = ", ".join(repr(p.leaves[i]) if i in p.fixed else f"a[{next(places)}]" for i in range(len(args)))
        args = tuple(a for i, a in enumerate(args) if i not in p.fixed)
    given += "".join(f", {k}={v!r}" for k, v in p.settings.items())
    wide = "" if finding.dtype else "jax.config.update('jax_enable_x64', True); "
    array = p.names[p.real[f.array]] if finding.check not in ("value", "forward mode") and 0 <= f.array < len(p.real) else ""
    right = f"{f.want:.8g}" if abs(f.want) < SWALLOWED else "nan"
    return (f"import jax, numpy as np, jax.numpy as jnp; {wide}g = lambda *a: [y for y in jax.tree.leaves(f({given})) "
            f"if jnp.issubdtype(y.dtype, jnp.floating)]; args = {args!r}; cts = [{', '.join(cts)}]\n"
            f"{text}    # {array}{list(f.place)}: {f.got:.8g}; should be {right}")


def _second_line(finding):
    """(the leaves of the arguments, the cotangents as text, the second line)."""
    p, check, label = finding.case, finding.check, finding.label
    kinds = _outputs(finding)
    plain = (finding.leaves, [_array(c, k) for c, k in zip(finding.cts, kinds)])
    whole = len(p.real) == len(p.leaves)
    if check == "value":
        return *plain, "print(jax.vjp(g, *args)[0])" if "under differentiation" in label else "print(g(*args))"
    if check in ("second order", "forward mode"):
        along = iter(finding.more)
        directions = p.treedef.unflatten([_Text(_array(next(along), "float64") if i in p.real else
                                                f"np.zeros({np.shape(v)}, jax.dtypes.float0)") for i, v in enumerate(finding.leaves)])
        if p.fixed:
            return *plain, ""
        return *plain, (f"print(jax.jvp(g, args, {directions!r})[1])" if check == "forward mode" else
                        f"print(jax.vjp(lambda xs, c: jax.vjp(g, *xs)[1](c), args, cts)[1]({directions!r}))")
    if check in ("jit", "remat", "cond"):
        wrapped = {"jit": "jax.jit(g)", "remat": "jax.checkpoint(g)", "cond": "lambda *a: jax.lax.cond(True, g, g, *a)"}[check]
        return *plain, f"print(jax.vjp({wrapped}, *args)[1](cts))"
    if check in ("vmap", "scan"):
        return _mapped(finding, plain, whole, kinds)
    if check == "state" and finding.more and not p.fixed:
        other = p.treedef.unflatten([_Text(_leaf(finding, i, v)) for i, v in enumerate(finding.more[0])])
        return *plain, (f"other = {other!r}; jax.vjp(g, *other); pull = jax.vjp(g, *args)[1]; jax.vjp(g, *other); "
                        "print(pull(cts), pull(cts))")
    if check == "donation":
        every = tuple(range(p.treedef.num_nodes and len(p.treedef.children())))
        return *plain, f"print(jax.jit(lambda *a: jax.vjp(g, *a)[1](cts), donate_argnums={every})(*args))" if whole else ""
    if check == "argnums" and label.endswith("each output alone"):
        return *plain, ""
    if check == "argnums":
        i = p.real[[p.names[k] for k in p.real].index(label.removeprefix("argnums: ").removesuffix(" alone"))]
        if p.fixed or len(p.leaves) != len(p.treedef.children()):
            return *plain, ""
        return *plain, f"print(jax.vjp(lambda x: g(*args[:{i}], x, *args[{i + 1}:]), args[{i}])[1](cts))"
    return *plain, "" if check in ("mesh", "shard_map", "state") else f"print({PULL})"


def _mapped(finding, plain, whole, kinds):
    p, label = finding.case, finding.label
    another, cb, subset = finding.more
    both = [_array(np.stack([a, b]), k) for a, b, k in zip(map(np.asarray, finding.cts), cb, kinds)]
    if label == "vmap over the cotangent":
        return finding.leaves, both, "print(jax.vmap(jax.vjp(g, *args)[1])(cts))"
    axis = -1 if label.endswith("last axis") else 0
    mapped = range(len(p.leaves)) if label == "scan" else [p.real[i] for i in subset]
    pairs = enumerate(zip(finding.leaves, another)) if whole or subset else ()
    leaves = [np.stack([a, b], axis) if i in mapped else a for i, (a, b) in pairs]
    if label == "scan":
        return leaves, both, "print(jax.lax.scan(lambda _, l: (None, jax.vjp(g, *l[0])[1](l[1])), None, (args, cts))[1])" if whole else ""
    if p.fixed:
        return *plain, ""
    axes = p.treedef.unflatten([_Text(axis if i in mapped else None) for i in range(len(p.leaves))])
    if label.startswith("vmap of the gradient"):
        return leaves, plain[1], f"print(jax.vmap(lambda *a: jax.vjp(g, *a)[1](cts), {axes!r})(*args))"
    return leaves, both, f"print(jax.vjp(jax.vmap(g, {axes!r}), *args)[1](cts))"


class _Text(str):
    """A string whose repr is itself, so that the repr of a tree of them is a program."""
    def __repr__(self):
        return str(self)


def _kind(finding, i):
    return (str(finding.case.dtypes[i]) if finding.dtype == MIXED else finding.dtype) or "float64"


def _leaf(finding, i, v):
    return _array(v, _kind(finding, i))


def _outputs(finding):
    """The dtypes of the real outputs."""
    p = finding.case
    with jax.enable_x64(not finding.dtype):
        leaves = [jnp.asarray(v, _kind(finding, i)) if p.domains[i].kind == "float" else v for i, v in enumerate(finding.leaves)]
        xs, others = p.split(leaves)
        return [str(t.dtype) for t in jax.eval_shape(lambda *xs: p.of_real(p.reference, others)(*xs)[0], *xs)]


def _array(v, dtype):
    if isinstance(v, jax.Array) and jnp.issubdtype(v.dtype, jax.dtypes.prng_key):
        return f"jax.random.wrap_key_data(jnp.array({np.asarray(jax.random.key_data(v)).tolist()}, 'uint32'))"
    if isinstance(v, str):
        return repr(v)
    v = np.asarray(v)
    kind = dtype if jnp.issubdtype(v.dtype, jnp.floating) else str(v.dtype)
    text = repr(v.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return f"jnp.array({text}, '{kind}')" + ("" if v.size else f".reshape{v.shape}")
