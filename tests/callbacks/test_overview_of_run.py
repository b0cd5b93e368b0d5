"""Overview at the end of a run: it does not affect training, nor does a failing figure affect the run."""

import json
from pathlib import Path

import pytest
import torch

import stagewise.callbacks.board as board
from stagewise import InfluenceCallback, ProbeConfig
from stagewise.runs.probe_files import read_probes
from tests.callbacks.runs import EVERY_2, SGLD, Regression, fit, regression_data


def run(folder, *, logger=True, **probe):
    callback = InfluenceCallback(EVERY_2, SGLD, probe=ProbeConfig(**probe))
    torch.manual_seed(0)
    module = Regression()
    fit(folder, module, regression_data(), callback, logger=logger)
    return callback, torch.cat([weight.flatten() for weight in module.parameters()]), torch.rand(3)


@pytest.mark.drawn
def test_the_overview_is_drawn_if_enabled_without_affecting_training(tmp_path):
    with_it, weights, noise = run(tmp_path / "a", draw_matrices=True)
    without, other_weights, other_noise = run(tmp_path / "b", draw_matrices=False)
    assert (with_it.folder / "overview.png").is_file()
    assert not (without.folder / "overview.png").exists()
    assert torch.equal(weights, other_weights)
    assert torch.equal(noise, other_noise)


@pytest.mark.filterwarnings("ignore:stagewise")
def test_a_failing_figure_is_counted_and_the_run_ends_normally(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no letters")

    monkeypatch.setattr(board, "write_overview", fails)
    with pytest.warns(UserWarning, match="no letters"):
        callback, *_ = run(tmp_path, draw_matrices=True)
    summary = json.loads((Path(callback.folder) / "summary.json").read_text())
    assert summary["complete"] is True
    assert summary["probes"] == 3


def test_probes_are_read_once_for_all_reports_at_the_end(tmp_path, monkeypatch):
    read = []

    def counted(files, **settings):
        read.append(len(files))
        return read_probes(files, **settings)

    monkeypatch.setattr("stagewise.runs.open.read_probes", counted)
    callback, *_ = run(tmp_path, logger=False, draw_matrices=True)
    assert read == [3]
    assert (callback.folder / "overview.png").is_file()
