"""Cells by component: against a prober with the masks of the part."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stagewise.errors import InputError
from stagewise.lm.components import component_masks
from stagewise.losses.contract import resolve_loss
from stagewise.probes.prober import Prober
from stagewise.runs.open import open_run
from stagewise.sweep.cell import read_cell, write_cell
from stagewise.sweep.components import expand
from stagewise.sweep.results import run_folder, write_results
from stagewise.sweep.study import prepare_sweep, run_cells
from tests.sweep.tiny import model, tiny_config

PARTS = ("layer0.head0", "layer0.head1", "layer1.head0", "layer1.head1", "layer0.mlp")


def test_kinds_stand_for_all_parts_of_the_model_and_none_comes_twice(of_components):
    assert of_components.components == ("all", *PARTS)


def test_a_component_has_the_chains_of_its_masks(of_components):
    config, sweep = of_components.config, of_components
    found = open_run(run_folder(Path(config.output), "layer1.head0"))
    module = model(seed=1)
    module.eval()
    masks = component_masks(module, "layer1.head0")
    prober = Prober(module, resolve_loss(module), sweep.data, sgld=config.sgld, config=config.probe, masks=masks)
    alone, _ = prober.probe(module, 1)
    np.testing.assert_allclose(found["group_bif"].sel(step=1), alone["group_bif"], rtol=1e-6)
    assert found.attrs["moved_weights"] == sum(int(mask.sum()) for mask in masks.values())


def test_the_coverage_of_the_classes_is_told(of_components):
    config, sweep = of_components.config, of_components
    text = (Path(config.output) / "classes.md").read_text()
    rest = int(sweep.data.groups["rest"].sum())
    assert f"| rest | {rest} |" in text


def test_the_table_has_each_component_at_each_step(of_components):
    config = of_components.config
    table = pd.read_csv(Path(config.output) / "components.csv")
    assert set(table["component"]) == set(PARTS)
    assert set(table["step"]) == {1, 2}
    row = table.query("component == 'layer0.mlp' and step == 2 and group == 'rest' and group_j == 'rest'")
    run = open_run(run_folder(Path(config.output), "layer0.mlp"))
    assert row["group_bif"].item() == pytest.approx(
        run["group_bif"].sel(step=2, part="within", group="rest", group_j="rest").item()
    )


def test_a_part_that_the_model_does_not_have_is_refused_before_anything_is_written(checkpoints, tmp_path):
    config = tiny_config(tmp_path, checkpoints, components=["all", "layer7.head0"])
    with pytest.raises(InputError, match="layer"):
        prepare_sweep(config)
    assert not Path(config.output).exists()
    assert expand(["all"], model()) == ("all",)
    assert prepare_sweep(replace(config, components=["layer1"])).components == ("layer1",)


def test_a_component_that_lost_its_chains_at_a_step_has_no_numbers_there(of_components, tmp_path):
    config, sweep = of_components.config, of_components
    output = tmp_path / "out"
    shutil.copytree(config.output, output)
    lost = replace(read_cell(output, 2, "layer0.head0"), measured=None, dropped={0: "diverged", 1: "diverged"})
    write_cell(output, lost)
    write_results(replace(sweep, config=replace(config, output=str(output))))
    table = pd.read_csv(output / "components.csv").set_index(["component", "step"])
    assert table.loc[("layer0.head0", 2), "group_bif"].isna().all()
    assert table.loc[("layer0.head0", 1), "group_bif"].notna().any()
    assert table.loc[("layer0.head1", 2), "group_bif"].notna().any()
    # All of them at every step: the component is left out, and nothing fails.
    write_cell(output, replace(lost, step=1))
    write_results(replace(sweep, config=replace(config, output=str(output))))
    assert "layer0.head0" not in set(pd.read_csv(output / "components.csv")["component"])


def test_components_of_an_earlier_call_stay_in_the_tables(checkpoints, tmp_path):
    config = tiny_config(tmp_path, checkpoints, steps=[1])
    for components in (["all"], ["layer1.head0"]):
        sweep = prepare_sweep(replace(config, components=components))
        run_cells(sweep, lambda _: None)
        write_results(sweep)
    groups = pd.read_csv(Path(config.output) / "groups.csv")
    assert set(groups["component"]) == {"all", "layer1.head0"}
    assert (Path(config.output) / "circuits.csv").is_file()
    assert set(pd.read_csv(Path(config.output) / "components.csv")["component"]) == {"layer1.head0"}


def test_a_query_needs_the_component_whose_chains_move_all(checkpoints, tmp_path):
    given = tiny_config(tmp_path, checkpoints)
    probe = replace(given.probe, token_samples=[1])
    with pytest.raises(InputError, match="'all' among them, for a query"):
        replace(given, probe=probe, query=[1, 3], components=["heads"])
