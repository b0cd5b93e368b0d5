"""One table of the signals of a run: what may show a transition, with its errors and its direction."""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.checks.bounds import checked
from stagewise.errors import InputError
from stagewise.influence.chain_counts import equilibrated_probes
from stagewise.phases.online import Direction

Array = NDArray[np.float64]

BETWEEN = "between"
LOSSES = "losses_alone"
GROUP_LOSSES = "group_losses_alone"
CHAIN_SHARE = "chain_share"
LLC = "llc"

PARTS = ("within", "total")
"""Parts of group influence that are signals; between is the square of a loss difference."""


def pair_signal(part: str, group: str, group_j: str) -> str:
    """Name of the influence of a pair of groups in the table, as in its TensorBoard tag."""
    return f"{part}/{group}~{group_j}"


def group_signal(group: str) -> str:
    """Name of the mean loss of a group in the table."""
    return f"group_loss/{group}"


def contrast_signal(group: str, group_j: str) -> str:
    """Name of the loss of a group against that of another one in the table."""
    return f"contrast/{group}~{group_j}"


def llc_signal(group: str) -> str:
    """Name of the learning coefficient of a group in the table, as in its TensorBoard tag."""
    return f"llc/{group}"


def is_llc(signal: str) -> bool:
    """Whether a signal is a learning coefficient, see :mod:`stagewise.phases.stage_boundaries`."""
    return signal == LLC or signal.startswith("llc/")


@checked
def signal_table(
    run: xr.Dataset,
    pairs: Iterable[tuple[str, str]] | None = None,
    *,
    contrasts: Iterable[tuple[str, str]] = (),
) -> xr.Dataset:
    """Signals of a run over its probes.

    Args:
        run: as :func:`stagewise.runs.store.open_run` returns it.
        pairs: of groups, whose influence on each other is shown; each group with itself if None, where it has losses in
            two samples.
        contrasts: pairs of groups; the loss of the first is shown against that of the second.

    Returns:
        ``value`` and ``error`` (standard error, NaN where unknown), ``[signal, step]``, with ``direction`` (rising or
        falling, the way a transition goes) and ``units`` for each signal:

        - ``between``: square root of the between-norm less its noise floor, nats; rising. NaN without a reference, and
          where a probe has a severe flag.
        - ``losses_alone``: half the length of the change of the samples' losses since the reference probe, at the
          training weights, nats; rising. What ``between`` would be without chains: the baseline that it must beat. A
          sequence's loss is the sum of its tokens' losses.
        - ``group_losses_alone``: the same of the groups' mean losses, where the run has them.
        - ``group_loss/A``: mean loss of a group at the training weights, where the run has groups, nats; falling.
        - ``contrast/A~B``: change since the reference probe of the mean loss of A less that of B, at the training
          weights, nats; falling. What noise does to both is not in it: B is best a control in the same sequences, as
          ``first_copy`` is for ``induction``. It needs no chain. NaN without a reference.
        - ``within/A~B``, ``total/A~B``: group influence, nats^2, negative = helpful; falling.
        - ``llc``, ``llc/A``: local learning coefficient of all losses and of a group, where the run has them, a pure
          number, see :mod:`stagewise.influence.llc`; rising, as what a model has learnt takes hold, though stages may
          fall too: see :func:`~stagewise.phases.stage_boundaries.find_boundaries`.
        - ``chain_share``: share of the losses' variance that belongs to which chain a draw is from; rising. It says
          that chains disagree, in a transition or because they are too short.

        Losses and the chain share have no error; those of influence and of the learning coefficient are over chains,
        that of influence unknown where the chains of the probe or of its reference are out of equilibrium.

    Raises:
        InputError: a pair with a group that the run does not have, or without losses in two samples.
    """
    rows: dict[str, tuple[Array, Array | None, Direction, str]] = {
        BETWEEN: (run["signal"].values, run["signal_se"].values, Direction.rising, "nats"),
        LOSSES: (_change(run, sample_losses(run)), None, Direction.rising, "nats"),
    }
    if "group_loss" in run:
        rows[GROUP_LOSSES] = (_change(run, run["group_loss"].values), None, Direction.rising, "nats")
        for group in run["group"].values:
            rows[group_signal(group)] = (run["group_loss"].sel(group=group).values, None, Direction.falling, "nats")
    for group, group_j in contrasts:
        _check_groups(run, (group, group_j))
        gap = run["group_loss"].sel(group=group).values - run["group_loss"].sel(group=group_j).values
        rows[contrast_signal(group, group_j)] = (_since_reference(run, gap), None, Direction.falling, "nats")
    settled = equilibrated_probes(run)
    for group, group_j in _chosen(run, pairs):
        for part in PARTS:
            at = {"part": part, "group": group, "group_j": group_j}
            value, error = run["group_bif"].sel(at).values, run["group_bif_se"].where(settled).sel(at).values
            rows[pair_signal(part, group, group_j)] = (value, error, Direction.falling, "nats^2")
    if "llc" in run:
        rows[LLC] = (run["llc"].values, run["llc_se"].values, Direction.rising, "1")
        for group in run["group"].values:
            own = run[["group_llc", "group_llc_se"]].sel(group=group)
            rows[llc_signal(group)] = (own["group_llc"].values, own["group_llc_se"].values, Direction.rising, "1")
    if "chain_share" in run:
        rows[CHAIN_SHARE] = (run["chain_share"].values, None, Direction.rising, "1")
    unknown = np.full(run.sizes["step"], np.nan)
    axes = ("signal", "step")
    return xr.Dataset(
        {
            "value": (axes, np.stack([value for value, _, _, _ in rows.values()])),
            "error": (axes, np.stack([unknown if error is None else error for _, error, _, _ in rows.values()])),
        },
        coords={
            "signal": ("signal", np.array(list(rows), dtype=object)),
            "step": ("step", run["step"].values),
            "direction": ("signal", np.array([str(direction) for _, _, direction, _ in rows.values()], dtype=object)),
            "units": ("signal", np.array([units for _, _, _, units in rows.values()], dtype=object)),
        },
    )


def mean_losses(run: xr.Dataset) -> Array:
    """``[step, sample]``: mean losses over the draws, nats, up to a constant for each sample.

    A run keeps the change of the mean losses since each probe's reference, and changes along references add up (where
    chains were dropped, approximately). They begin at probes without a reference: there the losses at the training
    weights are taken, so that probes whose references lead back to different beginnings are comparable but for what the
    chains of those beginnings add to the losses, of which the constant is the part that they have in common.
    """
    steps, references = run["step"].values.tolist(), run["reference_step"].values.tolist()
    means, shift = sample_losses(run), run["shift"].values.astype(np.float64)
    place = {step: row for row, step in enumerate(steps)}
    for row, (step, reference) in enumerate(zip(steps, references, strict=True)):
        if reference != step and reference in place:
            means[row] = means[place[reference]] + shift[row]
    return means


def sample_losses(run: xr.Dataset) -> Array:
    """``[..., sample]``: losses at the training weights, nats, summed over tokens; of a run or of one probe."""
    losses = run["anchor_loss"]
    if "token" in losses.dims:
        losses = losses.sum("token", dtype=np.float64, skipna=False)
    return np.array(losses.values, dtype=np.float64)


def _since_reference(run: xr.Dataset, values: Array) -> Array:
    """``[step, ...]``: change of ``[step, ...]`` since the reference; NaN without one."""
    steps, references = run["step"].values.tolist(), run["reference_step"].values.tolist()
    place = {step: row for row, step in enumerate(steps)}
    found = np.full(values.shape, np.nan)
    for row, (step, reference) in enumerate(zip(steps, references, strict=True)):
        if reference != step and reference in place:
            found[row] = values[row] - values[place[reference]]
    return found


def _change(run: xr.Dataset, losses: Array) -> Array:
    """``[step]``: half the length of the change of ``[step, loss]`` since the reference; NaN without one.

    Losses of samples that are left out from some probe on count up to there.
    """
    moved = _since_reference(run, losses.astype(np.float64))
    known = np.isfinite(moved)
    length = np.linalg.norm(np.where(known, moved, 0.0), axis=1) / 2
    return np.where(known.any(axis=1), length, np.nan)


def _check_groups(run: xr.Dataset, groups: Iterable[str]) -> None:
    names = [str(name) for name in run["group"].values]
    for name in groups:
        if name not in names:
            raise InputError(f"got group {name!r}; expected one of {names}; name groups of this run")


def _chosen(run: xr.Dataset, pairs: Iterable[tuple[str, str]] | None) -> list[tuple[str, str]]:
    names = [str(name) for name in run["group"].values]
    total = run["group_bif"].sel(part="total")
    if pairs is None:
        return [(it, it) for it in names if total.sel(group=it, group_j=it).notnull().any()]
    chosen = list(dict.fromkeys((str(group), str(group_j)) for group, group_j in pairs))
    for group, group_j in chosen:
        _check_groups(run, (group, group_j))
        if total.sel(group=group, group_j=group_j).isnull().all():
            raise InputError(
                f"got pair {group!r}, {group_j!r}, which has no losses in two different samples; expected one that "
                "has; choose another pair"
            )
    return chosen
