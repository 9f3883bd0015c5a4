"""A rule is one operation written twice: as mathematics, and as hand-derived calculus.

    reference   the definition in plain jax.numpy: what autodiff would differentiate
    forward     (arrays)      -> y, saved        computed when a gradient will be wanted
    backward    (dy, *saved)  -> one cotangent per array, None where there is none

Without a forward of its own, the backward's argument names say what to save: any of the arrays, and `y`.
Arrays are positional, settings keyword-only: the `*` in a signature is the line between
what is differentiated and what is fixed.
"""

import functools
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_EVERY = "every rule"
_set_aside = jax.make_user_context(frozenset())     # rules set aside, or _EVERY; part of the key of every jit cache


class Rule:
    """An operation with a hand-written gradient. Call it like the function it decorates."""

    def __init__(self, reference):
        functools.update_wrapper(self, reference)
        self.reference = reference
        self.arrays, self.settings = _split(reference)
        self.defaults = {p.name: p.default for p in inspect.signature(reference).parameters.values()
                          if p.name in self.arrays and p.default is not p.empty}
        self._required = {name for name, default in self.settings.items() if default is inspect.Parameter.empty}
        self.keeps_rules = False        # True: fwd and bwd call functions of the user's, in which rules stay in force
        self._given_forward = False
        self.forward = self.backward = self._check = None
        self.examples = []
        self._built = {}

    def fwd(self, forward):
        """Decorates `forward(*arrays, *, settings) -> y, saved`, where something cleverer is computed or kept."""
        self._check_settings(forward, "fwd")
        self.forward, self._given_forward = forward, True
        self._built.clear()
        return forward

    def bwd(self, backward):
        """Decorates `backward(dy, *saved, *, settings) -> cotangents`, one for each array, None where there is none."""
        self._check_settings(backward, "bwd")
        if not self._given_forward:
            self.forward = self._save_by_name(_split(backward)[0][1:])
        self.backward = backward
        self._built.clear()
        return backward

    def slope(self, derivative):
        """Decorates the derivative y′ of a pointwise rule, a function of x or of y (or both), or of what its fwd saves."""
        self._check_settings(derivative, "slope")
        if len(self.arrays) != 1:
            raise TypeError(f"{self.__name__} takes {', '.join(self.arrays)}: a slope is for pointwise rules of one array, "
                            f"write a @{self.__name__}.bwd")
        wanted = _split(derivative)[1]
        if not self._given_forward:
            self.forward = self._save_by_name(_split(derivative)[0])

        def backward(dy, *saved, **settings):
            return (dy * derivative(*saved, **_pick(settings, wanted)),)
        self.backward = functools.update_wrapper(backward, derivative)
        self._built.clear()
        return derivative

    def check(self, check):
        """Decorates `check(*arrays, *, settings)`, called before every call: it raises a sentence where shapes, settings or
        (unless they are traced) values are wrong, and so keeps such things out of the mathematics."""
        self._check_settings(check, "check")
        wanted = _split(check)[1]
        self._check = lambda arrays, settings: check(*arrays, **_pick(settings, wanted))
        return check

    def example(self, **inputs):
        """Inputs to check and time the rule on: `x="n d"` is a normal array of that shape, see fnnet.sample."""
        if unknown := inputs.keys() - {*self.arrays, *self.settings}:
            raise TypeError(f"{_list(unknown)} is neither an array nor a setting of {self!r}")
        self.examples.append(inputs)

    def __call__(self, *arrays, **named):
        if named or len(arrays) != len(self.arrays):
            arrays, named = self._bind(arrays, named)
        if self._required and (missing := self._required - named.keys()):
            raise TypeError(f"{self!r} was called without {_list(missing)}")
        settings = {**self.settings, **named}
        plain = (aside := _set_aside.value) is _EVERY or self in aside
        key = tuple((name, type(value), value) for name, value in settings.items())
        try:
            op = None if plain else self._built.get(key)
        except TypeError:
            raise TypeError(self._unhashable(settings)) from None
        if self._check is not None:
            self._check(arrays, settings)
        if plain:
            return self.reference(*arrays, **settings)
        if op is None:
            op = self._built[key] = _differentiable(self, settings)
        return op(*arrays)

    def __repr__(self):
        return f"<rule {self.__name__}{inspect.signature(self.reference)}>"

    def __reduce__(self):
        return self.__qualname__                    # pickled and copied by name, equal by identity

    def _bind(self, arrays, named):
        """Arrays given by keyword go to their places; what is left are settings, each of which must be known."""
        given = dict(zip(self.arrays, arrays))
        if len(arrays) > len(self.arrays):
            hint = f" ({_list(self.settings)}: by keyword)" if self.settings else ""
            raise TypeError(f"{self.__name__} takes {_list(self.arrays)} as arrays{hint}, got {len(arrays)} positional arguments")
        for name in [name for name in named if name in self.arrays]:
            if name in given:
                raise TypeError(f"{self.__name__} was given {name} twice: by position and by keyword")
            given[name] = named[name]
        if unknown := named.keys() - self.settings.keys() - {*self.arrays}:
            raise TypeError(f"{_list(unknown)} is not a setting of {self!r}")
        given = {**self.defaults, **given}
        if missing := [name for name in self.arrays if name not in given]:
            raise TypeError(f"{self!r} was called without {_list(missing)}")
        return [given[name] for name in self.arrays], {k: v for k, v in named.items() if k in self.settings}

    def _unhashable(self, settings):
        for name, value in settings.items():
            try:
                hash(value)
            except TypeError:
                what = "an array" if isinstance(value, jax.Array) or hasattr(value, "dtype") else f"the {type(value).__name__} {value!r}"
                return (f"{name} is a setting of {self.__name__}, fixed and hashable, and was given {what}: "
                        f"write a number, a string or a tuple (to differentiate or trace {name}, make it an array argument)")

    def _check_settings(self, f, role):
        wanted = _split(f)[1]
        if wanted is not None and (unknown := wanted.keys() - self.settings.keys()):
            raise TypeError(f"the {role} of {self.__name__} asks for {_list(unknown)}, which is not a setting of {self!r}")

    def _save_by_name(self, names):
        if lost := set(names) - {*self.arrays, "y"}:
            raise TypeError(f"{self.__name__} has no {_list(lost)} to save: "
                            f"write a @{self.__name__}.fwd that returns it")

        def forward(*arrays, **settings):
            y = self.reference(*arrays, **settings)
            values = dict(zip(self.arrays, arrays), y=y)
            return y, tuple(values[name] for name in names)
        return forward


rule = Rule


def autodiff(f, *rules):
    """`f` with the references in place of the rules, as autodiff would see it: all of them, or only those named.

    Works on functions already jitted, nests, and gives forward mode back: `jax.hessian(autodiff(loss))`.
    """
    if not callable(f):
        raise TypeError(f"autodiff takes a function, got {f!r}: write autodiff(f)(*args)")
    if strangers := [r for r in rules if not isinstance(r, Rule)]:
        raise TypeError(f"autodiff sets rules aside, and {strangers[0]!r} is none: write autodiff(f, ops.relu, ...)")

    @functools.wraps(f, updated=())
    def plain(*args, **kwargs):
        now = _set_aside.value
        with _set_aside(_EVERY if now is _EVERY or not rules else now | frozenset(rules)):
            return f(*args, **kwargs)
    return plain


class _Recorder(frozenset):
    """An empty set of rules set aside that remembers who asked: every rule that is called does."""
    __hash__, __eq__, __ne__ = object.__hash__, lambda a, b: a is b, lambda a, b: a is not b      # no cached trace answers for it

    def __init__(self):
        self.rules = []

    def __contains__(self, rule):
        self.rules.append(rule)
        return False


def used(f, *args, **kwargs):
    """The rules that f(*args, **kwargs) calls, in the order of their first call; nothing is computed."""
    asked = _Recorder()
    with _set_aside(asked):
        jax.eval_shape(functools.partial(f, **kwargs), *args)
    return list(dict.fromkeys(asked.rules))


@jax.tree_util.register_static
class _Types(NamedTuple):
    """What the cotangents must look like. A static pytree: it travels among the saved values and weighs nothing."""
    types: tuple            # of jax.typeof, one per leaf
    treedefs: tuple         # one per array argument


def _differentiable(rule, settings):
    """The jax.custom_vjp of a rule at fixed settings."""
    if rule.backward is None:
        raise TypeError(f"{rule!r} has no gradient yet: write a @{rule.__name__}.bwd")
    for_fwd, for_bwd = (_pick(settings, _split(f)[1]) for f in (rule.forward, rule.backward))

    def forward(*arrays):
        with _inside(rule):
            result = rule.forward(*arrays, **for_fwd)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], tuple)):
            raise TypeError(f"the fwd of {rule.__name__} must return y and a tuple of what is saved, `return y, (x, w)`, "
                            f"not {type(result).__name__}")
        y, saved = result
        if len(arrays) > 1:
            y = _tie(y, arrays)
        leaves, treedefs = zip(*(jax.tree.flatten(a) for a in arrays))
        return y, (saved, _Types(tuple(jax.typeof(leaf) for group in leaves for leaf in group), treedefs))

    def primal(*arrays):
        return forward(*arrays)[0]

    def backward(residuals, dy):
        saved, types = residuals

        def cotangents(dy, saved):
            with _inside(rule):
                return _checked(rule, rule.backward(dy, *saved, **for_bwd), types)
        if explicit := [t.sharding for t in types.types if _explicit(t)]:
            # On a mesh with Explicit axes the partitioner chooses the collectives inside, as it does for autodiff.
            whole = jax.sharding.NamedSharding(explicit[0].mesh, jax.P())
            wanted = tuple(t.sharding if _explicit(t) else whole for t in types.types if _real(t))
            cotangents = jax.sharding.auto_axes(cotangents, out_sharding=wanted)
        found = iter(cotangents(dy, saved))
        leaves = iter([next(found) if _real(t) else None for t in types.types])
        return tuple(treedef.unflatten([next(leaves) for _ in range(treedef.num_leaves)]) for treedef in types.treedefs)

    primal.__name__ = rule.__name__                 # the name seen in jaxprs and profiles
    op = jax.custom_vjp(primal)
    op.defvjp(forward, backward)

    def call(*arrays):
        return op(*_varying_alike(arrays))
    call.__name__ = rule.__name__
    # A bare custom_vjp is traced anew at every eager call, about 100 µs; a jitted one costs 5, and inlines under an outer jit.
    return jax.jit(call, inline=True)


def _inside(rule):
    """A rule inside a rule would need differentiating twice, which forward mode cannot do: inside, all are set aside."""
    return _set_aside(_set_aside.value if rule.keeps_rules else _EVERY)


def _checked(rule, cotangents, types):
    """The cotangents of the leaves that have a gradient, each of the shape and dtype of its primal, or a sentence."""
    names = rule.arrays
    if len(names) == 1 and not (isinstance(cotangents, tuple) and len(cotangents) == 1):
        cotangents = (cotangents,)
    if not isinstance(cotangents, tuple | list) or len(cotangents) != len(names):
        count = len(cotangents) if isinstance(cotangents, tuple | list) else 1
        raise TypeError(f"{rule.__name__} takes {_list(names)} but its bwd returned {count} "
                        f"cotangent{'s' * (count != 1)}: give one for each, None where there is none")
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
                                f"{jax.tree.structure(cotangent)}, where {name} has {treedef}")
        found += [_as(rule, name, part, t) for part, t in zip(parts, wanted) if _real(t)]
    return tuple(found)


def _as(rule, name, cotangent, t):
    """One cotangent, checked against the type of its primal."""
    if cotangent is None:
        cotangent = jnp.zeros(t.shape, t.dtype)
    given = jax.typeof(cotangent)
    alike = given.dtype == t.dtype or (given.weak_type and jnp.can_cast(given.dtype, t.dtype, "same_kind"))
    if given.shape != t.shape or not alike:
        raise TypeError(f"the bwd of {rule.__name__} returned for {name} a cotangent {given.dtype}{list(given.shape)}, "
                        f"where {name} is {t.dtype}{list(t.shape)}: return one of the same shape and dtype")
    cotangent = jnp.asarray(cotangent, t.dtype)
    lacking = _varying(t) - _varying(jax.typeof(cotangent))
    return lax.pcast(cotangent, tuple(sorted(lacking)), to="varying") if lacking else cotangent


def _tie(y, arrays):
    """y, as an output of every array. Where y does not depend on a batched array, vmap of a custom_vjp would count the
    gradient of the others once per element of the batch. The compiler removes the choice between equals."""
    leaves = [jax.random.key_data(a) if jnp.issubdtype(jax.typeof(a).dtype, jax.dtypes.prng_key) else a
              for a in jax.tree.leaves(arrays)]
    either = functools.reduce(jnp.logical_or, [jnp.any(jnp.asarray(a) != a) for a in leaves])
    return jax.tree.map(lambda leaf: jnp.where(either, leaf, leaf), y)


def _varying_alike(arrays):
    """Inside shard_map: every real array varying over the axes any of them varies over, so that a sum over the devices
    that share one (autodiff's psum) is the transpose of this cast and no rule need know of it."""
    axes = frozenset().union(*(_varying(jax.typeof(leaf)) for leaf in jax.tree.leaves(arrays)))
    if not axes:
        return arrays

    def cast(leaf):
        t = jax.typeof(leaf)
        lacking = axes - _varying(t)
        return lax.pcast(leaf, tuple(sorted(lacking)), to="varying") if lacking and _real(t) else leaf
    return jax.tree.map(cast, arrays)


def _varying(t):
    return getattr(getattr(t, "manual_axis_type", None), "varying", frozenset())


def _explicit(t):
    sharding = getattr(t, "sharding", None)
    return sharding is not None and jax.sharding.AxisType.Explicit in (sharding.mesh.axis_types or ())


def _real(t):
    return jnp.issubdtype(t.dtype, jnp.inexact)


@functools.cache
def _split(f):
    """The names of f's positional arguments, and its keyword-only ones with their defaults (None: it takes any)."""
    params = inspect.signature(f).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in params):
        if any(p.kind is p.VAR_KEYWORD for p in params):
            return [], None                         # a forward made by _save_by_name, a backward made by slope
        raise TypeError(f"{f.__name__} takes *{next(p.name for p in params if p.kind is p.VAR_POSITIONAL)}: "
                        "name every array, settings follow a bare *")
    return ([p.name for p in params if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)],
            None if any(p.kind is p.VAR_KEYWORD for p in params) else
            {p.name: p.default for p in params if p.kind is p.KEYWORD_ONLY})


def _pick(settings, wanted):
    return settings if wanted is None else {k: v for k, v in settings.items() if k in wanted}


def _list(names):
    return ", ".join(names if isinstance(names, list) else sorted(names))
