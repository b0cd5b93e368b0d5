"""Square root of the between-norm at a probe, with its noise floor."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class BetweenNorm(NamedTuple):
    """Square root of the between-norm at one probe, with its noise floor.

    Attributes:
        value: sqrt of the norm of the between part less its noise floor, nats; (1/2) |shift| without noise.
        error: standard error of ``value`` before the subtraction, nats; NaN with one chain.
        threshold: sqrt of the noise floor, the norm that chain noise alone adds on average, nats; NaN with one chain.
    """

    value: float
    error: float
    threshold: float


def between_norm(shift: ArrayLike, shift_se: ArrayLike, shift_norm_se: float) -> BetweenNorm:
    """Computes the norm at one probe from the shifts of mean losses since the reference.

    B = (1/4) shift shift^T has the Frobenius norm (1/4) |shift|^2. Noise adds (1/4) sum(se^2) to it on average, which
    is subtracted.

    Args:
        shift: ``[sample]``, nats.
        shift_se: ``[sample]``, standard errors, nats; NaN where unknown.
        shift_norm_se: standard error of the length of ``shift``, nats. It does not follow from ``shift_se``, since the
            samples of a chain move together.
    """
    moved = np.asarray(shift, dtype=np.float64)
    error = np.asarray(shift_se, dtype=np.float64)
    norm = float(moved @ moved) / 4
    if np.isnan(error).any():
        return BetweenNorm(float(np.sqrt(norm)), float("nan"), float("nan"))
    floor = float(error @ error) / 4
    return BetweenNorm(float(np.sqrt(max(norm - floor, 0.0))), shift_norm_se / 2, float(np.sqrt(floor)))
