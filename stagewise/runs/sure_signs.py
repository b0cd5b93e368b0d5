"""Curves of influence that are surely of one sign at some probes, and unresolved before or after."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.special import ndtri

from stagewise.errors import require
from stagewise.phases.flips import sure_limit
from stagewise.runs.curves import flip_degrees, usable_probes


@dataclass(frozen=True)
class SureSign:
    """Curve with a significant sign at some probes, and never the other.

    Attributes:
        group: whose weight.
        group_j: whose loss.
        side: ``helpful`` or ``harmful``.
        first: training step of the first such probe.
        last: training step of the last such probe.
        before: True if there are probes before ``first``, with unresolved sign.
        after: True if there are probes after ``last``, with unresolved sign.
    """

    group: str
    group_j: str
    side: str
    first: int
    last: int
    before: bool
    after: bool

    @property
    def when(self) -> str:
        """Steps with the sign, and unresolved stretches."""
        one = self.first == self.last
        if self.before and self.after:
            span = f"at step {self.first:,}" if one else f"from step {self.first:,} to {self.last:,}"
            return f"surely {self.side} {span}; sign before and after that unresolved"
        if self.before:
            return f"surely {self.side} from step {self.first:,}; sign before that unresolved"
        if self.after:
            return f"surely {self.side} up to step {self.last:,}; sign after that unresolved"
        return f"surely {self.side} from the first probe to the last"

    @property
    def words(self) -> str:
        """The pair and :attr:`when`."""
        pair = self.group if self.group == self.group_j else f"{self.group} ~ {self.group_j}"
        return f"{pair}: {self.when}"


def sure_signs(run: xr.Dataset, pairs: Sequence[tuple[str, str]], *, chance: float = 0.05) -> list[SureSign]:
    """Finds pairs whose influence within phases has a significant sign at some probe, and never the other.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        pairs: of groups.
        chance: probability with which noise alone, independent at each probe, makes a curve of zero sure at one probe
            or more: each of n probes has 1 - (1 - chance)^(1/n) of it (Sidak).

    Returns:
        In the order of the pairs; empty if no probe in equilibrium has two chains.

    Raises:
        InputError: ``chance`` is not a probability.

    Source: Sidak 1967; Student 1908.
    """
    require(0 < chance < 1, "chance", chance, "a probability in (0, 1)", "0.05 is usual")
    degrees = flip_degrees(run)
    if degrees is None:
        return []
    usable = usable_probes(run)
    steps = run["step"].values
    share = -np.expm1(np.log1p(-chance) / usable.sum())
    limit = sure_limit(-float(ndtri(share / 2)), degrees)
    found = []
    for group, group_j in pairs:
        curve = run[["group_bif", "group_bif_se"]].sel(part="within", group=group, group_j=group_j)
        value, error = curve["group_bif"].values, curve["group_bif_se"].values
        sure = usable & (np.abs(value) > limit * error)
        signs = set(np.sign(value[sure]).tolist())
        if len(signs) != 1:
            continue
        places = np.flatnonzero(sure)
        found.append(
            SureSign(
                group,
                group_j,
                "helpful" if signs == {-1.0} else "harmful",
                int(steps[places[0]]),
                int(steps[places[-1]]),
                before=bool(places[0] > 0),
                after=bool(places[-1] < len(steps) - 1),
            )
        )
    return found
