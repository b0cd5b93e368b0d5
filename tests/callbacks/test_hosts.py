"""Callbacks in a Trainer of either package, lightning.pytorch or pytorch_lightning."""

import csv
import importlib
import subprocess
import sys

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from stagewise import (
    ConstantFactor,
    InductionCallback,
    InfluenceCallback,
    InputError,
    InterventionCallback,
    LogSpaced,
    ProbeConfig,
    ProbeSchedule,
    ReweightedLoader,
    Spans,
    open_run,
)
from stagewise.callbacks.hosts import HostCallback, is_a
from stagewise.callbacks.sharded_run import refuse_sharding
from stagewise.callbacks.trainer_facts import max_steps
from stagewise.loading.loader import ResumableLoader
from tests.callbacks.runs import EVERY_2, SGLD, regression_data

pytestmark = [pytest.mark.whole_probes(draw_matrices=False), pytest.mark.filterwarnings("ignore")]

HOSTS = {"lightning": lightning.pytorch, "pytorch_lightning": pytorch_lightning}
TIMES = ("seconds", "overhead")
UNCHECKED = ProbeConfig(draw_matrices=False, check_curvature=False)


def regression(host, dropout=0.2):
    class Regression(host.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(dropout), nn.Linear(4, 1))
            self.history = []

        def per_sample_loss(self, batch):
            return F.mse_loss(self.layer(batch[0]), batch[1], reduction="none").mean(dim=1)

        def training_step(self, batch, batch_idx):
            loss = self.per_sample_loss(batch).mean()
            self.log("train/loss", loss)
            self.history.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.02)

    return Regression()


def language(host):
    class Language(host.LightningModule):
        def __init__(self):
            super().__init__()
            size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
            config = GPTNeoXConfig(vocab_size=40, max_position_embeddings=32, attn_implementation="eager", **size)
            self.model = GPTNeoXForCausalLM(config)
            self.history = []

        def training_step(self, batch, batch_idx):
            loss = self.model(input_ids=batch, labels=batch).loss
            self.history.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    return Language()


def fit(host, folder, callbacks, module=regression, loader=None, **settings):
    """Runs the trainer with both loggers that write files."""
    host.seed_everything(1, verbose=False)
    loggers = importlib.import_module(f"{host.__name__}.loggers")
    trainer = host.Trainer(
        accelerator="cpu",
        max_steps=6,
        callbacks=callbacks,
        logger=[loggers.TensorBoardLogger(folder, "tb"), loggers.CSVLogger(folder, "csv")],
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    made = module(host)
    trainer.fit(made, DataLoader(regression_data(), 8, shuffle=True) if loader is None else loader)
    return made, trainer


def bits(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal_runs(left, right):
    assert left.history == right.history
    assert len(left.history) >= 6
    other = bits(right)
    for name, value in bits(left).items():
        assert torch.equal(value, other[name]), name


def tensorboard(folder):
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    scalars = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in tags["scalars"]
        if not any(time in tag for time in TIMES)
    }
    return scalars, sorted(tags["images"]), sorted(tags["tensors"])


def csv_rows(folder):
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not any(time in name for time in TIMES)} for row in rows]


def relative_files(folder):
    """Returns the names of all files except event files, whose names contain the time."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "events.out" not in path.name
    )


def callbacks_of(kind):
    if kind == "influence":
        return [InfluenceCallback(EVERY_2, SGLD)], regression, None
    if kind == "intervention":
        loader = ReweightedLoader(regression_data(), {"even": torch.arange(80) % 2 == 0}, 8)
        return [InterventionCallback(ConstantFactor({"even": 1.0}), Spans([(2, 4)]))], regression, loader
    ids = torch.randint(0, 40, (48, 16), generator=torch.Generator().manual_seed(0))
    return [InductionCallback(every_n_steps=2, num_sequences=4, segment_length=4)], language, DataLoader(ids, 8)


@pytest.mark.whole_probes
@pytest.mark.parametrize("kind", [pytest.param("influence", marks=pytest.mark.slow), "intervention", "induction"])
def test_both_hosts_train_as_without_callbacks_and_write_the_same(tmp_path, kind):
    written = {}
    for name, host in HOSTS.items():
        _, module, loader = callbacks_of(kind)
        alone, _ = fit(host, tmp_path / name / "alone", [], module, loader)
        callbacks, module, loader = callbacks_of(kind)
        folder = tmp_path / name / "watched"
        watched, trainer = fit(host, folder, callbacks, module, loader)
        assert_equal_runs(alone, watched)
        run = open_run(trainer.log_dir) if kind == "influence" else None
        written[name] = (
            bits(watched),
            tensorboard(folder / "tb" / "version_0"),
            csv_rows(folder / "csv" / "version_0"),
            relative_files(folder),
            run,
        )
    one, two = written.values()
    assert all(torch.equal(value, two[0][name]) for name, value in one[0].items())
    assert one[1] == two[1]
    assert one[2] == two[2]
    assert one[3] == two[3]
    scalars, images, texts = one[1]
    expected = {"influence": "influence/within/all~all", "intervention": "intervention/active"}
    assert expected.get(kind, "induction/prefix_matching") in scalars
    assert expected.get(kind, "induction/prefix_matching") in one[2][-1]
    if kind == "influence":
        assert "influence/matrix/within" in images
        assert any("run/summary" in text for text in texts)
        np.testing.assert_array_equal(one[4]["bif_within"].values, two[4]["bif_within"].values)
        assert any(name.endswith("summary.json") for name in one[3])


@pytest.mark.parametrize("name", HOSTS)
def test_a_single_callback_needs_no_list(tmp_path, name):
    callback = InfluenceCallback(EVERY_2, SGLD, UNCHECKED)
    assert isinstance(callback, HOSTS[name].Callback)
    assert isinstance(callback, HostCallback)
    fit(HOSTS[name], tmp_path, callback)
    assert open_run(callback.folder)["step"].values.tolist() == [2, 4, 6]


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTS)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, name):
    callbacks = importlib.import_module(f"{HOSTS[name].__name__}.callbacks")

    def go(folder, steps, path=None):
        host = HOSTS[name]
        host.seed_everything(1, verbose=False)
        saver = callbacks.ModelCheckpoint(folder, "kept", every_n_train_steps=3)
        trainer = host.Trainer(
            accelerator="cpu",
            max_steps=steps,
            callbacks=[InfluenceCallback(EVERY_2, SGLD), saver],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(regression(host, dropout=0.0), ResumableLoader(regression_data(), 8), ckpt_path=path)
        return trainer

    go(tmp_path / "a", 3)
    path = tmp_path / "a" / "kept.ckpt"
    resumed, whole = (open_run(trainer.log_dir) for trainer in (go(tmp_path / "a", 6, path), go(tmp_path / "b", 6)))
    assert resumed["step"].values.tolist() == whole["step"].values.tolist() == [2, 4, 6]
    np.testing.assert_array_equal(resumed["anchor_loss"].values, whole["anchor_loss"].values)


@pytest.mark.parametrize("name", HOSTS)
def test_the_length_of_a_run_with_changing_accumulation_is_max_steps(tmp_path, name):
    callbacks = importlib.import_module(f"{HOSTS[name].__name__}.callbacks")
    seen = []

    class Ask(HostCallback):
        def on_train_start(self, trainer, pl_module):
            seen.append(max_steps(trainer))

    fit(HOSTS[name], tmp_path, [callbacks.GradientAccumulationScheduler({0: 1, 1: 2}), Ask()])
    assert seen == [6]
    loader = ReweightedLoader(regression_data(), {"even": torch.arange(80) % 2 == 0}, 8)
    accumulating = [callbacks.GradientAccumulationScheduler({0: 1, 1: 2})]
    with pytest.raises(InputError, match="GradientAccumulationScheduler"):
        fit(HOSTS[name], tmp_path / "b", [*accumulating, *callbacks_of("intervention")[0]], regression, loader)


@pytest.mark.parametrize("name", HOSTS)
def test_sharding_strategies_of_either_package_are_refused(name):
    strategies = importlib.import_module(f"{HOSTS[name].__name__}.strategies")

    class Facts:
        strategy = strategies.FSDPStrategy()

    with pytest.raises(InputError, match=r"FSDPStrategy, which shards the weights.*expected ModelParallelStrategy"):
        refuse_sharding(Facts())
    Facts.strategy = object.__new__(strategies.DeepSpeedStrategy)  # its package is not installed
    with pytest.raises(InputError, match="DeepSpeedStrategy, which shards the weights"):
        refuse_sharding(Facts())
    Facts.strategy = strategies.DDPStrategy()
    refuse_sharding(Facts())


@pytest.mark.parametrize("name", HOSTS)
def test_the_training_bar_of_either_package_is_found(tmp_path, name):
    callbacks = importlib.import_module(f"{HOSTS[name].__name__}.callbacks")

    class Bar(callbacks.TQDMProgressBar):
        told = ""

        def on_train_batch_start(self, *arguments):
            super().on_train_batch_start(*arguments)
            Bar.told = self.train_progress_bar.desc

    host = HOSTS[name]
    host.seed_everything(1, verbose=False)
    trainer = host.Trainer(
        accelerator="cpu",
        max_steps=6,
        callbacks=[InfluenceCallback(ProbeSchedule(log_spaced=LogSpaced(1, 4, 2)), SGLD, UNCHECKED), Bar()],
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(regression(host), DataLoader(regression_data(), 8))
    assert "2 probes" in Bar.told


def test_only_classes_of_lightning_match_by_name():
    class TensorBoardLogger:
        pass

    assert not is_a(TensorBoardLogger(), "TensorBoardLogger")
    assert not is_a(object(), "object", "Callback")
    assert is_a(InductionCallback(), "Callback")


@pytest.mark.slow
@pytest.mark.parametrize("first", ["lightning.pytorch", "pytorch_lightning"])
def test_the_log_remains_with_the_package_imported_first(first):
    words = (
        f"import {first}, stagewise; stagewise.InfluenceCallback; "
        "from lightning_utilities.core import rank_zero; print(rank_zero.log.name)"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{first}.utilities.rank_zero"


@pytest.mark.slow
def test_package_works_where_the_other_lightning_is_missing_or_broken():
    words = (
        "import sys; sys.modules['pytorch_lightning'] = None; import stagewise, lightning.pytorch as pl; "
        "print(isinstance(stagewise.InfluenceCallback(), pl.Callback))"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
