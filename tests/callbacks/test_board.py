"""TensorBoard display of a run in progress, finished and resumed."""

import io
from collections import Counter

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata

from stagewise import (
    ConstantFactor,
    InfluenceCallback,
    InterventionCallback,
    ProbeConfig,
    ProbeSchedule,
    ReweightedLoader,
    Spans,
)
from stagewise.callbacks.board import arm_words, schedule_words
from stagewise.loading.loader import ResumableLoader
from stagewise.probes.schedule import LogSpaced
from stagewise.reporting import tags
from stagewise.runs import probe_files
from tests.callbacks.runs import EVERY_2, SGLD, Regression, regression_data

pytestmark = pytest.mark.filterwarnings("ignore")

TEN = {f"g{row}": torch.arange(64) % 10 == row for row in range(10)}


class WithHparams(Regression):
    def __init__(self, width=7):
        super().__init__()
        self.save_hyperparameters()


def fit(folder, max_steps, *, groups=None, probe=None, module=Regression, ckpt_path=None, callbacks=(), loader=None,
        schedule=EVERY_2, enable_checkpointing=False, **logger):  # fmt: skip
    pl.seed_everything(1, verbose=False)
    callback = InfluenceCallback(schedule, SGLD, probe or ProbeConfig(), groups=groups)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=-1,
        callbacks=[callback, *callbacks],
        logger=pl.loggers.TensorBoardLogger(folder, name="", version="", **logger),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=enable_checkpointing,
    )
    trainer.fit(
        module(), loader or ResumableLoader(regression_data(), 8, seed=3), ckpt_path=ckpt_path, weights_only=True
    )
    return trainer, callback


def events_of(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0}).Reload()


def cards(events):
    found = events.Tensors("run/summary/text_summary")
    return [(tensor.step, tensor.tensor_proto.string_val[0].decode()) for tensor in found]


def test_ten_groups_have_sixty_tags_and_all_values_can_be_monitored(tmp_path):
    trainer, _ = fit(tmp_path, 6, groups=TEN, probe=ProbeConfig(control_every=1))
    events = events_of(tmp_path)
    own = [tag for tag in events.Tags()["scalars"] if tag not in ("epoch", "hp_metric")]
    assert 45 <= len(own) <= 60
    assert "influence/within/g0~g0" in own
    assert "influence/total/g0~g1" in trainer.callback_metrics
    # Every curve goes from the first probe that can have it to the last one.
    for tag in own:
        if tag.startswith("influence/within/") or tag.startswith("influence/loss/"):
            assert [scalar.step for scalar in events.Scalars(tag)] == [2, 4, 6], tag
    (tensor,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    lines = [line for place in layout.category for chart in place.chart for line in chart.multiline.tag]
    assert {line.strip("^$").replace("\\", "") for line in lines} <= set(own)
    assert [place.title for place in layout.category] == ["influence within phases", "transitions"]


def test_a_resumed_run_has_the_same_curves_as_an_uninterrupted_one(tmp_path):
    fit(tmp_path / "whole", 8, groups=TEN)
    save = pl.callbacks.ModelCheckpoint(tmp_path, "four", every_n_train_steps=4)
    fit(tmp_path / "first", 4, groups=TEN, callbacks=[save], enable_checkpointing=True)
    fit(tmp_path / "second", 8, groups=TEN, ckpt_path=tmp_path / "four.ckpt")
    times = ("seconds", "overhead")

    def curves(folder):
        events = events_of(folder)
        return {
            tag: {scalar.step: scalar.value for scalar in events.Scalars(tag)}
            for tag in events.Tags()["scalars"]
            if not tag.endswith(times)
        }

    want, before, after = (curves(tmp_path / name) for name in ("whole", "first", "second"))
    assert want.keys() == after.keys()
    for tag in want:
        if tag in (tags.NUM_WINDOWS, tags.FIRST_PEAK, tags.FLAGGED_SHARE, tags.IN_WINDOW):
            assert after[tag] == want[tag], tag
        elif tag not in ("epoch", "hp_metric"):
            assert before.get(tag, {}) | after[tag] == want[tag], tag


@pytest.mark.drawn
def test_card_and_figures_are_updated_during_the_run(tmp_path):
    fit(tmp_path, 5, probe=ProbeConfig(draw_matrices=True), schedule=ProbeSchedule(every_n_steps=1))
    events = events_of(tmp_path)
    found = cards(events)
    # A quarter of the step apart, then the end.
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 5]
    assert all("**Training goes on**" in text for _, text in found[:-1])
    assert "1 probe so far, the last at step 1" in found[0][1]
    assert "What can be read off these curves" in found[0][1]
    assert "Training goes on" not in found[-1][1]
    for tag in ("00_overview", "01_curves/influence_within"):
        assert [image.step for image in events.Images(tag)] == [4, 5, 5], tag
    for tag in (
        "01_curves/influence_within_and_gradients",
        "01_curves/learning_coefficient",
        "influence/classes/within",
    ):
        assert [image.step for image in events.Images(tag)] == [5], tag
    early, late = (imread(io.BytesIO(events.Images("00_overview")[row].encoded_image_string)) for row in (0, -1))
    assert early.shape != late.shape or np.abs(early - late).max() > 0.5


def test_the_card_is_written_without_figures(tmp_path):
    fit(tmp_path, 4, probe=ProbeConfig(draw_matrices=False))
    events = events_of(tmp_path)
    assert len(cards(events)) == 3
    assert not [tag for tag in events.Tags()["images"] if tag.startswith("0")]


def test_the_card_reads_each_probe_once_over_all_updates(tmp_path, monkeypatch):
    read, read_content = Counter(), probe_files.read_content

    def counted(path, *given):
        read[path.name] += 1
        return read_content(path, *given)

    monkeypatch.setattr(probe_files, "read_content", counted)
    fit(tmp_path, 5, schedule=ProbeSchedule(every_n_steps=1))
    assert len(cards(events_of(tmp_path))) == 6
    # Once for the card, and once at the end, with more variables.
    assert read == {f"step{step}.zip": 2 for step in range(1, 6)}


def hparams_of(folder):
    content = events_of(folder).PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    values = {name: item.string_value or item.number_value for name, item in start.hparams.items()}
    return values, [metric_info.name.tag for metric_info in experiment.metric_infos]


def test_settings_and_outcomes_are_hyperparameters_of_the_run_itself(tmp_path):
    groups = {"few": torch.arange(64) < 20, "many": torch.arange(64) >= 20}
    loader = ReweightedLoader(regression_data(), {"even": torch.arange(80) % 2 == 0}, 8)
    arm = InterventionCallback(ConstantFactor({"even": 0.5}), Spans([(2, 4)]))
    fit(tmp_path, 6, groups=groups, module=WithHparams, callbacks=[arm], loader=loader, default_hp_metric=False)
    values, outcomes = hparams_of(tmp_path)
    assert values["lr"] == 1e-3
    assert values["sgld/num_chains"] == 3
    assert values["schedule"] == "every 2 steps"
    assert values["training/max_steps"] == 6
    assert values["global_seed"] == 1
    assert values["training/width"] == 7
    # TensorBoard shows the first five by name.
    assert sorted(values)[:5] == ["arm", "global_seed", "localization", "lr", "nbeta"]
    assert values["arm"].startswith("even 0.5 by sampling in Spans(")
    assert outcomes[:3] == ["transition/windows", "transition/first_peak", "sampler/flagged_share"]
    assert outcomes[3:] == ["influence/loss/few", "influence/loss/many"]
    scalars = events_of(tmp_path).Tags()["scalars"]
    assert {"transition/windows", "sampler/flagged_share", "influence/loss/few"} <= set(scalars)
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "influence.zarr"]


def test_tags_of_other_callbacks_count_towards_the_limit(tmp_path):
    loader = ReweightedLoader(regression_data(), {f"kind{row}": torch.arange(80) % 10 == row for row in range(10)}, 8)
    arm = InterventionCallback(ConstantFactor({"kind0": 0.5}), Spans([(2, 4)]))
    fit(tmp_path, 6, groups=TEN, callbacks=[arm], loader=loader, probe=ProbeConfig(control_every=1))
    own = [tag for tag in events_of(tmp_path).Tags()["scalars"] if tag not in ("epoch", "hp_metric")]
    assert sum(tag.startswith("intervention/") for tag in own) == 11
    assert 45 <= len(own) <= 60


def test_custom_policies_are_shown_by_name():
    def other(names, *, window, step, influence):
        return {"even": 0.5}

    words = arm_words(InterventionCallback(other, Spans([(2, 4)])))
    assert "other" in words
    assert "Spans" in words


def test_hyperparameters_logged_by_lightning_are_kept_with_a_notice(tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, 4, module=WithHparams)
    values, outcomes = hparams_of(tmp_path)
    assert values == {"width": 7}
    assert outcomes == ["hp_metric"]
    assert "default_hp_metric=False" in caplog.text


def test_a_run_without_probes_has_no_outcome(tmp_path):
    fit(tmp_path, 4, schedule=ProbeSchedule(at_steps=[4], max_overhead=None))
    assert "transition/windows" in events_of(tmp_path).Tags()["scalars"]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (ProbeSchedule(), "every 50 steps"),
        (ProbeSchedule(every_n_steps=7), "every 7 steps"),
        (ProbeSchedule(at_steps=[0, 3, 9]), "at 3 steps, 0 to 9"),
        (ProbeSchedule(log_spaced=LogSpaced(80, 900, 30)), "30 log-spaced, 80 to 900"),
    ],
)
def test_schedules_are_described_in_a_few_words(schedule, words):
    assert schedule_words(schedule) == words
