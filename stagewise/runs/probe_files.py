"""Probes of a store as files, by step, of this format and of earlier ones."""

import json
import re
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path

import xarray as xr

from stagewise._version import __version__
from stagewise.errors import InputError, first_line
from stagewise.files.progress import followed
from stagewise.files.zarr_file import Content, Entry, Wanted, read_content

STORE_NAME = "influence.zarr"
SUMMARY_NAME = "summary.json"
GROUP_NAME = "zarr.json"
"""Description of a Zarr group."""

VERSION = "format_version"
"""Attribute of a store and of each probe."""

FORMAT_VERSION = 2
"""Current format. Format 1, without a version: a folder for each probe, with all its sample matrices."""

_PROBE = re.compile(r"step(\d+)(\.zip)?")
_MOST_CHARACTERS = 200
"""Number of characters of an error to report."""

_TRACE_NAMES = ("loss", "distance")
_TRACE_AXES = ("chain", "token_part")

_ALWAYS = ("part", "group", "group_bif", "shift")
"""Variables of every probe with non-empty data: Zarr writes no chunks for empty ones."""


class NewerFormat(InputError):
    """Error: the format of the results is newer than this version of the package."""


def refuse_newer(path: Path, version: int | None) -> None:
    """Refuses results of a newer version of the package.

    Args:
        path: of the store or probe.
        version: of its format; None if unknown.

    Raises:
        NewerFormat: newer than :data:`FORMAT_VERSION`.
    """
    if version is not None and version > FORMAT_VERSION:
        raise NewerFormat(
            f"got {path} in format {version}; expected {FORMAT_VERSION} or older, which stagewise "
            f"{__version__} reads; update stagewise, or use the version that wrote it"
        )


def probe_files(store: Path) -> dict[int, Path]:
    """Returns the finished probes of a store by training step: files, or folders of format 1 without a file."""
    if not store.is_dir():
        return {}
    found: dict[int, Path] = {}
    for path in store.iterdir():
        match = _PROBE.fullmatch(path.name)
        if match and (match[2] or int(match[1]) not in found):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def store_version(group: Path) -> int | None:
    """Returns the format of a store; None if its description is missing or unreadable: probes have their own."""
    try:
        return int(json.loads(group.read_text(encoding="utf-8"))["attributes"].get(VERSION, 1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_probe(path: Path, step: int, *, trace: bool = False, variables: Collection[str] | None = None) -> Content:
    """Reads one probe into memory as numpy arrays, for :func:`~stagewise.runs.joining.joined`.

    Args:
        path: from :func:`probe_files`.
        step: expected training step.
        trace: also read large variables: draws, and influence between tokens.
        variables: to read in addition to coordinates; all if None.

    Raises:
        NewerFormat: a newer format.
        InputError: another step.
        Exception: a damaged file; of many types.
    """

    def wanted(name: str, axes: tuple[Hashable, ...]) -> bool:
        if not trace and (name in _TRACE_NAMES or any(axis in _TRACE_AXES for axis in axes)):
            return False
        return variables is None or name in variables or axes == (name,)

    probe = _read_folder(path, wanted) if path.is_dir() else read_content(path, wanted)
    refuse_newer(path, probe.attributes.pop(VERSION, 1))
    if probe.attributes["step"] != step:
        raise InputError(
            f"got the probe of step {probe.attributes['step']}; expected that of step {step}; "
            "restore the name of the file"
        )
    int(probe.attributes["reference_step"])  # a probe without one is damaged
    return probe


def read_probes(
    files: Mapping[int, Path], *, trace: bool = False, variables: Collection[str] | None = None
) -> tuple[dict[int, Content], list[str]]:
    """Reads the probes of a store, without those that are damaged.

    Args:
        files: from :func:`probe_files`.
        trace: see :func:`read_probe`.
        variables: see :func:`read_probe`.

    Returns:
        Content of each readable probe by training step, and the path and error of each other one.

    Raises:
        NewerFormat: a newer format.
        MemoryError: the probes do not fit in memory.
    """
    probes: dict[int, Content] = {}
    faults = []
    for step, file in followed(list(files.items()), "reading probes"):
        try:
            probes[step] = read_probe(file, step, trace=trace, variables=variables)
        except (NewerFormat, MemoryError):
            raise
        except Exception as error:  # any exception of the libraries that read a damaged file
            faults.append(f"{file}, which cannot be read: {first_line(error, typed=True)[:_MOST_CHARACTERS]}")
    return probes, faults


def _read_folder(path: Path, wanted: Wanted) -> Content:
    """Reads a probe of format 1, or an unzipped file of format 2.

    Raises:
        InputError: parts are missing. A lost chunk would otherwise be read as fill values.
    """
    if not (path / GROUP_NAME).is_file():
        raise InputError("no zarr.json in it")
    bare = [entry.name for entry in path.iterdir() if entry.is_dir() and not (entry / GROUP_NAME).is_file()]
    lost = [name for name in _ALWAYS if not (path / name / "c").exists()]
    if bare or lost:
        raise InputError(f"it is incomplete at {', '.join([*bare, *lost][:3])}")
    probe = xr.open_zarr(path, consolidated=False, chunks=None)
    leave = [name for name, variable in probe.variables.items() if not wanted(str(name), variable.dims)]
    probe = probe.drop_vars(leave).load()
    entries = {
        str(name): Entry(tuple(map(str, variable.dims)), variable.values, dict(variable.attrs))
        for name, variable in probe.variables.items()
    }
    return Content(entries, frozenset(map(str, probe.coords)), dict(probe.attrs))
