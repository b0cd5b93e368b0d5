"""Reports on unsuitable settings, and resolution of ``auto``, in real runs of the callback."""

import json
import logging
import re
import warnings
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

from stagewise import InfluenceCallback, InputError, ProbeConfig, ProbeSchedule, SGLDConfig, open_run
from stagewise.calibration.findings import Finding, Severity
from stagewise.calibration.landscape import Landscape
from stagewise.callbacks.settings_watch import MOST_FAILED_LOOKS, SettingsWatch
from stagewise.sampling.preconditioners.diagonal import RMSprop
from tests.quiet_trainer import quiet_trainer

pytestmark = pytest.mark.whole_probes(draw_matrices=False)

SOUND = SGLDConfig(
    lr=5e-4,
    nbeta=100,
    localization=200,
    num_chains=2,
    num_draws=6,
    num_burnin_steps=0,
    num_steps_bw_draws=1,
    batch_size=16,
    drift="plain",
    engine="sequential",
)
FIRST = ProbeSchedule(at_steps=[1])
CHECKED = ProbeConfig(check_curvature=True)


class DeepLinear(pl.LightningModule):
    """Two linear layers at the saddle near zero: lam_min is minus the largest singular value of the target."""

    def __init__(self, scale=1e-2, lr=1e-3, steepness=1.0):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(scale * torch.randn(4, 4, generator=generator))
        self.lr, self.steepness = lr, steepness

    def per_sample_loss(self, batch):
        return self.steepness * 0.5 * (self.body(batch[0]) - batch[1]).square().sum(dim=1)

    def training_step(self, batch, batch_idx):
        return self.per_sample_loss(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def data(num=64, scale=4.0):
    x = torch.eye(4).repeat(num // 4, 1)
    return TensorDataset(x, x @ torch.diag(scale * torch.tensor([1.0, 0.75, 0.5, 0.25])))


def train(folder, module, sgld, schedule=FIRST, *, max_steps=2, probe=CHECKED, ckpt_path=None, callbacks=(), **more):
    """Trains; returns the messages of the run, and its trainer."""
    told = []
    callback = InfluenceCallback(schedule, sgld, probe, **more)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[callback, *callbacks],
        default_root_dir=folder,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, DataLoader(data(), 16, shuffle=False), ckpt_path=ckpt_path, weights_only=True)
    told = [str(item.message) for item in caught if str(item.message).startswith("stagewise: ")]
    return told, trainer


def about_settings(told):
    """Returns the messages other than those about the chains themselves."""
    return [item for item in told if not any(words in item for words in ("dropped", "lost all", "flagged"))]


def test_sound_settings_cause_no_message(tmp_path):
    told, _ = train(tmp_path, DeepLinear(), SOUND)
    assert about_settings(told) == []


def test_weak_localization_at_a_saddle_is_reported(tmp_path):
    # Four samples in four: lam_min = -4 / 4.
    told, _ = train(tmp_path, DeepLinear(), replace(SOUND, localization=50))
    (text,) = about_settings(told)
    assert text.startswith("stagewise: localization 50 is too weak: at step 1 the most negative curvature is lam_min")
    assert "goes on training; set localization to 1.5e+02 or more, or nbeta to 33 or less." in text


def test_a_large_step_is_reported(tmp_path):
    told, _ = train(tmp_path, DeepLinear(), replace(SOUND, lr=0.018))
    (text,) = about_settings(told)
    assert "stagewise: lr 0.018 is too large: at step 1 lr x (nbeta x lam_max + localization)" in text
    assert "the step is unstable where lr x curvature exceeds 4; set lr to 0.0083 or less." in text


def test_large_nbeta_makes_a_harmless_step_unstable(tmp_path):
    """lr x localization alone is 3.2, which the check of the settings themselves accepts."""
    told, _ = train(tmp_path, DeepLinear(), replace(SOUND, nbeta=1e5, localization=1.6e5, lr=2e-5))
    (text,) = about_settings(told)
    assert "lr 2e-05 is too large: at step 1 lr x (nbeta x lam_max + localization) = 2e-05 x (100000 x 1" in text


def test_rmsprop_with_a_tiny_epsilon_at_a_converged_checkpoint_is_reported(tmp_path):
    settings = replace(SOUND, preconditioner=RMSprop(eps=1e-8), num_burnin_steps=10, lr=1e-4)
    module = DeepLinear(scale=0.3, lr=0.5)
    told, _ = train(tmp_path, module, settings, ProbeSchedule(at_steps=[400]), max_steps=400)
    texts = [text for text in about_settings(told) if "is too large" in text]
    assert len(texts) == 1
    assert "lr 0.0001 is too large: at step 400 the steepest direction of the preconditioned chain" in texts[0]
    assert "with eps 1e-08 the preconditioner 1 / (sqrt(v) + eps) has no ceiling" in texts[0]
    assert "set preconditioner.eps to 0.1, or lr to" in texts[0]


def test_the_usual_epsilon_at_the_same_checkpoint_causes_no_message(tmp_path):
    settings = replace(SOUND, preconditioner=RMSprop(eps=0.1), num_burnin_steps=10, lr=5e-5)
    module = DeepLinear(scale=0.3, lr=0.5)
    told, _ = train(tmp_path, module, settings, ProbeSchedule(at_steps=[400]), max_steps=400)
    assert about_settings(told) == []


def test_localization_that_hides_the_loss_is_reported(tmp_path):
    told, _ = train(tmp_path, DeepLinear(), replace(SOUND, localization=1e5, lr=2e-6))
    (text,) = about_settings(told)
    assert "localization 100000 hides the loss: nbeta x lam_max = 1" in text
    assert "which baseline/graddot shows without chains; set localization to 1.5e+02, or nbeta to" in text


def test_steps_too_small_to_move_are_reported(tmp_path):
    told, _ = train(tmp_path, DeepLinear(), replace(SOUND, lr=1e-8))
    (text,) = about_settings(told)
    assert "lr 1e-08 is too small" in text
    assert "a chain has 6" in text


def test_each_kind_is_reported_once_also_if_settings_become_unsuitable_later(tmp_path):
    """The curvature doubles as the net learns: from 4 at the saddle to 8 at the minimum."""
    module = DeepLinear(scale=0.01, lr=0.1, steepness=4.0)
    schedule = ProbeSchedule(at_steps=[1, 58, 59, 60])
    settings = replace(SOUND, nbeta=300, localization=1900, lr=9e-4)
    told, _ = train(tmp_path, module, settings, schedule, max_steps=60)
    (text,) = about_settings(told)
    assert text.startswith("stagewise: the sampler's settings are no longer suitable: lr 0.0009 is large: at step 58")


def test_the_check_can_be_disabled(tmp_path):
    told, _ = train(tmp_path, DeepLinear(), replace(SOUND, localization=50), probe=ProbeConfig(check_curvature=False))
    assert about_settings(told) == []


class Attends(DeepLinear):
    """Module with an attention kernel that has no second derivative."""

    def per_sample_loss(self, batch):
        query = self.body(batch[0])[:, None, None]
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            mixed = F.scaled_dot_product_attention(query, query, query)[:, 0, 0]
        return (mixed - batch[1]).square().sum(dim=1)


def test_a_loss_that_cannot_be_checked_is_noted_and_the_run_continues(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        told, trainer = train(tmp_path, Attends(), SOUND, ProbeSchedule(every_n_steps=1), max_steps=3)
    remarks = [record.getMessage() for record in caplog.records if "were not checked" in record.getMessage()]
    assert len(remarks) == 1
    assert "without second derivatives" in remarks[0]
    assert about_settings(told) == []
    assert open_run(trainer.log_dir)["step"].values.tolist() == [1, 2, 3]


AUTO = replace(SOUND, lr="auto", localization="auto", drift="auto", num_burnin_steps="auto", num_steps_bw_draws="auto")


def test_auto_is_resolved_at_the_first_probe_and_fixed(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        _, trainer = train(tmp_path, DeepLinear(lr=0.5, scale=0.1), AUTO, ProbeSchedule(every_n_steps=4), max_steps=12)
    summary = json.loads(open_run(trainer.log_dir).attrs["summary"])
    lr, localization = summary["lr"], summary["localization"]
    assert isinstance(lr, float)
    # lam_min is about -1, taken twice, and 1.5 as a margin.
    assert localization == pytest.approx(300, rel=0.1)
    assert open_run(trainer.log_dir).attrs["lr"] == lr
    assert summary["sgld"]["lr"] == lr
    (line,) = [record.getMessage() for record in caplog.records if "(to paste)" in record.getMessage()]
    (pasted,) = yaml.safe_load(re.search(r"sgld: \{.*\}", line).group()).values()
    assert (pasted["lr"], pasted["localization"], pasted["nbeta"]) == (lr, localization, 100)
    assert "auto" not in pasted.values()
    in_python = eval(re.search(r"SGLDConfig\([^)]*\)", line).group(), {"SGLDConfig": SGLDConfig})
    assert (in_python.lr, in_python.localization) == (lr, localization)
    assert "Curvature may grow later in the run, so it was taken 2 times as large" in line


def test_a_number_is_kept_if_other_settings_are_auto(tmp_path):
    _, trainer = train(tmp_path, DeepLinear(), replace(AUTO, localization=700))
    attributes = open_run(trainer.log_dir).attrs
    assert attributes["localization"] == 700
    # 2.5 / (2 x 100 x 1 + 700) = 2.8e-3
    assert attributes["lr"] == pytest.approx(2.8e-3, rel=0.05)


def test_auto_with_rmsprop_is_resolved_from_the_preconditioned_curvature(tmp_path):
    sgld = replace(AUTO, preconditioner=RMSprop(eps=0.1), num_burnin_steps=20)
    told, trainer = train(tmp_path, DeepLinear(), sgld)
    plain = open_run(train(tmp_path / "plain", DeepLinear(), AUTO)[1].log_dir).attrs
    attributes = open_run(trainer.log_dir).attrs
    assert attributes["localization"] == plain["localization"]
    # P is at most 1 / eps = 10; 5 % is the tolerance.
    assert plain["lr"] / 10.5 <= attributes["lr"] < plain["lr"]
    assert about_settings(told) == []


def test_auto_that_cannot_be_resolved_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"got lr='auto'.*could not be measured.*; expected numbers"):
        train(tmp_path, Attends(), AUTO, on_error="raise")
    # After the first step a run is not ended for it.
    told, _ = train(tmp_path / "on", Attends(), AUTO)
    assert any("a probe failed at step 1: InputError: got lr='auto'" in str(item) for item in told)


def large():
    module = DeepLinear()
    module.unused = nn.Parameter(torch.zeros(100_000))
    return module


def test_too_little_memory_is_noted_by_a_check_and_refused_for_auto(tmp_path, caplog):
    # Six copies of 100,032 weights take 2.2 MiB; two draws of two losses take next to nothing.
    small = ProbeConfig(memory_limit_gib=1e-3)
    few = {"observed": data(4)[:2]}
    with caplog.at_level(logging.INFO):
        train(tmp_path, large(), replace(SOUND, num_draws=2, num_chains=1), probe=small, **few)
    assert any("memory_limit_gib" in record.getMessage() for record in caplog.records)
    auto = replace(AUTO, num_draws=2, num_chains=1)
    with pytest.raises(InputError, match="memory_limit_gib"):
        train(tmp_path / "auto", large(), auto, probe=small, on_error="raise", **few)


def failing(monkeypatch, fails, error):
    """Makes measurements fail at some steps; returns the list of the steps with a measurement."""
    looks = []
    measure = Landscape.measure

    def looked(self, module, config, step=0, **more):
        looks.append(step)
        if fails(step):
            raise error
        return measure(self, module, config, step, **more)

    monkeypatch.setattr(Landscape, "measure", looked)
    return looks


def test_failed_measurements_keep_resolved_settings_and_stop_after_three(tmp_path, monkeypatch):
    looks = failing(monkeypatch, lambda step: step > 2, FloatingPointError("lost in the dark"))
    steps = [2, 4, 6, 8, 10, 14, 18, 26, 34, 40]  # the curvature is looked at a factor of two apart at the most
    told, trainer = train(tmp_path, DeepLinear(), AUTO, ProbeSchedule(at_steps=steps), max_steps=40)
    warned = [text for text in told if "could not be measured" in text]
    assert len(warned) == MOST_FAILED_LOOKS == len(set(looks) - {2})
    assert all("FloatingPointError: lost in the dark" in text for text in warned)
    assert ["no more looks" in text for text in warned] == [False, False, True]
    found = open_run(trainer.log_dir)
    assert found["step"].values.tolist() == steps
    assert json.loads(found.attrs["summary"])["lr"] == found.attrs["lr"] != "auto"


def test_a_single_failed_measurement_is_followed_by_others(tmp_path, monkeypatch):
    """The settings are unsuitable, which the measurement after the failed one reports."""
    looks = failing(monkeypatch, lambda step: step == 1, RuntimeError())
    told, _ = train(tmp_path, DeepLinear(), replace(SOUND, lr=0.018), ProbeSchedule(every_n_steps=1), max_steps=4)
    assert sorted(set(looks)) == [1, 3]
    failed, found = about_settings(told)
    assert "at step 1 (RuntimeError)" in failed
    assert "lr 0.018 is too large: at step 3" in found


def test_failed_measurements_are_counted_over_a_resume(tmp_path, monkeypatch):
    def run(folder, max_steps, **more):
        looks = failing(monkeypatch, lambda step: True, FloatingPointError("dark"))
        # Without the failures there would be a look at step 27, too.
        schedule = ProbeSchedule(at_steps=[1, 2, 3, 4, 5, 8, 9, 26, 27, 30])
        train(tmp_path / folder, DeepLinear(), SOUND, schedule, max_steps=max_steps, **more)
        monkeypatch.undo()
        return sorted(set(looks))

    whole = run("whole", 30)
    first = run("parts", 4, callbacks=resumable(tmp_path))
    (checkpoint,) = (tmp_path / "checkpoints").glob("*step=4.ckpt")
    assert first + run("parts", 30, ckpt_path=checkpoint, callbacks=resumable(tmp_path)) == whole == [1, 3, 9]
    state = SettingsWatch(SOUND, CHECKED).state_dict()
    del state["failed_looks"]
    SettingsWatch(SOUND, CHECKED).load_state_dict(state)  # of an older version


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_out_of_memory_in_the_first_measurement_is_reported_and_training_continues(tmp_path, monkeypatch, error):
    looks = failing(monkeypatch, lambda step: step == 0, error)
    told, trainer = train(tmp_path, DeepLinear(), AUTO, ProbeSchedule(at_steps=[0, 2]), max_steps=2)
    assert looks.count(0) == 2  # again with smaller chunks
    assert any("a probe ran out of memory at step 0" in text and "probe.chunk_size" in text for text in told)
    assert open_run(trainer.log_dir)["step"].values.tolist() == [2]
    told, trainer = train(tmp_path / "checked", DeepLinear(), SOUND, ProbeSchedule(at_steps=[0, 2]), max_steps=2)
    assert open_run(trainer.log_dir)["step"].values.tolist() == [0, 2]


def test_auto_settings_without_curvature_are_resolved_with_the_check_disabled(tmp_path):
    partly = replace(SOUND, drift="auto", num_burnin_steps="auto", num_steps_bw_draws="auto")
    _, trainer = train(tmp_path, DeepLinear(), partly, probe=ProbeConfig(check_curvature=False))
    settled = json.loads(open_run(trainer.log_dir).attrs["summary"])["sgld"]
    # lr x localization is .1: .95^45 = .1.
    assert (settled["drift"], settled["num_burnin_steps"], settled["num_steps_bw_draws"]) == ("control_variate", 45, 1)


def test_a_second_run_of_a_callback_resolves_auto_again(tmp_path):
    callback = InfluenceCallback(FIRST, AUTO)
    found = []
    for number, scale in enumerate((1.0, 3.0)):
        trainer = quiet_trainer(max_steps=2, callbacks=[callback], default_root_dir=tmp_path / str(number))  # fmt: skip
        trainer.fit(DeepLinear(steepness=scale), DataLoader(data(), 16))
        found.append(callback.sgld.localization)
    assert found[1] == pytest.approx(3 * found[0], rel=0.1)


def resumable(folder):
    return [ModelCheckpoint(folder / "checkpoints", every_n_train_steps=4, save_top_k=-1)]


def test_resolved_settings_survive_a_resume(tmp_path):
    schedule = ProbeSchedule(every_n_steps=2)

    def run(max_steps, sgld=AUTO, **more):
        return train(
            tmp_path, DeepLinear(lr=0.2), sgld, schedule, max_steps=max_steps, callbacks=resumable(tmp_path), **more
        )[1]

    first = run(4)
    (checkpoint,) = (tmp_path / "checkpoints").glob("*step=4.ckpt")
    numbers = open_run(first.log_dir).attrs
    second = run(8, ckpt_path=checkpoint)
    resumed = open_run(second.log_dir)
    assert resumed["step"].values.tolist() == [2, 4, 6, 8]
    assert (resumed.attrs["lr"], resumed.attrs["localization"]) == (numbers["lr"], numbers["localization"])
    whole = [json.loads(item["summary"])["sgld"] for item in (numbers, resumed.attrs)]
    assert whole[0] == whole[1]
    assert "auto" not in [whole[1][name] for name in ("lr", "localization", "drift", "num_burnin_steps")]
    # The same numbers, written out, are the same settings; others are not.
    spelt = replace(AUTO, lr=numbers["lr"], localization=numbers["localization"])
    run(6, sgld=spelt, ckpt_path=checkpoint)
    with pytest.raises(InputError, match="got sgld SGLDConfig"):
        run(6, sgld=replace(spelt, lr=numbers["lr"] / 2), ckpt_path=checkpoint)


@pytest.mark.parametrize("sgld", [SOUND, AUTO], ids=["checked", "auto"])
def test_training_is_unchanged_bit_for_bit(tmp_path, sgld):
    class Dropped(DeepLinear):
        def __init__(self):
            super().__init__(scale=0.5, lr=0.05)
            self.body.append(nn.Dropout(0.5))
            self.body.append(nn.BatchNorm1d(4))

    def weights(enabled):
        pl.seed_everything(3, verbose=False)
        module = Dropped()
        schedule = ProbeSchedule(at_steps=[1, 2, 5, 8])
        train(tmp_path / str(enabled), module, sgld, schedule, max_steps=8, enabled=enabled)
        return {
            **module.state_dict(),
            "random": torch.get_rng_state(),
            "numpy": torch.from_numpy(np.random.get_state()[1]),
        }

    with_probes, without = weights(True), weights(False)
    assert all(torch.equal(value, without[name]) for name, value in with_probes.items())


def test_findings_are_kept_for_the_verdict_over_a_resume(tmp_path):
    def summary(trainer):
        return json.loads((Path(trainer.log_dir) / "summary.json").read_text())

    told, trainer = train(tmp_path, DeepLinear(), replace(SOUND, lr=0.018))
    (text,) = about_settings(told)
    (kept,) = summary(trainer)["settings_findings"]
    assert (kept["name"], kept["setting"], kept["value"], kept["now"]) == ("unstable", "lr", 0.0083, 0.018)
    assert text.endswith(kept["text"])
    best = summary(trainer)["verdict"]["best"]
    assert (best["setting"], best["value"], best["now"]) == ("sgld.lr", 0.0083, 0.018)
    saved = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=1, save_top_k=-1)
    train(tmp_path / "first", DeepLinear(), replace(SOUND, lr=0.018), callbacks=[saved])
    (path,) = (tmp_path / "saved").glob("*step=1.ckpt")
    told, resumed = train(
        tmp_path / "second", DeepLinear(), replace(SOUND, lr=0.018), ckpt_path=path, callbacks=[ModelCheckpoint()]
    )
    assert about_settings(told) == []
    assert summary(resumed)["settings_findings"] == [kept]
    assert summary(resumed)["verdict"]["best"] == best


def test_the_strictest_finding_of_a_kind_is_kept_and_remarks_are_not():
    watch = SettingsWatch(SOUND, CHECKED)
    for value, step in ((0.004, 1), (0.001, 3), (0.002, 9)):
        watch._keep(Finding(Severity.refuse, "unstable", "text", step, "lr", value, 0.01))
    for value, step in ((5.0, 1), (8.0, 3), (6.0, 9)):
        watch._keep(Finding(Severity.warn, "thin", "text", step, "localization", value, 4.0))
    watch._keep(Finding(Severity.inform, "slow", "text", 1))
    assert [(found["name"], found["value"], found["step"]) for found in watch.findings] == [
        ("unstable", 0.001, 3),
        ("thin", 8.0, 3),
    ]
    state = watch.state_dict()
    other = SettingsWatch(SOUND, CHECKED)
    other.load_state_dict(json.loads(json.dumps(state)))
    assert other.findings == watch.findings
    del state["findings"]
    other.load_state_dict(state)  # of an older version
    assert other.findings == []
