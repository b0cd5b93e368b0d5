"""Notebooks run from beginning to end, and are stored with their pictures."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
ABSOLUTE_PATH = re.compile(r"(?<![\w./:<-])(/[\w.-]+){2,}|\b[A-Za-z]:\\|file://")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def texts(output):
    """All that an output shows as text; pictures are left out."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return [output.evalue, *output.traceback]
    return [data for kind, data in output.data.items() if not kind.startswith("image/") and isinstance(data, str)]


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.slow
@each_notebook
def test_every_cell_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": tmp_path}})
    client.execute()  # raises at the first cell that fails
    assert not list(tmp_path.iterdir()), "a notebook writes to temporary folders of its own"


@each_notebook
def test_stored_whole_without_errors(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@each_notebook
def test_no_absolute_path_is_stored(path):
    for cell in nbformat.read(path, as_version=4).cells:
        shown = [cell.source, *(text for output in cell.get("outputs", []) for text in texts(output))]
        for text in shown:
            found = ABSOLUTE_PATH.search(text)
            assert found is None, f"{found.group()!r} in {text!r}"


@pytest.mark.parametrize("text", ["saved in /tmp/run1/x", "'/home/someone/run'", "C:\\Users", "file:///a"])
def test_absolute_paths_are_recognised(text):
    assert ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize(
    "text", ["nats^2/weight^2", "influence/within/cat~dog", "a/b/c", "https://arxiv.org/abs/1", "</b></p>"]
)
def test_relative_names_pass(text):
    assert ABSOLUTE_PATH.search(text) is None
