"""Probes of a run that are out of equilibrium, and the reasons, in words."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.checks.counted import counted
from stagewise.influence.chain_counts import equilibrated_probes
from stagewise.probes.flags import EQUILIBRIUM_FLAGS, FLAG_NAMES

_OF_REFERENCE = "reference"

_MOST_OF_FALL = 0.5
"""Share of the fall of the mean loss above which a stretch of steps has most of it."""


def settled_probes(run: xr.Dataset) -> NDArray[np.bool_]:
    """Returns ``[step]``: see :func:`~stagewise.influence.chain_counts.equilibrated_probes`."""
    return np.broadcast_to(equilibrated_probes(run).values, run["step"].shape)


def unread_start(run: xr.Dataset) -> str | None:
    """Describes the consecutive probes out of equilibrium at the start of a run, before later ones in equilibrium.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.

    Returns:
        Their steps, with a remark if most of the fall of the groups' mean loss is before the first probe in
        equilibrium; None if the first probe is in equilibrium, or none is.
    """
    settled = settled_probes(run)
    if settled.all() or not settled.any() or settled[0]:
        return None
    first = int(np.argmax(settled))
    steps = run["step"].values
    where = f"step {steps[0]:,}" if first == 1 else f"steps {steps[0]:,} to {steps[first - 1]:,}"
    return f"{where}{', where losses fall most,' if _falls_before(run, first) else ''} cannot be read"


def _falls_before(run: xr.Dataset, place: int) -> bool:
    """Returns True if most of the fall of the mean loss is before a probe."""
    if "group_loss" not in run:
        return False
    losses = run["group_loss"].mean([dim for dim in run["group_loss"].dims if dim != "step"]).values
    if not np.isfinite(losses[[0, place]]).all():
        return False
    fall = losses[0] - np.nanmin(losses)
    return bool(fall > 0 and losses[0] - losses[place] > _MOST_OF_FALL * fall)


def flag_counts(run: xr.Dataset) -> dict[str, int]:
    """Counts the probes of a run with each kind of flag, most frequent first; empty if the run lacks flags.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
    """
    counts = Counter(name for row in _names(run) for name in row)
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def _names(run: xr.Dataset) -> list[list[str]]:
    names = run["flag_names"].values.tolist() if "flag_names" in run else [""] * run.sizes["step"]
    return [[name for name in str(words).split(", ") if name in FLAG_NAMES] for words in names]


def flag_line(flags: Mapping[str, int], flagged: int, probes: int) -> str:
    """Describes the number of flagged probes and their flags, in a sentence.

    Args:
        flags: name of a flag to the number of probes with it.
        flagged: number of probes with a flag.
        probes: number of probes.
    """
    if not flagged:
        return f"none of {counted(probes, 'probe')}."
    kinds = ", ".join(
        f"{name} {count}" for name, count in sorted(flags.items(), key=lambda entry: (-entry[1], entry[0]))
    )
    return f"{flagged} of {counted(probes, 'probe')} ({kinds})."


def unsettled_words(run: xr.Dataset) -> str | None:
    """Describes the number of probes out of equilibrium and their flags; None if there are none.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
    """
    settled = settled_probes(run)
    if settled.all():
        return None
    causes: Counter[str] = Counter()
    for row, words in enumerate(_names(run)):
        if not settled[row]:
            causes.update(set(words) & EQUILIBRIUM_FLAGS or {_OF_REFERENCE})
    listed = ", ".join(
        f"{name} {count}" for name, count in sorted(causes.items(), key=lambda entry: (-entry[1], entry[0]))
    )
    return f"{(~settled).sum()} of {counted(len(settled), 'probe')} out of equilibrium ({listed})"
