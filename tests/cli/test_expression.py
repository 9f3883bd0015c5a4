"""User input is interpreted, never run as Python: attacks, limits, one sentence for every malformed input."""

import time

import pytest
from test_cli import run

from fnnet import layers, ops
from fnnet.cli import expression, graph
from fnnet.layers import initializers
from fnnet.rule import Rule
from fnnet.verify.case.spec import parse as parse_spec

# Many of these succeeded when Python evaluated the expressions, even without its builtins.
ATTACKS = {
    "run a command by a rule's globals": "relu.reference.__globals__['__builtins__']"
        "['__import__']('os').system('touch hacked') + x",
    "run a command by a layer's globals": "Serial(Serial.__init__.__globals__['__builtins__']"
        "['__import__']('os').system('touch hacked'))",
    "walk over all classes": "[c for c in ().__class__.__base__.__subclasses__() "
        "if c.__name__ == 'Popen'][0]('touch hacked', shell=True)",
    "write a file in a comprehension": "[f for f in [relu.reference.__globals__['__builtins__']"
        "['open']('hacked', 'w')]][0]",
    "write a file in a lambda": "(lambda f=relu.reference: f.__globals__['__builtins__']['open']('hacked', 'w'))()",
    "print globals by format": "'{0.__init__.__globals__}'.format(relu)",
    "print globals by an f-string": "f'{relu.reference.__globals__}'",
    "print by %": "'%s' % relu.forward",
    "print globals by format as a setting": "Dense(3, compute_dtype='{0.reference}'.format(relu))",
    "name a builtin": "__import__('os').system('touch hacked') + x",
    "call a builtin": "eval('1') + x",
    "call getattr": "getattr(relu, 'reference')(x)",
    "call what a call returns": "Serial(relu)(x)",
    "name dunders": "__builtins__",
    "assign to an attribute": "relu.backward = exp; relu(x)",
    "assign in an expression": "(y := x) + y",
    "import": "import os; os.system('touch hacked')",
    "open a file": "open('hacked', 'w')",
    "delete": "del x",
    "define a class": "class A: pass",
    "assert": "assert x",
    "star a tuple": "maximum(*(x, x))",
    "star a dictionary": "elu(x, **{'alpha': 2.0})",
    "a dictionary": "{'a': x}",
    "a list": "sum([x, x])",
    "a set": "{x}",
    "bytes": "exp(b'a')",
    "an ellipsis": "exp(...)",
    "a comparison": "x < 2",
    "a choice": "x if x else 1",
    "logic": "x and x",
    "a subscript": "x[0]",
    "a slice": "x[0:1]",
    "the remainder": "x % 2",
    "floor division": "x // 2",
    "a shift": "1 << 99",
    "await": "await x",
    "yield": "(yield x)",
}
# Each of these took minutes or gigabytes, or ended the process.
BOMBS = {
    "a tower of powers": ("9**9**9**9", "a whole number must be at most 1000000"),
    "a tower of powers with x": ("x * 9**9**9**9", "a whole number must be at most 1000000"),
    "a power of a power": ("(9**9)**(9**9)", "a whole number must be at most 1000000"),
    "a power of real numbers": ("x + 1e300**300", "too large"),
    "x to a large power": ("x**1000000", "an exponent must be at most 1000"),
    "a long number": ("9" * 3000, "a whole number must be at most 1000000"),
    "too long a number for Python": ("9" * 50_000, "must be at most 4000 characters"),
    "a repeated tuple": ("(1,)*999999", "operands of arithmetic must be numbers or arrays"),
    "a repeated string": ("'a'*999999", "a string"),
    "a long text": ("+".join("x" * 100_000), "must be at most 4000 characters; got 199999"),
    "many parentheses": ("(" * 1500 + "x" + ")" * 1500, "nested"),
    "many signs": ("(1" + "-" * 3000 + "x)", "nested"),
    "as many signs as a text may hold": ("(1" + "-" * 3996 + "x)", "nested"),
    "a steep power": ("2.0**5000 * x", "an exponent must be at most 1000"),
    "many powers": ("**".join("x" * 1200), "nested"),
    "many calls": ("exp(" * 700 + "x" + ")" * 700, "nested"),
    "a long sum": ("+".join("x" * 1500), "nested"),
    "many tuples": ("(" * 150 + "1" + ",)" * 150, "nested"),
    "many layers inside one another": ("Serial(" * 300 + "relu" + ")" * 300, "nested"),
    "many parameters": ("Serial(Dense(1000), Dense(1000000), Dense(1))", "at most 10000000 parameters; got 1002004001"),
    "a layer of too many units": ("Dense(1000000000000)", "a whole number must be at most 1000000"),
}
MALFORMED = {
    "nothing": ("", "an expression"),
    "spaces": ("   ", "an expression"),
    "a null byte": ("x\0", "is not an expression"),
    "half a surrogate": ("x + \udce9", "is not an expression"),
    "half a bracket": ("relu(x", "is not an expression"),
    "two names": ("x x", "is not an expression"),
    "a stray indent": ("x;\n  x", "is not an expression"),
    "an invalid escape": (r"elu(x, alpha='\d')", "elu"),
    "a leading zero": ("x + 01", "is not an expression"),
    "division by 0": ("x + 1/0", "division by zero"),
    "0 to a negative power": ("x + 0**-1", "0"),
    "a root of a negative number": ("x + (-8)**0.5", "not a real number"),
    "an imaginary number": ("x + 2j", "a constant must be"),
    "a truth value in a sum": ("x + True", "operands of arithmetic must be numbers or arrays"),
    "None in a sum": ("x + None", "operands of arithmetic must be numbers or arrays"),
    "a function in a sum": ("x + relu", "operands of arithmetic must be numbers or arrays"),
    "a layer in a sum": ("x + Dense(2)", "operands of arithmetic must be numbers or arrays"),
    "a tuple as a result": ("(x, x)", "must be a number or an array"),
    "a function as a result": ("relu", "must be a number or an array"),
    "a string as a result": ("'x'", "a string"),
    "a string as an array": ("relu('x')", "a string"),
    "a number that is called": ("x(2)", "x is a number here and cannot be called"),
    "a layer as a function": ("exp(Dense(2))", "exp"),
    "a keyword twice": ("elu(x, alpha=1.0, alpha=2.0)", "got alpha twice"),
    "a setting that is not there": ("relu(x, alpha=1.0)", "relu has no setting 'alpha'"),
    "an argument too many": ("relu(x, x)", "relu takes x"),
    "an argument too few": ("relu()", "relu"),
    "a class that is not called": ("Serial(Dense)", "Dense is a class: write Dense(...)"),
    "a layer of words": ("Serial('relu')", "write Dense(10), ops.relu"),
    "a layer of no units": ("Dense(0)", "a whole number ≥ 1"),
    "a layer without its settings": ("Dense()", "Dense"),
    "a wrong input": ("MaxPool(2)", "max_pool takes x [n *spatial c]"),
    "a number out of range of a setting": ("Dropout(2)", "rate"),
    "an array as a setting": ("elu(x, alpha=x)", "alpha"),
    "a network that is called with a value": ("Serial(x)", "x"),
    "a join that is a class": ("Parallel(relu, join=Serial)", "Serial"),
}


def refused(capsys, tmp_path, text, values=()):
    """The sentence on stderr; nothing else is printed, and nothing is written."""
    began = time.monotonic()
    status, out, err = run(capsys, "graph", text, *values, "--out", str(tmp_path / "g.dot"))
    assert time.monotonic() - began < 20
    assert status == 1 and out == "" and err.startswith("fnnet: ") and err.count("\n") == 1 and "Traceback" not in err
    assert "'__name__'" not in err and len(err) < 600 and not list(tmp_path.iterdir())
    return err


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("values", [(), ("x=1",)], ids=["alone", "with a value"])
def test_attack_is_an_error(capsys, tmp_path, monkeypatch, text, values):
    monkeypatch.chdir(tmp_path)
    refused(capsys, tmp_path, text, values)


@pytest.mark.parametrize("text, sentence", BOMBS.values(), ids=BOMBS)
def test_bomb_is_an_error_immediately(capsys, tmp_path, text, sentence):
    network = text.split("(")[0] in layers.__all__
    assert sentence in refused(capsys, tmp_path, text, () if network else ("x=1",))


def test_oversized_layer_is_an_error_before_it_is_initialized(capsys, tmp_path):
    status, _, err = run(capsys, "graph", "Serial(ConvTranspose(1, kernel=1, strides=100000), GlobalAvgPool())",
                         "--input", "1,3,3,1", "--out", str(tmp_path / "g.dot"))
    assert status == 1 and "at most 10000000 outputs; got 90000000000" in err and err.count("\n") == 1


@pytest.mark.parametrize("text, sentence", MALFORMED.values(), ids=MALFORMED)
def test_malformed_expression_is_one_sentence(capsys, tmp_path, text, sentence):
    network = text.split("(")[0] in layers.__all__
    assert sentence in refused(capsys, tmp_path, text, () if network else ("x=1",))


def test_only_functions_of_arrays_and_constructors_of_layers_can_be_called():
    """None of them runs text, looks up names, opens a file, or imports."""
    for name, thing in graph.KNOWN.items():
        layer = isinstance(thing, type) and issubclass(thing, layers.Layer)
        assert (layer or isinstance(thing, Rule) or thing is layers.transformer_block or name in graph.FUNCTIONS
                or thing.__module__ == initializers.__name__)
    assert set(graph.FUNCTIONS) - {rule.__name__ for rule in ops.rules()} == {
        "exp", "log", "sin", "cos", "sqrt", "abs", "maximum", "minimum", "sum", "mean"}


NETWORKS = [
    "Serial(Dense(4, bias=False), tanh, Dropout(0.5), Dense(2, compute_dtype='bfloat16'))",
    "Dense(3, weights=he('uniform'))",
    "DenseStack(3, activation='tanh')",
    "Parallel(Dense(3), Residual(relu), join='sum')",
    "Serial(Conv(3, kernel=(2, 2), padding=((0, 1), (1, 0))), relu, Flatten(), Dense(2, weights=normal(0.01)))",
    "Function(elu, alpha=0.5)",
]


@pytest.mark.parametrize("text", NETWORKS)
def test_network_equals_what_python_evaluates(text):
    program = expression.parse(text)
    names = {**vars(layers), **vars(ops), **vars(initializers)}
    assert expression.evaluate(program[0].value, graph.KNOWN) == eval(text, names)


CONSTANTS = {"2 + 3*4 - 6/4": 12.5, "-2**2": -4, "(-8)**2": 64, "+1e-3": 1e-3, "2**-1": 0.5, "True": True, "None": None,
             "(1, (2.5, -3),)": (1, (2.5, -3))}


@pytest.mark.parametrize("text, value", CONSTANTS.items(), ids=CONSTANTS)
def test_constant_equals_what_python_evaluates(text, value):
    assert expression.evaluate(expression.parse(text)[0].value, {}) == value


SETTINGS = {"-1": -1, "(1, 2)": (1, 2), "None": None, "True": True, "'a'": "a", "('a', 'b')": ("a", "b")}
WORDS = ("mean", "ij,jk->ik", "__import__('os')", "9**9**9**9", "(" * 500, "-" * 3999 + "1", "")
SETTINGS |= {word: word for word in WORDS}


@pytest.mark.parametrize("text, value", SETTINGS.items())
def test_setting_is_a_constant_or_a_word(text, value):
    assert expression.literal(text) == value


def test_setting_length_is_bounded(capsys):
    status, _, err = run(capsys, "audit", "fnnet.ops:relu", "--args", "x: f", "--settings", "a=" + "9" * 5000)
    assert status == 1 and "a setting must be at most 4000 characters; got 5000" in err and err.count("\n") == 1


@pytest.mark.parametrize("spec", ["x: __import__('os').system('touch hacked')", "x: f[().__class__]",
                                  "x: {0.__class__}", "lambda: 1"])
def test_input_spec_is_parsed_and_never_run(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        parse_spec(spec, ["x"])
    except ValueError as problem:
        assert "spec" in str(problem)
    assert not list(tmp_path.iterdir())


def test_value_given_twice_is_an_error(capsys, tmp_path):
    status, _, err = run(capsys, "graph", "x * x", "x=1", "x=2", "--out", str(tmp_path / "g.dot"))
    assert status == 1 and "x must have one value; got x=1 and x=2" in err


TYPOS = {
    ("graph", "Serial(Dens(3))"): "there is no function or layer 'Dens': did you mean Dense?",
    ("graph", "Serail(Dense(3), relu)"): "did you mean Serial?",
    ("graph", "Linear(3)"): "there is no function or layer 'Linear': did you mean Dense?",
    ("graph", "Serial(Dense(3), ReLU(), Dense(2))"): "did you mean relu?",
    ("graph", "Serial(Conv2d(3), Flatten())"): "did you mean Conv?",
    ("graph", "Serial(Dense(3), ReLU)"): "did you mean relu?",
    ("graph", "mse(x, 0.0)", "x=1"): "did you mean squared_error?",
    ("graph", "rleu(x)", "x=1"): "did you mean relu?",
    ("graph", "relu(speeed)", "speed=1"): "write speeed=1 after the expression, or did you mean speed?",
    ("graph", "relu(y)", "x=1"): "y has no value: write y=1 after the expression\n",
    ("graph", "Dense(units=3)"): "Dense has no setting 'units': did you mean features?",
    ("graph", "Dense(featurs=3)"): "did you mean features?",
    ("graph", "Conv(3, kernel_size=2)"): "Conv has no setting 'kernel_size': did you mean kernel?",
    ("graph", "Conv(3, 2, stride=2)"): "did you mean strides?",
    ("graph", "Dropout(p=0.5)"): "Dropout has no setting 'p': did you mean rate?",
    ("graph", "softmax(x, dim=0)", "x=1"): "softmax has no setting 'dim': did you mean axis?",
    ("graph", "tanh(x, slope=1)", "x=1"): "tanh has no setting 'slope': it has none",
    ("graph", "Dense(3, colour=1)"): "Dense has no setting 'colour': it has features, ",
    ("trian", "digits"): "there is no command 'trian': did you mean train?",
    ("rule",): "there is no command 'rule': did you mean rules?",
    ("plot", "x"): "there is no command 'plot': write one of rules, explain, ",
    ("train", "digits", "--epcohs", "3"): "there is no option --epcohs: did you mean --epochs?",
    ("train", "digits", "--learning"): "there is no option --learning",
}


@pytest.mark.parametrize("argv, sentence", TYPOS.items(), ids=map(" ".join, TYPOS))
def test_typo_gets_a_suggestion(capsys, tmp_path, monkeypatch, argv, sentence):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *argv)
    assert status == (1 if argv[0] == "graph" else 2) and sentence in err and out == "", err


def test_layers_take_words_by_position_and_functions_by_name():
    """All arguments of a layer are settings; of a rule only those given by name: the others are arrays."""
    known = {"Dense": layers.Dense, "relu": ops.relu}
    with pytest.raises(ValueError, match="an operand must be a number; got the string"):
        expression.evaluate(expression.parse("relu('x')")[0].value, known)
    with pytest.raises(ValueError, match="an operand must be a number; got the string"):
        expression.evaluate(expression.parse("Dense(('x', 'y'))")[0].value, known)
