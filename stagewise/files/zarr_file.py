"""One data set as one file: a Zarr 3 group of single-chunk arrays in a zip archive.

The Zarr library writes and reads one array at a time, some 2 ms each: .2 s for the 60 variables of a probe, in 130
files. Here everything takes a few ms. The result is plain Zarr 3 with consolidated metadata, which any reader opens::

    xarray.open_zarr(zarr.storage.ZipStore("step100.zip", mode="r"))

After ``unzip step100.zip -d step100`` the folder is a Zarr group.

Source: Zarr core specification 3.0, https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html.
"""

import json
from collections.abc import Callable, Hashable
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import xarray as xr
from numcodecs import VLenUTF8, Zstd
from numpy.typing import NDArray

from stagewise.errors import InputError

_ROOT = "zarr.json"
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_TEXT = {"name": "vlen-utf8", "configuration": {}}
_ZSTD_LEVEL = 5
_ZSTD = {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": False}}
_TYPES = {np.dtype(name).name for name in ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")}
_COORDINATES = "coordinates"
"""Attribute that names the coordinates without their own dimension, as in the CF conventions."""


def write_zarr_file(path: Path, dataset: xr.Dataset) -> None:
    """Writes a data set of booleans, numbers and text to a new file.

    A variable without axes is stored as the fill value of an array without chunks, which the specification allows: half
    of the variables of a probe then need no data entry.

    Args:
        path: of the file.
        dataset: data set in memory; attributes must be arrays or values that JSON can represent.

    Raises:
        InputError: a variable of another type.
    """
    documents: list[str] = []
    with ZipFile(path, "w") as archive:
        for name, variable in dataset.variables.items():
            metadata, chunk = _encode(str(name), variable)
            document = _json(metadata)
            documents.append(f"{_json(str(name))}: {document}")
            _add(archive, f"{name}/{_ROOT}", document.encode())
            if chunk is not None:
                _add(archive, "/".join([str(name), "c", *["0"] * variable.ndim]), chunk, packed=True)
        beside = [str(name) for name in dataset.coords if name not in dataset.dims]
        group = {
            "attributes": dict(dataset.attrs) | ({_COORDINATES: " ".join(beside)} if beside else {}),
            "zarr_format": 3,
            "node_type": "group",
            "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": {}},
        }
        # Each document is formatted once: it is stored separately, and here together with the others.
        text = _json(group).removesuffix("{}}}") + "{" + ", ".join(documents) + "}}}"
        _add(archive, _ROOT, text.encode())


class Entry(NamedTuple):
    """One array of a file.

    Attributes:
        axes: names of the axes.
        values: values in memory.
        attributes: of the array.
    """

    axes: tuple[str, ...]
    values: NDArray[Any]
    attributes: dict[str, Any]


class Content(NamedTuple):
    """Content of a file as numpy arrays: building an xarray data set takes three times as long as reading them.

    Attributes:
        entries: arrays by name.
        coordinates: names of the arrays that are coordinates.
        attributes: of the group.
    """

    entries: dict[str, Entry]
    coordinates: frozenset[str]
    attributes: dict[str, Any]

    def dataset(self) -> xr.Dataset:
        """Returns the content as an xarray data set."""
        built = {name: xr.Variable(entry.axes, entry.values, entry.attributes) for name, entry in self.entries.items()}
        return xr.Dataset(
            {name: variable for name, variable in built.items() if name not in self.coordinates},
            coords={name: built[name] for name in built if name in self.coordinates},
            attrs=self.attributes,
        )


Wanted = Callable[[str, tuple[Hashable, ...]], bool]
"""Function of the name and the axes of an array, True if it is to be read."""


def read_content(path: Path, wanted: Wanted | None = None) -> Content:
    """Reads a file of :func:`write_zarr_file` into memory, as numpy arrays.

    Args:
        path: of the file.
        wanted: selects the arrays to read; all if None.

    Raises:
        InputError: the file holds arrays that :func:`write_zarr_file` does not write.
        BadZipFile, KeyError, RuntimeError, ValueError: the file is truncated or damaged; entries have checksums.
    """
    with ZipFile(BytesIO(path.read_bytes())) as archive:
        group = json.loads(archive.read(_ROOT))
        attributes = group["attributes"]
        beside = attributes.pop(_COORDINATES, "").split()
        entries = {
            name: _decode(archive, path, name, document)
            for name, document in group["consolidated_metadata"]["metadata"].items()
            if wanted is None or wanted(name, tuple(document["dimension_names"]))
        }
    coordinates = frozenset(name for name in entries if name in beside or entries[name].axes == (name,))
    return Content(entries, coordinates, attributes)


def _add(archive: ZipFile, name: str, content: bytes, *, packed: bool = False) -> None:
    """Adds an entry, ``packed`` if already compressed. Stores no time, so that the same data give the same file."""
    entry = ZipInfo(name)
    entry.external_attr = 0o644 << 16  # permissions after `unzip`
    archive.writestr(entry, content, compress_type=ZIP_STORED if packed else ZIP_DEFLATED)


def _json(document: Any) -> str:
    return json.dumps(document, default=_plain)


def _plain(value: Any) -> Any:
    """Converts values that JSON cannot represent, as in xarray."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"got an attribute of type {type(value).__name__}; expected text, numbers, lists or mappings")


def _encode(name: str, variable: xr.Variable) -> tuple[dict[str, Any], bytes | None]:
    """Returns the metadata of an array and its only chunk; None without axes or entries."""
    values = np.asarray(variable.values)
    text = values.dtype.kind in "OUT"
    if not text and values.dtype.name not in _TYPES:
        raise InputError(
            f"got variable {name} of type {values.dtype}; expected booleans, numbers or text; convert it before writing"
        )
    empty: Any = "" if text else _fill(np.zeros((), values.dtype))
    if values.ndim == 0:
        empty = str(values.item()) if text else _fill(values)
    document = {
        "shape": list(values.shape),
        "data_type": "string" if text else values.dtype.name,
        # A chunk has at least one entry, even if an axis has none.
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, size) for size in values.shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": empty,
        "codecs": [_TEXT if text else _BYTES, _ZSTD],
        "attributes": dict(variable.attrs),
        "dimension_names": list(variable.dims),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    if values.ndim == 0 or values.size == 0:
        return document, None
    raw = VLenUTF8().encode(values.astype(object)) if text else _little(values).tobytes()
    return document, bytes(Zstd(_ZSTD_LEVEL).encode(raw))


def _little(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(values.dtype.newbyteorder("<"), copy=False)


def _fill(value: NDArray[Any]) -> Any:
    """Returns a number as a Zarr fill value; floats that JSON cannot represent are given by name."""
    found = value.item()
    if isinstance(found, float) and not np.isfinite(found):
        return "NaN" if np.isnan(found) else "Infinity" if found > 0 else "-Infinity"
    return found


def _decode(archive: ZipFile, path: Path, name: str, document: dict[str, Any]) -> Entry:
    shape, kind = tuple(document["shape"]), document["data_type"]
    text = kind == "string"
    single = [max(1, size) for size in shape] == document["chunk_grid"]["configuration"]["chunk_shape"]
    codecs = [codec["name"] for codec in document["codecs"]]
    if not single or codecs != ["vlen-utf8" if text else "bytes", "zstd"] or not (text or kind in _TYPES):
        raise InputError(
            f"got variable {name} in {path} of type {kind} with codecs {codecs}; expected one chunk as "
            "stagewise writes it; open it with xarray.open_zarr"
        )
    dtype = np.dtype(object) if text else np.dtype(kind)
    if not shape or 0 in shape:
        # numpy parses "NaN" and "Infinity".
        values = np.full(shape, document["fill_value"] if text else dtype.type(document["fill_value"]), dtype=dtype)
    else:
        raw = Zstd().decode(archive.read("/".join([name, "c", *["0"] * len(shape)])))
        values = VLenUTF8().decode(raw) if text else np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
    return Entry(tuple(document["dimension_names"]), values.reshape(shape), document["attributes"])
