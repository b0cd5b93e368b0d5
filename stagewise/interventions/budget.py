"""Amount by which an intervention changed the data, summed over its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stagewise.interventions.check_weights import GroupWeights
from stagewise.interventions.strata import Strata


@dataclass(frozen=True)
class Budget:
    """Integral of what weights change. Arms of one study are matched by it.

    Attributes:
        groups: name to the sum over steps of rho - 1, rho being the factor on the group's share of the data. In steps:
            50 is as much as the group would have had in 50 further steps of ordinary training. Over the whole data
            set, rho - 1 sums to 0 at every step: what one group gains, others lose.
        moved: sum over steps of the share of the mass that is moved, in steps; times the batch size, the number of
            samples that are expected to be replaced by others.
        steps: number of steps at which some rho differs from 1.
    """

    groups: Mapping[str, float]
    moved: float
    steps: int


def budget(strata: Strata, changes: Sequence[tuple[int, GroupWeights]], *, end: int, start: int = 0) -> Budget:
    """Adds up what weights change from ``start`` to ``end``.

    Args:
        strata: the data: samples for sampling, tokens for token weights.
        changes: from which step on which weights hold, steps not decreasing; all are 1 before the first.
        end: first step that no longer counts.
        start: first step that counts.

    Raises:
        InputError: unknown groups, or weights that cannot be followed.
    """
    groups = dict.fromkeys(strata.names, 0.0)
    moved, steps = 0.0, 0
    untils = [*(step for step, _ in changes[1:]), end][: len(changes)]
    for (since, weights), until in zip(changes, untils, strict=True):
        length = min(until, end) - max(since, start)
        if length <= 0:
            continue
        rho = strata.rho(weights)
        for name, factor in strata.group_rho(rho).items():
            groups[name] += length * (factor - 1.0)
        moved += length * strata.moved(rho)
        steps += length * bool((rho != 1.0).any())
    return Budget(groups, moved, steps)
