import csv

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import nn

from stagewise.errors import InputError
from stagewise.influence.chain_counts import chain_counts, interval_factor
from stagewise.influence.llc import readable_share
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.runs.components import COEFFICIENTS, component_table, leading_component, write_component_csv
from stagewise.runs.open import open_run
from stagewise.runs.probe_files import STORE_NAME
from stagewise.runs.store import ProbeStore
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from tests.sampling.test_chains import squared

SETTINGS = {"nbeta": 30.0, "localization": 300.0, "centering": "chain"}


def result(values, errors, steps=(10, 20), dropped=0, num_chains=4, groups=("a", "b"), **attrs):
    """``values`` and ``errors`` ``[step]`` of a on a; other entries are ten times as large."""
    shape = (len(steps), 2, len(groups), len(groups))
    bif = np.ones(shape) * 10 * np.asarray(values)[:, None, None, None]
    se = np.ones(shape) * 10 * np.asarray(errors)[:, None, None, None]
    bif[:, 1, 0, 0], se[:, 1, 0, 0] = values, errors
    axes = ("step", "part", "group", "group_j")
    return xr.Dataset(
        {
            "group_bif": (axes, bif),
            "group_bif_se": (axes, se),
            "chains_dropped": ("step", np.full(len(steps), dropped)),
        },
        coords={"step": list(steps), "part": ["within", "total"], "group": list(groups), "group_j": list(groups)},
        attrs={**SETTINGS, "moved_weights": 7, "sgld": {"num_chains": num_chains}, **attrs},
    )


@pytest.fixture
def results():
    return {
        "layer0.head0": result([-1.0, -2.0], [0.3, 0.1]),
        "layer0.head1": result([0.5, -5.0], [0.1, 0.2], dropped=1),
        "layer1.head0": result([-0.2, 4.0], [0.1, 0.4], moved_weights=9),
    }


def test_the_table_has_the_values_of_the_results(results):
    table = component_table(results, part="total")
    assert table["group_bif"].dims == ("component", "group", "group_j", "step")
    for name, run in results.items():
        for variable in ("group_bif", "group_bif_se"):
            got = table[variable].sel(component=name)
            xr.testing.assert_equal(
                got.transpose("step", ...).drop_vars("component"), run[variable][:, 1].drop_vars("part")
            )
    assert table["moved_weights"].values.tolist() == [7, 7, 9]
    assert table["chains"].sel(component="layer0.head1").values.tolist() == [3, 3]
    assert table.attrs["part"] == "total"
    assert table["group_bif"].attrs["units"] == "nats^2"
    assert "negative = helpful" in table["group_bif"].attrs["sign"]


def test_probes_alone_make_a_table_of_one_step_and_runs_on_disk_of_several(tmp_path):
    module = nn.Linear(3, 2)
    batch = (torch.randn(8, 3), torch.randn(8, 2))
    groups = {"few": torch.arange(8) < 3, "rest": torch.arange(8) >= 3}
    sgld = SGLDConfig(
        lr=1e-3,
        nbeta=10,
        localization=10,
        num_chains=3,
        num_draws=5,
        batch_size=4,
        num_burnin_steps=2,
        num_steps_bw_draws=1,
        drift="plain",
    )
    runs, probes = {}, {}
    for row in range(2):
        masks = {"weight": torch.arange(2)[:, None].expand(2, 3) == row}
        watcher = Prober(module, squared, ProbeData(batch, groups=groups), sgld=sgld, config=ProbeConfig(), masks=masks)
        store = ProbeStore(tmp_path / f"row{row}" / STORE_NAME)
        for step in (1, 2):
            probes[f"row{row}"], _ = watcher.probe(module, step)
            store.write(probes[f"row{row}"])
        runs[f"row{row}"] = open_run(tmp_path / f"row{row}")
    table = component_table(runs)
    assert table["step"].values.tolist() == [1, 2]
    assert table["moved_weights"].values.tolist() == [3, 3]
    assert (table["chains"] == 3).all()
    single = component_table(probes)
    assert single["step"].values.tolist() == [2]
    np.testing.assert_allclose(single["group_bif"], table["group_bif"].sel(step=[2]))
    want = probes["row1"]["group_bif"].sel(part="within", group="few", group_j="rest")
    assert float(single["group_bif"].sel(component="row1", group="few", group_j="rest").item()) == float(want)
    llc = [
        float(probes["row1"][name].isel(group=0) if "group" in name else probes["row1"][name]) for name in COEFFICIENTS
    ]
    assert COEFFICIENTS[-1] == "llc_localized_share"
    llc[-1] = float(readable_share(llc[-1]))  # here far outside of 0 to 1: shown as none
    own = single.sel(component="row1", group="few").isel(step=0)
    np.testing.assert_array_equal([float(own[name]) for name in COEFFICIENTS], llc)
    assert float(own["llc"]) != float(single["llc"].sel(component="row0").item())
    assert (
        single["group_bif"].sel(component="row0").values.tolist()
        != single["group_bif"].sel(component="row1").values.tolist()
    )


def test_the_file_has_a_row_for_each_number(results, tmp_path):
    results["layer0.head0"]["group_bif"][1, 0, 0, 1] = np.nan
    path = write_component_csv(tmp_path / "new" / "table.csv", component_table(results))
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 2 * 2
    assert not list(path.parent.glob("*.unfinished"))
    for row in rows:
        want = results[row["component"]].sel(
            part="within", group=row["group"], group_j=row["group_j"], step=int(row["step"])
        )
        got = float(row["group_bif"] or "nan")
        np.testing.assert_equal(got, want["group_bif"].item())
        assert float(row["group_bif_se"]) == want["group_bif_se"].item()
        assert all(row[name] == "" for name in COEFFICIENTS)  # these results have none
    assert sum(row["group_bif"] == "" for row in rows) == 1
    assert {float(row["chains"]) for row in rows if row["component"] == "layer0.head1"} == {3.0}


def test_the_leader_has_the_largest_influence_in_size_whatever_its_sign(results):
    table = component_table(results, part="total")
    first = leading_component(table, "a", step=10)
    assert (first.component, first.runner_up, first.influence, first.error) == (
        "layer0.head0",
        "layer0.head1",
        -1.0,
        0.3,
    )
    assert first.margin == pytest.approx(0.5)
    assert first.margin_error == pytest.approx(np.hypot(0.3, 0.1))
    assert leading_component(table, "a", step=20).component == "layer0.head1"
    helped = component_table({"x": result([-1.0], [0.1], [5]), "y": result([2.0], [0.1], [5])}, part="total")
    assert leading_component(helped, "a").component == "y"
    assert leading_component(table, "b", step=10).component == "layer0.head0"


def test_over_a_window_the_leader_is_that_of_the_mean(results):
    table = component_table(results, part="total")
    found = leading_component(table, "a", window=(5, 20))
    assert (found.component, found.steps) == ("layer0.head1", (10, 20))
    assert found.influence == pytest.approx(-2.25)
    assert found.error == pytest.approx(0.15)
    assert found == leading_component(table, "a")
    assert found.runner_up == "layer1.head0"
    assert leading_component(table, "a", window=(11, 99)).steps == (20,)


def test_a_component_without_a_value_does_not_lead(results):
    results["layer0.head0"]["group_bif"][:] = np.nan
    found = leading_component(component_table(results, part="total"), "a", step=10)
    assert (found.component, found.runner_up) == ("layer0.head1", "layer1.head0")
    alone = leading_component(component_table({"one": results["layer1.head0"]}, part="total"), "a", step=10)
    assert alone.runner_up is None
    assert np.isnan(alone.margin)
    with pytest.raises(InputError, match="no known influence of 'a' on itself"):
        leading_component(component_table({"one": results["layer0.head0"]}), "a")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": (10, 30)}, "got steps 10, 30 for 'b' and 10, 20 for 'a'"),
        ({"groups": ("a", "c")}, "got groups a, c for 'b'"),
        ({"nbeta": 31.0}, "got nbeta 31.0 for 'b' and 30.0 for 'a'"),
        ({"localization": 1.0}, "got localization"),
        ({"centering": "step"}, "got centering step"),
        ({"sgld": None}, "number of its chains"),
    ],
)
def test_incompatible_results_are_refused(changes, words):
    good = result([1.0, 2.0], [0.1, 0.1])
    with pytest.raises(InputError, match=words):
        component_table({"a": good, "b": result([1.0, 2.0], [0.1, 0.1], **changes)})


def test_invalid_requests_for_a_leader_are_refused(results):
    table = component_table(results)
    for bad, words in (
        (lambda: component_table({}), "got no component"),
        (lambda: component_table(results, part="middle"), "got part='middle'; expected one of within, total"),
        (lambda: component_table({"a": results["layer0.head0"].drop_vars("group_bif")}), "without group_bif"),
        (lambda: leading_component(table, "c"), "got group='c'; expected one of a, b"),
        (lambda: leading_component(table, "a", step=15), "steps 15 to 15"),
        (lambda: leading_component(table, "a", step=10, window=(1, 2)), "expected one of them"),
    ):
        with pytest.raises(InputError, match=words):
            bad()


def test_intervals_are_students_t_without_dropped_chains():
    run = result([1.0, 2.0], [0.1, 0.1])
    run["chains_dropped"] = ("step", [0, 3])
    assert chain_counts(run).values.tolist() == [4, 1]
    got = interval_factor(run, 0.9).values
    assert got[0] == pytest.approx(stats.t.ppf(0.95, 3))
    assert np.isnan(got[1])
    with pytest.raises(InputError, match="confidence"):
        interval_factor(run, 1.0)
