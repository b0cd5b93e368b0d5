"""Probes within a budget of training time, on a simulated clock."""

import json
import warnings

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from stagewise import InfluenceCallback, ProbeSchedule, open_run
from stagewise.callbacks import session
from stagewise.probes.budget import Stopwatch
from tests.callbacks.runs import SGLD, Regression, regression_data

TRAINING_STEP, PROBE = 1.0, 4.0


class Clock:
    """Simulated clock: a training step takes one second, a probe four, everything else none."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Timed(Regression):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def training_step(self, batch, batch_idx):
        self.clock.now += TRAINING_STEP
        return super().training_step(batch, batch_idx)


def fit(folder, monkeypatch, max_steps, max_overhead, schedule=None, ckpt_path=None):
    clock = Clock()
    monkeypatch.setattr(session, "Stopwatch", lambda: Stopwatch(clock))
    real = session.Prober.probe

    def timed(self, *args, **kwargs):
        clock.now += PROBE
        return real(self, *args, **kwargs)

    monkeypatch.setattr(session.Prober, "probe", timed)
    pl.seed_everything(1, verbose=False)
    callback = InfluenceCallback(ProbeSchedule(**(schedule or {"every_n_steps": 1}), max_overhead=max_overhead), SGLD)
    saver = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=7, save_top_k=-1)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[callback, saver],
        # No pictures: they would take most of the time.
        logger=pl.loggers.CSVLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Timed(clock)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, DataLoader(regression_data(), 8, shuffle=False), ckpt_path=ckpt_path, weights_only=True)
    monkeypatch.undo()
    return trainer, module, [str(warning.message) for warning in caught]


def by_hand(max_steps, max_overhead, due=lambda step: True):
    """Computes the expected probes by a plain loop over the same clock."""
    spent, taken = 0.0, []
    for step in range(1, max_steps + 1):
        if due(step) and (not taken or spent + PROBE <= max_overhead * step * TRAINING_STEP):
            spent += PROBE
            taken.append(step)
    return taken


def summary_of(trainer):
    return json.loads(open_run(trainer.log_dir).attrs["summary"])


def test_probes_stay_within_their_budget_and_skips_are_reported(tmp_path, monkeypatch):
    trainer, _, messages = fit(tmp_path, monkeypatch, 30, 0.5)
    taken = by_hand(30, 0.5)
    assert taken == [1, 16, 24]
    skipped = [step for step in range(1, 31) if step not in taken]
    assert open_run(trainer.log_dir)["step"].values.tolist() == taken
    summary = summary_of(trainer)
    assert summary["skipped_steps"] == skipped
    assert (summary["probes_skipped"], summary["max_overhead"]) == (27, 0.5)
    assert summary["overhead"] == pytest.approx(12 / 30)
    told = [message for message in messages if "skipped" in message]
    assert len(told) == 2
    assert "due at step 2 is skipped" in told[0]
    assert "27 of 30 due probes were skipped" in told[1]
    assert float(trainer.callback_metrics["sampler/skipped"]) == 27


def test_probes_of_a_thinned_schedule_find_references(tmp_path, monkeypatch):
    trainer, _, _ = fit(tmp_path, monkeypatch, 40, 0.5)
    run = open_run(trainer.log_dir)
    steps = run["step"].values.tolist()
    want = [max([past for past in steps if past < step and past <= step / 1.15], default=step) for step in steps]
    assert run["reference_step"].values.tolist() == want
    assert want[1:] != steps[1:]


def test_the_budget_survives_a_resume(tmp_path, monkeypatch):
    whole, _, _ = fit(tmp_path / "whole", monkeypatch, 30, 0.5)
    fit(tmp_path / "parts", monkeypatch, 7, 0.5)
    (checkpoint,) = (tmp_path / "parts" / "checkpoints").glob("*step=7.ckpt")
    resumed, _, messages = fit(tmp_path / "parts", monkeypatch, 30, 0.5, ckpt_path=checkpoint)
    left, right = summary_of(whole), summary_of(resumed)
    for name in ("probe_steps", "skipped_steps", "probe_seconds", "training_seconds"):
        assert left[name] == right[name]
    assert not any("due at step" in message for message in messages)


def test_a_budget_does_not_change_training(tmp_path, monkeypatch):
    modules = [fit(tmp_path / str(item), monkeypatch, 6, item)[1] for item in (None, 0.5)]
    assert torch.equal(modules[0].layer.weight, modules[1].layer.weight)


def test_no_probe_is_skipped_with_an_ample_or_no_budget(tmp_path, monkeypatch):
    for budget, tagged in ((None, False), (100.0, True)):
        trainer, _, messages = fit(tmp_path / str(budget), monkeypatch, 6, budget, schedule={"every_n_steps": 2})
        assert summary_of(trainer)["probe_steps"] == [2, 4, 6]
        assert summary_of(trainer)["skipped_steps"] == []
        assert ("sampler/skipped" in trainer.callback_metrics) is tagged
        assert not any("skipped" in message for message in messages)


def test_skips_are_logged_when_they_occur(tmp_path, monkeypatch):
    fit(tmp_path, monkeypatch, 4, 0.5)
    header, *rows = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("sampler/skipped")
    assert [float(row.split(",")[column]) for row in rows if row.split(",")[column]] == [0.0, 1.0, 2.0, 3.0]
