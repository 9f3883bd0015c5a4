"""Draws the two pictures of the front page: `python examples/pictures.py [FOLDER]`.

The gate needs Graphviz's dot; the training run takes half a minute.
"""

import json
import sys
import tempfile
from pathlib import Path

from fnnet import cli, diagnostics

FOLDER = Path(__file__).parent / "pictures"


def gate(path):
    """f = (x + y)·z at x = −2, y = 5, z = −4, with the values of the forward pass and the gradients of the backward pass."""
    cli.main(["graph", "q = x + y; f = q * z", "x=-2", "y=5", "z=-4", "--out", str(path)])
    return path


def digits(path):
    """The learning curve of `python -m fnnet train digits`; the plotted numbers are stored in the file's description."""
    with tempfile.TemporaryDirectory() as folder:
        cli.main(["train", "digits", "--quiet", "--save", folder, "--out", f"{folder}/curve.png"])
        history = json.loads((Path(folder) / "run.json").read_text())["history"]
    history = [{"epoch": log["epoch"]} | {name: float(f"{log[name]:.4g}") for name in ("loss", "valid_loss")} for log in history]
    diagnostics.learning_curve(history, path, title="1797 handwritten digits: training and validation")
    text = path.read_text()
    end = text.index(">", text.index("<svg")) + 1
    path.write_text(f"{text[:end]}\n <desc>{json.dumps(history)}</desc>{text[end:]}")
    return path


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    print(gate(folder / "gate.svg"), digits(folder / "digits.svg"))
