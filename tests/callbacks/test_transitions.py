"""Transitions of a run: their least prominence is a setting that may change when a run is resumed."""

import json
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from stagewise import InfluenceCallback, ProbeConfig, open_run
from stagewise.callbacks.run_end import probes_words, windows_words
from stagewise.phases.offline import find_windows
from stagewise.probes.history import Record
from tests.callbacks.runs import EVERY_2, SGLD, Regression, regression_data

pytestmark = pytest.mark.filterwarnings("ignore")

ONE_CHAIN = replace(SGLD, num_chains=1)
"""Without an error of the signal, which small peaks would have to exceed."""


def train(folder, max_steps, min_prominence, ckpt_path=None):
    torch.manual_seed(0)
    pl.seed_everything(1, verbose=False)
    callback = InfluenceCallback(EVERY_2, ONE_CHAIN, ProbeConfig(min_prominence=min_prominence))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[callback],
        logger=pl.loggers.TensorBoardLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Regression(), DataLoader(regression_data(), 8), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def outcome(folder):
    """Returns ``summary.json``, the windows in the stored signal by each limit, and the steps logged as inside one."""
    summary = json.loads((Path(folder) / "summary.json").read_text())
    run = open_run(folder).dropna("step", subset=["signal"])
    searched = {
        least: find_windows(run["step"].values, run["signal"].values, min_prominence=least)
        for least in (0.01, 0.15, 0.2)
    }
    events = EventAccumulator(folder)
    events.Reload()
    inside = {event.step for event in events.Scalars("transition/in_window") if event.value}
    return summary, searched, inside


def test_least_prominence_reaches_summary_and_logs_and_may_change_when_a_run_is_resumed(tmp_path):
    first = train(tmp_path / "first", 20, 0.01)
    first.save_checkpoint(tmp_path / "twenty.ckpt")
    resumed = train(tmp_path / "second", 24, 0.15, ckpt_path=tmp_path / "twenty.ckpt")
    for trainer, least, num_probes in ((first, 0.01, 10), (resumed, 0.15, 12)):
        summary, searched, inside = outcome(trainer.log_dir)
        assert summary["probes"] == num_probes
        assert summary["min_prominence"] == least
        windows = searched[least]
        assert [window["peak"] for window in summary["transitions"]] == [window.peak for window in windows]
        assert inside == {s for s in summary["probe_steps"] if any(w.start <= s <= w.end for w in windows)}
        # The limits are told apart by this signal.
        assert len(searched[0.01]) > len(searched[0.15]) > len(searched[0.2])


def test_the_last_line_of_a_run_lists_its_windows_or_says_none():
    found = find_windows([1, 2, 3, 4, 5, 6], [0.0, 1.0, 0.0, 0.0, 1.0, 0.0], [0.01] * 6)
    assert windows_words([]) == "no window"
    assert windows_words(found[:1]) == "window at 2"
    assert windows_words(found) == "windows at 2, 5"
    assert probes_words(Record(steps=[1, 2])) == "2 probes"
    assert probes_words(Record(steps=[1, 2], failed_steps=[3])) == "2 of 3 probes"
