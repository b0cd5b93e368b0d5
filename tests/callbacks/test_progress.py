"""Progress of probes, on the training bar or in lines."""

import re
import sys
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from torch.utils.data import DataLoader

from stagewise import InfluenceCallback, ProbeSchedule
from stagewise.callbacks import reporter
from stagewise.callbacks.trainer_facts import bar_is_watched
from tests.callbacks.runs import SGLD, Regression, regression_data

pytestmark = pytest.mark.filterwarnings("ignore")


def description_of(bar):
    if isinstance(bar, TQDMProgressBar):
        return bar.train_progress_bar.desc
    return next(task.description for task in bar.progress.tasks if task.id == bar.train_progress_bar_id)


@pytest.mark.parametrize("make_bar", [TQDMProgressBar, RichProgressBar])
def test_the_bar_shows_the_running_probe_and_the_total_time(tmp_path, make_bar):
    if make_bar is RichProgressBar:
        pytest.importorskip("rich")
    bar = make_bar()
    seen = []

    def loss_fn(module, batch):
        if module.global_step == 4:
            seen.append(description_of(bar))
        return module.per_sample_loss(batch)

    class Witness(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step == 5:
                seen.append(description_of(bar))

    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=6,
        callbacks=[bar, InfluenceCallback(ProbeSchedule(every_n_steps=2), SGLD, loss_fn=loss_fn), Witness()],
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(Regression(), DataLoader(regression_data(), 8))
    assert "probing step 4" in seen[0]
    assert "2 probes" in seen[-1]


def test_a_trainer_may_lack_a_bar(tmp_path):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2,
        callbacks=[InfluenceCallback(ProbeSchedule(every_n_steps=2), SGLD)],
        default_root_dir=tmp_path,
        enable_progress_bar=False,
    )
    trainer.fit(Regression(), DataLoader(regression_data(), 8))
    assert torch.isfinite(trainer.callback_metrics["influence/within/all~all"])


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 3), (1e9, 1)])
@pytest.mark.parametrize("bar", [True, False])
def test_without_a_visible_bar_each_probe_has_a_line_at_a_limited_rate(
    tmp_path, caplog, monkeypatch, seconds, lines, bar
):
    monkeypatch.setattr(reporter, "_SECONDS_BETWEEN_LINES", seconds)
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        fit_six_steps(tmp_path, enable_progress_bar=bar)
    found = [line for line in caplog.messages if line.startswith("stagewise: probe ")]
    assert len(found) == lines
    assert found[0].startswith("stagewise: probe 1 at step 2, all loss ")
    assert " s" in found[0]


def test_lines_keep_to_the_first_pair_that_differs_from_zero_also_in_a_resumed_run(tmp_path, caplog, monkeypatch):
    strongest = iter([(("a", "a"), False), (("a", "b"), False), (("b", "b"), True), (("a", "b"), True)])
    monkeypatch.setattr(reporter, "strongest_now", lambda result: next(strongest))
    monkeypatch.setattr(reporter, "_SECONDS_BETWEEN_LINES", 0.0)
    first = torch.arange(8) < 4
    callback = InfluenceCallback(
        ProbeSchedule(every_n_steps=1), SGLD, observed=regression_data()[:8], groups={"a": first, "b": ~first}
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=5, callbacks=[callback], default_root_dir=tmp_path, enable_progress_bar=False
    )
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        trainer.fit(Regression(), DataLoader(regression_data(), 8))
    told = [re.search("influence (.+?) [+-]", line)[1] for line in caplog.messages if "stagewise: probe " in line]
    assert told == ["a on itself", "a on itself", "b on itself", "b on itself", "b on itself"]
    later = InfluenceCallback(ProbeSchedule(every_n_steps=1), SGLD)
    later.load_state_dict(callback.state_dict())
    assert (later._state.told_pair, later._state.told_sure) == (["b", "b"], True)


def test_with_a_visible_bar_there_are_no_lines(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(reporter, "bar_is_watched", lambda trainer: True)
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        fit_six_steps(tmp_path)
    assert not [line for line in caplog.messages if line.startswith("stagewise: probe ")]


def test_a_bar_is_visible_only_on_a_terminal(monkeypatch):
    terminal = SimpleNamespace(isatty=lambda: True)
    for enabled in (True, False):
        trainer = SimpleNamespace(progress_bar_callback=SimpleNamespace(is_enabled=enabled))
        monkeypatch.setattr(sys, "stdout", terminal)
        assert bar_is_watched(trainer) is enabled
    monkeypatch.undo()
    trainer = SimpleNamespace(progress_bar_callback=None)
    assert not bar_is_watched(trainer)


def fit_six_steps(folder, **settings):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=6,
        callbacks=[InfluenceCallback(ProbeSchedule(every_n_steps=2), SGLD)],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(Regression(), DataLoader(regression_data(), 8))
