"""A function to check and its arguments, as a flat list of arrays."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.rule import Rule
from fnnet.verify.case.inputs import exact
from fnnet.verify.case.parts import apart, is_complex, together
from fnnet.verify.case.spec import Domain, derive, parse

SWALLOWED = 1e300       # stands for NaN where NaN is correct
MIXED = "as given"      # arguments of mixed precisions


class Case(NamedTuple):
    """f and its reference, functions of the same positional arguments; the leaves of the arguments as NumPy arrays, floats in float64."""
    f: Callable
    reference: Callable
    leaves: list
    treedef: Any
    names: tuple            # of the leaves: "x", "params['w']"
    dtypes: tuple           # as passed in
    domains: tuple
    real: tuple             # the leaves to differentiate
    settings: dict
    constants: tuple = ()   # constants that occur in the programs
    forward: bool = False   # the reference supports only forward mode (a while loop)
    numeric: bool = False   # the reference's gradient comes from central differences
    endless: bool = False   # it loops until something has converged: at other inputs it might never end
    title: str = ""
    complex: bool = False   # some arguments are complex arrays, stored as two leaves each
    wanted: tuple = ()      # the leaves of the arguments that may be differentiated, including integers

    @property
    def fixed(self):
        """Leaves that are not arrays: strings, functions, Python integers."""
        return [i for i, d in enumerate(self.domains) if d.kind == "static"]

    def with_settings(self, settings):
        return self._replace(settings={**self.settings, **settings})

    def call(self, f, leaves, settings=None):
        return f(*self.arguments(leaves), **(self.settings if settings is None else settings))

    def arguments(self, leaves):
        """The arguments of a call."""
        args = self.treedef.unflatten(leaves)
        return together(args) if self.complex else args

    def leaves_of(self, args):
        """The leaves of the arguments of a call."""
        return jax.tree.leaves(apart(args) if self.complex else args)

    def outputs(self, f, leaves):
        return self.arrays(self.call(f, leaves))

    @staticmethod
    def arrays(tree):
        leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype") or isinstance(leaf, float | int)]
        parts = [(jnp.real(leaf), jnp.imag(leaf)) if is_complex(leaf) else (leaf,) for leaf in leaves]
        return [part for pair in parts for part in pair]

    def split(self, leaves):
        """The leaves to differentiate, and the other arrays."""
        return ([leaves[i] for i in self.real], [leaves[i] for i in self.rest])

    @property
    def rest(self):
        return [i for i in range(len(self.leaves)) if i not in self.real and self.domains[i].kind != "static"]

    def merge(self, xs, others):
        full = list(self.leaves)
        for i, a in zip(self.real, xs):
            full[i] = a
        for i, a in zip(self.rest, others):
            full[i] = a
        return full

    def of_real(self, f, others):
        """f as a function of the leaves to differentiate; returns its real outputs and, separately, the others."""
        def g(*xs):
            outs = [jnp.asarray(o) for o in self.outputs(f, self.merge(xs, others))]
            return [o for o in outs if is_real(o)], [o for o in outs if not is_real(o)]
        return g

    def show(self, leaves=None):
        return ", ".join(f"{n} {short(d)}{list(np.shape(v))}" for n, d, v, m in
                         zip(self.names, self.dtypes, leaves or self.leaves, self.domains) if m.kind not in ("static",))


def read(f, args, reference, settings, spec, argnums, domains=None):
    """Converts a call into a Case, so that everything else deals only with arrays."""
    given = args
    args = apart(given)
    leaves, treedef = jax.tree.flatten(args)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(args)]
    arguments = argument_names(f, len(args))
    names = tuple(arguments[path[0].idx] + jax.tree_util.keystr(path[1:]) for path in paths)
    static = nondiff(f)
    said = parse(spec, arguments) if spec else {}
    values, dtypes, found = [], [], []
    for k, (leaf, path) in enumerate(zip(leaves, paths)):
        i = path[0].idx
        value, dtype, domain = _read(leaf, i in static)
        asked = domains[k] if domains else said.get(arguments[i])
        if asked and asked.kind not in (domain.kind, "key"):
            raise ValueError(f"{names[k]} must be of kind {asked.kind}, by the spec; got {dtype}")
        if asked and asked.kind != "key":
            domain = asked._replace(high=domain.high) if asked.kind == "int" and asked.high == np.inf else asked
        values.append(value)
        dtypes.append(dtype)
        found.append(domain)
        if not asked and isinstance(f, Rule) and not domain.word and not _any_number(f, arguments[i]):
            found[-1] = _inside(found[-1], value)
    found = _below(found, values)
    values = [exact(d, v) for d, v in zip(found, values)]
    wanted = range(len(args)) if argnums is None else {a % len(args) for a in ((argnums,) if isinstance(argnums, int) else argnums)}
    real = tuple(i for i, d in enumerate(found) if d.kind == "float" and paths[i][0].idx in wanted)
    if not real:
        raise ValueError(f"check needs a real or complex array to differentiate; got {', '.join(names) or 'no arguments'}: "
                         "pass an array of floats, or argnums")
    title = getattr(f, "__name__", None) or getattr(getattr(f, "func", None), "__name__", None) or type(f).__name__
    allowed = tuple(i for i, path in enumerate(paths) if path[0].idx in wanted)
    return Case(f, reference, values, treedef, names, tuple(dtypes), tuple(found), real, dict(settings), title=title,
                complex=any(map(is_complex, jax.tree.leaves(given))), wanted=allowed)


def _read(leaf, static):
    """(value, dtype, domain) of one leaf; anything that is not an array is left unchanged."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf, leaf.dtype, Domain("key")
    if static or not (isinstance(leaf, float) or (hasattr(leaf, "dtype") and hasattr(leaf, "shape"))):
        return leaf, None, Domain("static")
    dtype = jnp.asarray(leaf).dtype
    value = np.asarray(leaf, np.float64) if jnp.issubdtype(dtype, jnp.floating) else np.asarray(leaf, dtype)
    domain = derive(value)
    if domain.kind == "int" and dtype == np.uint32 and value.shape == (2,):
        domain = Domain("int", 0, 2**31 - 2)            # an old-style PRNG key
    return value, dtype, domain


def _any_number(rule, name):
    """Whether an example of a rule allows any real number for an argument; also true if no example mentions it."""
    makers = [example[name] for example in rule.examples if name in example]
    return not makers or any(isinstance(m, str) or not callable(m) or getattr(m, "any_number", False) for m in makers)


def _inside(domain, x):
    """The domain restricted by the bounds that the numbers of an example respect."""
    if domain.kind != "float" or not np.size(x) or np.min(x) < 0:
        return domain
    high = 1.0 if np.max(x) <= 1 else np.inf
    return domain._replace(low=0.0, high=high, closed=(bool((x == 0).any()), bool((x == high).any())), said=True)


def _below(domains, values):
    """Resolves integers declared to be below the size of an axis: `i[N] < C`."""
    sizes = {name: size for d, v in zip(domains, values) if d.dims for name, size in zip(d.dims[::-1], np.shape(v)[::-1])}
    return [d._replace(high=sizes[d.below] - 1) if d.below in sizes else d for d in domains]


def argument_names(f, count):
    """The names of the positional arguments; arg0, arg1, … if there are none."""
    try:
        params = [p.name for p in inspect.signature(f).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    except (TypeError, ValueError):
        params = []
    return [params[i] if i < len(params) else f"arg{i}" for i in range(count)]


def nondiff(f):
    """The nondiff_argnums of a custom_vjp."""
    while not hasattr(f, "nondiff_argnums") and not isinstance(f, functools.partial | Rule) and hasattr(f, "__wrapped__"):
        f = f.__wrapped__
    return set(getattr(f, "nondiff_argnums", ()) or ()) if not isinstance(f, Rule) else set()


def is_real(a):
    return hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)


def short(dtype):
    return str(dtype).replace("bfloat", "bf").replace("float", "f").replace("uint", "u").replace("int", "i") if dtype is not None else ""
