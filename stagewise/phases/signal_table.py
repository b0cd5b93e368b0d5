"""Table of the signals of a run, with errors and directions."""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.checks.bounds import checked
from stagewise.errors import InputError
from stagewise.phases.signal import Kind, Signal, sample_losses

Array = NDArray[np.float64]


@checked
def signal_table(
    run: xr.Dataset,
    pairs: Iterable[tuple[str, str]] | None = None,
    *,
    contrasts: Iterable[tuple[str, str]] = (),
) -> xr.Dataset:
    """Returns the signals of a run over its probes.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        pairs: pairs of groups whose influence on each other is shown; if None, each group with losses in two samples
            with itself.
        contrasts: pairs of groups; shows the loss of the first relative to that of the second.

    Returns:
        ``value`` and ``error`` (standard error, NaN where unknown), ``[signal, step]``, with ``direction`` (rising or
        falling in a transition) and ``units`` for each signal. :class:`~stagewise.phases.signal.Kind` documents each:
        ``between``, ``losses_alone``, ``group_losses_alone``, ``group_loss/A``, ``contrast/A~B``, ``within/A~B``,
        ``total/A~B``, ``llc``, ``llc/A``, ``chain_share``. Signals without data in the run are omitted.

    Raises:
        InputError: a pair with an unknown group, or without losses in two samples.
    """
    groups = [str(name) for name in run["group"].values]
    of_groups = [Signal(Kind.group_losses_alone), *(Signal(Kind.group_loss, (name,)) for name in groups)]
    coefficients = [Signal(Kind.llc), *(Signal(Kind.llc, (name,)) for name in groups)]
    against = [(str(group), str(group_j)) for group, group_j in contrasts]
    for pair in against:
        _check_groups(groups, pair)
    wanted = [
        Signal(Kind.between),
        Signal(Kind.losses_alone),
        *(signal for signal in of_groups if signal.is_in(run)),
        *dict.fromkeys(Signal(Kind.contrast, pair) for pair in against),
        *(Signal(kind, pair) for pair in _chosen(run, groups, pairs) for kind in (Kind.within, Kind.total)),
        *(signal for signal in (*coefficients, Signal(Kind.chain_share)) if signal.is_in(run)),
    ]
    readings = [signal.read(run) for signal in wanted]
    axes = ("signal", "step")
    return xr.Dataset(
        {
            "value": (axes, np.stack([reading.value for reading in readings])),
            "error": (axes, np.stack([reading.error for reading in readings])),
        },
        coords={
            "signal": ("signal", np.array([signal.name for signal in wanted], dtype=object)),
            "step": ("step", run["step"].values),
            "direction": ("signal", np.array([str(signal.direction) for signal in wanted], dtype=object)),
            "units": ("signal", np.array([signal.unit for signal in wanted], dtype=object)),
        },
    )


def mean_losses(run: xr.Dataset) -> Array:
    """Returns mean losses over the draws, ``[step, sample]``, nats, up to a constant per sample.

    A run stores the change of the mean losses since each probe's reference; changes along references add up
    (approximately, if chains were dropped). They begin at probes without a reference, where the losses at the training
    weights are used. Probes that go back to different beginnings are comparable up to the rise of the losses over the
    chains at these beginnings; the constant is the common part of that rise.
    """
    steps, references = run["step"].values.tolist(), run["reference_step"].values.tolist()
    means, shift = sample_losses(run), run["shift"].values.astype(np.float64)
    place = {step: row for row, step in enumerate(steps)}
    for row, (step, reference) in enumerate(zip(steps, references, strict=True)):
        if reference != step and reference in place:
            means[row] = means[place[reference]] + shift[row]
    return means


def _check_groups(names: list[str], groups: Iterable[str]) -> None:
    for name in groups:
        if name not in names:
            raise InputError(f"got group {name!r}; expected one of {names}; name groups of this run")


def _chosen(run: xr.Dataset, names: list[str], pairs: Iterable[tuple[str, str]] | None) -> list[tuple[str, str]]:
    total = run["group_bif"].sel(part="total")
    if pairs is None:
        return [(name, name) for name in names if total.sel(group=name, group_j=name).notnull().any()]
    chosen = list(dict.fromkeys((str(group), str(group_j)) for group, group_j in pairs))
    for group, group_j in chosen:
        _check_groups(names, (group, group_j))
        if total.sel(group=group, group_j=group_j).isnull().all():
            raise InputError(
                f"got pair {group!r}, {group_j!r}, which has no losses in two different samples; expected one that "
                "has; choose another pair"
            )
    return chosen
