"""The rule: a function with a hand-written gradient, its settings, its checks and its examples."""

import functools
import inspect
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, Generic, ParamSpec, TypeVar, overload

import jax

from fnnet.rule.derivative import EVERY, as_array, as_taken, differentiable, explained, set_aside, varying_alike
from fnnet.rule.signature import listed, pick, split, written
from fnnet.shown import html, latex

P = ParamSpec("P")                      # the parameters of the function that a rule decorates
R = TypeVar("R")                        # and what it returns: a rule has the same
F = TypeVar("F", bound=Callable)

NOT_WRITTEN = {"forward": "the reference; the values named by the parameters of the backward pass are saved",
               "backward": "none yet: decorate one with .bwd"}
BUILT = 64      # how many settings of a rule keep their compiled programs; the least recently used is dropped first


class Rule(Generic[P, R]):
    """An operation with a hand-written gradient. Call it like the function it decorates; see `rule`.

    >>> ops.leaky_relu
    <rule leaky_relu(x, *, alpha=0.01)>
    >>> ops.relu.formula, ops.relu.arrays, ops.dropout.settings
    ('y = max(0, x),   y′ = 1 if x > 0 else 0', ['x'], {'rate': 0.5, 'channels': False})
    """
    __name__: str                       # these two are those of the function
    __qualname__: str

    def __init__(self, reference: Callable[P, R], cast: bool = False):
        functools.update_wrapper(self, reference)
        self.reference = reference
        self.arrays, settings = split(reference)
        if settings is None:
            raise TypeError(f"{self.__name__} takes **settings: name each setting after a bare *")
        self.settings: dict[str, Any] = settings
        defaults = {p.name: p.default for p in inspect.signature(reference).parameters.values()}
        self.defaults = {name: defaults[name] for name in self.arrays if defaults[name] is not inspect.Parameter.empty}
        self._check_defaults()
        self._required = {name for name, default in self.settings.items() if default is inspect.Parameter.empty}
        self.cast = cast                # True: a cotangent is cast to the dtype of its argument
        self.takes: str | None = None   # "real": no complex numbers; "floats": also, integers become floats, as in jnp
        self.keeps_rules = False        # True: fwd and bwd call user-defined functions, in which rules stay active
        self._given_forward = False
        self.forward: Callable[..., tuple[Any, tuple]] | None = None
        self.backward: Callable[..., Any] | None = None
        self._check: Callable[..., Any] | None = None
        self.examples: list[dict[str, Any]] = []
        self.audited: Any = None        # the last result of `verify.audit`
        # An operation holds its compiled programs, one for every shape it was called with: a megabyte or two each.
        self._built = functools.lru_cache(BUILT)(functools.partial(differentiable, self))

    def fwd(self, forward: F) -> F:
        """Decorates `forward(*arrays, *, settings) -> y, saved`, for a forward pass that computes or saves something
        other than the reference does."""
        self._check_parameters(forward, "fwd", self.arrays)
        self.forward, self._given_forward = forward, True
        self._built.cache_clear()
        return forward

    def bwd(self, backward: F) -> F:
        """Decorates `backward(dy, *saved, *, settings) -> cotangents`: one for each array, in order or by name, as in
        `{"q": dq, "k": dk}`; None for an array without a gradient."""
        names = self._check_parameters(backward, "bwd")
        if names is not None:
            if not names or names[0] in (*self.arrays, "y"):
                raise TypeError(f"the bwd of {self.__name__} must take dy, the cotangent of the output, before what is "
                                f"saved; it takes {', '.join(names) or 'nothing'}: write "
                                f"def {self.__name__}_bwd({', '.join(['dy', *names])})")
            if not self._given_forward:
                self.forward = self._save_by_name(names[1:], "bwd")
        self.backward = backward
        self._built.cache_clear()
        return backward

    def slope(self, derivative: F) -> F:
        """Decorates the derivative y′ of a pointwise rule: a function of x, y, both, or of what its fwd saves."""
        names = self._check_parameters(derivative, "slope")
        if len(self.arrays) != 1:
            raise TypeError(f"{self.__name__} takes {', '.join(self.arrays)}: a slope is for pointwise rules of one "
                            f"array; write a @{self.__name__}.bwd")
        if names and "dy" in names and "dy" not in self.arrays:
            raise TypeError(f"the slope of {self.__name__} must return only y′, which is then multiplied by dy; it "
                            f"takes dy: leave dy out, or write a @{self.__name__}.bwd")
        wanted = split(derivative)[1]
        if names is None and not self._given_forward:
            raise TypeError(f"the slope of {self.__name__} takes *args, whose names do not say what is saved: write "
                            f"named parameters, as in def {self.__name__}_slope(x, y)")
        if not self._given_forward:
            self.forward = self._save_by_name(names, "slope")

        def backward(dy, *saved, **settings):
            return (dy * derivative(*saved, **pick(settings, wanted)),)
        self.backward = functools.update_wrapper(backward, derivative)
        self._built.cache_clear()
        return derivative

    def check(self, check: F) -> F:
        """Decorates `check(*arrays, *, settings)`, which runs before every call and raises an error if shapes,
        settings or (unless they are traced) values are wrong, so that the definition itself needs no checks."""
        self._check_parameters(check, "check", self.arrays)
        wanted = split(check)[1]
        self._check = lambda arrays, settings: check(*arrays, **pick(settings, wanted))
        return check

    def example(self, **inputs: Any) -> None:
        """Adds inputs to check and time the rule on: `x="n d"` is a normal array of that shape; see fnnet.sample."""
        if unknown := inputs.keys() - {*self.arrays, *self.settings}:
            raise TypeError(f"{listed(unknown)} is neither an array nor a setting of {self!r}")
        self.examples.append(inputs)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        arrays: Sequence[Any] = args
        named: dict[str, Any] = kwargs
        if named or len(arrays) != len(self.arrays):
            arrays, named = self._bind(arrays, named)
        if self._required and (missing := self._required - named.keys()):
            raise TypeError(f"{self!r} was called without {listed(missing)}")
        settings = {**self.settings, **named}
        if self.takes is not None:                      # optional arrays are masks, which stay as they are
            arrays = [a if name in self.defaults else as_taken(self, a) for name, a in zip(self.arrays, arrays)]
        plain = (aside := set_aside.value) is EVERY or self in aside
        try:
            op = None if plain else self._built(tuple((name, type(value), value) for name, value in settings.items()))
        except TypeError:
            if sentence := self._unhashable(settings):
                raise TypeError(sentence) from None
            raise
        try:
            if self._check is not None:
                self._check(arrays, settings)
            if op is None:
                return self.reference(*varying_alike(jax.tree.map(as_array, tuple(arrays))), **settings)
            return op(*arrays)
        except Exception as error:
            if sentence := explained(error, self, settings):
                raise TypeError(sentence) from error
            raise

    @property
    def formula(self) -> str:
        """The beginning of the docstring, on one line: the formula and its derivative."""
        return "   ".join(inspect.cleandoc(self.__doc__ or "").partition("\n\n")[0].splitlines())

    def __repr__(self) -> str:
        return f"<rule {self.__name__}{written(self.reference)}>"

    def functions(self) -> dict[str, str | None]:
        """The source of the reference, the forward pass and the backward pass; None for one that is not written."""
        all_three = {"reference": self.reference, "forward": self.forward, "backward": self.backward}
        return {role: None if f is None or f.__qualname__.startswith("Rule.") else inspect.getsource(inspect.unwrap(f))
                for role, f in all_three.items()}

    def _repr_html_(self) -> str:
        """The formula as LaTeX, the rest of the docstring, the three functions, and the last audit."""
        formula, _, rest = inspect.cleandoc(self.__doc__ or "").partition("\n\n")
        lines = "".join(f"<p>${escape(latex(line))}$</p>" for line in formula.splitlines())
        code = "".join(f"<details><summary>{role}</summary>{html([text or NOT_WRITTEN[role]])}</details>"
                       for role, text in self.functions().items())
        head = f"<b>{escape(self.__name__ + written(self.reference))}</b>{lines}{html([rest] if rest else [])}{code}"
        if self.audited is None:
            return head
        return f"{head}<details><summary>last audit</summary>{html(self.audited.parts())}</details>"

    def __reduce__(self):
        return self.__qualname__                    # pickled and copied by name, compared by identity

    def _bind(self, arrays, named):
        """Puts arrays given by keyword in their places; the rest are settings, each of which must be known."""
        given = dict(zip(self.arrays, arrays))
        if len(arrays) > len(self.arrays):
            hint = f" ({listed(self.settings)}: by keyword)" if self.settings else ""
            raise TypeError(f"{self.__name__} takes {listed(self.arrays)} as arrays{hint}; "
                            f"got {len(arrays)} positional arguments")
        for name in [name for name in named if name in self.arrays]:
            if name in given:
                raise TypeError(f"{self.__name__} got {name} twice: by position and by keyword")
            given[name] = named[name]
        if unknown := named.keys() - self.settings.keys() - {*self.arrays}:
            raise TypeError(f"{listed(unknown)} is not a setting of {self!r}")
        given = {**self.defaults, **given}
        if missing := [name for name in self.arrays if name not in given]:
            raise TypeError(f"{self!r} was called without {listed(missing)}")
        return [given[name] for name in self.arrays], {k: v for k, v in named.items() if k in self.settings}

    def _unhashable(self, settings):
        for name, value in settings.items():
            try:
                hash(value)
            except TypeError:
                what = "an array" if hasattr(value, "dtype") else f"the {type(value).__name__} {value!r}"
                return (f"{name} is a setting of {self.__name__} and must be hashable; got {what}: write a "
                        f"number, a string or a tuple (to differentiate or trace {name}, make it an array argument)")

    def _check_defaults(self):
        """Raises where the default of an array shows that it is a setting: the bare `*` before it was forgotten."""
        for name, default in self.defaults.items():
            if isinstance(default, str | bool | tuple) or callable(default):
                first = ", ".join(self.arrays[:1])
                raise TypeError(f"{name}={default!r} is among the arrays of {self.__name__}, which are "
                                f"differentiated: to make it a setting, write a bare * before it, "
                                f"def {self.__name__}({first}, *, {name}={default!r})")

    def _check_parameters(self, f, role, wanted=None):
        """The names of f's positional parameters (None: any). Raises if one is a setting, or if f takes a setting that
        this rule does not have."""
        names, settings = split(f)
        if not names and settings is None:
            return None
        written = f"def {self.__name__}_{role}"
        if misplaced := [name for name in names if name in self.settings]:
            kept = ", ".join(name for name in names if name not in misplaced)
            raise TypeError(f"the {role} of {self.__name__} takes {listed(misplaced)} by position, which is a setting: "
                            f"settings follow a bare *, write {written}({kept}, *, {listed(misplaced)})")
        if settings is not None and (unknown := settings.keys() - self.settings.keys()):
            hint = ""
            if arrays := [name for name in settings if name in self.arrays]:
                hint = (f"; {listed(arrays)} is an array of it, as there is no bare * in "
                        f"def {self.__name__}({', '.join(self.arrays)}): write a * before {arrays[0]} there if it is a "
                        "setting, otherwise take it by position")
            raise TypeError(f"the {role} of {self.__name__} asks for {listed(unknown)}, "
                            f"which is not a setting of {self!r}{hint}")
        if wanted is not None and len(names) != len(wanted):
            raise TypeError(f"the {role} of {self.__name__} must take its arrays, {listed(wanted)}; it takes "
                            f"{', '.join(names) or 'none'}: write {written}({', '.join(wanted)})")
        return names

    def _save_by_name(self, names, role):
        if lost := set(names) - {*self.arrays, "y"}:
            raise TypeError(f"the {role} of {self.__name__} asks for {listed(lost)}, which is neither one of its "
                            f"arrays ({listed(self.arrays)}) nor y, its output: "
                            f"write a @{self.__name__}.fwd that saves it")

        def forward(*arrays, **settings):
            y = self.reference(*arrays, **settings)
            values = {"y": y, **dict(zip(self.arrays, arrays))}         # an array of that name is the array
            return y, tuple(values[name] for name in names)
        forward.__name__ = f"{self.__name__}_fwd"
        return forward


@overload
def rule(reference: Callable[P, R], *, cast: bool = False) -> Rule[P, R]: ...


@overload
def rule(reference: None = None, *, cast: bool = False) -> Callable[[Callable[P, R]], Rule[P, R]]: ...


def rule(reference: Callable[P, R] | None = None, *, cast: bool = False) -> Rule[P, R] | Callable[..., Rule]:
    """Turns the definition of an operation in plain JAX into a rule; add its gradient with `.bwd` or `.slope`.

        @rule
        def scaled(x, w, *, power=2):
            return x * w**power

        @scaled.bwd
        def scaled_bwd(dy, x, w, *, power):
            return dy * w**power, (dy * power * x * w ** (power - 1)).sum()

    Positional parameters are arrays (or trees of arrays, or None); settings follow a bare `*` and are hashable. The
    names of the bwd's parameters decide what is saved: any of the arrays, and y. For two or more arrays it returns one
    cotangent each, as a tuple or by name, {"x": dx, "w": dw}, with the shape and dtype of the array. With
    `@rule(cast=True)` a cotangent of another precision is cast to the dtype of its array; shapes are never changed.

    A rule is a `jax.custom_vjp`: jit, vmap, scan, remat, grad of grad, hessian and `value_and_grad` work, and
    differentiating a value that has already been differentiated uses the rule, too. Forward mode (`jax.jvp`,
    `jax.jacfwd`, `jax.linearize`) through a rule raises "can't apply forward-mode autodiff (jvp) to a custom_vjp
    function". Write `fn.autodiff(f)` instead of f: it differentiates the plain definitions, also inside `jax.grad`.
    An example is physics-informed training of a network with u′ = cos(x):

        def loss(params):
            u = fn.autodiff(lambda x: net.apply(params, state, x)[0])
            _, slope = jax.jvp(u, (x,), (jnp.ones_like(x),))
            return ((slope - jnp.cos(x)) ** 2).mean()
        jax.grad(loss)(params)

    Everything a rule computes with must be an argument: differentiating a rule whose functions capture a traced value
    raises an error.

    >>> @fn.rule
    ... def square(x):
    ...     return x**2
    >>> @square.slope
    ... def square_slope(x):
    ...     return 2 * x
    >>> float(jax.grad(square)(3.0)), float(jax.grad(jax.grad(square))(3.0))
    (6.0, 2.0)
    """
    return Rule(reference, cast) if reference is not None else functools.partial(Rule, cast=cast)
