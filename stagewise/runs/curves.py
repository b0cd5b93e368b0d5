"""Influence curves of a run: intervals, pairs to show, and significant changes of sign."""

from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np
import xarray as xr

from stagewise.errors import InputError, require
from stagewise.influence.chain_counts import chain_counts, interval_factor
from stagewise.influence.sign import SIGN, UNITS
from stagewise.phases.flips import SignFlip, find_flips
from stagewise.runs.equilibrium import settled_probes
from stagewise.runs.strongest import strongest_pairs

_MOST_PAIRS = 9


def refuse_unknown_groups(run: xr.Dataset, groups: Iterable[str]) -> None:
    """Refuses a group that a run does not have.

    Raises:
        InputError: unknown group; the message lists the groups and suggests a similar name.
    """
    known = [str(name) for name in run["group"].values] if "group" in run.coords else []
    for group in groups:
        if group not in known:
            near = get_close_matches(str(group), known, n=1)
            advice = f"did you mean {near[0]!r}?" if near else "choose a group of this run"
            raise InputError(f"got group {group!r}; expected one of {', '.join(known) or 'none'}; {advice}")


def influence_curve(
    run: xr.Dataset, group: str, group_j: str, *, part: str = "within", confidence: float = 0.95
) -> xr.Dataset:
    """Returns the influence of one group on another over a run, with its intervals.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        group: whose weight.
        group_j: whose loss.
        part: ``within``, ``drift``, ``between`` or ``total``.
        confidence: of the interval, 0 to 1.

    Returns:
        Over ``step``: ``value`` (minus the covariance, nats^2, negative = helpful; NaN where the groups have no pair of
        losses in different samples), ``se`` (jackknife over chains, nats^2; NaN with one chain), ``low`` and ``high``
        (Student's interval with one degree of freedom less than chains; NaN with one chain, and where the chains of the
        probe or of its reference have not reached equilibrium) and ``equilibrated``.

    Raises:
        InputError: no group influence, no such group or part, or ``confidence`` out of range.

    Source: Student 1908; jackknife over chains, Quenouille 1956, Tukey 1958.
    """
    if "group_bif" not in run or "group_bif_se" not in run or "step" not in run.dims:
        raise InputError("got a data set that is not a run with group_bif; expected what open_run returns")
    refuse_unknown_groups(run, (group, group_j))
    parts = [str(name) for name in run["part"].values]
    require(part in parts, "part", repr(part), f"one of {', '.join(parts)}", "'within' is the default")
    at = {"part": part, "group": group, "group_j": group_j}
    value, error = (run[name].sel(at).values for name in ("group_bif", "group_bif_se"))
    half = np.broadcast_to(interval_factor(run, confidence).values, value.shape) * error
    end = f"end of the {100 * confidence:g} % interval"
    columns = {
        "value": (value, "influence"),
        "se": (error, "standard error over chains"),
        "low": (value - half, f"lower {end}"),
        "high": (value + half, f"upper {end}"),
    }
    found = xr.Dataset(
        {name: ("step", values, {"long_name": words, "units": UNITS}) for name, (values, words) in columns.items()},
        coords={"step": run["step"].values},
        attrs=at | {"confidence": confidence, "sign": SIGN, "units": UNITS},
    )
    found["equilibrated"] = ("step", settled_probes(run), {"long_name": "chains in equilibrium", "units": ""})
    return found


def curve_pairs(run: xr.Dataset, part: str = "within") -> list[tuple[str, str]]:
    """Returns the pairs whose curves are shown by default, nine at most, in the order of :func:`pairs_to_read`.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it, with group influence.
        part: ``within``, ``drift``, ``between`` or ``total``.
    """
    return pairs_to_read(run, part)[:_MOST_PAIRS]


def pairs_to_read(run: xr.Dataset, part: str = "within") -> list[tuple[str, str]]:
    """Returns all pairs of groups in reading order: sure ones first, two groups before a group with itself.

    See :func:`~stagewise.runs.strongest.strongest_pairs`. Pairs without losses in different samples are left out; those
    known only out of equilibrium come last.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it, with group influence.
        part: ``within``, ``drift``, ``between`` or ``total``.
    """
    names = [str(name) for name in run["group"].values]
    known = run["group_bif"].notnull().any([dim for dim in run["group_bif"].dims if dim not in ("group", "group_j")])
    rows, columns = np.nonzero(np.triu(known.transpose("group", "group_j").values))
    pairs = [(names[row], names[column]) for row, column in zip(rows, columns, strict=True)]
    first = strongest_pairs(run, max(1, len(pairs)), part=part, cross_first=True)
    return [*first, *(pair for pair in pairs if pair not in set(first))]


def sure_flips(
    run: xr.Dataset, group: str, group_j: str, *, part: str = "within", min_z: float = 3.0
) -> list[SignFlip]:
    """Returns the sign changes of the influence between two groups of a run, by Student's t.

    Degrees of freedom are one less than the chains of the probe with the fewest. Probes with a single chain, which have
    no error, are left out, as are those out of equilibrium, see
    :func:`~stagewise.influence.chain_counts.equilibrated_probes`.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        group: group whose weight changes.
        group_j: group whose loss responds.
        part: ``within``, ``drift``, ``between`` or ``total``.
        min_z: see :func:`stagewise.phases.flips.find_flips`.
    """
    degrees = flip_degrees(run)
    if degrees is None:
        return []
    usable = usable_probes(run)
    curve = run[["group_bif", "group_bif_se"]].sel(part=part, group=group, group_j=group_j).isel(step=usable)
    return find_flips(
        curve["step"].values, curve["group_bif"].values, curve["group_bif_se"].values, min_z=min_z, degrees=degrees
    )


def flip_degrees(run: xr.Dataset) -> float | None:
    """Returns the degrees of freedom in :func:`sure_flips`; None if no probe in equilibrium has two chains.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
    """
    counts = np.broadcast_to(chain_counts(run).values, run["step"].shape)[usable_probes(run)]
    return float(counts.min()) - 1 if counts.size else None


def usable_probes(run: xr.Dataset) -> np.ndarray:
    """Marks probes with a valid error, ``[step]``: two chains or more, in equilibrium.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
    """
    return (np.broadcast_to(chain_counts(run).values, run["step"].shape) >= 2) & settled_probes(run)
