"""Results on disk: one file for each probe, a Zarr group in a zip archive, whole or not there."""

import json
import shutil
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import xarray as xr

from stagewise.checks.bounds import checked
from stagewise.errors import InputError
from stagewise.checks.group_names import plain_names
from stagewise.files.writing import write_json
from stagewise.runs.probe_files import FORMAT_VERSION, VERSION, NewerFormat, probe_files, read_probe, refuse_newer
from stagewise.runs.summary_file import summary_text
from stagewise.runs.zarr_file import write_zarr_file
from stagewise.files.writing import sync_folder, whole_file

STORE_NAME = "influence.zarr"
SUMMARY_NAME = "summary.json"
RUN_NAME = "run.json"
"""What a run was started with: its fingerprint, by which a run that starts again in its folder is known."""

_GROUP = "zarr.json"


class ProbeStore:
    """Writer of a run's probes.

    A probe is one file, ``step<k>.zip``: a run of 1,500 has 1,500 files, where a folder for each had 125,000; and one
    rename puts a probe in its place, or in that of an earlier one, so that a kill at any instant leaves the one or the
    other whole. :mod:`~stagewise.runs.zarr_file` tells how to read one with plain xarray. Stores of earlier
    versions, with a folder ``step<k>`` for each probe, are read and gone on with.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is made before the first probe is written.

        Args:
            path: of the store.
        """
        self.path = path

    def steps(self) -> list[int]:
        """Training steps of the finished probes, increasing."""
        return list(probe_files(self.path))

    def write(self, probe: xr.Dataset) -> Path:
        """Write one probe as ``step<k>.zip``, replacing one that is there; returns its path.

        Args:
            probe: its data set.

        Raises:
            InputError: the store is of a newer format.
            OSError: it could not be written; what was there before still is.
        """
        self._prepare()
        step = int(probe.attrs["step"])
        earlier = self.path / f"step{step}"
        path = self.path / f"step{step}.zip"
        with whole_file(path) as aside:
            write_zarr_file(aside, probe.assign_attrs({VERSION: FORMAT_VERSION}))
        # Of an earlier version: what is in the file goes before it, should this be as far as it gets.
        if earlier.exists():
            self._remove(earlier)
        self._pass(step)
        return path

    def _prepare(self) -> None:
        """Make the store a Zarr group that tells its version; nothing to do for one that is."""
        group = self.path / _GROUP
        refuse_newer(self.path, _version(group))
        if _version(group) != FORMAT_VERSION:
            attributes = {VERSION: FORMAT_VERSION}
            write_json(group, {"attributes": attributes, "zarr_format": 3, "node_type": "group"})

    def _remove(self, probe: Path) -> None:
        """Take a probe out of the store at once, then delete it."""
        aside = self.path.with_name(f".{self.path.name}.{probe.name}.removed")
        _delete(aside)
        probe.rename(aside)
        sync_folder(self.path)
        _delete(aside)

    @property
    def aside(self) -> Path:
        """Where probes are that :meth:`set_aside_after` has taken out of the store."""
        return self.path.with_name(f"{self.path.name}.set_aside")

    def set_aside_after(self, step: int) -> list[int]:
        """Take out the probes beyond ``step``, from which a run resumes: they are of a future that it may not come to.

        Each is deleted when the run has written a probe at its step or a later one, and not before. What a kill has
        left of writing or removing one is removed.

        Returns:
            Steps of the probes that were taken out.
        """
        for left in (*self.path.glob("*.unfinished"), *self.path.parent.glob(f".{self.path.name}.step*")):
            if left.suffix in (".unfinished", ".removed"):
                _delete(left)
        later = {at: path for at, path in probe_files(self.path).items() if at > step}
        for path in later.values():
            replaced = path.with_suffix("")
            if path != replaced and replaced.exists():
                # A folder of an earlier version that the file has replaced would come back without it.
                self._remove(replaced)
            self.aside.mkdir(exist_ok=True)
            _delete(self.aside / path.name)
            path.rename(self.aside / path.name)
        sync_folder(self.path)
        return list(later)

    def bring_back(self, steps: Collection[int]) -> list[int]:
        """Put probes back that were set aside, where a run resumes behind them after all.

        Args:
            steps: of the probes that the run has made.

        Returns:
            Steps of those that were put back.
        """
        have = set(self.steps())
        found = {at: path for at, path in probe_files(self.aside).items() if at in steps and at not in have}
        for path in found.values():
            path.rename(self.path / path.name)
        return list(found)

    def _pass(self, step: int) -> None:
        """Delete what was set aside of this step and those before it."""
        for at, path in probe_files(self.aside).items():
            if at <= step:
                _delete(path)
        if self.aside.is_dir() and not any(self.aside.iterdir()):
            self.aside.rmdir()

    def adopt(self, other: Path, step: int) -> bool:
        """Copy the probes up to ``step`` from the store of the run that is resumed; False if it has none.

        Raises:
            InputError: one of the stores is of a newer format.
        """
        earlier = {at: path for at, path in probe_files(other).items() if at <= step}
        if not earlier:
            return False
        refuse_newer(other, _version(other / _GROUP))
        self._prepare()
        for at in earlier.keys() - set(self.steps()):
            path = earlier[at]
            if path.is_dir():
                aside = self.path.with_name(f".{self.path.name}.{path.name}.unfinished")
                shutil.rmtree(aside, ignore_errors=True)
                shutil.copytree(path, aside)
                aside.rename(self.path / path.name)
                sync_folder(self.path)
            else:
                with whole_file(self.path / path.name) as aside:
                    shutil.copyfile(path, aside)
        return True


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _version(group: Path) -> int | None:
    """Format of a store; None where its description is missing or cannot be read: each probe tells its own."""
    try:
        return int(json.loads(group.read_text(encoding="utf-8"))["attributes"].get(VERSION, 1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _locate(path: Path) -> Path:
    if path.name == STORE_NAME and path.is_dir():
        return path
    if (path / STORE_NAME).is_dir():
        return path / STORE_NAME
    runs = sorted(path.glob(f"**/{STORE_NAME}")) if path.is_dir() else []
    hint = f"; there are runs in {', '.join(str(run.parent) for run in runs[:3])}" if runs else ""
    raise InputError(f"got {path}, where no {STORE_NAME} is; expected the log directory of a run with probes{hint}")


@checked
def open_run(
    path: str | Path,
    *,
    trace: bool = False,
    variables: Collection[str] | None = None,
    damaged: Literal["skip", "raise"] = "skip",
) -> xr.Dataset:
    """Open the probes of a run as one data set.

    Args:
        path: log directory of the run, or its ``influence.zarr``.
        trace: also load the recorded losses of every draw (``loss``), where ``probe.save_trace`` kept them, and the
            influence between tokens (``token_bif``), which are by far the largest parts.
        variables: only these of the data sets, where they have them; all if None.
        damaged: what becomes of a probe whose file is damaged, half copied or missing: ``skip`` names it in a warning
            and goes on with the others, ``raise`` refuses the run.

    Returns:
        Data set with the axis ``step`` in front of the axes of each probe. Influence is minus the covariance in nats^2,
        negative = helpful; see its attributes. :func:`~stagewise.influence.stored_matrices.sample_matrix` gives that
        between samples. NaN fills what a probe lacks (dropped chains). The attribute ``summary`` holds ``summary.json``
        as text, where the run has finished.

    Raises:
        InputError: there is no store, or no probe in it that can be read; it was written by a newer version; a probe is
            damaged, with ``raise``; or there are neither draws nor tokens to load.
    """
    store = _locate(Path(path))
    refuse_newer(store, _version(store / _GROUP))
    files = probe_files(store)
    if not files:
        raise InputError(f"got {store}, which holds no finished probe; expected at least one; let the run go on")
    probes, faults = [], []
    for step, file in files.items():
        try:
            probe = read_probe(file, step, trace=trace, variables=variables)
        except (NewerFormat, MemoryError):
            raise
        except Exception as error:  # whatever a damaged file makes of the libraries that read it
            faults.append(f"{file}, which cannot be read: {type(error).__name__}: {_line(error)}")
            continue
        probes.append(probe)
    faults += _lacking(store, len(files))
    for fault in faults:
        if damaged == "raise" or not probes:
            raise InputError(
                f"got {fault}; expected whole probes; copy it again from where it came, or remove it"
                + (", or open the run with damaged='skip'" if probes else "")
            )
        warnings.warn(
            f"stagewise: skipped {fault}; copy it again from where it came, or remove it; read {len(probes)} probes",
            stacklevel=2,
        )
    if trace and variables is None and not any("loss" in it or "token_bif" in it for it in probes):
        raise InputError(
            f"got trace=True for {store}, which holds neither the losses of draws nor influence between tokens; "
            "expected them stored; set probe.save_trace: true or probe.token_samples and train again, or leave trace "
            "out"
        )
    run = xr.concat(probes, dim="step", join="outer", combine_attrs="drop_conflicts", data_vars="all", coords="minimal")
    summary = store.parent / SUMMARY_NAME
    if summary.is_file():
        run.attrs["summary"] = summary_text(summary)
    return run


def _lacking(store: Path, found: int) -> list[str]:
    """Whether there are fewer probes than the summary of the run counts."""
    try:
        counted = int(json.loads((store.parent / SUMMARY_NAME).read_text(encoding="utf-8"))["probes"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    gone = counted - found
    return [f"{store}, which lacks {gone} of the {counted} probes that {SUMMARY_NAME} counts"] if gone > 0 else []


def _line(error: Exception) -> str:
    """The first line of what it says."""
    return (str(error).strip().splitlines() or ["no words"])[0][:200]


def with_plain_names(run: xr.Dataset) -> xr.Dataset:
    """A run whose group names can be shown in words and pictures: see :func:`~stagewise.checks.group_names.plain_names`.

    Args:
        run: of others, or of an earlier version, as :func:`open_run` returns it.
    """
    axes = [axis for axis in ("group", "group_j") if axis in run.coords]
    return run.assign_coords({axis: list(plain_names(run[axis].values.tolist())) for axis in axes})


def write_summary(folder: Path, summary: dict) -> Path:
    """Write ``summary.json`` whole or not at all; returns its path."""
    return write_json(folder / SUMMARY_NAME, summary)
