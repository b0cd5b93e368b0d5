import json
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from stagewise.reporting.influence_curves import influence_curves, set_step_axis
from stagewise.reporting.llc_curves import llc_curves
from stagewise.reporting.overview import overview
from stagewise.reporting.runs_overview import runs_overview
from stagewise.reporting.token_axis import horizontal_label, mark_tokens, run_tokens, shared_tokens, token_words
from tests.reporting.test_llc_curves import run_with_llc
from tests.runs.flipping_run import STEPS

PER_STEP = 2_097_152


def tokens_run(axis="tokens", tokens=None):
    run = run_with_llc()
    known = [int(step) * PER_STEP for step in STEPS] if tokens is None else tokens
    sweep = {"axis": axis, "steps": [int(step) for step in STEPS], "step_tokens": known}
    run.attrs["summary"] = json.dumps({"sweep": sweep})
    return run


def ticks(axes):
    places, words = axes.xaxis.get_major_locator()(), axes.xaxis.get_major_formatter().seq
    return dict(zip(words, places, strict=True))


@pytest.mark.parametrize("draw", [influence_curves, llc_curves, overview])
def test_figures_of_a_sweep_by_tokens_have_round_tokens_where_their_steps_are(draw):
    axes = [axes for axes in draw(tokens_run()).axes if axes.get_visible()][-1]
    assert axes.get_xlabel() == "training tokens"
    found = ticks(axes)
    assert len(found) > 1
    units = {"T": 1e12, "B": 1e9, "M": 1e6}
    for words, place in found.items():
        assert place * PER_STEP == pytest.approx(float(words[:-1]) * units[words[-1]], rel=1e-9)
    line = next(line for line in axes.lines if len(line.get_xdata()) == len(STEPS))
    np.testing.assert_array_equal(line.get_xdata(), STEPS)


@pytest.mark.parametrize("draw", [influence_curves, llc_curves, overview])
def test_other_runs_stay_with_steps(draw):
    for run in (run_with_llc(), tokens_run(axis="steps")):
        axes = [axes for axes in draw(run).axes if axes.get_visible()][-1]
        assert axes.get_xlabel() == "training step"
        assert horizontal_label(run) == "training step"
        assert run_tokens(run) is None


def test_runs_that_are_shown_together_have_tokens_where_these_agree():
    """As the branches of a suite that forks: the same up to there, and other steps after it."""
    one, other, third, by_steps = tokens_run(), tokens_run(), tokens_run(), run_with_llc()
    steps = [int(step) for step in STEPS]
    more = {"axis": "tokens", "steps": [*steps, steps[-1] + 50], "step_tokens": [*(s * PER_STEP for s in steps), 1e15]}
    other.attrs["summary"] = json.dumps({"sweep": more})
    third.attrs["summary"] = json.dumps({"sweep": {**more, "step_tokens": [7.0 * s for s in more["steps"]]}})
    found = shared_tokens([one, other])
    assert found is not None
    assert (found[0].tolist(), found[1].tolist()) == (more["steps"], more["step_tokens"])
    assert shared_tokens([one, third]) is None
    assert shared_tokens([one, by_steps]) is None
    for runs, words in (([one, other], "training tokens"), ([one, third], "training step")):
        figure = runs_overview([SimpleNamespace(title="a", runs=[run]) for run in runs])
        labels = {axes.get_xlabel() for axes in figure.axes if axes.get_visible()} - {""}
        assert labels == {words}
    assert len(ticks(runs_overview([SimpleNamespace(title="a", runs=[one, other])]).axes[0])) > 1


def test_a_logarithmic_axis_has_powers_of_ten_and_nothing_at_step_zero_is_lost():
    run = tokens_run()
    steps = np.array([0, 1, 10, 100, 1000, 10000])
    sweep = {"axis": "tokens", "steps": steps.tolist(), "step_tokens": (steps * 2_000_000).tolist()}
    run.attrs["summary"] = json.dumps({"sweep": sweep})
    axes = Figure().subplots()
    set_step_axis(axes, steps)
    limits, scale = axes.get_xlim(), axes.get_xscale()
    mark_tokens(axes, run)
    assert ticks(axes) == pytest.approx({"0": 0, "10M": 5, "100M": 50, "1B": 500, "10B": 5000})
    assert (axes.get_xlim(), axes.get_xscale()) == (limits, scale)


@pytest.mark.parametrize("tokens", [[1, 2], [None] * len(STEPS), "many"])
def test_a_summary_that_does_not_tell_them_leaves_the_steps(tokens):
    assert run_tokens(tokens_run(tokens=tokens)) is None


@pytest.mark.parametrize(
    ("tokens", "words"), [(0, "0"), (999, "999"), (84e9, "84B"), (1.5e12, "1.5T"), (2_097_152_000, "2.1B")]
)
def test_tokens_are_told_in_three_digits(tokens, words):
    assert token_words(tokens) == words
