"""The card says what is measured, how far the run is and where its files are, from the first probe on."""

from pathlib import Path

from stagewise.probes.config import ProbeConfig
from stagewise.probes.history import Record
from stagewise.reporting.run_card import run_card
from stagewise.reporting.summary import build_summary, summary_markdown
from stagewise.sampling.config import SGLDConfig


def summary_after(*steps, complete=False):
    record = Record(steps=list(steps), signal=[float("nan")] * len(steps), signal_se=[float("nan")] * len(steps))
    return build_summary(record, config=SGLDConfig(), probe=ProbeConfig(), complete=complete)


def test_a_run_that_goes_on_says_so_and_how_far_it_is():
    folder = Path("runs") / "version_0"
    for steps, words in (
        ((), "no probe so far"),
        ((0,), "1 probe so far, the last at step 0"),
        ((5, 1200), "2 probes so far, the last at step 1,200"),
    ):
        card = run_card(summary_after(*steps), folder, unfinished=True)
        assert card.startswith("**Training goes on**: ")
        assert words in card.splitlines()[0]
        assert summary_markdown(summary_after(*steps)) in card


def test_sign_unit_files_and_how_to_read_charts_are_always_there():
    for unfinished in (True, False):
        card = run_card(summary_after(3), Path("runs/version_0"), unfinished=unfinished)
        for words in ("nats^2", "negative = helpful", "`runs/version_0`", "`influence.zarr`", "*Smoothing* to 0"):
            assert words in card
    whole = summary_after(3, complete=True)
    assert run_card(whole, Path("x"), unfinished=False).startswith(summary_markdown(whole))
