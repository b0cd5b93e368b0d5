"""The harness of benchmarks/foreign: what it counts as glue, and that it sees a single bit."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks" / "foreign"
CASES = sorted(path.stem for path in (FOLDER / "cases").glob("*.py"))


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.parametrize("name", CASES)
def test_every_case_says_what_it_is_and_pins_its_package(harness, name):
    found = harness("header").header(name)
    assert found.trained
    assert "==" in found.requires[0]
    assert harness("case").glue_of(name).count <= 6


def test_glue_is_counted_without_blank_lines_and_comments(harness, tmp_path, monkeypatch):
    case = harness("case")
    monkeypatch.setattr(case, "CASES", tmp_path)
    text = "# glue\ndef loss_fn(module, batch):\n    # why\n    return 1\n\n\nobserved = 2\n# end of glue\n"
    (tmp_path / "one.py").write_text(f"before = 0\n\n\n{text}\nafter = 3\n")
    found = case.glue_of("one")
    assert found.count == 3
    assert found.text.startswith("def loss_fn")
    assert found.text.endswith("observed = 2")


@pytest.mark.parametrize("text", ["", "# glue\n", "# end of glue\n# glue\n", "# glue\n# glue\n# end of glue\n"])
def test_a_case_without_its_two_markers_is_refused(harness, tmp_path, monkeypatch, text):
    case = harness("case")
    monkeypatch.setattr(case, "CASES", tmp_path)
    (tmp_path / "one.py").write_text(text)
    with pytest.raises(ValueError, match=r"glue markers in one\.py"):
        case.glue_of("one")


@pytest.mark.parametrize(
    ("other", "where"),
    [
        ({"a": [torch.tensor([0.0, 1.0])]}, None),
        ({"a": [torch.tensor([-0.0, 1.0])]}, "/a/0"),
        ({"a": [torch.tensor([0.0, 1.0 + 2**-23])]}, "/a/0"),
        ({"a": [torch.tensor([0.0, 1.0], dtype=torch.float64)]}, "/a/0"),
        ({"a": [torch.tensor([[0.0, 1.0]])]}, "/a/0"),
        ({"b": [torch.tensor([0.0, 1.0])]}, "/a"),
        ({"a": []}, "/a"),
    ],
)
def test_two_trainings_differ_by_one_bit_a_type_or_a_key(harness, other, where):
    difference = harness("verdict").difference
    assert difference({"a": [torch.tensor([0.0, 1.0])]}, other) == where


def test_not_a_number_is_the_same_as_itself(harness):
    difference = harness("verdict").difference
    assert difference([torch.tensor(torch.nan), float("nan")], [torch.tensor(torch.nan), float("nan")]) is None


@pytest.mark.slow
def test_a_case_whose_packages_are_installed_attaches(harness, tmp_path):
    for way in ("plain", "probed"):
        command = [sys.executable, str(FOLDER / "trial.py"), "transformers_bert", str(tmp_path / way)]
        more = ["--probes"] if way == "probed" else []
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    found = harness("verdict").verdict(tmp_path / "plain", tmp_path / "probed")
    assert (found["verdict"], found["message"]) == ("attaches", "")
    # Its groups are its labels: the loss must be that of all samples, not of the first group.
    assert found["loss"] == pytest.approx(found["own_loss"], rel=1e-5)


@pytest.mark.parametrize("text", ["make()", "{**more}"])
def test_arguments_that_cannot_be_listed_are_refused(harness, tmp_path, monkeypatch, text):
    header = harness("header")
    monkeypatch.setattr(header, "CASES", tmp_path)
    (tmp_path / "one.py").write_text(f'REQUIRES = ("a==1",)\nTRAINED = "b"\nARGUMENTS = {text}\n')
    with pytest.raises(ValueError, match="expected a dict of names"):
        header.header("one")
