import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.runs.rises import find_rise, influence_rises
from tests.runs.flipping_run import flipping_run

STEPS = np.rint(np.geomspace(100, 4000, 24))


def bump(*, height=10.0, at=1500, width=0.2, plateau=-1.0, floor=0.0):
    """Returns a negative bump in log step over a plateau, after which a share ``floor`` of it remains."""
    distance = np.log(STEPS / at)
    shape = np.exp(-0.5 * (distance / width) ** 2)
    return plateau - height * np.where(distance > 0, np.maximum(shape, floor), shape)


def test_plateau_onset_peak_and_decline_of_a_known_curve_are_found():
    rise = find_rise(STEPS, bump(), np.full(24, 0.2), degrees=7)
    assert rise.sure
    # Student's t with 7 degrees of freedom at 1 - .05 / 24, of two errors of .2.
    assert rise.limit == pytest.approx(4.15 * 0.2 * np.sqrt(2), rel=0.02)
    assert rise.plateau == pytest.approx(-1, abs=0.01)
    nearest = STEPS[np.abs(np.log(STEPS / 1500)).argmin()]
    assert rise.peak.step == nearest
    assert rise.peak.earliest < nearest < rise.peak.latest
    # A quarter of the height is sqrt(2 ln 4) widths before the middle.
    assert rise.leaves.step == pytest.approx(1500 * np.exp(-0.2 * np.sqrt(2 * np.log(4))), rel=0.04)
    assert rise.leaves.earliest <= rise.leaves.step <= rise.leaves.latest < nearest
    assert rise.decline is not None
    assert rise.last == pytest.approx(-1, abs=0.01)


def test_a_curve_that_stays_at_its_height_does_not_decline():
    rise = find_rise(STEPS, bump(floor=0.98), np.full(24, 0.5), degrees=7)
    assert rise.sure
    assert rise.decline is None


def test_wider_errors_widen_intervals_and_fewer_chains_too():
    narrow, wide = (find_rise(STEPS, bump(), np.full(24, error), degrees=7) for error in (0.1, 1.0))
    assert narrow.leaves.latest - narrow.leaves.earliest < wide.leaves.latest - wide.leaves.earliest
    few = find_rise(STEPS, bump(), np.full(24, 1.0), degrees=2)
    assert few.leaves is None or few.leaves.latest - few.leaves.earliest > wide.leaves.latest - wide.leaves.earliest


def test_noise_alone_rises_as_rarely_as_requested():
    generator = np.random.default_rng(0)
    found = [
        find_rise(STEPS, generator.standard_normal(24), np.ones(24), degrees=50, num_resamples=100) for _ in range(200)
    ]
    sure = [rise for rise in found if rise is not None and rise.sure]
    assert len(sure) <= 20


def test_intervals_cover_the_truth_about_as_often_as_stated():
    generator = np.random.default_rng(1)
    truth, held = 1500 * np.exp(-0.2 * np.sqrt(2 * np.log(4))), []
    for _ in range(100):
        curve = bump() + 0.5 * generator.standard_normal(24)
        rise = find_rise(STEPS, curve, np.full(24, 0.5), degrees=50, num_resamples=100)
        # Interpolation between probes 17 % apart is off by a little.
        held.append(rise.leaves.earliest * 0.97 <= truth <= rise.leaves.latest * 1.03)
    assert np.mean(held) >= 0.9


def test_unknown_probes_are_left_out_and_too_few_have_no_rise():
    values = bump()
    values[3] = np.nan
    errors = np.full(24, 0.2)
    errors[5] = np.nan
    known = np.isfinite(values) & np.isfinite(errors)
    assert find_rise(STEPS, values, errors, degrees=7) == find_rise(
        STEPS[known], values[known], errors[known], degrees=7
    )
    assert find_rise(STEPS[:4], values[:4], errors[:4], degrees=7) is None
    assert find_rise(STEPS, -STEPS[::-1], np.ones(24), degrees=7) is None


def test_invalid_curves_are_refused():
    with pytest.raises(InputError, match="equal lengths"):
        find_rise(STEPS, STEPS[1:], STEPS, degrees=7)
    with pytest.raises(InputError, match="degrees"):
        find_rise(STEPS, STEPS, np.ones(24), degrees=0)
    with pytest.raises(InputError, match="chance"):
        influence_rises(flipping_run(), chance=0)
    with pytest.raises(InputError, match="group_bif"):
        influence_rises(flipping_run().drop_vars("group_bif"))


def test_groups_of_a_run_are_read_only_at_probes_in_equilibrium():
    run = flipping_run()
    # From -1 at the first probe, it has no rise; turned round it has one up to the last.
    assert "cat" not in influence_rises(run)
    run["group_bif"] = -run["group_bif"]
    assert influence_rises(run)["cat"].peak.step == 1000
    run["equilibrated"] = ("step", np.array([1] * 9 + [0]))
    assert influence_rises(run)["cat"].peak.step == 900
    assert influence_rises(flipping_run(chains=1)) == {}
