"""Policies that decide the weights of groups when a window opens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from stagewise.checks.bounds import settle_fields, shown
from stagewise.checks.dotted_path import Call, check_arguments_of, load_callable
from stagewise.checks.group_names import check_group_names
from stagewise.checks.ranges import at_least, within
from stagewise.errors import InputError, require
from stagewise.interventions.check_weights import GroupWeights, check_names, check_values, complete_weights
from stagewise.interventions.influence_table import InfluenceTable

_SIGNATURE = "(names, *, window, step, influence) -> weights"
_LIKE: Call = ((["a"],), {"window": 0, "step": 0, "influence": None})
"""Example of a call to a policy, with the right number and names of arguments."""


class Policy(Protocol):
    """Callable that decides the weights of a window; a plain function suffices.

    A policy may also have a method ``check(names)``, which is called before training and raises an ``InputError`` if
    the policy does not support these groups.
    """

    def __call__(
        self, names: Sequence[str], *, window: int, step: int, influence: InfluenceTable | None
    ) -> GroupWeights:
        """Returns weights for one window.

        Args:
            names: all groups.
            window: number of the window in the run, from 0.
            step: training step at which it opens.
            influence: of the latest probe before that step; None if none was measured.

        Returns:
            Maps group names to weights of 0 or more. Omitted groups have weight 1.
        """
        ...


@dataclass(frozen=True)
class ConstantFactor:
    """Policy with the same weights in every window.

    Attributes:
        weights: maps group names to weights; omitted groups have weight 1. Weights of 1 are a placebo.

    Raises:
        InputError: no group, or a weight that is not a finite number of 0 or more.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        check_values(self.weights)
        check_group_names(self.weights)
        require(bool(self.weights), "weights", self.weights, "at least one group", "name one, e.g. {induction: 4.0}")

    def check(self, names: Sequence[str]) -> None:
        """Refuses groups that do not exist."""
        check_names(self.weights, names)

    def __call__(
        self, names: Sequence[str], *, window: int, step: int, influence: InfluenceTable | None = None
    ) -> GroupWeights:
        """Returns the weights."""
        return dict(self.weights)


_KEPT = "groups without influence keep weight 1, so that it lies between the two"


@dataclass(frozen=True)
class ProportionalToInfluence:
    """Policy with weights that grow with a group's help for a target group, by the influence at the window's opening.

    w_g = 1 + strength h_g / max_k |h_k|, clipped to [lowest, highest], with the helpfulness h_g = -BIF(g, target) and
    the maximum over all groups k. Only ratios of influence count, so that neither its unit nor the sampler's settings
    affect the size of the weights. The target is one of the groups, and often the most helpful to itself. A group whose
    influence on the target is unknown (NaN) keeps weight 1.

    Attributes:
        target: group to help.
        strength: largest change of a weight from 1, before clipping; negative reverses the policy.
        lowest: smallest weight, 0 to 1.
        highest: largest weight, 1 or more.

    Raises:
        InputError: ``lowest`` or ``highest`` out of range, or ``strength`` is 0 or not finite.
    """

    target: str
    strength: float = 3.0
    lowest: Annotated[float, within(0, 1, _KEPT)] = field(default=0.25, kw_only=True)
    highest: Annotated[float, at_least(1, _KEPT)] = field(default=4.0, kw_only=True)

    def __post_init__(self) -> None:
        settle_fields(self)
        require(
            self.strength != 0,
            "strength",
            self.strength,
            "a number that is not 0",
            "3 makes the largest weight 4",
        )

    def check(self, names: Sequence[str]) -> None:
        """Refuses a target that does not exist."""
        check_names([self.target], names)

    def __call__(
        self, names: Sequence[str], *, window: int, step: int, influence: InfluenceTable | None
    ) -> GroupWeights:
        """Returns the weights.

        Raises:
            InputError: no influence was measured, none is finite, or it belongs to other groups.
        """
        if influence is None:
            raise InputError(
                f"got no influence when window {window} opened at step {step}; expected that of a probe before it; "
                "measure influence in this run, pass an influence table, or use a constant factor"
            )
        helps = {name: -value for name, value in influence.on(self.target).items() if math.isfinite(value)}
        if not helps:
            raise InputError(
                f"got no finite influence on {self.target!r} at step {influence.step}; expected that of one group or "
                "more; observe more samples of it"
            )
        check_names(helps, names)
        scale = max(map(abs, helps.values())) or 1.0
        return {
            name: min(max(1.0 + self.strength * value / scale, self.lowest), self.highest)
            for name, value in helps.items()
        }


def from_path(path: str) -> Policy:
    """Loads a policy by its dotted path. This imports, and so runs, its module: read other people's settings first.

    Args:
        path: ``package.module.name`` of a function or callable object.

    Raises:
        InputError: no such module or name, the import fails, or the object cannot be called as a policy.
    """
    return load_callable(path, kind="policy", signature=_SIGNATURE, like=_LIKE)


def check_call(policy: object) -> None:
    """Refuses, before training, an object that cannot be called as a policy.

    Raises:
        InputError: the object takes other arguments.
    """
    check_arguments_of(policy, words=f"policy {shown(policy)}", signature=_SIGNATURE, like=_LIKE)


def check_policy(policy: Policy, names: Sequence[str]) -> None:
    """Runs the ``check`` of a policy, if it has one, before training.

    Raises:
        InputError: the policy refuses these groups.
    """
    check = getattr(policy, "check", None)
    if check is not None:
        check(names)


def decide_weights(
    policy: Policy, names: Sequence[str], *, window: int, step: int, influence: InfluenceTable | None = None
) -> dict[str, float]:
    """Calls a policy, checks its weights, and completes them to one per group.

    Args:
        policy: policy to call.
        names: all groups.
        window: number of the window in the run, from 0.
        step: training step at which it opens.
        influence: of the latest probe, if any.

    Raises:
        InputError: the policy returns unknown groups, or a weight that is not a finite number of 0 or more.
    """
    return complete_weights(policy(names, window=window, step=step, influence=influence), names)
