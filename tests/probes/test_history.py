import re

import numpy as np
import pytest
import xarray as xr

from stagewise.probes.history import Record


def filled(signal, flags=()):
    record = Record()
    for step, value in enumerate(signal, start=1):
        probe = xr.Dataset({"signal": value, "signal_se": np.nan}, attrs={"flags": flags[step - 1] if flags else {}})
        record.add(step, probe, chains_dropped=0)
    return record


def test_probes_without_a_reference_are_no_part_of_the_signal():
    undefined = float("nan")
    signal = [undefined, undefined, 0.2, 0.1, 0.9, 0.1, 0.1]
    assert [window.peak for window in filled(signal).windows()] == [5]


def test_least_prominence_reaches_the_windows():
    record = filled([0.0, 1.0, 0.0, 0.1, 0.0, 0.5, 0.0])
    for settings, peaks in (({}, [2, 6]), ({"min_prominence": 0.05}, [2, 4, 6]), ({"min_prominence": 0.6}, [2])):
        assert [window.peak for window in record.windows(**settings)] == peaks


def test_run_with_too_few_probes_has_no_window():
    assert not Record().windows()
    assert not filled([float("nan")]).windows()


def test_lost_probes_and_dropped_chains_are_counted():
    record = filled([0.1, 0.2])
    record.add(9, None, chains_dropped=1)
    assert (record.steps, record.failed_steps, record.chains_dropped) == ([1, 2], [9], 1)


def test_flags_are_counted_by_kind():
    record = filled([0.1, 0.2, 0.3], flags=[{"rhat": "..."}, {}, {"rhat": "...", "ess": "..."}])
    assert record.flags == {"rhat": 2, "ess": 1}
    assert record.flagged_steps == [1, 3]
    assert record.steps == [1, 2, 3]


def test_overhead_is_probe_seconds_over_training_seconds():
    assert Record().overhead is None
    assert Record(probe_seconds=3.0, training_seconds=2.0).overhead == pytest.approx(1.5)


def test_state_survives_a_checkpoint():
    record = filled([0.1, 0.2], flags=[{}, {"rhat": "..."}])
    record.skipped_steps.append(3)
    record.add_probe_time(2.0, finished=True)
    assert Record.from_state_dict(record.state_dict()) == record
    assert type(record.state_dict()["flags"]) is dict


def test_state_of_a_checkpoint_without_flags_and_budget_is_taken_up():
    state = filled([0.1, 0.2]).state_dict()
    for later in ("flags", "flagged_steps", "skipped_steps", "last_probe_seconds"):
        del state[later]
    assert Record.from_state_dict(state).steps == [1, 2]


def test_only_probes_count_for_the_schedule_of_controls():
    """Faults of a logger at other steps do not shift it; probes that raised are probes."""
    record = filled([0.1, 0.2])
    record.add_fault("logger", 2)
    record.add_fault("logger", 7)
    assert (record.num_attempts, record.faulty_steps) == (2, [2, 7])
    record.add(9, None, chains_dropped=8)
    record.add_fault("out_of_memory", 11)
    record.broken_steps.append(11)
    assert record.num_attempts == 4
    older = {name: value for name, value in record.state_dict().items() if name != "broken_steps"}
    assert Record.from_state_dict(older).broken_steps == [2, 7, 11]


def test_parts_of_the_time_add_up_to_it():
    record = Record(probe_seconds=103.04, chain_seconds=64.26, curvature_seconds=21.0)
    told = [float(number) for number in re.findall(r"([\d.]+) s", record.time_words)]
    assert told == [103.0, 64.3, 21.0, 17.7]
    assert told[0] == pytest.approx(sum(told[1:]))
    rounded = Record(probe_seconds=1.0, chain_seconds=0.96, curvature_seconds=0.06)  # clocks are read apart
    told = [float(number) for number in re.findall(r"([\d.]+) s", rounded.time_words)]
    assert told[0] == pytest.approx(sum(told[1:]))
