"""An interpreter for expressions and networks typed by a user, `relu(w * x + b)` or `Serial(Dense(4), tanh)`.

The text is never run as Python. Its syntax tree is walked, and may contain numbers, + - * / ** on numbers and arrays,
tuples, names that the caller lists, and calls of these. Anything else is an error before anything is computed, so
only what the caller lists can be reached. Lengths, depths, numbers and powers are bounded.
"""

import ast
import inspect
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax

from fnnet import hints
from fnnet.rule import Rule

MOST_TEXT = 4000            # characters; Python's parser handles this many signs or brackets without a stack overflow
DEEPEST = 100               # levels of nesting, each of which takes a few of Python's 1000 stack frames
LARGEST = 10**6             # largest whole number: it may determine loops and sizes
STEEPEST = 1000             # largest exponent
ALLOWED = (ast.Expr, ast.Assign, ast.Name, ast.Load, ast.Store, ast.Constant, ast.Tuple, ast.UnaryOp, ast.BinOp,
           ast.Call, ast.keyword, ast.operator, ast.unaryop)
WORDS = {ast.Attribute: "attributes (a.b)", ast.Subscript: "subscripts (a[0])", ast.JoinedStr: "f-strings",
         ast.Starred: "starred arguments (*a)", ast.Lambda: "lambdas", ast.NamedExpr: "assignment expressions (a := b)",
         ast.Compare: "comparisons", ast.IfExp: "conditions", ast.BoolOp: "conditions", ast.List: "lists",
         ast.Dict: "dictionaries", ast.Set: "sets", ast.ListComp: "comprehensions", ast.GeneratorExp: "comprehensions",
         ast.SetComp: "comprehensions", ast.DictComp: "comprehensions"}
MADE_OF = "write numbers, names, + - * / **, tuples and calls such as relu(w * x + b)"


def parse(text: str) -> list[ast.Expr | ast.Assign]:
    """The checked statements of a text: each is `NAME = …`, except that the last may lack a name."""
    program = _statements(text)
    for statement in program:
        if not names_one(statement) and not (isinstance(statement, ast.Expr) and statement is program[-1]):
            raise ValueError("an expression must consist of NAME = … and end with what is differentiated: "
                             "write 'q = x + y; f = q * z'")
        _check(statement)
    return program


def names_one(statement: ast.stmt) -> bool:
    """Whether a statement is NAME = …"""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return len(targets) == 1 and isinstance(targets[0], ast.Name)


def literal(text: str) -> Any:
    """The number, Boolean, None, string or tuple of these that a text denotes; any other text is returned as is."""
    if len(text) > MOST_TEXT:
        raise ValueError(f"a setting must be at most {MOST_TEXT} characters; got {len(text)}")
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text


def evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of a parsed expression, its names looked up in `names` and nowhere else."""
    match node:
        case ast.Constant(value=str(text)):
            raise ValueError(f"an operand must be a number; got the string {text[:20]!r}: "
                             "a string may only be a layer's setting, or a function's setting given by name")
        case ast.Constant():
            return node.value
        case ast.Tuple():
            return tuple(evaluate(part, names) for part in node.elts)
        case ast.Name():
            return _known(node.id, names)
        case ast.UnaryOp():
            return _computed(node.op, evaluate(node.operand, names))
        case ast.BinOp():
            return _computed(node.op, evaluate(node.left, names), evaluate(node.right, names))
        case ast.Call():
            return _called(node, names)
    raise AssertionError(f"parse lets {type(node).__name__} through and evaluate does not know it")


def sure(compute: Callable[[], Any], name: str = "") -> Any:
    """The result of compute(). Any exception becomes one sentence with the name: its arguments come from the user."""
    try:
        return compute()
    except OverflowError:
        raise ValueError("this number is too large: write one below 1e308") from None
    except Exception as problem:
        said = next(iter(str(problem).strip().splitlines()), "") or type(problem).__name__
        raise ValueError(said if name in said else f"{name}: {said}") from problem


def _statements(text):
    if len(text) > MOST_TEXT:
        raise ValueError(f"an expression must be at most {MOST_TEXT} characters; got {len(text)}")
    shown = repr(text if len(text) <= 60 else text[:57] + "…")
    try:
        with warnings.catch_warnings(action="ignore"):          # Python's own syntax warnings
            program = ast.parse(text.strip()).body
    except (RecursionError, MemoryError):
        raise ValueError(_too_deep()) from None
    except (SyntaxError, ValueError) as problem:                # a null byte, half a surrogate, a number of 5000 digits
        why = getattr(problem, "msg", None) or str(problem)
        deep = "too many nested" in why
        raise ValueError(_too_deep() if deep else f"{shown} is not an expression ({why}): {MADE_OF}") from None
    if not program:
        raise ValueError(f"{shown} is not an expression: {MADE_OF}")
    return program


def _check(statement):
    """Raises for a statement that contains anything not allowed, or too much of it. Walks without recursion."""
    nodes = [(statement, 0)]
    while nodes:
        node, depth = nodes.pop()
        if depth > DEEPEST:
            raise ValueError(_too_deep())
        if isinstance(node, ast.Constant):
            _check_constant(node.value)
        _check_form(node)
        nodes += [(inside, depth + 1) for inside in ast.iter_child_nodes(node)]


def _check_form(node):
    what = None
    if not isinstance(node, ALLOWED):
        what = WORDS.get(type(node), f"{type(node).__name__.lower()} parts")
    elif isinstance(node, ast.BinOp | ast.UnaryOp) and type(node.op) not in OPERATIONS:
        what = f"operations by {type(node.op).__name__.lower()}"
    elif isinstance(node, ast.Call) and not isinstance(node.func, ast.Name):
        what = WORDS.get(type(node.func), "calls of something without a name")
    elif isinstance(node, ast.keyword) and node.arg is None:
        what = "starred arguments (**a)"
    if what:
        raise ValueError(f"{what} are not part of an expression: {MADE_OF}")


def _check_constant(value):
    if not isinstance(value, int | float | str | None) or value == math.inf:        # a Boolean is an int
        raise ValueError("a constant must be a number below 1e308, a word in quotes, True, False or None; "
                         f"got {str(value)[:20]}")
    _bounded(value)


def _too_deep():
    return (f"an expression must be nested at most {DEEPEST} levels deep, which includes sums of many terms: "
            "name parts of it, q = x + y")


def _known(name, names):
    if name in names:
        return names[name]
    close = _meant(name, names) if len(name) > 2 else ""
    raise ValueError(f"{name} has no value: write {name}=1 after the expression"
                     + (f", or did you mean {close}?" if close else ""))


def _meant(name, names):
    """The known name that an unknown one probably means: another library's name for it, or a similar spelling."""
    word = hints.translated(name).partition(",")[0].rpartition(".")[2]
    return word if word in names else hints.closest(name, names)


def _called(node, names):
    name = node.func.id
    if name not in names:
        close = _meant(name, names)
        raise ValueError(f"there is no function or layer {name!r}: " + (f"did you mean {close}?" if close else
                         "`python -m fnnet rules` lists the functions, help(fnnet.layers) the layers"))
    function = names[name]
    if not callable(function):
        raise ValueError(f"{name} is a number here and cannot be called: write {name} * (…) for a product")
    settings = {}
    for keyword in node.keywords:
        if keyword.arg in settings:
            raise ValueError(f"{name} must be given each setting once; got {keyword.arg} twice")
        settings[keyword.arg] = _argument(keyword.value, names, words=True)
    layer = isinstance(function, type)                          # all of its arguments are settings
    arguments = [_argument(part, names, words=layer) for part in node.args]
    _check_settings(name, function, settings)
    return sure(lambda: function(*arguments, **settings), name)


def _argument(node, names, words):
    """An argument; strings are settings, of a layer by position or name, of a function only by name."""
    return node.value if words and isinstance(node, ast.Constant) else evaluate(node, names)


def _check_settings(name, function, settings):
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):                             # a function without a signature checks them itself
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for wrong in settings.keys() - set(known):
        own = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] if isinstance(function, Rule) else known
        raise ValueError(f"{name} has no setting {wrong!r}: {hints.setting(wrong, own)}")


def _computed(operation, *values):
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float | jax.Array):
            raise ValueError("the operands of arithmetic must be numbers or arrays; got "
                             + ("a tuple" if isinstance(value, tuple) else repr(value)))
    if isinstance(operation, ast.Pow) and not isinstance(values[1], jax.Array) and abs(values[1]) > STEEPEST:
        raise ValueError(f"an exponent must be at most {STEEPEST}; got {values[1]}")
    return _bounded(sure(lambda: OPERATIONS[type(operation)](*values)))


def _bounded(value):
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"a whole number must be at most {LARGEST}; got a larger one: write 1e7 for the real number")
    if isinstance(value, complex):
        raise ValueError("a negative number to a power that is not whole is not a real number: write (-8) ** 2")
    return value


OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
              ast.Pow: operator.pow, ast.USub: operator.neg, ast.UAdd: operator.pos}
