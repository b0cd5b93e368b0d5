"""Concatenation of probes into one data set."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from stagewise.files.zarr_file import Content, Entry

_STEP = "step"

_FOLLOWS_CURVATURE = ("lr", "num_burnin_steps", "num_steps_bw_draws")
"""Settings of the sampler that may change during a run, see :mod:`stagewise.callbacks.settings_watch`."""


def joined(probes: Mapping[int, Content]) -> xr.Dataset:
    """Concatenates probes along a new first axis ``step``.

    Probes with the same arrays and sizes are stacked at once; between different ones (with a control, with fewer
    chains), xarray fills missing values with NaN.

    Args:
        probes: by training step, at least one, each with the attribute ``reference_step``.

    Returns:
        Variables over ``step`` and their own axes, in the order of their names; coordinates ``step`` and
        ``reference_step``, and those of the probes. Attributes that differ between probes are dropped. If ``lr`` was
        lowered during the run, ``sgld`` and ``lr`` are those of the last probe, and the variable ``lr`` has all values.
    """
    alike: dict[Hashable, list[int]] = {}
    for step, probe in probes.items():
        alike.setdefault(_layout(probe), []).append(step)
    stacks = [_stacked({step: probes[step] for step in steps}) for steps in alike.values()]
    run = stacks[0]
    if len(stacks) > 1:
        run = xr.concat(
            _numbered(stacks),
            dim=_STEP,
            join="outer",
            combine_attrs="override",
            data_vars="all",
            coords="minimal",
            fill_value={"mask": False},
        )
        run = run.isel(step=np.argsort(run[_STEP].values))
        for axis in ("group", "group_j"):
            # Restores the order of groups, which an outer join sorts.
            names = dict.fromkeys(name for stack in stacks if axis in stack.coords for name in stack[axis].values)
            if axis in run.coords and run[axis].values.tolist() != list(names):
                run = run.sel({axis: list(names)})
    run.attrs = _agreed(probe.attributes for probe in probes.values()) | _last_sampler(probes)
    for name in run.variables:
        own = (probe.entries[str(name)].attributes for probe in probes.values() if name in probe.entries)
        run.variables[name].attrs = _agreed(own)
    return run


def _numbered(stacks: list[xr.Dataset]) -> list[xr.Dataset]:
    """Returns stacks with the coordinate of sample numbers, if samples were left out in one of them."""
    axes = ("sample", "sample_j")
    if not any(axis in stack.coords for stack in stacks for axis in axes):
        return stacks
    return [
        stack.assign_coords(
            {axis: range(stack.sizes[axis]) for axis in axes if axis in stack.dims and axis not in stack.coords}
        )
        for stack in stacks
    ]


def _layout(probe: Content) -> Hashable:
    """Returns a key that is equal for probes whose arrays can be stacked, with the same coordinates."""
    return tuple(
        (name, entry.axes, entry.values.shape, entry.values.dtype.str, _key(entry) if name in probe.coordinates else "")
        for name, entry in sorted(probe.entries.items())
    )


def _key(entry: Entry) -> Hashable:
    return tuple(entry.values.ravel().tolist()) if entry.values.dtype == object else entry.values.tobytes()


def _stacked(probes: Mapping[int, Content]) -> xr.Dataset:
    """Returns the data set of probes of one layout."""
    steps = list(probes)
    first = probes[steps[0]]
    references = [int(probe.attributes["reference_step"]) for probe in probes.values()]
    return xr.Dataset(
        {
            name: (
                (_STEP, *first.entries[name].axes),
                np.stack([probe.entries[name].values for probe in probes.values()]),
            )
            for name in sorted(first.entries.keys() - first.coordinates)
        },
        coords={_STEP: steps}
        | {name: (entry.axes, entry.values) for name, entry in first.entries.items() if name in first.coordinates}
        | {"reference_step": (_STEP, references)},
    )


def _last_sampler(probes: Mapping[int, Content]) -> dict[str, Any]:
    """Returns ``sgld`` and ``lr`` of the last probe; empty where the probes differ in other settings, or lack them."""
    found = [probe.attributes.get("sgld") for probe in probes.values()]
    kept = [
        {name: value for name, value in sgld.items() if name not in _FOLLOWS_CURVATURE}
        for sgld in found
        if isinstance(sgld, Mapping)
    ]
    last = probes[max(probes)].attributes
    if len(kept) < len(found) or "lr" not in last or any(settings != kept[0] for settings in kept):
        return {}
    return {name: last[name] for name in ("sgld", "lr")}


def _agreed(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the attributes, in JSON form, without those that differ."""
    agreed: dict[str, Any] = {}
    differing: set[str] = set()
    for attributes in found:
        for name, value in attributes.items():
            if name in differing:
                continue
            if name not in agreed:
                agreed[name] = value
            elif agreed[name] != value and not (agreed[name] != agreed[name] and value != value):  # NaN agrees
                del agreed[name]
                differing.add(name)
    return agreed
