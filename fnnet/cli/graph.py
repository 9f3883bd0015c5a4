"""graph: draws a network or an expression as a computation graph, with both passes on its edges."""

import ast
import inspect
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fnnet import diagnostics, layers, ops
from fnnet.cli import expression
from fnnet.cli.command import command
from fnnet.layers import initializers

MOST_NUMBERS = 10**7         # parameters, or outputs of a layer: a few seconds of computing, 40 MB each
FUNCTIONS = {name: getattr(jnp, name) for name in ("exp", "log", "sin", "cos", "sqrt", "abs", "maximum", "minimum", "sum", "mean")}
FUNCTIONS |= {rule.__name__: rule for rule in ops.rules()}
FACE = {name: getattr(layers, name) for name in layers.__all__}
NETWORKS = {name: thing for name, thing in FACE.items() if isinstance(thing, type) and issubclass(thing, layers.Layer)}
NETWORKS |= {"transformer_block": layers.transformer_block}
INITIALIZERS = {name: getattr(initializers, name) for name in initializers.__all__ if isinstance(getattr(initializers, name), type)}
KNOWN = FUNCTIONS | INITIALIZERS | NETWORKS


def add(commands):
    """The parser of this command."""
    sub = command(commands, "graph", _graph, "draw a network or an expression, with values and gradients of one pass")
    sub.add_argument("what", help="an expression, 'q = x + y; f = q * z', with values for its names; or a network, "
                                  "'Serial(Dense(4), tanh, Dense(2))'")
    sub.add_argument("values", nargs="*", metavar="NAME=NUMBER", help="the values in an expression: x=-2 y=5 z=-4")
    sub.add_argument("--input", metavar="N,D", help="the input shape of a network (default: 1,3)")
    sub.add_argument("--depth", type=int, metavar="N", help="fold a network to this depth; 0: every operation")
    sub.add_argument("--out", default="graph.svg", metavar="FILE",
                     help=".svg, .png, .html, .dot or .mmd (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="seed for a network's weights and input (default: %(default)s)")


def _graph(args):
    program = expression.parse(args.what)
    net = _network(program)
    if net is None:
        if args.input:
            raise ValueError("--input applies only to a network; got an expression: give its names values, x=2")
        f, values = _expression(program, _values(args.values))
        trace = expression.sure(lambda: diagnostics.trace(f, *values))
    else:
        if args.values:
            raise ValueError(f"{args.values[0]} applies only to an expression; got a network: write --input 1,3")
        shape = _shape(args.input or "1,3")
        trace = expression.sure(lambda: _traced(net, shape, args.seed))
    path = trace.draw(args.out, depth=args.depth)
    if args.depth:
        trace = trace.fold(args.depth)
    print(trace)
    if path.suffix not in args.out:
        print("\nGraphviz's dot is not on the PATH: wrote its source text instead")
    print(f"\nwrote {path}")


def _network(program):
    """The network that the program describes, or None."""
    call = program[0].value
    unnamed = len(program) == 1 and isinstance(program[0], ast.Expr)
    if unnamed and isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in NETWORKS:
        return expression.evaluate(call, KNOWN)
    return None


def _expression(program, values):
    """A function of the values, each intermediate result with its name."""
    def f(*given):
        known, result = KNOWN | dict(zip(values, given)), None
        for statement in program:
            result = expression.evaluate(statement.value, known)
            if isinstance(result, bool) or not isinstance(result, int | float | jax.Array):
                raise ValueError(f"an expression must be a number or an array; got {_kind(result)}: write relu(x)")
            result = jnp.asarray(result)
            if expression.names_one(statement):
                result = known[statement.targets[0].id] = checkpoint_name(result, statement.targets[0].id)
        return result
    f.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in values])
    return f, list(values.values())


def _kind(result):
    return f"the function {result.__name__}" if hasattr(result, "__name__") else f"a {type(result).__name__}"


def _values(texts):
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            if not equals or not name.isidentifier():
                raise ValueError
            number = float(value)
        except ValueError:
            raise ValueError(f"a value must be NAME=NUMBER; got {text!r}: write x=-2") from None
        if name in values:
            raise ValueError(f"{name} must have one value; got {name}={values[name]:g} and {text}")
        values[name] = number
    return values


def _shape(text):
    try:
        shape = tuple(int(n) for n in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or math.prod(shape) > MOST_NUMBERS:
        raise ValueError("--input must be whole numbers above 0 separated by commas, for an array of "
                         f"at most {MOST_NUMBERS} numbers; got {text!r}: write 1,3")
    return shape


def _check_sizes(net, key, x):
    """Raises for a network that would fill the memory, before it is initialized."""
    def see(path, layer, y):
        count = sum(leaf.size for leaf in jax.tree.leaves(y))
        if count > MOST_NUMBERS:
            raise ValueError(f"a layer drawn by graph must have at most {MOST_NUMBERS} outputs; got {count} "
                             f"of {layer!r}")
        return y
    params, state = jax.eval_shape(lambda key: net.init(key, x), key)
    if (count := sum(leaf.size for leaf in jax.tree.leaves((params, state)))) > MOST_NUMBERS:
        raise ValueError(f"a network drawn by graph must have at most {MOST_NUMBERS} parameters; got {count}")
    whole = layers.watch(lambda *args: net.apply(*args, key=key, train=True)[0], see)
    see((), net, jax.eval_shape(whole, params, state, x))


def _traced(net, shape, seed):
    """A pass with random examples: cross entropy if there are several outputs per example, else a squared error."""
    keys = jax.random.split(jax.random.key(seed), 3)
    _check_sizes(net, keys[1], jax.ShapeDtypeStruct(shape, jnp.result_type(float)))
    x = jax.random.normal(keys[0], shape)
    params, state = net.init(keys[1], x)

    def loss(params, x):
        y, _ = net.apply(params, state, x, key=keys[2], train=True)
        if y.ndim == 2 and y.shape[1] > 1:
            return ops.softmax_cross_entropy(y, jnp.arange(len(y)) % y.shape[1])
        return ops.squared_error(y, jnp.zeros_like(y))
    return diagnostics.trace(loss, params, x)
