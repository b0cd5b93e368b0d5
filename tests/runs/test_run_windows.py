"""Windows of a run, from its summary or computed; else the reason for none."""

import json

import numpy as np
import pytest

from stagewise.phases.offline import find_windows
from stagewise.runs.llc_table import no_llc_words
from stagewise.runs.run_windows import no_window_words, run_windows
from stagewise.runs.words import windows_text
from tests.runs.flipping_run import STEPS, flipping_run

SIGNAL = np.array([np.nan, 1, 1, 2, 6, 3, 1, 1, 1, 1.0])


def signalling(values=SIGNAL):
    run = flipping_run(with_summary=False)
    return run.assign(signal=("step", values), signal_se=("step", np.full(10, 0.01)))


def test_windows_are_computed_without_a_summary():
    (want,) = find_windows(STEPS[1:], SIGNAL[1:])
    assert run_windows(signalling()) == [{"start": want.start, "peak": 500, "end": want.end, "value": 6.0}]
    assert no_window_words(signalling()) is None
    assert run_windows(flipping_run(with_summary=False)) == []
    run = flipping_run()
    assert run_windows(run) == json.loads(run.attrs["summary"])["transitions"]


def test_the_least_prominence_is_that_of_the_run():
    run = signalling()
    run.attrs["summary"] = json.dumps({"min_prominence": 0.9})
    assert run_windows(run) == []
    assert "asks for 90 %" in no_window_words(run)


def test_a_falling_signal_is_explained_in_a_report():
    falling = signalling(np.linspace(9, 1, 10))
    assert "falls from there" in windows_text({}, falling)
    # The summary's own reason is taken first, and is no HTML.
    assert "because &lt;b>" in windows_text({"no_window": "because <b>"}, falling)
    assert windows_text({}).endswith("in the between part.")


@pytest.mark.parametrize("measured", [False, True])
def test_a_missing_learning_coefficient_names_its_setting(measured):
    run = flipping_run()
    if measured:
        run = run.assign(llc=("step", np.full(10, np.nan)))
    assert ("probe.llc.localization" if measured else "probe.llc.enabled: true") in no_llc_words(run)
