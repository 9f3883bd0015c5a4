"""A kept run as one page."""

import json
from html.parser import HTMLParser

import pytest

from fnnet import diagnostics

RUN = {"data": "digits", "what": "12 examples <of> 3 features", "stopped": "ran all 4 epochs", "network": "Serial(Dense(2), relu)",
       "summary": "layer  output", "classes": ["a & b", "c"], "confusion": [[4, 1], [2, 5]], "device": "cpu",
       "rules": [{"rule": "dense", "checks": 18, "gradient": 1e-16, "differences": 3e-11}], "settings": {"rate": 0.1},
       "history": [{"epoch": i, "loss": 1 / i, "valid_loss": 1.2 / i, "accuracy": 0.5, "valid_accuracy": 0.6} for i in range(1, 5)],
       "training": {"loss": 0.1}, "validation": {"loss": 0.9}, "test": {"loss": 0.95, "accuracy": 0.75}, "versions": {"jax": "0"}}


class Page(HTMLParser):
    """The text, and whether every tag that opens closes and nothing comes from elsewhere."""

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


def test_a_run_is_one_page_with_its_pictures_inside(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "run.json").write_text(json.dumps(RUN))
    path = diagnostics.report(tmp_path / "kept", tmp_path / "new" / "page.html")
    page = Page(path.read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert page.open == [] and page.links == [] and page.pictures == 3
    for words in ("test accuracy 75.00%", "12 examples <of> 3 features", "High variance", "c taken for a & b 2 times", "3e-11", "rate"):
        assert words in text


def test_the_gradient_flow_has_its_place(tmp_path):
    flow = {"said": "VANISHING: δ < shrinks", "kinds": ["vanishing"], "names": ["0 Dense(4)", "2 Dense(2)"], "delta": [1e-9, 0.1],
            "rms": [1.0, None], "dead": [None, None], "saturated": [0.5, None]}
    page = Page(diagnostics.report({**RUN, "flow": flow}, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.open == [] and page.pictures == 4 and "VANISHING: δ < shrinks" in " ".join(page.text)


def test_a_regression_has_no_confusion(tmp_path):
    run = {**RUN, "classes": [], "confusion": None, "test": {"loss": 0.25},
           "history": [{"epoch": 1, "loss": 1.0, "valid_loss": 2.0}]}
    page = Page(diagnostics.report(run, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.pictures == 1 and "test error 0.25" in " ".join(page.text)


@pytest.mark.parametrize("content, error, sentence", [(None, FileNotFoundError, "keep one with fnnet train … --save"),
                                                      ("{", ValueError, "is no complete JSON"),
                                                      ("{}", ValueError, "is no run: it has no 'data'")])
def test_no_run_is_a_sentence(tmp_path, content, error, sentence):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(error, match=sentence):
        diagnostics.report(tmp_path)
