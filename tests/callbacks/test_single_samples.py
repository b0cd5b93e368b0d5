"""Run in which every observed sample is its own group."""

import csv
import warnings
from dataclasses import fields

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from stagewise import InfluenceCallback, InputError, ProbeConfig, open_run
from stagewise.probes.flags import Thresholds
from tests.callbacks.runs import EVERY_2, SGLD, Regression, X, Y, fit, regression_data

NAMES = ["dog", "sparrow", "trout", "oak"]
GROUPS = {name: torch.arange(len(NAMES)) == row for row, name in enumerate(NAMES)}
OFF_DIAGONAL = ~np.eye(len(NAMES), dtype=bool)
OFF = Thresholds(**{field.name: None for field in fields(Thresholds)})
"""Few draws: whether z-scores are shown is another matter."""
VARIABLES = ("group_bif", "group_bif_se", "group_bif_z", "group_bif_correlation", "graddot", "tracin")


def train(folder, groups):
    """Trains with a TensorBoard and a CSV logger; returns their folders."""
    loggers = [pl.loggers.TensorBoardLogger(folder, "tensorboard"), pl.loggers.CSVLogger(folder, "csv")]
    callback = InfluenceCallback(
        EVERY_2,
        SGLD,
        ProbeConfig(damped_influence=True, thresholds=OFF, sample_matrices="all"),
        observed=(X[:4], Y[:4]),
        groups=groups,
    )
    torch.manual_seed(0)  # the weights are drawn before ``fit`` seeds
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(folder, Regression(), regression_data(), callback, logger=loggers, log_every_n_steps=1)
    return loggers[0].log_dir, loggers[1].log_dir, [str(item.message) for item in caught]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(tmp_path_factory.mktemp("single"), GROUPS)


def test_group_influence_is_that_of_the_samples_and_nan_on_the_diagonal(finished):
    run = open_run(finished[0])
    assert run.sizes["step"] == 3
    groups, samples = run["group_bif"].values, run["bif"].values
    assert np.abs(groups[..., OFF_DIAGONAL]).max() > 1e-6
    np.testing.assert_allclose(groups[..., OFF_DIAGONAL], samples[..., OFF_DIAGONAL], atol=1e-12, rtol=0)
    np.testing.assert_allclose(
        run["group_bif_correlation"].values[..., OFF_DIAGONAL], run["bif_correlation"].values[..., OFF_DIAGONAL]
    )
    for name in (*VARIABLES, "damped_influence"):
        values = run[name].values
        assert np.isnan(values[..., ~OFF_DIAGONAL]).all(), name
        assert np.isfinite(values[..., OFF_DIAGONAL]).all(), name


def test_single_samples_cause_no_flag_or_warning(finished, tmp_path):
    together, _, _ = train(tmp_path, None)
    run, other = open_run(finished[0]), open_run(together)
    # R-hat and effective draws of group means are of other groups here; nothing else may differ.
    kinds, others = (
        [set(names.split(", ")) - {"rhat", "ess"} for names in item["flag_names"].values.tolist()]
        for item in (run, other)
    )
    assert kinds == others
    assert not any("not_finite" in names for names in kinds)
    np.testing.assert_array_equal(run["signal"], other["signal"])
    assert not [message for message in finished[2] if "invalid value" in message or "divide" in message]


def test_loggers_receive_pairs_by_name_without_self_pairs(finished):
    tensorboard, table, _ = finished
    events = EventAccumulator(tensorboard, size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    with open(f"{table}/metrics.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    run = open_run(tensorboard)
    (tensor,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    charts = {chart.title for category in layout.category for chart in category.chart}
    for tags in (events.Tags()["scalars"], rows[0]):
        assert "influence/within/dog~sparrow" in tags
        assert "influence/total/trout~oak" in tags
        assert "baseline/tracin/dog~oak" in tags
        assert "baseline/damped_influence/dog~oak" in tags
        assert "influence/loss/dog" in tags
        assert not [tag for tag in tags for name in NAMES if f"{name}~{name}" in tag]
    assert "BIF dog ~ sparrow (nats^2, negative = helpful)" in charts
    assert not [title for title in charts for name in NAMES if f"{name} ~ {name}" in title]
    for event, want in zip(
        events.Scalars("influence/within/dog~sparrow"), run["bif"].sel(part="within").values[:, 0, 1], strict=True
    ):
        assert event.value == pytest.approx(want, rel=1e-6)
    assert not any(value.lower() in ("nan", "inf") for row in rows for value in row.values())
    assert all(np.isfinite(event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag))


def test_one_sample_alone_is_refused_in_one_line(tmp_path):
    callback = InfluenceCallback(EVERY_2, SGLD, observed=(X[:4], Y[:4]), groups={"dog": GROUPS["dog"]})
    with pytest.raises(
        InputError, match=r"got groups \('dog'\) within a single sample; expected .*; observe more"
    ) as caught:
        fit(tmp_path, Regression(), regression_data(), callback)
    assert "\n" not in str(caught.value)
