"""How seldom the online detector opens on noise; the simulation is that of benchmarks/false_alarms.py."""

import importlib
import math
from pathlib import Path

import pytest

from stagewise.errors import InputError
from stagewise.phases.online_detector import DetectorConfig

AT_ONCE = {"min_z": 2.75, "num_probes": 1, "max_length": 100}
DOCUMENTED = [
    ({}, 0.0, math.nan, 0.001),
    ({}, 0.7, math.nan, 0.035),
    ({"direction": "falling"}, 0.7, math.nan, 0.035),
    ({}, 0.7, 1.0, 0.005),
    ({"direction": "either"}, 0.7, math.nan, 0.077),
    ({}, 0.9, math.nan, 0.095),
    (AT_ONCE, 0.0, math.nan, 0.22),
    (AT_ONCE, 0.0, 1.0, 0.14),
    (AT_ONCE, 0.7, math.nan, 0.24),
    ({**AT_ONCE, "direction": "falling"}, 0.7, math.nan, 0.24),
    ({**AT_ONCE, "max_length": 4}, 0.9, math.nan, 0.30),
    (AT_ONCE, 0.9, 1.0, 0.05),
    ({**AT_ONCE, "direction": "either"}, 0.7, math.nan, 0.47),
    ({**AT_ONCE, "direction": "either"}, 0.9, 1.0, 0.11),
]


@pytest.fixture
def false_alarm_rate(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("false_alarms").false_alarm_rate


@pytest.mark.parametrize(
    ("settings", "autocorrelation", "error", "rate"),
    [row if number in (1, 7) else pytest.param(*row, marks=pytest.mark.slow) for number, row in enumerate(DOCUMENTED)],
)
def test_rates_on_a_plateau_are_those_that_are_documented(false_alarm_rate, settings, autocorrelation, error, rate):
    num_runs = 800
    config = DetectorConfig(**settings)
    found = false_alarm_rate(config, autocorrelation=autocorrelation, error=error, num_runs=num_runs, seed=2)
    # Counts of rare windows are Poisson, here and in the documented numbers.
    expected = rate * num_runs
    assert abs(found * num_runs - expected) <= 3.5 * math.sqrt(expected * 1.5) + 1


def test_a_careless_detector_has_many(false_alarm_rate):
    careless = DetectorConfig(min_z=1.0, num_probes=1, min_plateau=3)
    assert false_alarm_rate(careless, num_runs=100) > 2


@pytest.mark.slow
def test_noise_has_the_autocorrelation_that_was_asked_for(false_alarm_rate):
    rates = [false_alarm_rate(autocorrelation=share, num_runs=400) for share in (-0.9, 0.0, 0.95)]
    assert rates[0] <= rates[1] < rates[2]


@pytest.mark.parametrize("wrong", [{"autocorrelation": 1.0}, {"length": 0}, {"num_runs": 0}])
def test_impossible_noise_is_refused(false_alarm_rate, wrong):
    with pytest.raises(InputError, match="expected"):
        false_alarm_rate(**wrong)
