"""A saved run as one page."""

import json
import math
import re
from html.parser import HTMLParser

import pytest

from fnnet import diagnostics

RUN = {"data": "digits", "what": "12 examples <of> 3 features", "stopped": "ran all 4 epochs", "network": "Serial(Dense(2), relu)",
       "summary": "layer  output", "classes": ["a & b", "c"], "confusion": [[4, 1], [2, 5]], "device": "cpu",
       "rules": [{"rule": "dense", "checks": 18, "gradient": 1e-16, "differences": 3e-11}], "settings": {"rate": 0.1},
       "history": [{"epoch": i, "loss": 1 / i, "valid_loss": 1.2 / i, "accuracy": 0.5, "valid_accuracy": 0.6} for i in range(1, 5)],
       "training": {"loss": 0.1}, "validation": {"loss": 0.9}, "test": {"loss": 0.95, "accuracy": 0.75}, "versions": {"jax": "0"}}


class Page(HTMLParser):
    """The text, after checking that every tag is closed and nothing external is loaded."""

    def __init__(self, content):
        super().__init__()
        self.open, self.text, self.links, self.pictures = [], [], [], 0
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.pictures += tag == "svg"
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href") and v and not v.startswith("#")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href") and v and not v.startswith(("#", "data:"))]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_run_is_one_page_including_its_pictures(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "run.json").write_text(json.dumps(RUN))
    path = diagnostics.report(tmp_path / "kept", tmp_path / "new" / "page.html")
    page = Page(path.read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert page.open == [] and page.links == [] and page.pictures == 3
    for words in ("test accuracy 75.00%", "12 examples <of> 3 features", "High variance", "3e-11", "rate",
                  "Confusion matrix", "c read as a & b (2 times)"):
        assert words in text


def test_good_classifier_is_not_reported_to_overfit(tmp_path):
    """Training at 100 %, validation and test at 98 %: as losses 0.001 against 0.067, as mistakes two in a hundred."""
    run = {**RUN, "training": {"loss": 0.001, "accuracy": 1.0}, "validation": {"loss": 0.067, "accuracy": 0.981},
           "test": {"loss": 0.0506, "accuracy": 0.9815}}
    text = diagnostics.report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Neither bias nor variance stands out" in text and "High variance" not in text


def test_gradient_flow_is_included(tmp_path):
    flow = {"said": "VANISHING: δ < shrinks", "kinds": ["vanishing"], "names": ["0 Dense(4)", "2 Dense(2)"], "delta": [1e-9, 0.1],
            "rms": [1.0, None], "dead": [None, None], "saturated": [0.5, None]}
    page = Page(diagnostics.report({**RUN, "flow": flow}, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.open == [] and page.pictures == 4 and "VANISHING: δ < shrinks" in " ".join(page.text)


def test_regression_has_no_confusion_matrix(tmp_path):
    run = {**RUN, "classes": [], "confusion": None, "test": {"loss": 0.25},
           "history": [{"epoch": 1, "loss": 1.0, "valid_loss": 2.0}]}
    page = Page(diagnostics.report(run, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.pictures == 1 and "test error 0.25" in " ".join(page.text)


@pytest.mark.parametrize("content, error, sentence", [(None, FileNotFoundError, "save one with fnnet train … --save"),
                                                      ("{", ValueError, "is not complete JSON"),
                                                      ("[" * 100_000, ValueError, "run.json is not complete JSON"),
                                                      ('{"a": ' + "9" * 5000 + "}", ValueError, "run.json is not complete JSON"),
                                                      ("[]", ValueError, "run.json is not a run: it must be a dictionary; got \\[\\]"),
                                                      ("{}", ValueError, "is not a run: it has no 'data'")])
def test_missing_run_is_one_sentence(tmp_path, content, error, sentence):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(error, match=sentence):
        diagnostics.report(tmp_path)


def fields(value, path=()):
    """The path of every field; for a list, those of its first item."""
    for key, part in value.items() if isinstance(value, dict) else list(enumerate(value))[:1]:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from fields(part, (*path, key))


FLOW = {"said": "fine", "kinds": [], "names": ["0 Dense(4)", "2 Dense(2)"], "delta": [0.1, 0.1], "rms": [1.0, None], "dead": [None, 0.2],
        "saturated": [0.5, None]}
FREE = {("settings", "rate"), ("versions", "jax")}             # shown as they are
OPTIONAL = {("flow",), ("confusion",), ("rules", 0, "gradient"), ("rules", 0, "differences"),
            *(("history", 0, name) for name in ("accuracy", "valid_accuracy", "valid_loss"))}
FIELDS = list(fields({**RUN, "flow": FLOW}))


def changed(path, *value, of=None):
    """The run as JSON, with another value in this place, or with the field removed."""
    run = json.loads(json.dumps(of or {**RUN, "flow": FLOW}))
    place = run
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    if value:
        place.insert(path[-1], *value) if isinstance(place, list) else place.update({path[-1]: value[0]})
    return json.dumps(run)


def place(path):
    """The field as written in an error message: history[0].loss."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


@pytest.mark.parametrize("path", [path for path in FIELDS if path not in FREE], ids=place)
def test_field_of_a_wrong_type_is_named_with_its_file(tmp_path, path):
    for value in (True, {"a": [1]}, [[[]]], 2**70, "\ud800"):
        if isinstance(value, dict) and path[0] in ("settings", "versions"):
            continue
        (tmp_path / "run.json").write_text(changed(path, value))
        with pytest.raises(ValueError, match=r"run.json is not a run: " + re.escape(place(path))):
            diagnostics.report(tmp_path)


@pytest.mark.parametrize("path", [path for path in FIELDS if isinstance(path[-1], str) and path not in FREE | OPTIONAL], ids=place)
def test_missing_field_is_named_with_its_file(tmp_path, path):
    (tmp_path / "run.json").write_text(changed(path))
    with pytest.raises(ValueError, match=rf"run.json is not a run: {re.escape(place(path[:-1])) or 'it'} has no '{path[-1]}'"):
        diagnostics.report(tmp_path)


@pytest.mark.parametrize("path, value, sentence", [
    (("confusion", 0, 0), -1, r"confusion\[0\]\[0\] must be a whole number from 0"),
    (("history", 1, "epoch"), 1.5, r"history\[1\].epoch must be a whole number"),
    (("history", 1, "loss"), 1e308, r"history\[1\].loss must be a number \(NaN, ±Infinity, or from -1e250 to 1e250\)"),
    (("history",), [], "history must have at least one epoch"),
    (("classes",), ["a"], r"confusion must be \[1 1\], a row and a column per class; got 2 rows of 2"),
    (("classes",), [], r"confusion must be \[0 0\]"),
    (("confusion", 0), [1, 2, 3], r"confusion must be \[2 2\], .*; got 2 rows of 2, 3"),
    (("test",), {"loss": 1}, "test has no 'accuracy', which a run with classes must have"),
    (("history", 2), {"epoch": 3, "loss": 1}, r"history\[2\] has no 'valid_loss'"),
    (("flow", "dead"), [None], "flow.dead must have a number for each layer in flow.names, and at least one; got 1 for 2"),
    (("settings", "rate"), "\ud800", "settings.rate must be something that can be shown as text"),
])
def test_wrong_values_and_inconsistent_fields_are_named(tmp_path, path, value, sentence):
    (tmp_path / "run.json").write_text(changed(path, value))
    with pytest.raises(ValueError, match=f"run.json is not a run: {sentence}"):
        diagnostics.report(tmp_path)


@pytest.mark.parametrize("values", [
    {("classes", 0): r"$\frac$ $x", ("flow", "names", 0): r"$\frac$ $x", ("history", 1, "loss"): math.inf, ("flow",): None,
     ("history", 2, "valid_loss"): math.nan, ("confusion", 0, 0): 2**40, ("rules", 0, "gradient"): None},
    {("classes", 0): "a" * 50_000, ("history", 1, "loss"): 1e250, ("flow", "delta", 0): 5e-324,
     ("history", 0, "epoch"): 2**40},
    {("history", 1, "loss"): 1e250, ("history", 1, "valid_loss"): -1e250, ("flow", "names", 0): r"$\frac$ $x",
     ("flow", "names", 1): "b" * 50_000},
])
def test_unusual_values_of_a_run_are_drawn(tmp_path, values):
    run = {**RUN, "flow": FLOW}
    for path, value in values.items():
        run = json.loads(changed(path, value, of=run))
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = Page(diagnostics.report(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.open == [] and page.pictures == (4 if run["flow"] else 3)
