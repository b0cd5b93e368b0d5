import math
from dataclasses import replace

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.phases.detection import critical_samples, detect
from stagewise.phases.offline import find_windows
from stagewise.phases.online_detector import DetectorConfig, OnlineDetector
from stagewise.phases.signal_table import signal_table
from stagewise.runs.open import open_run
from tests.phases.synthetic_run import DROPS, MIDDLE, STEPS, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def table(run):
    return signal_table(run)


def test_known_transition_is_found_offline_with_its_samples(run, table):
    between, losses = detect(run, table)
    assert [(item.method, item.signal) for item in (between, losses)] == [
        ("offline", "between"),
        ("offline", "losses_alone"),
    ]
    # The largest change since the reference ends a little after the steepest fall.
    assert 0 <= math.log(between.peak / MIDDLE) < 0.2
    assert between.start < between.peak < between.end
    assert between.significance > 10
    assert losses.significance is None
    assert [item.sample for item in between.critical[:3]] == [0, 1, 2]
    shifts = np.array([item.shift for item in between.critical[:3]])
    np.testing.assert_allclose(shifts / shifts[0], DROPS[:3] / DROPS[0], atol=0.1)
    assert (shifts < 0).all()
    assert all(0 < item.shift_se < 0.2 for item in between.critical)


def test_offline_windows_are_those_of_the_signal(run, table):
    values, errors = run["signal"].values, run["signal_se"].values
    known = np.isfinite(values)
    for min_prominence in (0.15, 0.01):
        expected = find_windows(STEPS[known], values[known], errors[known], min_prominence=min_prominence)
        found = detect(run, table, signals=["between"], min_prominence=min_prominence)
        assert [(item.start, item.peak, item.end) for item in found] == [
            (item.start, item.peak, item.end) for item in expected
        ]
        assert found[0].height == pytest.approx(expected[0].prominence)
        assert found[0].significance == pytest.approx(expected[0].prominence / errors[found[0].peak == STEPS][0])


def test_online_windows_are_what_the_detector_finds_probe_by_probe_in_each_direction(run, table):
    config = DetectorConfig(min_z=4.0)
    found = [item for item in detect(run, table, online=config) if item.method == "online"]
    assert {"between", "losses_alone", "total/early~early", "within/early~early"} <= {item.signal for item in found}
    for name in map(str, table["signal"].values):
        row = table.sel(signal=name)
        direction = "falling" if "~" in name or name.startswith("group_loss/") else "rising"
        detector = OnlineDetector(replace(config, direction=direction))
        for step, value, error in zip(STEPS, row["value"].values, row["error"].values, strict=True):
            detector.update(int(step), value, error)
        assert [(item.start, item.peak, item.end) for item in found if item.signal == name] == [
            (window.start, window.peak, window.end) for window in detector.windows
        ]
    falling = next(item for item in found if item.signal == "within/early~early")
    assert falling.height < 0 < falling.significance
    assert falling.start <= falling.peak


def test_falling_signals_have_their_troughs_found_offline(run, table):
    (window,) = detect(run, table, signals=["within/early~early"])
    assert window.peak == STEPS[np.argmin(table["value"].sel(signal="within/early~early").values)]
    assert window.height < 0
    assert window.value < 0
    assert window.units == "nats^2"


def test_two_phase_reading_goes_from_none_to_all_along_the_segment(run, table):
    window = detect(run, table)[0]
    pi = window.reading.pi
    assert (pi[0], pi[-1]) == (0, 1)
    assert np.all(np.diff(pi) > -0.05)
    assert len(window.steps) == len(pi) >= 3
    assert window.steps[0] <= window.start < window.steps[1]
    assert window.steps[-2] < window.end <= window.steps[-1]
    # One sigmoid for all samples: they leave the segment by the noise only.
    assert window.reading.residual.max() < 0.1


def test_open_windows_have_no_end_and_no_reading(run):
    first = run.sel(step=STEPS[STEPS < MIDDLE * 1.1])
    found = [item for item in detect(first, signal_table(first), online=DetectorConfig()) if item.end is None]
    assert found
    assert all(item.reading is None and item.steps == () for item in found)


def test_critical_samples_are_as_many_as_asked_for(run):
    assert critical_samples(run, int(STEPS[-1]), 0) == ()
    assert len(critical_samples(run, int(STEPS[-1]), 100)) == 6
    sizes = [abs(critical_sample.shift) for critical_sample in critical_samples(run, int(STEPS[30]), 6)]
    assert sizes == sorted(sizes, reverse=True)


def test_unknown_signals_are_refused_with_those_there_are(run, table):
    with pytest.raises(InputError, match=r"got signal 'rhat'.*'between'"):
        detect(run, table, signals=["rhat"])
    with pytest.raises(InputError, match="num_critical"):
        detect(run, table, num_critical=-1)
