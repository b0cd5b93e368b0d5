import numpy as np
import pytest
import xarray as xr

from stagewise.errors import InputError
from stagewise.interventions.influence_table import InfluenceTable


def _probe():
    values = np.array([[[1.0, 2.0], [2.0, 3.0]], [[-4.0, 5.0], [5.0, -6.0]]])
    names = np.array(["a", "b"], dtype=object)
    return xr.Dataset(
        {"group_bif": (("part", "group", "group_j"), values)},
        coords={"part": np.array(["within", "total"], dtype=object), "group": names, "group_j": names},
        attrs={"step": 40},
    )


def test_a_probe_is_read_by_part():
    table = InfluenceTable.from_probe(_probe())
    assert table.step == 40
    assert table.on("a") == {"a": -4.0, "b": 5.0}
    assert InfluenceTable.from_probe(_probe(), part="within").on("b") == {"a": 2.0, "b": 3.0}


def test_a_probe_of_an_opened_run_is_read():
    run = xr.concat([_probe().assign_coords(step=step) for step in (10, 20)], dim="step")
    assert InfluenceTable.from_probe(run.sel(step=20)).step == 20
    with pytest.raises(InputError, match="take one"):
        InfluenceTable.from_probe(run)


def test_bad_tables_are_refused():
    with pytest.raises(InputError, match="got part='sum'"):
        InfluenceTable.from_probe(_probe(), part="sum")
    with pytest.raises(InputError, match="not one probe"):
        InfluenceTable.from_probe(xr.Dataset())
    with pytest.raises(InputError, match="shape"):
        InfluenceTable(("a",), np.zeros((2, 2)), 0)
    with pytest.raises(InputError, match="got group 'c'"):
        InfluenceTable.from_probe(_probe()).on("c")
