"""The front page's pictures show what the program computes: their labels and lines are read back from the files."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from fnnet import diagnostics
from fnnet.diagnostics import figure
from fnnet.diagnostics.graph import to_dot

FOLDER = Path(__file__).parents[1] / "examples" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_gate_shows_the_values_and_gradients_of_the_lecture():
    root = ET.parse(FOLDER / "gate.svg").getroot()
    drawn = {group.get("id"): tuple(text.text.strip() for text in group.iter(f"{SVG}text"))
             for group in root.iter(f"{SVG}g") if group.get("class") == "edge"}
    assert sorted(drawn.values()) == sorted([("-2", "∂ -4"), ("5", "∂ -4"), ("-4", "∂ 3"), ("3", "∂ -4"), ("-12", "∂ 1")])
    now = to_dot(diagnostics.trace(lambda x, y, z: (x + y) * z, -2.0, 5.0, -4.0))
    labels = re.findall(r'id="(e\w+)", label=<<FONT[^>]*>(?:&#160;)*([^<]*)</FONT><BR/><FONT[^>]*>(?:&#160;)*([^<]*)', now)
    assert {name: (value, gradient) for name, value, gradient in labels} == drawn


def history():
    return json.loads(ET.parse(FOLDER / "digits.svg").getroot().find(f"{SVG}desc").text)


@pytest.mark.parametrize("name, color", [("loss", figure.BLUE), ("valid_loss", figure.ORANGE)])
def test_the_lines_of_the_learning_curve_are_its_numbers(name, color):
    """The longest line of that color is an affine image of the points (epoch, log loss)."""
    paths = [path.get("d") for path in ET.parse(FOLDER / "digits.svg").getroot().iter(f"{SVG}path")
             if f"stroke: {color.lower()}" in (path.get("style") or "")]
    points = max((np.array(re.findall(r"[ML] (\S+) (\S+)", d), float) for d in paths), key=len)
    told = np.array([(log["epoch"], np.log(log[name]), 1) for log in history()])
    assert len(points) == len(told) == 40
    fitted, *_ = np.linalg.lstsq(told, points, rcond=None)
    np.testing.assert_allclose(told @ fitted, points, atol=0.05)            # of 576 × 360 points
    assert fitted[0, 0] > 0 > fitted[1, 1]


def test_the_front_page_shows_the_run_that_is_drawn():
    best = min(history(), key=lambda log: log["valid_loss"])
    readme = (FOLDER.parents[1] / "README.md").read_text()
    assert f"the best was epoch {best['epoch']}, validation loss {best['valid_loss']:.4g}\n" in readme
