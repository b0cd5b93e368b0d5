import json
import math

import numpy as np

from stagewise.phases.two_phase import two_phase
from stagewise.phases.window import CriticalSample, Method, Window
from stagewise.reporting.windows import transitions, window_record, window_table

READING = two_phase([[0.0, 0.0], [1.0, 0.5], [2.0, 0.0]])


def window(**changes):
    settings = {
        "method": Method.offline,
        "signal": "between",
        "units": "nats",
        "start": 10,
        "peak": 20,
        "end": 30,
        "value": 1.5,
        "height": 1.25,
        "significance": 12.34,
        "critical": (CriticalSample(3, -0.5, 0.1), CriticalSample(0, 0.25, math.nan)),
        "steps": (10, 20, 30),
        "reading": READING,
    }
    return Window(**(settings | changes))


OPEN = window(
    method=Method.online,
    signal="total/a~b",
    units="nats^2",
    end=None,
    height=-0.5,
    significance=math.inf,
    critical=(),
    steps=(),
    reading=None,
)


def test_record_is_plain_json_also_where_numbers_are_unknown():
    for item in (window(), window(significance=None), OPEN):
        record = window_record(item)
        assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert window_record(window())["two_phase"] == {
        "steps": [10, 20, 30],
        "pi": [0.0, 0.5, 1.0],
        "residual": [0.0, 0.25, 0.0],
        "length": 2.0,
    }
    assert window_record(window())["critical_samples"][1] == {"sample": 0, "shift": 0.25, "shift_se": None}
    assert (window_record(OPEN)["end"], window_record(OPEN)["significance"]) == (None, None)


def test_table_names_each_window_and_says_what_is_open_or_unknown():
    header, first, second = window_table([window(), OPEN]).splitlines()
    assert header.split("  ")[0] == "detector"
    assert " ".join(first.split()) == "offline between 10 20 30 1.25 nats 12.3 0.25 3 (-0.5), 0 (+0.25)"
    assert " ".join(second.split()) == "online total/a~b 10 20 open -0.5 nats^2 - - -"
    ends = [line.index(word) + len(word) for line, word in ((header, "height"), (first, "nats"), (second, "nats^2"))]
    assert len(set(ends)) == 1


def test_transitions_are_the_offline_windows_of_the_first_signal():
    found = [window(), window(start=40, peak=50, end=60), window(signal="losses_alone"), OPEN]
    assert [(transition["start"], transition["peak"], transition["end"]) for transition in transitions(found)] == [
        (10, 20, 30),
        (40, 50, 60),
    ]
    assert transitions([OPEN]) == []
    falling = transitions([window(signal="total/a~b", height=-0.5)])
    np.testing.assert_equal(falling[0]["prominence"], 0.5)
