"""Relaxation of a chain, from its step and the curvature of its target."""

import math

STABLE = 4.0
"""Limit of stability of lr times the curvature in a direction."""

CORRELATION_AIM = 0.2
"""Tolerated correlation of successive draws where localization alone holds the chain. Effective draws per unit of time
change little between one and six steps per draw, while R-hat of short chains needs independent draws."""

LEFT_AT_START = 0.1
"""Fraction of a displacement that remains after burn-in in the slowest direction."""


def memory(reach: float) -> float:
    """Returns the factor by which one step shrinks a displacement.

    Args:
        reach: lr times the curvature of the target in a direction, of the preconditioned target if there is one.

    Returns:
        |1 - reach / 2|, a pure number: below 1 for a stable chain.
    """
    return abs(1 - reach / 2)


def relaxation_steps(reach: float, left: float = LEFT_AT_START) -> int:
    """Returns the number of steps after which a displacement has shrunk to a fraction.

    Args:
        reach: see :func:`memory`; more than 0 and less than 4.
        left: the fraction, between 0 and 1.
    """
    factor = memory(reach)
    return 1 if factor <= left else math.ceil(math.log(left) / math.log(factor) - 1e-9)


def draw_correlation(reach: float, spacing: int = 1) -> float:
    """Returns the correlation of successive draws of the second-order integrator in one Gaussian direction.

    a^(spacing - 1) (1 + a) / 2 with a = 1 - reach / 2; each further draw between two multiplies it by a^spacing.

    Args:
        reach: lr times the curvature of the target.
        spacing: steps between draws.

    Source: autocorrelation of the step of Leimkuhler and Matthews 2013, arXiv 1203.5428, for a quadratic.
    """
    a = 1 - reach / 2
    return a ** (spacing - 1) * (1 + a) / 2
