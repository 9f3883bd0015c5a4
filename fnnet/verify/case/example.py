"""Example arguments from a spec alone, `x: f[N, D], w: f[D, O] | labels: i[N] < O | key`."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify.case.inputs import draw
from fnnet.verify.case.spec import Domain, parse

SIZES = (5, 3, 4, 7, 6, 8, 9, 10)      # of the letters in order of appearance; all differ, so that no axis is mistaken for another


def arguments(f, spec, seed=0, dtype=np.float32):
    """The positional arguments that a spec describes, matched to the names of f's parameters, with small sizes for its letters.

    `*B` stands for any leading axes; here it becomes one axis.
    """
    names = _parameters(f, spec)
    domains = parse(spec, names)
    if missing := [n for n in names if n not in domains]:
        raise ValueError(f"the spec must describe every argument; got none for {missing[0]!r}; write {spec} | {missing[0]}: f[N]")
    letters = {}
    for dim in (d.lstrip("*") for domain in domains.values() for d in domain.dims or ()):
        if not dim.isdigit() and dim not in letters:
            letters[dim] = SIZES[len(letters) % len(SIZES)] + 10 * (len(letters) // len(SIZES))
    rng = np.random.default_rng(seed)
    return [_drawn(name, domains[name], letters, rng, dtype) for name in names]


def _parameters(f, spec):
    """The names of the arguments to draw: those named in the spec, and those without a default."""
    try:
        offered = [p for p in inspect.signature(f).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    except (TypeError, ValueError):
        raise ValueError("arguments cannot be drawn for a function without a signature: pass an example of each") from None
    everything = [p.name for p in offered]
    said = parse(spec, everything)
    needed = [p.name for p in offered if p.default is p.empty]
    return [name for name in everything if name in said or name in needed]


def _drawn(name, domain, letters, rng, dtype):
    def size(dim):
        return int(dim) if dim.isdigit() else letters[dim.lstrip("*")]
    shape = tuple(size(d) for d in domain.dims or ())
    if domain.kind == "key":
        return jax.random.key(int(rng.integers(2**31)))
    if domain.kind == "int":
        high = size(domain.below) - 1 if domain.below in letters else domain.high
        if not np.isfinite(high):
            raise ValueError(f"the integers of {name} must have an upper bound: write {name}: i[N] < C with C an axis, or i[N] < 10")
        return jnp.asarray(draw(Domain("int", domain.low, high), shape, rng, np.zeros((), np.int32)))
    value = draw(domain, shape, rng)
    return jnp.asarray(value) if domain.kind == "bool" else jnp.asarray(value, dtype)
