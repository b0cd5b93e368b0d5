"""Atomic writing of results: one file for each probe, a Zarr group in a zip archive."""

import shutil
from collections.abc import Collection
from pathlib import Path

import xarray as xr

from stagewise.files.writing import sync_folder, whole_file, write_json
from stagewise.files.zarr_file import write_zarr_file
from stagewise.runs.probe_files import (
    FORMAT_VERSION,
    GROUP_NAME,
    SUMMARY_NAME,
    VERSION,
    probe_files,
    refuse_newer,
    store_version,
)

RUN_NAME = "run.json"
"""Fingerprint of a run, which identifies a restart in the same folder."""


class ProbeStore:
    """Writer of a run's probes.

    A probe is one file, ``step<k>.zip``, which keeps the number of files low, and is moved into place by one rename, so
    that a kill at any time leaves the previous or the new probe intact. See :mod:`~stagewise.files.zarr_file` for
    reading with plain xarray. Stores of earlier versions, with a folder ``step<k>`` for each probe, are read and
    continued.
    """

    def __init__(self, path: Path) -> None:
        """Creates nothing before the first probe.

        Args:
            path: of the store.
        """
        self.path = path

    def steps(self) -> list[int]:
        """Returns training steps of the finished probes, increasing."""
        return list(probe_files(self.path))

    def write(self, probe: xr.Dataset) -> Path:
        """Writes a probe as ``step<k>.zip``, replacing an existing one; returns its path.

        Args:
            probe: its data set.

        Raises:
            InputError: the store is of a newer format.
            OSError: writing failed; an existing probe is kept.
        """
        if store_version(self.path / GROUP_NAME) != FORMAT_VERSION:
            self._describe()
        step = int(probe.attrs["step"])
        earlier = self.path / f"step{step}"
        path = self.path / f"step{step}.zip"
        with whole_file(path) as aside:
            write_zarr_file(aside, probe.assign_attrs({VERSION: FORMAT_VERSION}))
        # Folder of an earlier version: the file has precedence, should the process end here.
        if earlier.exists():
            self._remove(earlier)
        if self.aside.is_dir():
            self._pass(step)
        return path

    def _describe(self) -> None:
        """Makes the store a Zarr group with its version, if it is not one."""
        version = store_version(self.path / GROUP_NAME)
        if version != FORMAT_VERSION:
            refuse_newer(self.path, version)
            attributes = {VERSION: FORMAT_VERSION}
            write_json(self.path / GROUP_NAME, {"attributes": attributes, "zarr_format": 3, "node_type": "group"})

    def _remove(self, probe: Path) -> None:
        """Moves a probe out of the store atomically, then deletes it."""
        aside = self.path.with_name(f".{self.path.name}.{probe.name}.removed")
        _delete(aside)
        probe.rename(aside)
        sync_folder(self.path)
        _delete(aside)

    @property
    def aside(self) -> Path:
        """Folder of the probes moved by :meth:`set_aside_after`."""
        return self.path.with_name(f"{self.path.name}.set_aside")

    def set_aside_after(self, step: int) -> list[int]:
        """Moves the probes beyond ``step``, from which a run resumes, out of the store.

        Each is deleted once the run has written a probe at its step or later. Remains of interrupted operations are
        removed.

        Returns:
            Steps of the moved probes.
        """
        for left in (*self.path.glob("*.unfinished"), *self.path.parent.glob(f".{self.path.name}.step*")):
            if left.suffix in (".unfinished", ".removed"):
                _delete(left)
        later = {at: path for at, path in probe_files(self.path).items() if at > step}
        for path in later.values():
            replaced = path.with_suffix("")
            if path != replaced and replaced.exists():
                # A replaced folder of an earlier version would reappear without the file.
                self._remove(replaced)
            self.aside.mkdir(exist_ok=True)
            _delete(self.aside / path.name)
            path.rename(self.aside / path.name)
        sync_folder(self.path)
        return list(later)

    def bring_back(self, steps: Collection[int]) -> list[int]:
        """Moves probes back into the store, if a run resumes after them.

        Args:
            steps: of the probes of the run.

        Returns:
            Steps of the moved probes.
        """
        have = set(self.steps())
        found = {at: path for at, path in probe_files(self.aside).items() if at in steps and at not in have}
        for path in found.values():
            path.rename(self.path / path.name)
        return list(found)

    def _pass(self, step: int) -> None:
        """Deletes probes that were set aside, up to this step."""
        for at, path in probe_files(self.aside).items():
            if at <= step:
                _delete(path)
        if self.aside.is_dir() and not any(self.aside.iterdir()):
            self.aside.rmdir()

    def adopt(self, other: Path, step: int) -> bool:
        """Copies the probes up to ``step`` from the store of the resumed run; returns False if there are none.

        Raises:
            InputError: one of the stores is of a newer format.
        """
        earlier = {at: path for at, path in probe_files(other).items() if at <= step}
        if not earlier:
            return False
        refuse_newer(other, store_version(other / GROUP_NAME))
        self._describe()
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


def write_summary(folder: Path, summary: dict) -> Path:
    """Writes ``summary.json`` atomically; returns its path."""
    return write_json(folder / SUMMARY_NAME, summary)
