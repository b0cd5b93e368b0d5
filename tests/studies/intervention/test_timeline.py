import numpy as np
import pytest
import xarray as xr

from stagewise.errors import InputError
from stagewise.studies.intervention.timeline import onset_step, peak_step

STEPS = [10, 20, 30, 40, 50, 60]


def run(induction, background=-1.0):
    """A run with these within parts; other parts hold what must not be read."""
    parts = np.full((len(STEPS), 2, 2, 2), -99.0)
    parts[:, 0, 0, 0] = induction
    parts[:, 0, 1, 1] = background
    parts[:, 1] = parts[::-1, 0]  # the total: the same backwards
    axes = ("step", "part", "group", "group_j")
    names = ["induction", "background"]
    coords = {"step": STEPS, "part": ["within", "total"], "group": names, "group_j": names}
    return xr.Dataset({"group_bif": (axes, parts)}, coords=coords)


def onset(found, ratio=1.0, part="within"):
    return onset_step(found, "induction", "background", part=part, ratio=ratio)


def test_onset_is_the_start_of_the_unbroken_run_up_to_the_peak():
    found = run([-2.0, -0.5, -1.1, -3.0, -9.0, -4.0])
    assert peak_step(found, "induction", "within") == 50
    assert onset(found) == 30
    assert onset(found, ratio=2.0) == 40
    assert onset(found, ratio=5.0) == 50


def test_there_is_none_where_the_peak_does_not_exceed_the_other_group():
    assert onset(run([-0.1, -0.2, -0.3, -0.4, -0.3, -0.1])) is None


def test_it_may_be_the_first_probe():
    assert onset(run([-2.0] * 5 + [-3.0])) == 10


def test_harm_is_no_rise_of_influence():
    assert onset(run([5.0, 5.0, -2.0, -3.0, 5.0, 5.0])) == 30


def test_the_other_group_counts_by_size():
    assert onset(run([-1.0, -1.0, -3.0, -5.0, -1.0, -1.0], background=2.0)) == 30


def test_lost_probes_break_the_run_and_are_no_peak():
    assert onset(run([-2.0, -2.0, np.nan, -3.0, -4.0, np.nan])) == 40
    assert onset(run([np.nan] * 6)) is None
    assert peak_step(run([np.nan] * 6), "induction", "within") is None


def test_unknown_groups_are_named():
    with pytest.raises(InputError, match="'verbs'; expected one of"):
        onset_step(run([-1.0] * 6), "induction", "verbs", part="within", ratio=1.0)


def test_each_part_has_an_onset_of_its_own():
    found = run([-2.0, -0.5, -1.1, -3.0, -9.0, -4.0])
    assert peak_step(found, "induction", "total") == 20
    assert onset(found, part="total") == 10
    assert onset(found, ratio=5.0, part="total") == 20
