import numpy as np
import pytest
import xarray as xr

from stagewise.errors import InputError
from stagewise.phases.signal_table import mean_losses, signal_table
from stagewise.runs.open import open_run
from tests.phases.synthetic_run import MIDDLE, STEPS, losses_at, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def run(folder):
    return open_run(folder)


def test_each_signal_has_its_direction_unit_and_errors_where_known(run):
    table = signal_table(run)
    rows = {
        str(name): (str(way), str(unit), bool(np.isfinite(error).any()))
        for name, way, unit, error in zip(
            table["signal"].values,
            table["direction"].values,
            table["units"].values,
            table["error"].values,
            strict=True,
        )
    }
    influence = ("falling", "nats^2", True)
    assert rows == {
        "between": ("rising", "nats", True),
        "losses_alone": ("rising", "nats", False),
        "group_losses_alone": ("rising", "nats", False),
        "group_loss/early": ("falling", "nats", False),
        "group_loss/late": ("falling", "nats", False),
        "within/early~early": influence,
        "total/early~early": influence,
        "within/late~late": influence,
        "total/late~late": influence,
        **dict.fromkeys(("llc", "llc/early", "llc/late"), ("rising", "1", True)),
        "chain_share": ("rising", "1", False),
    }
    assert table["step"].values.tolist() == STEPS.tolist()


def test_losses_alone_are_half_the_length_of_their_change_since_the_reference(run):
    table = signal_table(run)
    for step, reference in zip(STEPS, run["reference_step"].values, strict=True):
        expected = np.sqrt(((losses_at(step) - losses_at(reference)) ** 2).sum()) / 2 if reference < step else np.nan
        assert float(table["value"].sel(signal="losses_alone", step=step)) == pytest.approx(
            expected, abs=1e-6, nan_ok=True
        )
        early = (losses_at(step) - losses_at(reference))[:3].mean(), (losses_at(step) - losses_at(reference))[3:].mean()
        expected = np.hypot(*early) / 2 if reference < step else np.nan
        assert float(table["value"].sel(signal="group_losses_alone", step=step)) == pytest.approx(expected, nan_ok=True)


def test_losses_of_tokens_are_summed_over_each_sequence(run):
    split = xr.DataArray([0.25, 0.75], dims="token") * run["anchor_loss"].astype(np.float64)
    whole = signal_table(run)["value"].sel(signal="losses_alone")
    tokens = signal_table(run.assign(anchor_loss=split.transpose("step", "sample", "token")))["value"]
    np.testing.assert_allclose(tokens.sel(signal="losses_alone"), whole, atol=1e-6)


def test_influence_of_chosen_pairs_is_that_of_the_run_and_falls_at_the_transition(run):
    pairs = [("early", "late"), ("early", "early"), ("early", "late")]
    table = signal_table(run, pairs)
    names = [str(name) for name in table["signal"].values if "~" in name]
    assert names == ["within/early~late", "total/early~late", "within/early~early", "total/early~early"]
    at = {"part": "within", "group": "early", "group_j": "early"}
    row = table.sel(signal="within/early~early")
    np.testing.assert_array_equal(row["value"], run["group_bif"].sel(at))
    np.testing.assert_array_equal(row["error"], run["group_bif_se"].sel(at))
    assert abs(np.log(STEPS[np.argmin(row["value"].values)] / MIDDLE)) < 0.1


def test_unknown_groups_and_pairs_without_losses_are_refused(run):
    with pytest.raises(InputError, match="got group 'cats'"):
        signal_table(run, [("early", "cats")])
    alone = run.copy(deep=True)
    alone["group_bif"].loc[{"group": "late", "group_j": "late"}] = np.nan
    assert "total/late~late" not in signal_table(alone)["signal"].values
    with pytest.raises(InputError, match="two different samples"):
        signal_table(alone, [("late", "late")])


def test_mean_losses_are_those_of_the_draws_up_to_a_constant(folder, run):
    means = mean_losses(run)
    draws = open_run(folder, trace=True)["loss"].mean(["chain", "draw"], dtype=np.float64).values
    references, steps = run["reference_step"].values, run["step"].values
    beginnings = steps[references == steps]
    assert len(beginnings) > 1
    origin = dict(zip(steps, references, strict=True))
    leads_to = np.array(steps)
    while not np.isin(leads_to, beginnings).all():
        leads_to = np.array([origin[step] for step in leads_to])
    for beginning in beginnings:
        same = leads_to == beginning
        np.testing.assert_allclose(means[same] - means[same][0], draws[same] - draws[same][0], atol=1e-5)
    # Between beginnings it is off by the noise of the means of 160 draws, some of which move together.
    assert np.abs((means - draws) - (means - draws).mean(axis=0)).max() < 4 * 0.08 / np.sqrt(160)


def test_run_of_one_probe_has_a_table_without_changes(tmp_path):
    run = open_run(write_run(tmp_path, steps=[100]))
    table = signal_table(run)
    assert np.isnan(table["value"].sel(signal=["between", "losses_alone"])).all()
    assert np.isfinite(table["value"].sel(signal="total/early~early")).all()
    np.testing.assert_allclose(mean_losses(run), [losses_at(100)], rtol=1e-6)
