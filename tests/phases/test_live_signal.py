"""Signals read probe by probe against the table of the finished run."""

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.phases.live_signal import direction_of, live_signal, live_signals, remember
from stagewise.phases.signal_table import signal_table
from stagewise.runs.store import open_run
from stagewise.runs.zarr_file import read_zarr_file
from tests.phases.synthetic_run import STEPS, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


NAMES = live_signals(["early", "late"])


@pytest.mark.parametrize("signal", NAMES)
def test_live_values_are_those_of_the_table(folder, signal):
    pairs = [(one, other) for one in ("early", "late") for other in ("early", "late")]
    contrasts = [("early", "late"), ("late", "early")]
    row = signal_table(open_run(folder), pairs, contrasts=contrasts).sel(signal=signal)
    earlier, found = {}, []
    for step in STEPS:
        probe = read_zarr_file(folder / "influence.zarr" / f"step{step}.zip")
        found.append(live_signal(probe, signal, earlier))
        earlier = remember(earlier, probe, signal)
    np.testing.assert_array_equal([it.value for it in found], row["value"])
    np.testing.assert_array_equal([it.error for it in found], row["error"])
    assert np.isfinite([it.value for it in found]).sum() > 30
    assert str(direction_of(signal)) == row["direction"].item()
    assert len(earlier) < len(STEPS) / 2


def test_unknown_signals_are_refused_by_name(folder):
    probe = read_zarr_file(folder / "influence.zarr" / "step50.zip")
    with pytest.raises(InputError, match="got signal 'within/cats~cats'; expected one of"):
        live_signal(probe, "within/cats~cats", {})
