"""graph: a network or an expression as a drawn computation graph, both passes on its edges."""

import ast
import inspect

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fnnet import diagnostics, layers, ops
from fnnet.cli.command import command

KNOWN = {name: getattr(jnp, name) for name in ("exp", "log", "sin", "cos", "sqrt", "abs", "maximum", "minimum", "sum", "mean")}
KNOWN |= {rule.__name__: rule for rule in ops.rules()} | {name: getattr(layers, name) for name in layers.__all__}


def add(commands):
    """The parser of this command."""
    sub = command(commands, "graph", _graph, "draw a network or an expression, with the values and gradients of one pass")
    sub.add_argument("what", help="'q = x + y; f = q * z' with values for its names; or a network, 'Serial(Dense(4), tanh, Dense(2))'")
    sub.add_argument("values", nargs="*", metavar="NAME=NUMBER", help="of an expression: x=-2 y=5 z=-4")
    sub.add_argument("--input", metavar="N,D", help="of a network: the shape of its input (default: 1,3)")
    sub.add_argument("--depth", type=int, metavar="N", help="fold a network down to this depth; 0: every operation")
    sub.add_argument("--out", default="graph.svg", metavar="FILE", help=".svg, .png, .html, .dot or .mmd (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="of a network's weights and input (default: %(default)s)")


def _graph(args):
    try:
        program = ast.parse(args.what.strip()).body
    except SyntaxError as problem:
        raise ValueError(f"{args.what!r} is no expression ({problem.msg}): write 'q = x + y; f = q * z'") from None
    net = _network(program)
    if net is None:
        if args.input:
            raise ValueError("--input goes with a network, and this is an expression: give its names values, x=2")
        f, values = _expression(program, dict(_value(text) for text in args.values))
        trace = diagnostics.trace(f, *values)
    else:
        if args.values:
            raise ValueError(f"{args.values[0]} goes with an expression, and this is a network: give it --input 1,3")
        trace = _traced(net, _shape(args.input or "1,3"), args.seed)
    path = trace.draw(args.out, depth=args.depth)
    if args.depth:
        trace = trace.fold(args.depth)
    print(trace)
    if path.suffix not in args.out:
        print("\nGraphviz's dot is not on the PATH: its text is written instead")
    print(f"\nwrote {path}")


def _network(program):
    """The network that the program writes down, or None."""
    if len(program) != 1 or not isinstance(program[0], ast.Expr) or not isinstance(program[0].value, ast.Call):
        return None
    called = program[0].value.func
    return _run(program[0].value, {}) if isinstance(called, ast.Name) and called.id in layers.__all__ else None


def _expression(program, values):
    """A function of the values, each intermediate result with its name."""
    made = [statement.targets[0].id for statement in program if _names_one(statement)]
    if not program or len(made) + isinstance(program[-1], ast.Expr) != len(program):
        raise ValueError("an expression is made of NAME = … and ends with what is differentiated: 'q = x + y; f = q * z'")

    def f(*given):
        known, result = dict(zip(values, given)), None
        for statement in program:
            result = jnp.asarray(_run(statement.value, known))
            if _names_one(statement):
                result = known[statement.targets[0].id] = checkpoint_name(result, statement.targets[0].id)
        return result
    f.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in values])
    return f, list(values.values())


def _names_one(statement):
    return isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)


def _run(expression, values):
    try:
        return eval(compile(ast.Expression(expression), "graph", "eval"), {"__builtins__": {}}, KNOWN | values)
    except NameError as problem:
        raise ValueError(f"{problem.name} has no value: write {problem.name}=1 after the expression") from None


def _value(text):
    name, equals, value = text.partition("=")
    try:
        if not equals or not name.isidentifier():
            raise ValueError
        return name, float(value)
    except ValueError:
        raise ValueError(f"a value is NAME=NUMBER, x=-2, and was given as {text!r}") from None


def _shape(text):
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError:
        raise ValueError(f"--input is whole numbers with commas between, 1,3, and was given as {text!r}") from None


def _traced(net, shape, seed):
    """A pass of random examples: classes where there are several outputs for each, else a squared error."""
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(keys[0], shape)
    params, state = net.init(keys[1], x)

    def loss(params, x):
        y, _ = net.apply(params, state, x, key=keys[2], train=True)
        if y.ndim == 2 and y.shape[1] > 1:
            return ops.softmax_cross_entropy(y, jnp.arange(len(y)) % y.shape[1])
        return ops.squared_error(y, jnp.zeros_like(y))
    return diagnostics.trace(loss, params, x)
