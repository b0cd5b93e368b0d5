import zipfile
from enum import StrEnum

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stagewise.errors import InputError
from stagewise.files.zarr_file import read_content, write_zarr_file


class Kind(StrEnum):
    some = "some"


def everything():
    rng = np.random.default_rng(0)
    dataset = xr.Dataset(
        {
            "matrix": (
                ("part", "sample", "sample_j"),
                rng.standard_normal((2, 5, 5)),
                {"units": "nats^2", "n": [1, 2]},
            ),
            "single": ("sample", rng.standard_normal(5).astype(np.float32)),
            "half": ("sample", rng.standard_normal(5).astype(np.float16)),
            "mask": ("sample", np.array([True, False, True, True, False])),
            "counts": ("sample", np.arange(5, dtype=np.int32)),
            "missing": ("sample", np.full(5, np.nan)),
            "nothing": (("sample", "none"), np.zeros((5, 0))),
            "strided": (("sample", "sample_j"), rng.standard_normal((10, 5))[::2]),
            "number": 0.1 + 0.2,
            "minus_zero": -0.0,
            "tiny": np.float32(1e-42),
            "unknown": np.nan,
            "above": np.inf,
            "below": -np.inf,
            "large": 2**62 + 1,
            "yes": True,
            "words": ((), np.array("a · b, <b>\n", dtype=object)),
            "empty_words": ((), np.array("", dtype=object)),
        },
        coords={
            "part": ("part", np.array(["within", "größer"], dtype=object)),
            "step": 7,
            "end": ("sample", np.arange(5.0)),
        },
        attrs={"step": 7, "flags": {"rhat": "words"}, "kind": Kind.some, "array": np.arange(2), "lr": np.float64(0.5)},
    )
    return dataset


PLAIN = {"step": 7, "flags": {"rhat": "words"}, "kind": "some", "array": [0, 1], "lr": 0.5}


def by_xarray(path, **settings):
    return xr.open_zarr(zarr.storage.ZipStore(path, mode="r"), chunks=None, **settings).load()


@pytest.mark.parametrize(
    "read", [lambda path: read_content(path).dataset(), by_xarray, lambda path: by_xarray(path, consolidated=False)]
)
@pytest.mark.filterwarnings("error")
def test_the_library_reads_what_is_written_bit_for_bit_and_so_do_we(tmp_path, read):
    path, dataset = tmp_path / "a.zip", everything()
    write_zarr_file(path, dataset)
    found = read(path)
    assert set(found.data_vars) == set(dataset.data_vars)
    assert set(found.coords) == set(dataset.coords)
    assert found.attrs == PLAIN
    for name, expected in dataset.variables.items():
        variable = found.variables[name]
        assert variable.dims == expected.dims
        assert variable.attrs == expected.attrs
        if expected.dtype == object:
            assert variable.values.tolist() == expected.values.tolist()
        else:
            assert variable.dtype == expected.dtype
            assert variable.values.tobytes() == expected.values.tobytes(), name


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_the_library_writes_differently_is_left_to_it(tmp_path):
    path, values = tmp_path / "a.zip", np.arange(10.0)
    store = zarr.storage.ZipStore(path, mode="w")
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        xr.Dataset({"a": ("x", values)}).to_zarr(store, consolidated=True, encoding={"a": {"chunks": (5,)}})
    store.close()
    with pytest.raises(InputError, match=r"variable a .* one chunk as stagewise writes it; open it with xarray"):
        read_content(path)


def test_only_what_is_wanted_is_read(tmp_path):
    path = tmp_path / "a.zip"
    write_zarr_file(path, everything())
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert "matrix/c/0/0/0" in names
    assert not [name for name in names if name.startswith("number/c")]
    found = read_content(path, lambda name, axes: name == "single" or "part" in axes).dataset()
    assert set(found.variables) == {"single", "matrix", "part"}


def test_the_same_data_are_the_same_file(tmp_path):
    for name in ("a.zip", "b.zip"):
        write_zarr_file(tmp_path / name, everything())
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("values", [np.array(["2001-01-01"], dtype="datetime64[ns]"), np.array([1j])])
def test_other_types_are_refused_by_name(tmp_path, values):
    with pytest.raises(InputError, match=r"got variable odd of type .*; expected booleans, numbers or text"):
        write_zarr_file(tmp_path / "a.zip", xr.Dataset({"odd": ("x", values)}))


def test_an_attribute_that_json_has_no_word_for_is_refused(tmp_path):
    with pytest.raises(TypeError, match="attribute of type object"):
        write_zarr_file(tmp_path / "a.zip", xr.Dataset(attrs={"odd": object()}))


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.bool_]), arrays.array_shapes(min_dims=0, max_dims=3)
    )
)
def test_any_array_comes_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("any") / "a.zip"
    write_zarr_file(path, xr.Dataset({"a": (tuple("xyz"[: values.ndim]), values)}))
    for found in (read_content(path).dataset(), by_xarray(path)):
        np.testing.assert_array_equal(found["a"].values, values)
        assert found["a"].dtype == values.dtype
