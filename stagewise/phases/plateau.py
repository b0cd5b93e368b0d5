"""Plateau of a signal: robust level and spread, and a test for departures."""

import math
from collections.abc import Iterable
from statistics import fmean, median

from stagewise.phases.flips import sure_limit

_TO_DEVIATION = 1.4826
"""Standard deviation of a normal variable over its median absolute deviation, 1 / Phi^-1(3/4)."""

_MEAN_TO_DEVIATION = 1.2533
"""Standard deviation of a normal variable over its mean absolute deviation, sqrt(pi / 2)."""

_LEVEL_VARIANCE = math.pi / 2
"""Variance of the median of n normal values over that of a single value, times n."""

EFFICIENCY = 0.37
"""Variance of the standard deviation over that of the median absolute deviation, for many normal values."""


class Plateau:
    """Probes among which a signal changes only by noise.

    The level is their median, the spread their median absolute deviation in units of a standard deviation. If more than
    half of the probes share one value, as in a signal cut off at zero, the mean absolute deviation is used.

    A new probe has the standard error sqrt(max(spread^2, error^2) + (pi / 2) spread^2 / n). Both the spread and the
    probe's own error contain the noise, so that their sum would count it twice; the second term is the error of the
    level. A probe departs beyond ``min_z`` standard errors. As the spread is estimated from few probes, it is first
    multiplied by t / min_z, where t is as rare for Student's t with EFFICIENCY (n - 1) degrees of freedom as min_z is
    for a normal variable.

    Source: Rousseeuw and Croux 1993 (median absolute deviation and its efficiency); Student 1908.
    """

    def __init__(self, values: Iterable[float] = ()) -> None:
        """Starts with some probes.

        Args:
            values: finite values, in the signal's unit.
        """
        self.values = list(values)
        self._known: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def extend(self, values: Iterable[float]) -> None:
        """Adds probes."""
        self.values.extend(values)
        self._known = None

    def _level_and_spread(self) -> tuple[float, float]:
        if self._known is None:
            level = median(self.values)
            distances = [abs(value - level) for value in self.values]
            spread = _TO_DEVIATION * median(distances) or _MEAN_TO_DEVIATION * fmean(distances)
            self._known = level, spread
        return self._known

    @property
    def level(self) -> float:
        """Median, in the signal's unit."""
        return self._level_and_spread()[0]

    @property
    def spread(self) -> float:
        """Robust standard deviation of one probe, in the signal's unit."""
        return self._level_and_spread()[1]

    def error(self, error: float = math.nan) -> float:
        """Returns the standard error of the distance of a new probe from the level.

        Args:
            error: standard error of the probe itself; NaN if unknown.
        """
        own = 0.0 if math.isnan(error) else error
        return math.hypot(max(self.spread, own), self.spread * math.sqrt(_LEVEL_VARIANCE / len(self)))

    def z(self, value: float, error: float = math.nan) -> float:
        """Returns the signed distance of a new probe from the level in standard errors; infinite for a zero error."""
        distance, scale = value - self.level, self.error(error)
        if scale == 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / scale

    def departs(self, value: float, error: float = math.nan, *, min_z: float) -> bool:
        """Returns True if a new probe is beyond ``min_z`` standard errors, see the class.

        Args:
            value: of the probe.
            error: standard error of the probe itself; NaN if unknown.
            min_z: limit for a plateau of many probes.
        """
        if not len(self):
            return False
        own = 0.0 if math.isnan(error) else error
        from_spread = sure_limit(min_z, max(1.0, EFFICIENCY * (len(self) - 1))) * self.spread
        limit = math.hypot(max(from_spread, min_z * own), from_spread * math.sqrt(_LEVEL_VARIANCE / len(self)))
        return abs(value - self.level) > limit
