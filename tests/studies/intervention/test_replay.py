"""The replayed detector against live runs and counts by hand."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from stagewise.phases.online_detector import DetectorConfig, Direction
from stagewise.probes.schedule import ProbeSchedule
from stagewise.studies.intervention.config import LiveSettings
from stagewise.studies.intervention.replay import all_known, detector_table, first_window, replayed_signals
from stagewise.studies.intervention.study import run_cells
from tests.studies.intervention.fake_cells import config_of, fake_cell
from tests.studies.intervention.tiny import tiny_config

EAGER = DetectorConfig(direction=Direction.falling, min_z=0.01, num_probes=1, min_plateau=3)
"""Opens at the first probe that lies lower than the plateau at all."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    given = tiny_config("x")
    config = tiny_config(
        tmp_path_factory.mktemp("study"),
        arms=["none", "live"],
        influence=replace(given.influence, schedule=ProbeSchedule(every_n_steps=2)),
        live=LiveSettings(signal="contrast/induction~first_copy", detector=EAGER),
    )
    return config, run_cells(config, lambda _: None)


def test_the_live_window_opens_where_the_replay_says(study):
    """Until it opens the live run is the undisturbed one; the detector looks at no later probe."""
    config, cells = study
    none, live = cells
    found = detector_table(config, cells, early_score=0.25)[config.live.signal]["first_window"]["1"]
    start, end = live.windows[0]
    assert start == found
    assert end <= found + config.weights.length
    assert len(live.windows) == 1
    before = [at for at in live.curve.steps if at <= found]
    assert live.curve.prefix_matching[: len(before)] == none.curve.prefix_matching[: len(before)]
    assert live.final_losses != none.final_losses


def test_every_signal_is_replayed_with_its_own_direction(study):
    config, cells = study
    found = detector_table(config, cells, early_score=0.25)
    assert list(found) == replayed_signals(config)
    assert {"between", "losses_alone", "within/induction~induction", "group_loss/induction"} <= set(found)
    assert all(item["n"] == 0 for item in found.values())  # no head forms in 20 steps: nothing is counted


def test_all_signals_are_looked_at_from_the_first_probe_at_which_each_is_known():
    """A signal that is known earlier would open earlier, and be called too early for it."""
    steps = np.arange(10, 200, 10)
    value = np.stack([np.r_[np.full(4, np.nan), np.zeros(15)], np.r_[np.zeros(3), -1.0, np.zeros(15)]])
    table = xr.Dataset(
        {"value": (("signal", "step"), value), "error": (("signal", "step"), np.zeros(value.shape))},
        coords={
            "signal": ["late", "early"],
            "step": steps,
            "direction": ("signal", np.array(["falling", "falling"], dtype=object)),
        },
    )
    assert first_window(table, "early", EAGER) == 40
    assert first_window(table, "early", EAGER, start=all_known(table, ["late", "early", "absent"])) is None
    assert all_known(table, ["late", "early"]) == 50


def test_without_stored_runs_there_is_no_table(tmp_path):
    config = config_of([1], output=str(tmp_path))
    assert detector_table(config, [fake_cell(1, "none", 600)], early_score=0.25) == {}
