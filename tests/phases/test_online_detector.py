import json
import math

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.phases.online_detector import DetectorConfig, Direction, EventKind, OnlineDetector

STEPS = np.arange(0, 600, 10)


def bump(*, centre=300.0, width=40.0, height=10.0, noise=0.1, seed=0):
    """A plateau at 5, a bump, the plateau again."""
    rng = np.random.default_rng(seed)
    return 5 + height * np.exp(-(((STEPS - centre) / width) ** 2)) + noise * rng.standard_normal(len(STEPS))


def run(values, config=None, *, error=math.nan, steps=STEPS):
    detector = OnlineDetector(config)
    events = [detector.update(int(step), value, error) for step, value in zip(steps, values, strict=True)]
    return detector, [event for event in events if event is not None]


def test_a_bump_opens_at_its_rise_and_closes_on_its_decline():
    detector, events = run(bump())
    assert [event.kind for event in events] == [EventKind.opened, EventKind.closed]
    (window,) = detector.windows
    assert 200 < window.start < 270
    assert window.peak == STEPS[np.argmax(bump())]
    # Half of the height is lost at centre + width sqrt(log 2) = 333.3; two probes must say so.
    assert window.end == 350
    assert window.plateau == pytest.approx(5, abs=0.1)
    assert window.height == pytest.approx(10, abs=0.3)
    assert window.z > 20
    assert events[0].window.end is None
    assert (events[0].step, events[1].step) == (window.start, window.end)


def test_what_is_known_at_a_probe_does_not_depend_on_later_ones():
    values = bump()
    whole, _ = run(values)
    for length in range(1, len(values)):
        part, _ = run(values[:length], steps=STEPS[:length])
        last = STEPS[length - 1]
        seen = [window for window in whole.windows if window.start <= last]
        assert [window.start for window in part.windows] == [window.start for window in seen]
        assert [window.end for window in part.windows] == [item.end if item.end <= last else None for item in seen]


@pytest.mark.parametrize("close_fraction", [0.2, 0.5, 0.9])
def test_closes_where_the_set_fraction_of_the_height_is_lost(close_fraction):
    detector, _ = run(bump(noise=0.01), DetectorConfig(close_fraction=close_fraction))
    reached = 300 + 40 * math.sqrt(-math.log(1 - close_fraction))
    assert detector.windows[0].end == math.ceil(reached / 10) * 10 + 10


def test_direction_decides_which_departures_count():
    down = 10 - bump()
    assert not run(down)[0].windows
    for direction in ("falling", "either"):
        (window,) = run(down, DetectorConfig(direction=direction))[0].windows
        assert window.height == pytest.approx(-10, abs=0.3)
        assert window.z < -20
    assert not run(bump(), DetectorConfig(direction="falling"))[0].windows
    assert run(bump(), DetectorConfig(direction=Direction.either))[0].windows == run(bump())[0].windows


def test_either_wants_all_probes_on_one_side():
    values = [0.0, 0.1, -0.1] * 4 + [50.0, -50.0, 50.0, -50.0] + [0.0] * 4
    detector, _ = run(values, DetectorConfig(direction="either"), steps=range(len(values)))
    assert not detector.windows


@pytest.mark.parametrize("num_probes", [1, 2, 4])
def test_opens_only_after_so_many_consecutive_departures(num_probes):
    plateau = [0.0, 0.1, -0.1, 0.05] * 3
    config = DetectorConfig(num_probes=num_probes)
    for length in range(1, 6):
        values = plateau + [9.0] * length
        detector, _ = run(values, config, steps=range(len(values)))
        assert bool(detector.windows) == (length >= num_probes)
        if detector.windows:
            assert detector.window.start == len(plateau) + num_probes - 1


def test_single_outlier_goes_back_to_the_plateau_and_does_not_hide_what_follows():
    values = [0.0, 0.1, -0.1, 0.05] * 3 + [9.0] + [0.0, 0.1, -0.1] + [3.0, 3.0]
    detector, _ = run(values, steps=range(len(values)))
    assert detector.window.start == len(values) - 1
    assert 9.0 in detector.state_dict()["plateau"]


def test_no_window_before_the_plateau_is_known():
    values = [0.0, 0.1, -0.1, 9.0, 9.0, 9.0]
    assert not run(values, steps=range(6))[0].windows
    assert run(values, DetectorConfig(min_plateau=3, min_z=1.5), steps=range(6))[0].windows


def test_larger_errors_of_the_probes_ask_for_larger_departures():
    assert run(bump(height=3), error=0.1)[0].windows
    assert not run(bump(height=3), error=2.0)[0].windows
    starts = [run(bump(), error=error)[0].windows[0].start for error in (0.0, 1.0, 2.5)]
    assert starts == sorted(starts)
    assert starts[0] < starts[-1]


def test_max_length_closes_a_shift_that_stays_also_when_values_are_missing():
    values = np.where(STEPS < 300, 0.0, 8.0) + 0.1 * np.random.default_rng(0).standard_normal(len(STEPS))
    assert run(values)[0].window is not None
    config = DetectorConfig(max_length=100)
    (window,) = run(values, config)[0].windows
    assert (window.start, window.end) == (310, 410)
    values[(STEPS > 350) & (STEPS < 450)] = math.nan
    assert run(values, config)[0].windows[0].end == 410


def test_plateau_is_learnt_anew_after_a_window():
    rng = np.random.default_rng(3)
    steps = np.arange(120)
    values = np.where(steps < 40, 0.0, 20.0) + 0.1 * rng.standard_normal(120)
    values[40:44] = 50.0
    values[90:94] = 60.0
    first, second = run(values, steps=steps)[0].windows
    assert first.plateau == pytest.approx(0, abs=0.1)
    assert second.plateau == pytest.approx(20, abs=0.1)
    assert (second.start, second.value) == (91, 60.0)


def test_refractory_probes_are_not_looked_at():
    values = bump(centre=200, width=20) + bump(centre=400, width=20, seed=1)
    first, second = run(values)[0].windows
    until = second.end - first.end
    assert len(run(values, DetectorConfig(refractory=until))[0].windows) == 1
    # So much of the plateau is left that the second one is found all the same.
    assert len(run(values, DetectorConfig(refractory=50))[0].windows) == 2


def test_missing_values_are_as_probes_that_were_not_taken():
    values = bump()
    values[::3] = math.nan
    known = np.isfinite(values)
    assert run(values)[0].windows == run(values[known], steps=STEPS[known])[0].windows
    assert run(values)[0].windows


@pytest.mark.parametrize(
    "config",
    [
        DetectorConfig(),
        DetectorConfig(direction="either", min_z=2.0, num_probes=3, refractory=30, max_length=150),
        DetectorConfig(num_probes=1, min_plateau=3, min_z=1.0, close_fraction=0.1),
    ],
)
def test_resumed_at_any_probe_equals_uninterrupted(config):
    values = bump(centre=150, width=20, noise=0.5) + bump(centre=400, noise=0.5, seed=4)
    values[7] = math.nan
    whole, events = run(values, config, error=0.2)
    assert len(whole.windows) >= 2
    for stop in range(len(values)):
        before, early = run(values[:stop], config, error=0.2, steps=STEPS[:stop])
        saved = json.loads(json.dumps(before.state_dict()))
        after = OnlineDetector(config)
        after.load_state_dict(saved)
        late = [after.update(int(s), v, 0.2) for s, v in zip(STEPS[stop:], values[stop:], strict=True)]
        assert early + [event for event in late if event is not None] == events
        assert after.windows == whole.windows
        assert after.state_dict() == whole.state_dict()


def test_saved_state_does_not_change_with_the_detector():
    detector, _ = run(bump()[:10], steps=STEPS[:10])
    saved = detector.state_dict()
    copy = json.loads(json.dumps(saved))
    detector.update(1000, 5.0)
    assert saved == copy


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"direction": "up"}, "'rising', 'falling', 'either'"),
        ({"min_z": 0.0}, "min_z"),
        ({"min_z": math.nan}, "min_z"),
        ({"num_probes": 0}, "num_probes"),
        ({"num_probes": 2.5}, "num_probes"),
        ({"min_plateau": 2}, "min_plateau"),
        ({"close_fraction": 1.0}, "close_fraction"),
        ({"max_length": 0}, "max_length"),
        ({"refractory": -1}, "refractory"),
    ],
)
def test_unusable_settings_are_refused(wrong, words):
    with pytest.raises(InputError, match=words):
        DetectorConfig(**wrong)


def test_probes_out_of_order_and_negative_errors_are_refused():
    detector = OnlineDetector()
    detector.update(5, 1.0)
    with pytest.raises(InputError, match="got step=5 after step 5"):
        detector.update(5, 1.0)
    with pytest.raises(InputError, match="error"):
        detector.update(6, 1.0, -1.0)
