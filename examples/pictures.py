"""Draws the pictures of the course: `python -m examples.pictures [NAME …] [--out FOLDER]`, a few minutes for all.

The gate needs Graphviz's dot.
"""

import argparse
import json
import tempfile
from pathlib import Path

from examples import choices, drawing, lecture_pictures, network_pictures, neuron_pictures, training_pictures
from fnnet import cli, diagnostics

# {name: (a function that computes what is drawn, one that draws it)}
MODULES = neuron_pictures, lecture_pictures, network_pictures, training_pictures, choices
PICTURES = {name: pair for module in MODULES for name, pair in module.PICTURES.items()}


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


FRONT_PAGE = {"gate": gate, "digits": digits}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="draws the pictures of the course")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join((*FRONT_PAGE, *PICTURES))}; default: all")
    parser.add_argument("--out", type=Path, default=drawing.FOLDER, metavar="FOLDER")
    given = parser.parse_args()
    for name in given.names or (*FRONT_PAGE, *PICTURES):
        if name in FRONT_PAGE:
            print(FRONT_PAGE[name](given.out / f"{name}.svg"))
        elif name in PICTURES:
            print(drawing.write(name, *PICTURES[name], given.out))
        else:
            parser.error(f"NAME must be one of {', '.join((*FRONT_PAGE, *PICTURES))}; got {name}")
