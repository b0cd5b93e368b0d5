"""``stagewise report``, in-process."""

import shutil

import pytest

from stagewise.cli.main import main
from stagewise.runs.store import ProbeStore
from stagewise.runs.time_spans import influence_by_span
from tests.runs.flipping_run import flipping_run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "run"
    store, whole = ProbeStore(folder / "influence.zarr"), flipping_run()
    for step in whole["step"].values.tolist():
        probe = whole.sel(step=step, drop=True)
        probe.attrs |= {"step": step, "reference_step": step}
        del probe.attrs["summary"]
        store.write(probe)
    return folder


@pytest.fixture
def run(written, tmp_path):
    return shutil.copytree(written, tmp_path / "run")


def test_report_writes_into_the_run_and_prints_the_sign_changes(run, capsys):
    assert main(["report", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "helpful, then harmful" in printed
    assert f"Which groups matter when: {influence_by_span(flipping_run(with_summary=False)).words()}" in printed
    assert printed.index("*Which groups matter when* has means") > printed.index("helpful, then harmful")
    assert (run / "report" / "report.md").is_file()
    # The store itself will do, and another folder.
    assert main(["report", str(run / "influence.zarr"), "--output", str(run / "other"), "--chance", "0.01"]) == 0
    assert "probability 0.01 or less" in (run / "other" / "report.md").read_text()


def test_a_page_lies_beside_the_markdown_and_several_runs_have_one_where_they_all_are(run, tmp_path, capsys):
    assert main(["report", str(run)]) == 0
    assert (run / "report" / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert str(run / "report" / "report.html") in capsys.readouterr().out
    other = tmp_path / "other"
    shutil.copytree(run, other)
    assert main(["report", str(run), str(other / "influence.zarr")]) == 0
    assert "How 2 runs compare" in (tmp_path / "report" / "report.html").read_text()
    assert not (tmp_path / "report" / "report.md").exists()
    assert main(["report", str(run), str(other), "--output", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "where no influence.zarr is"),
        (["run", "--chance", "0.9"], "chance"),
        (["run", "--output", "taken"], "which is a file"),
        (["run", "--output", "taken/below"], "taken is a file"),
        (["single"], "a single probe"),
        (["run", "single"], "got single with a single probe"),
        (["run", "run/influence.zarr"], "got run more than once"),
    ],
)
def test_mistakes_are_told_in_one_line(run, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("mine")
    probe = flipping_run().isel(step=0, drop=True)
    probe.attrs |= {"step": 100, "reference_step": 100}
    ProbeStore(tmp_path / "single" / "influence.zarr").write(probe)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (run / "report").exists()
