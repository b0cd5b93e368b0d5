from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stagewise.errors import InputError
from stagewise.influence.stored_matrices import SampleMatrices
from stagewise.runs.open import open_run
from stagewise.runs.variable import Variable
from stagewise.runs.variables import BY_NAME, VARIABLES, described
from stagewise.runs.variables_page import variables_page
from tests.runs.full_run import full_probes, write_full_run

PAGE = Path(__file__).parents[2] / "docs" / "variables.md"


@pytest.fixture(scope="module", params=[SampleMatrices.within, SampleMatrices.all])
def run(request, tmp_path_factory):
    return open_run(write_full_run(tmp_path_factory.mktemp("run"), request.param), trace=True)


def test_the_page_equals_the_generated_one():
    assert PAGE.read_text() == variables_page(), "run python -m stagewise.runs.variables_page > docs/variables.md"


def test_each_row_of_the_page_has_six_cells():
    rows = [line for line in variables_page().splitlines() if line.startswith("| ")]
    assert len(rows) == len(VARIABLES) + 1
    assert {len(line.replace("\\|", "").split("|")) for line in rows} == {8}


def test_names_are_unique():
    assert len(BY_NAME) == len(VARIABLES)


def test_every_variable_of_a_run_is_in_the_table_with_its_axes(run):
    for name, values in run.variables.items():
        known = BY_NAME[name]
        axes = tuple(axis for axis in values.dims if axis != "step" or name == "step")
        assert known.axes == axes, name
        assert known.coordinate == (name in run.coords), name


def test_every_variable_of_the_table_occurs_in_a_run(tmp_path):
    found = set()
    for kept in (SampleMatrices.within, SampleMatrices.all):
        found |= set(open_run(write_full_run(tmp_path / kept, kept), trace=True).variables)
    assert found == set(BY_NAME)


def test_every_variable_has_a_name_and_a_unit(run):
    for name, values in run.variables.items():
        assert values.attrs["long_name"] == BY_NAME[name].long_name
        assert values.attrs["units"] == BY_NAME[name].units


def test_units_and_signs_written_by_probes_equal_the_table():
    for name, values in full_probes()[2].variables.items():
        if "units" in values.attrs:
            assert values.attrs["units"] == BY_NAME[name].units, name
        if "sign" in values.attrs and not name.endswith("_se"):
            assert values.attrs["sign"] == BY_NAME[name].sign, name
        if "long_name" in values.attrs:
            assert values.attrs["long_name"] == BY_NAME[name].long_name, name


def test_other_attributes_and_values_are_unchanged(run):
    probe = full_probes()[2]
    assert run["graddot"].attrs["pairs"] == probe["graddot"].attrs["pairs"]
    assert run["llc"].attrs["nbeta"] == 20.0
    np.testing.assert_array_equal(run["group_bif"].values[2], probe["group_bif"].values)


def test_variables_missing_in_the_table_are_unchanged():
    other = xr.Dataset({"mine": ("step", [1.0], {"units": "apples"}), "seconds": ("step", [2.0])})
    found = described(other)
    assert found["mine"].attrs == {"units": "apples"}
    assert found["seconds"].attrs == {"long_name": "time of the probe", "units": "s"}


def test_a_variable_without_words_is_refused():
    with pytest.raises(InputError, match="expected a name, a long_name and a meaning"):
        Variable("x", (), "1", "x", "")
