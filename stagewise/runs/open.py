"""Opening of a run: all its probes as one data set, with the accessor ``run.stagewise``."""

import json
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import xarray as xr

import stagewise.runs.accessor  # noqa: F401  (gives every data set `.stagewise`)
from stagewise.checks.bounds import checked
from stagewise.checks.counted import counted
from stagewise.errors import InputError, first_line
from stagewise.files.zarr_file import Content
from stagewise.runs.joining import joined
from stagewise.runs.probe_files import (
    GROUP_NAME,
    STORE_NAME,
    SUMMARY_NAME,
    NewerFormat,
    probe_files,
    read_probes,
    refuse_newer,
    store_version,
)
from stagewise.runs.samples_file import SAMPLES_NAME, with_samples
from stagewise.runs.summary_file import summary_text
from stagewise.runs.variables import described


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
    """Opens the probes of a run as one data set, with the accessor ``open_run(path).stagewise``.

    Args:
        path: log directory of the run, or its ``influence.zarr``.
        trace: also load the recorded losses of every draw (``loss``), where ``probe.save_trace`` kept them, and the
            influence between tokens (``token_bif``), which are by far the largest parts.
        variables: names of the variables to load; all if None.
        damaged: treatment of a probe whose file is damaged, half copied or missing: ``skip`` names it in a warning
            and continues with the others, ``raise`` refuses the run.

    Returns:
        Data set with the axis ``step`` in front of the axes of each probe. Influence is minus the covariance in nats^2,
        negative = helpful; see its attributes and ``docs/variables.md``. NaN fills what a probe lacks (dropped chains,
        samples that were left out). If samples were left out because their loss was not finite, the coordinate
        ``sample`` has the original numbers of the others; ``lost_samples`` of the summary lists those left out. The
        coordinate ``sample_words`` has the text, label or number of each sample, if the run stored them.
        ``.stagewise`` is a :class:`~stagewise.runs.accessor.RunAccessor`: curves with intervals, windows, figures.
        :func:`~stagewise.influence.stored_matrices.sample_matrix` gives influence between samples. The attribute
        ``summary`` holds ``summary.json`` as text, where the run has finished.

    Raises:
        InputError: there is no store or no readable probe; a newer format; a damaged probe, with ``raise``; or neither
            draws nor tokens to load.
    """
    return opened(Path(path), {}, trace=trace, variables=variables, damaged=damaged)


def opened(
    path: Path,
    known: dict[int, Content],
    *,
    trace: bool = False,
    variables: Collection[str] | None = None,
    damaged: Literal["skip", "raise"] = "skip",
) -> xr.Dataset:
    """Opens a run as :func:`open_run` does, and reads only the probes that are not known yet.

    Args:
        path: as there.
        known: content of the probes read before, by training step, with the same ``trace`` and ``variables``; gains
            the others.
        trace: see :func:`open_run`.
        variables: see :func:`open_run`.
        damaged: see :func:`open_run`.

    Raises:
        InputError: see :func:`open_run`.
    """
    store = _locate(path)
    refuse_newer(store, store_version(store / GROUP_NAME))
    files = probe_files(store)
    if not files:
        raise InputError(f"got {store}, which holds no finished probe; expected at least one; wait for the run")
    new = {step: file for step, file in files.items() if step not in known}
    read, faults = read_probes(new, trace=trace, variables=variables)
    known |= read
    probes = {step: known[step] for step in files if step in known}
    faults += _lacking(store, len(files))
    for fault in faults:
        if damaged == "raise" or not probes:
            raise InputError(
                f"got {fault}; expected whole probes; copy it again from where it came, or remove it"
                + (", or open the run with damaged='skip'" if probes else "")
            )
        warnings.warn(
            f"stagewise: skipped {fault}; copy it again from where it came, or remove it; read "
            f"{counted(len(probes), 'probe')}",
            stacklevel=3,
        )
    if (
        trace
        and variables is None
        and not any(probe.entries.keys() & {"loss", "token_bif"} for probe in probes.values())
    ):
        raise InputError(
            f"got trace=True for {store}, which holds neither the losses of draws nor influence between tokens; "
            "expected them stored; set probe.save_trace: true or probe.token_samples and train again, or leave trace "
            "out"
        )
    run = described(joined(probes))
    try:
        run = described(with_samples(run, store.parent))
    except (NewerFormat, MemoryError):
        raise
    except Exception as error:  # as above
        problem = f"got {store.parent / SAMPLES_NAME}, which cannot be read: {first_line(error, typed=True)[:200]}"
        if damaged == "raise":
            raise InputError(
                f"{problem}; expected the words of the observed samples; copy it again, or remove it"
            ) from error
        warnings.warn(f"stagewise: {problem}; samples have numbers alone; copy it again, or remove it", stacklevel=3)
    run.encoding["source"] = str(store)  # as in xarray; scores are next to the store
    summary = store.parent / SUMMARY_NAME
    if summary.is_file():
        run.attrs["summary"] = summary_text(summary)
    return run


def _lacking(store: Path, found: int) -> list[str]:
    """Reports probes that the summary of the run counts and the store lacks."""
    try:
        promised = int(json.loads((store.parent / SUMMARY_NAME).read_text(encoding="utf-8"))["probes"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    gone = promised - found
    return (
        [f"{store}, which lacks {gone} of the {counted(promised, 'probe')} that {SUMMARY_NAME} counts"]
        if gone > 0
        else []
    )
