"""Table of influence through several components of a model, such as heads."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from stagewise.errors import InputError, require
from stagewise.files.writing import whole_file
from stagewise.influence.chain_counts import chain_counts, equilibrated_probes
from stagewise.influence.llc import readable_share
from stagewise.influence.sign import SIGN, UNITS

_AXES = ("component", "group", "group_j", "step")
_SETTINGS = ("nbeta", "localization", "centering")

COEFFICIENTS = ("group_llc", "group_llc_se", "llc", "llc_se", "llc_localized_share")
"""Learning coefficients in a table, of groups and of all losses, see :mod:`stagewise.influence.llc`."""


def component_table(results: Mapping[str, xr.Dataset], *, part: str = "within") -> xr.Dataset:
    """Combines the group influence of chains that moved different components of a model.

    Values are comparable only between similar components: at the same localization, a chain over more weights moves
    further. Compare heads with heads.

    Args:
        results: by name of the component, e.g. ``layer1.head0``: runs as
            :func:`~stagewise.runs.open.open_run` returns them, or single probes, at the same steps, over the same
            groups, at the same ``nbeta``, ``localization`` and centring.
        part: ``within``, ``drift``, ``between`` or ``total``.

    Returns:
        Data set over ``component``, ``group``, ``group_j`` and ``step``: ``group_bif`` (minus the covariance, nats^2,
        negative = helpful), ``group_bif_se`` (jackknife over chains, nats^2; NaN where unknown or out of equilibrium),
        ``chains`` [component, step] behind the error, ``moved_weights`` [component], 0 if unknown, and the (weight- and
        data-refined) learning coefficients: ``group_llc``, ``group_llc_se`` [component, group, step], and ``llc``,
        ``llc_se``, ``llc_localized_share`` [component, step]; NaN if a result has none, or if the share is far outside
        0 to 1.

    Raises:
        InputError: no component, unknown part, or incompatible results.
    """
    if not results:
        raise InputError("got no component; expected at least one; pass a mapping from its name to its data set")
    runs = {name: _over_steps(name, run, part) for name, run in results.items()}
    first_name, first = next(iter(runs.items()))
    for name, run in runs.items():
        for axis, what in (("step", "steps"), ("group", "groups")):
            have, need = run[axis].values.tolist(), first[axis].values.tolist()
            if have != need:
                raise InputError(
                    f"got {what} {_few(have)} for {name!r} and {_few(need)} for {first_name!r}; expected the same for "
                    f"all components; select those that all have, e.g. run.sel({axis}=[...])"
                )
        for setting in _SETTINGS:
            if run.attrs.get(setting) != first.attrs.get(setting):
                raise InputError(
                    f"got {setting} {run.attrs.get(setting)} for {name!r} and {first.attrs.get(setting)} for "
                    f"{first_name!r}; expected one setting: influence at different ones is not comparable; sample again"
                )
    names = xr.DataArray(np.array(list(runs), dtype=object), dims="component")
    stacked = {
        variable: xr.concat([run[variable] for run in runs.values()], dim=names.rename("component"))
        for variable in ("group_bif", "group_bif_se", "chains")
    }
    table = xr.Dataset(
        {
            "group_bif": stacked["group_bif"].transpose(*_AXES),
            "group_bif_se": stacked["group_bif_se"].transpose(*_AXES),
            "chains": stacked["chains"].transpose("component", "step"),
            "moved_weights": ("component", [int(run.attrs.get("moved_weights", 0)) for run in runs.values()]),
        },
        coords={"component": names.values, "group": first["group"], "group_j": first["group_j"], "step": first["step"]},
        attrs={"part": part, "sign": SIGN, "units": UNITS}
        | {name: first.attrs[name] for name in _SETTINGS if name in first.attrs},
    )
    for variable in COEFFICIENTS:
        axes = ("component", "group", "step") if variable.startswith("group") else ("component", "step")
        rows = xr.concat([run[variable] for run in runs.values()], dim=names.rename("component"))
        values = rows.transpose(*axes).values
        shown = readable_share(values) if variable == "llc_localized_share" else values
        table[variable] = (axes, shown, {"units": "1"})
    for name in ("group_bif", "group_bif_se"):
        table[name].attrs = {"sign": SIGN, "units": UNITS}
    return table


def write_component_csv(path: Path, table: xr.Dataset) -> Path:
    """Writes a table as CSV, atomically; returns the path.

    There is a row for each (component, group, group_j, step); unknown values are empty. Columns: component, group,
    group_j, step, group_bif (nats^2, negative = helpful), group_bif_se, chains, moved_weights, and the learning
    coefficients, pure numbers: group_llc and group_llc_se of ``group``, llc, llc_se and llc_localized_share of all
    losses.

    Args:
        path: of the file.
        table: from :func:`component_table`.
    """
    rows = table.reset_coords(drop=True).to_dataframe(dim_order=list(_AXES)).reset_index()
    with whole_file(path) as aside:
        rows[[*_AXES, "group_bif", "group_bif_se", "chains", "moved_weights", *COEFFICIENTS]].to_csv(aside, index=False)
    return path


@dataclass(frozen=True)
class Leader:
    """Component through which a group influences itself most.

    Attributes:
        component: its name.
        steps: of the probes in the mean.
        influence: its group influence, mean over these probes, nats^2, negative = helpful.
        error: its standard error, nats^2; NaN where unknown.
        runner_up: second component; None with a single one.
        margin: difference to the second in absolute value, nats^2, 0 or more; NaN with a single one.
        margin_error: standard error of the margin, nats^2, assuming independent errors; NaN if unknown. A
            margin of less than two or three of them (more with few chains) does not separate the two components.
    """

    component: str
    steps: tuple[int, ...]
    influence: float
    error: float
    runner_up: str | None
    margin: float
    margin_error: float


def leading_component(
    table: xr.Dataset, group: str, *, step: int | None = None, window: tuple[int, int] | None = None
) -> Leader:
    """Returns the component with the largest absolute influence of a group on itself.

    Args:
        table: from :func:`component_table`.
        group: a group of it, with losses in two samples at least.
        step: at this probe.
        window: over the probes from the first step to the second, both included: the mean over them. Its error is the
            mean of their errors, assuming full correlation, which nearly holds with common random numbers. With neither
            ``step`` nor ``window``, over all probes.

    Raises:
        InputError: both are given, unknown group or step, no probe in the window, or no known influence there.
    """
    require(step is None or window is None, "step and window", (step, window), "one of them", "leave one out")
    known = [str(name) for name in table["group"].values]
    require(group in known, "group", repr(group), f"one of {', '.join(known)}", "choose a group of the table")
    steps = table["step"].values
    first, last = window if window is not None else (steps[0], steps[-1]) if step is None else (step, step)
    inside = steps[(steps >= first) & (steps <= last)]
    where = f"steps {first} to {last}"
    require(len(inside) > 0, "window", where, f"a probe in it; there are {_few(steps.tolist())}", "widen it")
    own = table[["group_bif", "group_bif_se"]].sel(group=group, group_j=group, step=inside)
    # Without skipping NaN: means over fewer probes are not comparable.
    mean = own.mean("step", skipna=False)
    values, errors = mean["group_bif"].values, mean["group_bif_se"].values
    size = np.abs(values)
    if np.isnan(size).all():
        raise InputError(
            f"got no known influence of {group!r} on itself at {where}; expected a group with losses in two samples, "
            "and probes whose chains were kept; choose other steps, or another group"
        )
    order = np.argsort(-np.where(np.isnan(size), -1.0, size), kind="stable")
    best = int(order[0])
    second = int(order[1]) if len(order) > 1 and not np.isnan(size[order[1]]) else None
    names = [str(name) for name in table["component"].values]
    return Leader(
        component=names[best],
        steps=tuple(int(step) for step in inside),
        influence=float(values[best]),
        error=float(errors[best]),
        runner_up=None if second is None else names[second],
        margin=math.nan if second is None else float(size[best] - size[second]),
        margin_error=math.nan if second is None else math.hypot(errors[best], errors[second]),
    )


def _over_steps(name: str, run: xr.Dataset, part: str) -> xr.Dataset:
    """Returns one part of the influence of a run or a probe, with an axis of steps, and its chains."""
    if "group_bif" not in run or "group_bif_se" not in run:
        raise InputError(
            f"got a data set without group_bif and group_bif_se for {name!r}; expected a run or a probe; pass what "
            "Prober.probe or open_run returns"
        )
    parts = [str(name) for name in run["part"].values]
    require(part in parts, "part", repr(part), f"one of {', '.join(parts)}", "'within' is the default")
    chosen = run[["group_bif", "group_bif_se"]].sel(part=part, drop=True).assign(chains=chain_counts(run))
    chosen["group_bif_se"] = chosen["group_bif_se"].where(equilibrated_probes(run))
    for variable in COEFFICIENTS:
        # Missing in runs of an earlier version, or if disabled.
        like = run["group_bif"].isel(part=0, group_j=0, drop=True)
        like = like if variable.startswith("group") else like.isel(group=0, drop=True)
        chosen[variable] = run[variable] if variable in run else xr.full_like(like, np.nan)
    if "step" not in chosen.dims:
        chosen = chosen.drop_vars("step", errors="ignore").expand_dims(step=[int(run.attrs["step"])])
    return chosen


def _few(values: list) -> str:
    shown = ", ".join(str(value) for value in values[:5])
    return shown if len(values) <= 5 else f"{shown}, ... ({len(values)})"
