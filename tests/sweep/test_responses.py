"""Response matrix of a sweep: against losses of its draws, added up one by one."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.sweep.cell import read_cell, write_cell
from stagewise.sweep.responses import component_responses
from tests.sweep.test_components import PARTS


def test_responses_are_those_of_the_draws_in_the_cells(of_components):
    output = of_components.config.output
    found = component_responses(output, 2)
    assert found["component"].values.tolist() == sorted(PARTS)
    groups = of_components.data.groups
    assert found["group"].values.tolist() == list(groups)
    for name in found["component"].values:
        own = read_cell(Path(output), 2, name).measured.features
        whole = own.samples.reshape(-1, 4).sum(axis=1) / (4 * 15)
        for row, (group, mask) in enumerate(groups.items()):
            losses = own.groups.reshape(len(whole), len(groups), 4)[:, row].sum(axis=1) / int(mask.sum())
            expected = -np.cov(whole, losses, ddof=0)[0, 1]
            assert found["response"].sel(component=name, group=group).item() == pytest.approx(expected, rel=1e-9)


def test_components_are_chosen_and_may_be_the_whole_model(of_components):
    found = component_responses(of_components.config.output, 1, components=["all"], relative=True)
    assert found["component"].values.tolist() == ["all"]
    assert found.attrs["relative"]


@pytest.mark.parametrize("step", [1, 7])
def test_a_component_without_a_cell_is_refused(of_components, step):
    with pytest.raises(InputError, match=r"layer1\.mlp"):
        component_responses(of_components.config.output, step, components=["layer1.mlp"])


def test_a_step_without_parts_is_refused(of_components):
    with pytest.raises(InputError, match="a part of the model"):
        component_responses(of_components.config.output, 7)


def test_a_component_that_lost_its_chains_is_refused(of_components, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(of_components.config.output, output)
    cell = read_cell(output, 1, "layer0.mlp")
    shutil.rmtree(output / "cells" / "layer0.mlp" / "step1")
    write_cell(output, replace(cell, measured=None, dropped={0: "diverged"}))
    with pytest.raises(InputError, match="lost all its chains"):
        component_responses(output, 1)
