"""Checks and completion of the group weights that a policy returns."""

import math
from collections.abc import Iterable, Mapping
from numbers import Real

from stagewise.checks.bounds import shown
from stagewise.errors import InputError

GroupWeights = Mapping[str, float]
"""Maps group names to weights: how much each sample of the group counts relative to a sample of weight 1."""


def check_values(weights: GroupWeights) -> dict[str, float]:
    """Returns weights as plain floats.

    Raises:
        InputError: not a mapping, or a weight that is not a finite number of 0 or more.
    """
    if not isinstance(weights, Mapping):
        raise InputError(
            f"got group weights of type {type(weights).__name__}; expected a mapping, e.g. {{'induction': 4.0}}"
        )
    for name, weight in weights.items():
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        # An integer too large for a float would raise an OverflowError in the comparison.
        if not number or (isinstance(weight, int) and weight.bit_length() > 63) or not 0 <= weight < math.inf:
            raise InputError(
                f"got weight {shown(weight)} for group {shown(name)}; expected a finite number of 0 or more; "
                "1 leaves a group as it is, 0 leaves it out"
            )
    return {name: float(weight) for name, weight in weights.items()}


def check_names(given: Iterable[str], names: Iterable[str]) -> None:
    """Refuses names of groups that do not exist.

    Raises:
        InputError: an unknown name; the message lists the existing ones.
    """
    known = tuple(names)
    for name in given:
        if name not in known:
            raise InputError(
                f"got group {name!r}; expected one of {', '.join(map(repr, known)) or 'none: there are no groups'}; "
                "correct the name, or define the group"
            )


def complete_weights(weights: GroupWeights, names: Iterable[str]) -> dict[str, float]:
    """Returns the weights of all groups, in the order of ``names``; groups that are not mentioned have weight 1.

    Raises:
        InputError: a weight that is not a finite number of 0 or more, or an unknown name.
    """
    known = tuple(names)
    values = check_values(weights)
    check_names(values, known)
    return {name: values.get(name, 1.0) for name in known}
