"""Variables of a probe that describe its chains: diagnostics, flags, the trace."""

from dataclasses import fields
from typing import Any

import numpy as np

from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups
from stagewise.probes.config import ProbeConfig
from stagewise.probes.flags import Flag, find_flags
from stagewise.sampling.config import ResolvedSGLD
from stagewise.sampling.diagnostics import diagnose
from stagewise.sampling.preconditioners.diagonal import RMSprop
from stagewise.sampling.trace import Trace

_VARIABLES = {"drift": "chain_drift", "distance": "end_distance"}
"""Diagnostics with another name in a data set."""


def add_chain_facts(
    found: dict[str, Any],
    trace: Trace,
    features: GroupDraws,
    groups: Groups,
    *,
    sgld: ResolvedSGLD,
    config: ProbeConfig,
    steepest: float | None = None,
) -> list[Flag]:
    """Adds the losses at the training weights, diagnostics and flags; returns the flags.

    Args:
        found: variables of the probe by name; gains one for each diagnostic, ``flagged``, ``flag_names``,
            ``equilibrated`` (0 if one of :data:`~stagewise.probes.flags.EQUILIBRIUM_FLAGS` is raised, else 1); ``lr``
            and ``lr_curvature``; ``anchor_loss`` and ``mask``, and with ``save_trace`` the losses of each draw.
        trace: of the probe.
        features: its draws, reduced to groups, then bins.
        groups: the groups alone.
        sgld: the sampler.
        config: thresholds of the flags, and ``save_trace``.
        steepest: largest curvature that a step meets, see
            :meth:`stagewise.calibration.landscape.Measurement.steepest`; None if it was not measured.
    """
    counts = groups.counts
    own = features.groups[:, :, : counts.size]  # without the bins
    sums = own.reshape(*own.shape[:2], *counts.shape).sum(axis=-1)
    preconditioner = sgld.preconditioner
    diagnostics = diagnose(
        trace,
        group_losses=sums / counts.sum(axis=1),
        rmsprop_eps=preconditioner.eps if isinstance(preconditioner, RMSprop) else None,
    )
    known = "graddot" not in found or bool(np.isfinite(found["graddot"][1][groups.has_pairs]).all())
    kept = [field.name for field in fields(diagnostics) if field.name != "finite"]  # a flag
    values = {name: getattr(diagnostics, name) for name in kept}
    found |= {_VARIABLES.get(name, name): float("nan") if value is None else value for name, value in values.items()}
    lr_curvature = None if steepest is None else sgld.lr * steepest
    flags = find_flags(
        diagnostics,
        config.thresholds,
        nbeta=sgld.nbeta,
        chains_dropped=len(trace.dropped),
        gradients_finite=known,
        lr_curvature=lr_curvature,
    )
    found["lr"] = sgld.lr
    found["lr_curvature"] = float("nan") if lr_curvature is None else lr_curvature
    found["chains_dropped"] = len(trace.dropped)
    found["flagged"] = len(flags)
    found["equilibrated"] = int(not any(flag.of_equilibrium for flag in flags))
    found["flag_names"] = ((), np.array(", ".join(flag.name for flag in flags), dtype=object))
    axes = ("sample", "token")[: trace.mask.ndim]
    found["anchor_loss"] = (axes, trace.anchor_loss, {"units": "nats"})
    found["mask"] = (axes, trace.mask)
    if config.save_trace:
        found["loss"] = (("chain", "draw", *axes), trace.loss, {"units": "nats"})
        found["distance"] = (("chain", "draw"), trace.distance)
        found["chain"] = ("chain", list(trace.chains))
    return flags
