"""Amount by which an intervention changed the data, summed over its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stagewise.interventions.check_weights import GroupWeights
from stagewise.interventions.strata import Strata


@dataclass(frozen=True)
class Budget:
    """Changes by weights, summed over steps. The arms of a study are matched by their budgets.

    Attributes:
        groups: maps names to the sum over steps of rho - 1, rho the factor on the group's share of the data. The unit
            is steps: 50 equals the group's data in 50 further steps of ordinary training. Over the whole data set,
            rho - 1 sums to 0 at every step: data gained by one group are lost by others.
        moved: sum over steps of the share of data moved, in steps; times the batch size, it is the expected number of
            replaced samples.
        steps: number of steps at which some rho differs from 1.
    """

    groups: Mapping[str, float]
    moved: float
    steps: int


def budget(strata: Strata, changes: Sequence[tuple[int, GroupWeights]], *, end: int, start: int = 0) -> Budget:
    """Sums the changes by weights from ``start`` to ``end``.

    Args:
        strata: the data: samples for sampling, tokens for token weights.
        changes: pairs of first step and weights from then on, in order of steps; weights are 1 before the first.
        end: last step, exclusive.
        start: first step.

    Raises:
        InputError: unknown groups, or invalid weights.
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
