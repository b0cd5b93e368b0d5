"""One signal of a run while it goes on, probe by probe: the values that its table will have."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import xarray as xr

from stagewise.errors import InputError
from stagewise.influence.chain_counts import equilibrated_probes
from stagewise.phases.online import Direction
from stagewise.phases.signal_table import (
    BETWEEN,
    LLC,
    LOSSES,
    PARTS,
    contrast_signal,
    group_signal,
    is_llc,
    llc_signal,
    pair_signal,
    sample_losses,
)

LossesByStep = Mapping[int, Sequence[float]]
"""Losses at earlier probes, nats, by training step: of the groups for a contrast, else of the samples."""

CONTRAST = "contrast/"
"""How the names of contrasts begin."""


class LiveValue(NamedTuple):
    """A signal at one probe.

    Attributes:
        value: in the unit of the signal table; NaN where the probe does not tell.
        error: its standard error; NaN where unknown.
    """

    value: float
    error: float


UNKNOWN = LiveValue(float("nan"), float("nan"))


def live_signals(groups: Sequence[str]) -> list[str]:
    """Names of the signals that can be read live.

    ``between``, ``losses_alone``, ``group_loss/A``, ``contrast/A~B``, ``within/A~B``, ``total/A~B``, ``llc`` and
    ``llc/A``.

    Args:
        groups: names of the groups over the observed set.
    """
    pairs = [pair_signal(part, first, second) for part in PARTS for first in groups for second in groups]
    contrasts = [contrast_signal(first, second) for first, second in permutations(groups, 2)]
    return [BETWEEN, LOSSES, *map(group_signal, groups), *contrasts, *pairs, LLC, *map(llc_signal, groups)]


def needs_earlier(signal: str) -> bool:
    """Whether a signal is a change since the reference probe, whose losses must be remembered."""
    return signal == LOSSES or signal.startswith(CONTRAST)


def direction_of(signal: str) -> Direction:
    """The way in which a transition moves a signal."""
    return Direction.rising if signal in (BETWEEN, LOSSES) or is_llc(signal) else Direction.falling


def live_signal(probe: xr.Dataset, signal: str, earlier: LossesByStep) -> LiveValue:
    """Value of a signal at one probe, as :func:`~stagewise.phases.signal_table.signal_table` has it.

    Args:
        probe: as the callback tells of it.
        signal: one of :func:`live_signals`.
        earlier: for a signal that :func:`needs_earlier`, losses at the probes that this one may refer to, see
            :func:`remember`.

    Raises:
        InputError: the probe has no such signal.
    """
    if signal == BETWEEN:
        return LiveValue(float(probe["signal"]), float(probe["signal_se"]))
    if is_llc(signal) and "llc" not in probe:
        raise InputError(f"got signal {signal!r} with probes that do not measure it; set probe.llc.enabled to true")
    if signal == LLC:
        return LiveValue(float(probe["llc"]), float(probe["llc_se"]))
    before = None
    if probe.attrs["reference_step"] != probe.attrs["step"]:
        before = earlier.get(int(probe.attrs["reference_step"]))
        now = probe["group_loss"] if signal.startswith(CONTRAST) else sample_losses(probe)
        if before is not None and len(before) != len(now):
            before = None  # samples were left out since
    if signal == LOSSES:
        if before is None:
            return UNKNOWN
        return LiveValue(float(np.linalg.norm(sample_losses(probe) - np.asarray(before)) / 2), UNKNOWN.error)
    names = [str(name) for name in probe["group"].values] if "group" in probe.dims else []
    for group in names:
        if signal == group_signal(group):
            return LiveValue(float(probe["group_loss"].sel(group=group)), UNKNOWN.error)
        if signal == llc_signal(group):
            own = probe[["group_llc", "group_llc_se"]].sel(group=group)
            return LiveValue(float(own["group_llc"]), float(own["group_llc_se"]))
        for group_j in names:
            if signal == contrast_signal(group, group_j):
                if before is None:
                    return UNKNOWN
                change = probe["group_loss"].values - np.asarray(before)
                return LiveValue(float(change[names.index(group)] - change[names.index(group_j)]), UNKNOWN.error)
            for part in PARTS:
                if signal == pair_signal(part, group, group_j):
                    at = {"part": part, "group": group, "group_j": group_j}
                    error = float(probe["group_bif_se"].sel(at)) if equilibrated_probes(probe) else UNKNOWN.error
                    return LiveValue(float(probe["group_bif"].sel(at)), error)
    raise InputError(f"got signal {signal!r}; expected one of {live_signals(names)}; name a signal of these probes")


def remember(earlier: LossesByStep, probe: xr.Dataset, signal: str) -> dict[int, list[float]]:
    """Losses of the probes that later ones may refer to: references never go back.

    Args:
        earlier: so far.
        probe: the latest.
        signal: it says whose losses are needed.
    """
    step, reference = int(probe.attrs["step"]), int(probe.attrs["reference_step"])
    kept = {at: list(losses) for at, losses in earlier.items() if reference in (step, at) or at > reference}
    losses = probe["group_loss"].values if signal.startswith(CONTRAST) else sample_losses(probe)
    return {**kept, step: losses.tolist()}
