"""Reading JAX programs (jaxprs): which part of a network an equation belongs to, and what it costs."""

import math
import re

from jax.extend import core

# These move numbers without computing.
PLUMBING = {"broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice", "dynamic_update_slice", "expand_dims",
            "gather", "iota", "name", "optimization_barrier", "pad", "reshape", "rev", "slice", "split", "squeeze", "stop_gradient",
            "transpose"}


def scope(equation, above=()):
    """The path (2, 0) of the part of a network that contains an equation, from its name stack "…/2_Residual/0_Dense"."""
    return (*above, *(int(i) for i in re.findall(r"(?:^|[/(])(\d+)_\w", str(equation.source_info.name_stack))))


def opened(jaxpr):
    return getattr(jaxpr, "jaxpr", jaxpr)


def equations(jaxpr, above=(), times=1):
    """(equation, path, how often it runs) for every equation without nested programs. Of branches the most expensive counts;
    a while loop counts once, since its number of iterations is unknown."""
    for eqn in opened(jaxpr).eqns:
        path, inner = scope(eqn, above), core.jaxprs_in_params(eqn.params)
        if eqn.primitive.name == "cond":
            yield from max(([*equations(branch, path, times)] for branch in inner), key=lambda found: sum(map(operations, found)))
        elif inner := list(inner):
            for sub in inner:
                yield from equations(sub, path, times * eqn.params.get("length", 1))
        else:
            yield eqn, path, times


def operations(found):
    """The floating-point operations of an equation: a multiplication with its addition counts 2, a function such as exp counts 1."""
    eqn, _, times = found
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name in PLUMBING or not str(getattr(out, "dtype", "")).startswith(("float", "bfloat")):
        return 0
    size = math.prod(out.shape)
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * times * size * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        return 2 * times * size * math.prod(kernel) // kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    if name.startswith("reduce_window"):
        return times * size * math.prod(eqn.params["window_dimensions"])
    if name.startswith(("reduce_", "cum")):
        size = math.prod(eqn.invars[0].aval.shape)
    return times * size


def short(layer):
    """A layer in short form: "Dense(512)", with only its first setting; for a container just the name."""
    name, kind = " ".join(repr(layer).split()), type(layer).__name__
    if getattr(layer, "parts", ()):
        return kind
    head = name.split(",")[0]
    return head + ")" * ("," in name) if head.count("(") - head.count(")") < 2 else f"{kind}(…)"
