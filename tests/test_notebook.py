"""The example notebook runs from beginning to end, and its results are displayed as tables and pictures.

    python tests/test_notebook.py FILE          runs it and writes it with its outputs
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tour.ipynb"


@pytest.mark.slow
def test_tour_runs_from_beginning_to_end(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="pip install 'fnnet[test]'")
    pytest.importorskip("nbclient", reason="pip install 'fnnet[test]'")
    given = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "MPLBACKEND")}     # as for a user
    subprocess.run([sys.executable, __file__, tmp_path / "done.ipynb"], check=True, cwd=tmp_path,
                   env={**given, "PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(tmp_path)})
    assert not [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.get("outputs")], "keep the notebook without its outputs"
    notebook = nbformat.read(tmp_path / "done.ipynb", 4)
    shown = [output.data for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs if "data" in output]
    pages = " ".join(data["text/html"] for data in shown if "text/html" in data)
    for words in ("last audit", "FAILED", "local derivatives", "2.0.0", "saved bytes", "valid_accuracy", "true / predicted", "hand"):
        assert words in pages
    assert [data for data in shown if "image/png" in data]
    assert max(len(data.get("text/plain", "")) for data in shown) < 20_000


def execute(path):
    """Runs the notebook in a kernel of this environment, which need not be installed for Jupyter, and writes it with its outputs."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class Here(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python")
    notebook = nbformat.read(NOTEBOOK, 4)
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=Here())
    NotebookClient(notebook, km=manager, timeout=300).execute()
    nbformat.write(notebook, path)


if __name__ == "__main__":
    execute(sys.argv[1])
