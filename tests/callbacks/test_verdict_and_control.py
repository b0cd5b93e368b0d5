"""Run with loss-free controls: places of its verdict, and equal controls after a resume."""

import json
import logging
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stagewise import InfluenceCallback, ProbeConfig, open_run
from stagewise.loading.loader import ResumableLoader
from stagewise.reporting.run_report import write_run_report
from stagewise.runs.verdict import judge
from tests.callbacks.runs import EVERY_2, SGLD, Regression, regression_data

pytestmark = pytest.mark.filterwarnings("ignore")
PROBE = ProbeConfig(control_every=2, draw_matrices=False)


def fit(folder, max_steps, *, probe=PROBE, ckpt_path=None):
    pl.seed_everything(1, verbose=False)
    callback = InfluenceCallback(EVERY_2, replace(SGLD, lr=0.02), probe)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[callback, ModelCheckpoint(folder / "checkpoints", every_n_train_steps=4, save_top_k=-1)],
        logger=pl.loggers.TensorBoardLogger(folder, name="run"),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = ResumableLoader(regression_data(), 8, seed=3)
    trainer.fit(Regression(), loader, ckpt_path=ckpt_path, weights_only=True)
    return trainer


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("controlled")
    heard = []

    class Hear(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())

    logger, handler = logging.getLogger("lightning.pytorch.utilities.rank_zero"), Hear()
    logger.addHandler(handler)
    try:
        whole = fit(folder / "whole", 10)
    finally:
        logger.removeHandler(handler)
    first = fit(folder / "parts", 4)
    (checkpoint,) = (folder / "parts" / "checkpoints").glob("*step=4.ckpt")
    second = fit(folder / "parts", 10, ckpt_path=checkpoint)
    return whole, first, second, "\n".join(heard)


def test_every_second_probe_has_a_control_in_the_store_and_under_its_tag(runs):
    whole, *_ = runs
    run = open_run(whole.log_dir)
    assert run["step"].values.tolist() == [2, 4, 6, 8, 10]
    assert np.isfinite(run["control_group_bif"]).values.ravel().tolist() == [True, False, True, False, True]
    events = EventAccumulator(whole.log_dir)
    events.Reload()
    logged = {scalar.step: scalar.value for scalar in events.Scalars("control/all~all")}
    assert sorted(logged) == [2, 6, 10]
    assert logged[6] == pytest.approx(float(run["control_group_bif"].sel(step=6).squeeze()), rel=1e-6)


def test_a_resumed_run_has_the_controls_of_an_uninterrupted_one(runs):
    whole, _, second, _ = runs
    left, right = open_run(whole.log_dir), open_run(second.log_dir)
    for name in ("control_group_bif", "control_difference", "control_difference_se", "equilibrated", "chains_common"):
        np.testing.assert_array_equal(right[name], left[name])
    np.testing.assert_array_equal(right["reference_equilibrated"], left["reference_equilibrated"])


def test_the_control_does_not_affect_training(runs, tmp_path):
    whole, *_ = runs
    bare = fit(tmp_path, 10, probe=ProbeConfig(draw_matrices=False))
    for left, right in zip(whole.model.parameters(), bare.model.parameters(), strict=True):
        np.testing.assert_array_equal(left.detach(), right.detach())
    run, plain = open_run(whole.log_dir), open_run(bare.log_dir)
    np.testing.assert_array_equal(run["bif_within"], plain["bif_within"])


def test_the_verdict_is_the_same_in_summary_terminal_tensorboard_and_report(runs, tmp_path):
    whole, _, _, heard = runs
    run = open_run(whole.log_dir)
    summary = json.loads(run.attrs["summary"])
    verdict = summary["verdict"]
    assert set(verdict) == {
        *("positions", "signs", "heights", "landscape"),
        *("best", "flags", "probes", "probes_due", "lost", "text"),
    }
    want = judge(run, windows=len(summary["transitions"]), thresholds=PROBE.thresholds)
    assert verdict == json.loads(json.dumps(want.record()))
    assert summary["flags"] == {name: item["probes"] for name, item in verdict["flags"].items()}
    assert verdict["text"] in heard
    events = EventAccumulator(whole.log_dir)
    events.Reload()
    *earlier, page = events.Tensors("run/summary/text_summary")
    assert all(item.tensor_proto.string_val[0].decode().startswith("**Training goes on**") for item in earlier)
    assert page.tensor_proto.string_val[0].decode().startswith(verdict["text"])
    report, _ = write_run_report(tmp_path, run, tmp_path / "out")
    assert verdict["text"] in report.read_text()
    # Five draws for each of three chains are few: the remedies are told wherever the verdict is.
    assert verdict["flags"]
    assert all(flag["remedy"] in verdict["text"] for flag in verdict["flags"].values())
