"""``lr: auto`` in runs with growing curvature, compared with the closed form of a quadratic of known curvature."""

import json
import logging
import re
import time
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stagewise import InfluenceCallback, ProbeConfig, ProbeSchedule, SGLDConfig, open_run
from stagewise.calibration.landscape import Landscape
from stagewise.calibration.rules import two_digits
from stagewise.runs.words import about

pytestmark = [pytest.mark.whole_probes(draw_matrices=False), pytest.mark.filterwarnings("ignore")]

NBETA, LOCALIZATION, DIM = 10.0, 10.0, 3
AUTO = SGLDConfig(nbeta=NBETA, localization=LOCALIZATION, num_chains=8, num_draws=50, batch_size=16, drift="plain")
SHORT = replace(AUTO, num_chains=3, num_draws=6)
SAVED = ProbeConfig(save_trace=True, check_curvature=True)
EVERY_10 = ProbeSchedule(every_n_steps=10)


class Steepens(pl.LightningModule):
    """Loss k/2 |w|^2 with the curvature k of a training step, at its minimum; the same for all samples but a shift."""

    def __init__(self, early=1.0, late=8.0, turn=25):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(DIM))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.early, self.late, self.turn = early, late, turn

    @property
    def curvature(self):
        return self.late if int(self.steps) >= self.turn else self.early

    def per_sample_loss(self, batch):
        return 0.5 * self.curvature * self.weight.square().sum() + batch[0][:, 0]

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self.per_sample_loss(batch).mean() * 0 + self.weight.sum() * 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def data():
    return DataLoader(TensorDataset(torch.linspace(0, 1, 16)[:, None]), 16)


def train(folder, sgld=AUTO, *, module=None, max_steps=40, schedule=EVERY_10, probe=SAVED, ckpt_path=None, saved=()):
    callback = InfluenceCallback(schedule, sgld, probe)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[callback, *saved],
        default_root_dir=folder,
        enable_checkpointing=bool(saved),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Steepens() if module is None else module
    trainer.fit(module, data(), ckpt_path=ckpt_path, weights_only=True)
    return open_run(trainer.log_dir, trace=probe.save_trace), callback


def variance(run, step):
    """Returns the posterior variance of a weight and its error: the mean of |w - w*|^2 over draws and weights."""
    by_chain = (run["distance"].sel(step=step).values ** 2).mean(axis=1) / DIM
    return by_chain.mean(), by_chain.std(ddof=1) / np.sqrt(len(by_chain))


def exact(curvature):
    return 1 / (NBETA * curvature + LOCALIZATION)


@pytest.mark.parametrize("integrator", ["leimkuhler_matthews", "euler"])
def test_draws_late_in_the_run_have_the_variance_of_the_posterior(tmp_path, integrator):
    run, _ = train(tmp_path, replace(AUTO, integrator=integrator))
    early, late = run["lr"].sel(step=[20, 30]).values
    aim = {"leimkuhler_matthews": 2.5, "euler": 0.3}[integrator]
    assert early == two_digits(aim / (2 * NBETA + LOCALIZATION), up=False)
    assert late == two_digits(aim / (2 * 8 * NBETA + LOCALIZATION), up=False)
    for step, curvature in ((20, 1.0), (40, 8.0)):
        found, error = variance(run, step)
        reach = float(run["lr"].sel(step=step)) * (NBETA * curvature + LOCALIZATION)
        bias = 1 / (1 - reach / 4) if integrator == "euler" else 1.0
        assert abs(found - exact(curvature) * bias) < 3.5 * error
        assert error < 0.15 * found
        assert float(run["lr_curvature"].sel(step=step)) == pytest.approx(reach, rel=0.02)
    assert "unstable" not in " ".join(run["flag_names"].values)
    # Between step 20 and 30, across the change: the mean loss of a weight is k/2 times its variance.
    if integrator == "leimkuhler_matthews":
        change = DIM / 2 * (8.0 * exact(8.0) - exact(1.0))
        shift, error = (run[name].sel(step=30).values for name in ("shift", "shift_se"))
        assert np.all(np.abs(shift - change) < 3.5 * error)
        assert np.all(error < 0.3 * change)


def test_without_lowering_the_draws_miss_the_posterior_and_the_probe_is_flagged(tmp_path):
    early = 2.5 / (2 * NBETA + LOCALIZATION)
    run, _ = train(
        tmp_path,
        replace(AUTO, lr=early, num_draws=10, num_steps_bw_draws=1, max_loss_rise=1e6),
        module=Steepens(late=4.0),
    )
    assert (run["lr"] == early).all()
    assert not run["chains_dropped"].any()
    found, _ = variance(run, 40)
    assert found > 3 * exact(4.0)
    # The curvature was last measured at step 30, three times the first.
    assert run["lr_curvature"].values == pytest.approx([early * 20, early * 20, early * 50, early * 50], rel=0.02)
    flagged = ["unstable" in str(names) for names in run["flag_names"].values]
    assert flagged == [False, False, True, True]
    assert run["equilibrated"].values.tolist()[2:] == [0, 0]
    summary = json.loads(run.attrs["summary"])
    assert summary["flags"]["unstable"] == 2
    assert summary["verdict"]["best"]["setting"] == "sgld.lr"


def test_lowering_is_logged_in_one_line_and_shown_in_probes_reports_and_summary(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run, callback = train(tmp_path, SHORT, probe=replace(SAVED, save_trace=False), module=Steepens(late=4.0))
    (line,) = [record.getMessage() for record in caplog.records if "is lowered" in record.getMessage()]
    early, late = run["lr"].sel(step=[20, 30]).values
    assert line.startswith(
        f"stagewise: lr is lowered from {early:g} to {late:g} from step 30 on (num_burnin_steps 5 to "
    )
    assert "since step 20, and lr x curvature would be 4.15 (stable up to 4); nbeta and localization stay" in line
    assert callback.sgld.lr == late
    summary = json.loads(run.attrs["summary"])
    assert summary["lr"] == run.attrs["lr"] == run.attrs["sgld"]["lr"] == late
    assert summary["changes"] == [{"step": 30, "setting": "sgld.lr", "before": early, "now": late}]
    assert summary["settings_findings"] == []
    words = f"The step size lr was lowered as the curvature grew: {early:.2g} at first, {late:.2g} from step 30 on"
    assert words in about(run, summary)
    assert run["reference_step"].sel(step=30) == 20


def test_time_of_measuring_the_curvature_counts_as_overhead_and_is_listed_separately(tmp_path, monkeypatch, caplog):
    measure = Landscape.measure

    def slowly(*given, **named):
        time.sleep(0.4)
        return measure(*given, **named)

    monkeypatch.setattr(Landscape, "measure", slowly)
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        run, _ = train(tmp_path, SHORT, probe=replace(SAVED, save_trace=False), max_steps=20)
    (line,) = [message for message in caplog.messages if "to measure the curvature" in message]
    whole, chains, looks, rest = map(float, re.findall(r"([\d.]+) s\b", line)[:4])
    assert whole == pytest.approx(chains + looks + rest)
    assert chains == pytest.approx(float(run["seconds"].sum()), abs=0.1)
    assert looks >= 0.8  # two looks of .4 s at least, rounded
    summary = json.loads(run.attrs["summary"])
    # At steps 10 and 20; the probes themselves are not in it.
    assert summary["probe_seconds"] - run["seconds"].values.sum() > 0.8
    assert summary["overhead"] == summary["probe_seconds"] / summary["training_seconds"]


def test_given_numbers_of_steps_are_kept(tmp_path):
    run, callback = train(tmp_path, replace(SHORT, num_burnin_steps=7, num_steps_bw_draws=2), module=Steepens(late=4.0))
    assert run["lr"].values[-1] < run["lr"].values[0]
    assert (callback.sgld.num_burnin_steps, callback.sgld.num_steps_bw_draws) == (7, 2)


def test_lr_is_never_raised_again(tmp_path):
    class Bump(Steepens):
        @property
        def curvature(self):
            return 8.0 if 25 <= int(self.steps) < 35 else 0.5

    # The curvature is looked at a factor of two apart at the most: at step 60 at the latest.
    run, _ = train(tmp_path, SHORT, module=Bump(), max_steps=60)
    found = run["lr"].values
    assert found[0] > found[2]
    assert (found[2:] == found[2]).all()


def test_a_numeric_lr_or_a_disabled_check_changes_nothing(tmp_path):
    for name, sgld, check in (("number", replace(SHORT, lr=0.02), True), ("off", SHORT, False)):
        probe = ProbeConfig(check_curvature=check)
        run, _ = train(tmp_path / name, sgld, probe=probe, module=Steepens(late=4.0), max_steps=30)
        assert len(set(run["lr"].values)) == 1
    assert "unstable" not in str(run["flag_names"].values[-1])  # never measured again


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    """Resumes from a checkpoint before the change, and from one after it; compares bit for bit."""
    saved = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=11, save_top_k=-1)
    names = ["loss", "lr", "lr_curvature", "group_bif", "signal"]
    whole, _ = train(tmp_path / "whole", SHORT, saved=[saved], max_steps=45)
    assert len(set(whole["lr"].values)) == 2
    for at in (22, 33):
        (path,) = (tmp_path / "saved").glob(f"*step={at}.ckpt")
        again = [ModelCheckpoint(tmp_path / f"again{at}")]
        run, _ = train(tmp_path / str(at), SHORT, ckpt_path=path, saved=again, max_steps=45)
        assert run["step"].values.tolist() == whole["step"].values.tolist()
        for name in names:
            assert np.array_equal(run[name].values, whole[name].values, equal_nan=True), (at, name)
        changes = [json.loads(found.attrs["summary"])["changes"] for found in (run, whole)]
        assert changes[0] == changes[1] != []
