"""Two-phase reading of a window: share of the second phase, and distance from the segment between the phases."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stagewise.checks.bounds import checked, float_array
from stagewise.errors import InputError

Array = NDArray[np.float64]


class TwoPhaseReading(NamedTuple):
    """Window read as a mixture of two phases.

    Attributes:
        pi: ``[probe]``, share of the second phase, 0 at the window's start to 1 at its end; the between part of a
            mixture of two phases, pi (1 - pi) D D^T, is largest at 1/2.
        residual: ``[probe]``, distance from the segment between the two phases over its length, a pure number. Unless
            it is small, losses do not move straight from one phase to the other, and ``pi`` means little.
        length: of the segment, |mean_V - mean_U|, nats.
    """

    pi: Array
    residual: Array
    length: float


@checked
def two_phase(means: ArrayLike) -> TwoPhaseReading:
    """Projects the mean losses of a window's probes on the segment from its first probe, U, to its last, V.

    pi(t) = (mean(t) - mean_U) . (mean_V - mean_U) / |mean_V - mean_U|^2, clipped to [0, 1]. The residual is the
    distance of mean(t) from the point of the segment at pi(t).

    Args:
        means: ``[probe, sample]``, mean loss of each sample over the draws of each probe of the window, nats; the
            losses of a sample may have any common offset.

    Raises:
        InputError: another shape, fewer than two probes, values that are not finite, or equal first and last probe.
    """
    at = float_array("means", means)
    if at.ndim != 2 or len(at) < 2:
        raise InputError(f"got means of shape {list(at.shape)}; expected [probe, sample] with two probes or more")
    if not np.isfinite(at).all():
        raise InputError("got mean losses that are not finite; expected numbers; leave such probes out")
    way = at[-1] - at[0]
    length = float(np.linalg.norm(way))
    if length == 0:
        raise InputError("got a window whose first and last probe have the same losses; expected two phases")
    pi = np.clip((at - at[0]) @ way / length**2, 0.0, 1.0)
    residual = np.linalg.norm(at - at[0] - pi[:, None] * way, axis=1) / length
    return TwoPhaseReading(pi, residual, length)
