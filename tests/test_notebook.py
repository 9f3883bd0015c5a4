"""The tour runs from beginning to end, with its results displayed as tables and pictures; every example is a notebook with the same code.

    python tests/test_notebook.py SOURCE FILE           runs a notebook and writes it with its outputs
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples import notebooks

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tour.ipynb"


@pytest.mark.slow
def test_tour_runs_from_beginning_to_end(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="pip install 'fnnet[test]'")
    pytest.importorskip("nbclient", reason="pip install 'fnnet[test]'")
    run(NOTEBOOK, tmp_path)
    assert not [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.get("outputs")], "keep the notebook without its outputs"
    notebook = nbformat.read(tmp_path / "done.ipynb", 4)
    shown = [output.data for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs if "data" in output]
    pages = " ".join(data["text/html"] for data in shown if "text/html" in data)
    for words in ("last audit", "FAILED", "local derivatives", "2.0.0", "saved bytes", "valid_accuracy", "true / predicted", "hand"):
        assert words in pages
    assert [data for data in shown if "image/png" in data]
    assert max(len(data.get("text/plain", "")) for data in shown) < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("example", notebooks.EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_as_a_notebook(example, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="pip install 'fnnet[test]'")
    pytest.importorskip("nbclient", reason="pip install 'fnnet[test]'")
    path, = notebooks.write(tmp_path, [example])
    nbformat.validate(nbformat.read(path, 4))
    run(path, tmp_path)
    outputs = [output for cell in nbformat.read(tmp_path / "done.ipynb", 4).cells for output in cell.get("outputs", ())]
    drawn = [output for output in outputs if {"image/png", "image/svg+xml"} & {*output.get("data", ())}]
    assert [output for output in outputs if output.output_type == "stream" and output.name == "stdout"]
    source = example.read_text()
    assert len(drawn) == len(notebooks.pictures(source)) + ("plt." in source)


@pytest.mark.parametrize("example", notebooks.EXAMPLES, ids=lambda path: path.stem)
def test_notebook_of_an_example_holds_its_code_and_its_words(example):
    source = example.read_text()
    cells = notebooks.cells(source)
    code = "\n\n".join(text for kind, text in cells if kind == "code")
    assert ast.dump(ast.parse(code)) == ast.dump(ast.Module(ast.parse(source).body[1:], []))
    words = " ".join(text for kind, text in cells if kind == "markdown") + code
    for line in re.findall(r"^# (.*)", source, re.MULTILINE):
        assert line.split(": ")[0] in words
    json.dumps(notebooks.notebook(example))


@pytest.mark.parametrize("example", notebooks.EXAMPLES, ids=lambda path: path.stem)
def test_formulas_of_a_notebook_are_latex(example):
    """matplotlib reads a subset of LaTeX."""
    from matplotlib.mathtext import MathTextParser
    formulas = [formula for kind, text in notebooks.cells(example.read_text()) if kind == "markdown"
                for formula in re.findall(r"\$\$(.*?)\$\$", text)]
    assert formulas
    for formula in formulas:
        assert formula.isascii()
        MathTextParser("path").parse(f"${formula}$")


@pytest.mark.parametrize("formula, latex", [
    ("δ¹ = W²ᵀδ² · σ′(z¹)", r"\delta ^{1} = W^{2\top}\delta ^{2} \cdot  \sigma '(z^{1})"),
    ("y = γ·x/√(⟨x²⟩ + ε)", r"y = \gamma \cdot x/\sqrt{\langle x^{2}\rangle  + \varepsilon }"),
    ("z = tanh a,   E = ½ Σ (yₖ − tₖ)²", r"z =\tanh a,\qquad E = \frac{1}{2} \sum  (y_{k} - t_{k})^{2}"),
    ("Q·Kᵀ/√d over the keys", r"Q\cdot K^{\top}/\sqrt{d}\ \mathrm{over\ the\ keys}"),
    ("xW over the parts of a batch", r"xW\ \mathrm{over\ the\ parts\ of\ a\ batch}")])
def test_formula_as_latex(formula, latex):
    assert notebooks.latex(formula) == latex


def run(path, folder):
    """Runs a notebook in the folder as a user's Jupyter would, and writes it to done.ipynb there with its outputs."""
    given = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "MPLBACKEND")}
    subprocess.run([sys.executable, __file__, path, folder / "done.ipynb"], check=True, cwd=folder,
                   env={**given, "PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(folder)})


def execute(source, path):
    """Runs a notebook in a kernel of this environment, which need not be installed for Jupyter, and writes it with its outputs."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class Here(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python")
    notebook = nbformat.read(source, 4)
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=Here())
    NotebookClient(notebook, km=manager, timeout=300).execute()
    nbformat.write(notebook, path)


if __name__ == "__main__":
    execute(*sys.argv[1:])
