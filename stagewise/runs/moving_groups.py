"""Groups whose influence changes while a score rises."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from stagewise.influence.chain_counts import chain_counts
from stagewise.phases.flips import sure_limit
from stagewise.runs.equilibrium import settled_probes

_MIN_Z = 2.0


@dataclass(frozen=True)
class Move:
    """Influence of a group on itself before and after an interval.

    Attributes:
        group: its name.
        before: at the last probe at or before the start, nats^2, negative = helpful.
        after: at the first probe at or after the end, nats^2.
        z: change over its standard error, assuming independent probes (common random numbers make the error smaller).
        sure: True beyond 2 standard errors, or the equivalent quantile of Student's t.
    """

    group: str
    before: float
    after: float
    z: float
    sure: bool


def moves(run: xr.Dataset, start: int, end: int, *, part: str = "within") -> list[Move]:
    """Compares the influence of each group on itself at ``start`` and ``end``, largest change (in errors) first.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        start: training step.
        end: later training step.
        part: of the influence.

    Returns:
        Groups that have an error at both probes; empty if there is no probe on one side of the interval, or one of the
        two is out of equilibrium.
    """
    steps = run["step"].values
    if not steps[0] <= start < end <= steps[-1]:
        return []
    places = [int(np.searchsorted(steps, start, side="right")) - 1, int(np.searchsorted(steps, end))]
    chains = np.broadcast_to(chain_counts(run).values, steps.shape)[places]
    if chains.min() < 2 or not settled_probes(run)[places].all():
        return []
    limit = sure_limit(_MIN_Z, float(chains.min()) - 1)
    found = []
    for group in map(str, run["group"].values):
        at = {"part": part, "group": group, "group_j": group}
        values = run["group_bif"].sel(at).values[places]
        error = float(np.hypot(*run["group_bif_se"].sel(at).values[places]))
        if np.isfinite(values).all() and error > 0:
            z = float(values[1] - values[0]) / error
            found.append(Move(group, float(values[0]), float(values[1]), z, abs(z) > limit))
    return sorted(found, key=lambda move: -abs(move.z))
