"""Relaxation of a chain, from its step and the curvature of its target."""

import math

STABLE = 4.0
"""A direction is stable where lr times its curvature is below this."""

CORRELATION_AIM = 0.2
"""Correlation of successive draws that is let pass where localization alone holds the chain. Effective draws for the
time change little from one step between draws to six, while R-hat of short chains wants independent draws."""

LEFT_AT_START = 0.1
"""Share of a displacement that a burn-in leaves in the slowest direction."""


def memory(reach: float) -> float:
    """Factor by which one step shrinks a displacement.

    Args:
        reach: lr times the curvature of the target in a direction, of the preconditioned target where there is one.

    Returns:
        |1 - reach / 2|, a pure number: below 1 where the chain is stable.
    """
    return abs(1 - reach / 2)


def relaxation_steps(reach: float, left: float = LEFT_AT_START) -> int:
    """Steps after which a displacement has shrunk to a share of itself.

    Args:
        reach: see :func:`memory`; more than 0 and less than 4.
        left: the share, between 0 and 1.
    """
    factor = memory(reach)
    return 1 if factor <= left else math.ceil(math.log(left) / math.log(factor) - 1e-9)


def draw_correlation(reach: float, spacing: int = 1) -> float:
    """Correlation of two successive draws of the second-order integrator in one Gaussian direction.

    a^(spacing - 1) (1 + a) / 2 with a = 1 - reach / 2; that of draws further apart falls by a^spacing each.

    Args:
        reach: lr times the curvature of the target.
        spacing: steps between draws.

    Source: autocorrelation of the step of Leimkuhler and Matthews 2013, arXiv 1203.5428, for a quadratic.
    """
    a = 1 - reach / 2
    return a ** (spacing - 1) * (1 + a) / 2
