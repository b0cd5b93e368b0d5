"""Results on disk: one Zarr group for each probe, whole or not there, readable with plain xarray."""

import re
import shutil
from collections.abc import Collection
from pathlib import Path

import xarray as xr
import zarr

from stagewise.bounds import checked
from stagewise.errors import InputError
from stagewise.group_names import plain_names
from stagewise.reporting.files import write_json
from stagewise.reporting.summary_file import summary_text

STORE_NAME = "influence.zarr"
SUMMARY_NAME = "summary.json"

_GROUP = re.compile(r"step(\d+)")


def _steps(store: Path) -> dict[int, Path]:
    """Finished probes of a store, by training step, in order."""
    if not store.is_dir():
        return {}
    found = {int(match[1]): path for path in store.iterdir() if (match := _GROUP.fullmatch(path.name))}
    return dict(sorted(found.items()))


class ProbeStore:
    """Writer of a run's probes.

    Each probe is written aside and renamed, so that a crash never leaves half of one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def steps(self) -> list[int]:
        """Training steps of the finished probes, increasing."""
        return list(_steps(self.path))

    def write(self, probe: xr.Dataset) -> Path:
        """Write one probe as group ``step<k>``, replacing one that is there; returns its folder."""
        zarr.open_group(self.path, mode="a")
        step = int(probe.attrs["step"])
        # Beside the store, not in it: an unfinished probe is no member of the run.
        aside = self.path.with_name(f".{self.path.name}.step{step}.unfinished")
        shutil.rmtree(aside, ignore_errors=True)
        probe.to_zarr(aside, mode="w", consolidated=False)
        target = self.path / f"step{step}"
        if target.exists():
            self._remove(target)
        aside.rename(target)
        return target

    def _remove(self, group: Path) -> None:
        """Take a probe out of the store at once, then delete it."""
        aside = self.path.with_name(f".{self.path.name}.{group.name}.removed")
        shutil.rmtree(aside, ignore_errors=True)
        group.rename(aside)
        shutil.rmtree(aside)

    def drop_after(self, step: int) -> None:
        """Remove probes of an abandoned future: those beyond ``step``, from which a run resumes."""
        for later, path in _steps(self.path).items():
            if later > step:
                self._remove(path)

    def adopt(self, other: Path, step: int) -> bool:
        """Copy the probes up to ``step`` from the store of the run that is resumed; False if it has none."""
        earlier = {at: path for at, path in _steps(other).items() if at <= step}
        if not earlier:
            return False
        zarr.open_group(self.path, mode="a")
        for path in earlier.values():
            if not (self.path / path.name).exists():
                aside = self.path.with_name(f".{self.path.name}.{path.name}.unfinished")
                shutil.rmtree(aside, ignore_errors=True)
                shutil.copytree(path, aside)
                aside.rename(self.path / path.name)
        return True


def _locate(path: Path) -> Path:
    if path.name == STORE_NAME and path.is_dir():
        return path
    if (path / STORE_NAME).is_dir():
        return path / STORE_NAME
    runs = sorted(path.glob(f"**/{STORE_NAME}")) if path.is_dir() else []
    hint = f"; there are runs in {', '.join(str(run.parent) for run in runs[:3])}" if runs else ""
    raise InputError(f"got {path}, where no {STORE_NAME} is; expected the log directory of a run with probes{hint}")


@checked
def open_run(path: str | Path, *, trace: bool = False, variables: Collection[str] | None = None) -> xr.Dataset:
    """Open the probes of a run as one data set.

    Args:
        path: log directory of the run, or its ``influence.zarr``.
        trace: also load the recorded losses of every draw (``loss``) and the influence between tokens (``token_bif``),
            which are by far the largest parts.
        variables: only these of the data sets, where they have them; all if None.

    Returns:
        Data set with the axis ``step`` in front of the axes of each probe. Influence is minus the covariance in nats^2,
        negative = helpful; see its attributes. NaN fills what a probe lacks (dropped chains). The attribute ``summary``
        holds ``summary.json`` as text, where the run has finished.

    Raises:
        InputError: there is no store, or no probe in it.
    """
    store = _locate(Path(path))
    steps = _steps(store)
    if not steps:
        raise InputError(f"got {store}, which holds no finished probe; expected at least one; let the run go on")
    probes = []
    for step, group in steps.items():
        probe = xr.open_zarr(group, consolidated=False, chunks=None)
        if not trace:
            probe = probe.drop_vars(["loss", "distance"], errors="ignore")
            probe = probe.drop_dims(["chain", "token_part"], errors="ignore")
        if variables is not None:
            probe = probe[[name for name in probe.data_vars if name in variables]]
        # Zarr lists variables in no fixed order.
        probe = probe[sorted(probe.data_vars)]
        probes.append(probe.load().expand_dims(step=[step]).assign_coords(reference_step=("step", [_reference(probe)])))
    run = xr.concat(probes, dim="step", join="outer", combine_attrs="drop_conflicts", data_vars="all", coords="minimal")
    summary = store.parent / SUMMARY_NAME
    if summary.is_file():
        run.attrs["summary"] = summary_text(summary)
    return run


def _reference(probe: xr.Dataset) -> int:
    return int(probe.attrs["reference_step"])


def with_plain_names(run: xr.Dataset) -> xr.Dataset:
    """A run whose group names can be shown in words and pictures: see :func:`~stagewise.group_names.plain_names`.

    Args:
        run: of others, or of an earlier version, as :func:`open_run` returns it.
    """
    axes = [axis for axis in ("group", "group_j") if axis in run.coords]
    return run.assign_coords({axis: list(plain_names(run[axis].values.tolist())) for axis in axes})


def write_summary(folder: Path, summary: dict) -> Path:
    """Write ``summary.json`` whole or not at all; returns its path."""
    return write_json(folder / SUMMARY_NAME, summary)
