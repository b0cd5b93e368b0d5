"""Transitions of a finished run: peaks of a signal and their widths."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stagewise.checks.bounds import checked, float_array
from stagewise.errors import InputError
from stagewise.phases.window import Window

MIN_PROMINENCE = 0.15
"""Default of the least prominence of a peak, as a fraction of the largest value."""

NOISE_MULTIPLE = 3.0
"""Number of standard errors by which a peak must stand out, if errors are known."""


def noise_height(errors: NDArray[np.float64]) -> float:
    """Returns the height that noise alone may reach: three times the median standard error, 0 if none is known."""
    known = errors[np.isfinite(errors)]
    return NOISE_MULTIPLE * float(np.median(known)) if len(known) else 0.0


@checked
def find_windows(
    steps: ArrayLike,
    values: ArrayLike,
    errors: ArrayLike | None = None,
    *,
    min_prominence: float = MIN_PROMINENCE,
) -> list[Window]:
    """Finds the peaks of a signal over training.

    Peaks are sought over the index of the probe, so that a log-spaced schedule is read on a log axis. The first and the
    last probe cannot be peaks. A window extends to half of the peak's prominence on each side.

    Args:
        steps: ``[probe]``, increasing.
        values: ``[probe]``, the signal.
        errors: ``[probe]``, its standard errors; the prominence of a peak must be at least three times their median.
        min_prominence: least prominence, as a fraction of the largest value.

    Returns:
        Windows in order of their peaks; none with fewer than three probes.

    Raises:
        InputError: lengths differ, steps do not increase, or values are not finite.
    """
    at = float_array("steps", steps)
    height = float_array("values", values)
    if at.ndim != 1 or at.shape != height.shape:
        raise InputError(f"got steps {list(at.shape)} and values {list(height.shape)}; expected equal lengths")
    if (np.diff(at) <= 0).any():
        raise InputError("got steps that do not increase; expected one value for each probe, in order of training")
    if not np.isfinite(height).all():
        raise InputError("got a signal that is not finite; leave such probes out")
    if not 0 < min_prominence <= 1:
        raise InputError(f"got min_prominence={min_prominence}; expected a fraction in (0, 1]")
    if len(at) < 3 or height.max() <= 0:
        return []
    # Imported late: it is slow to import, and most importers of this file look for no peaks.
    from scipy.signal import find_peaks, peak_widths

    noise = 0.0 if errors is None else noise_height(float_array("errors", errors))
    peaks, found = find_peaks(height, prominence=max(min_prominence * float(height.max()), noise))
    _, _, left, right = peak_widths(height, peaks, rel_height=0.5)
    index = np.arange(len(at))
    return [
        Window(
            start=round(float(np.interp(left[row], index, at))),
            peak=int(at[peak]),
            end=round(float(np.interp(right[row], index, at))),
            value=float(height[peak]),
            height=float(found["prominences"][row]),
        )
        for row, peak in enumerate(peaks)
    ]
